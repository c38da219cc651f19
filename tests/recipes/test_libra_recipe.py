"""Libra's recipes: the small one whole, from an empty folder, and what both have in common."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sightline import recipe
from sightline.recipe import Evaluate, Prepare, Sft
from sightline.settings import Connector, Model

ROOT = Path(__file__).parents[2]
MOST = 600  # seconds of one core: ten minutes, were there one core only
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def load(name: str) -> dict[str, Any]:
    return dict(recipe.load(ROOT / "recipes" / f"{name}.yaml").stages)


def model_of(section: Sft) -> Model:
    assert isinstance(section.model, Model)
    assert Connector.of(section.model.connector).name == "temporal"
    return section.model


def check_stages(first: Sft, second: Sft) -> None:
    """The connector alone, then LoRA of rank 128 on the seven kinds of linear layers alone."""
    assert [part for part, plan in first.trainable.items() if plan != "frozen"] == ["connector"]
    assert [part for part, plan in second.trainable.items() if plan != "frozen"] == ["language"]
    lora = second.trainable["language"].lora  # type: ignore[union-attr]
    assert lora is not None
    assert (lora.r, lora.alpha, lora.targets) == (128, 256, SEVEN)


def test_libra_has_the_two_stages_and_sizes_of_its_authors() -> None:
    stages = load("libra")
    first, second, scored = stages["aligned"], stages["taught"], stages["evaluate"]
    assert isinstance(stages["findings"], Prepare)
    assert isinstance(scored, Evaluate)
    check_stages(first, second)
    model = model_of(first)
    assert (model.vision, model.language) == ("models/rad-dino", "models/meditron-7b")
    assert (model.template, model.select) == ("libra_v1", "default")
    assert [(s.train.epochs, s.train.batch, s.max_tokens) for s in (first, second)] == [
        (1, 16, 2048),
        (3, 16, 2048),
    ]
    how = scored.generate
    assert (how.beams, how.length_penalty, how.no_repeat, how.max_new_tokens) == (10, 2, 3, 1024)
    assert {"temporal_f1", "bleu", "rouge"} <= set(scored.metrics)


def test_the_small_form_has_the_same_stages_with_and_without_the_prior_image() -> None:
    stages = load("libra_tiny")
    for name in ("current", "temporal"):
        check_stages(stages[f"{name}_connector"], stages[name])
    one, other = (model_of(stages[f"{name}_words"]) for name in ("current", "temporal"))
    assert (one.prior, other.prior) == ("leave", "auto")
    assert one.model_copy(update={"prior": "auto"}) == other
    for kind in ("_words", "_connector", ""):
        alike = [stages[f"{name}{kind}"].model_dump(exclude={"model"}) for name in ("current", "temporal")]
        assert alike[0] == alike[1]
    assert [stages[f"{name}_connector"].model for name in ("current", "temporal")] == [
        "current_words",
        "temporal_words",
    ]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation of libra_tiny, all stages run from an empty folder."""
    runs, before = tmp_path_factory.mktemp("runs"), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "sightline", "run", "recipes/libra_tiny.yaml", "--runs", str(runs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < MOST
    return runs / "libra_tiny" / "evaluate"


def exact_match(stage: Path) -> dict[str, dict[str, Any]]:
    """Paired differences in exact match, by question."""
    found = json.loads((stage / "scores.json").read_text(encoding="utf-8"))["paired"]
    return {row["question"]: row for row in found if row["metric"] == "exact_match"}


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_the_temporal_connector_beats_the_current_image_alone(scored: Path) -> None:
    gain = exact_match(scored)["temporal minus current"]
    assert gain["patients"] >= 100
    assert gain["low"] > 0


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_another_patient_s_prior_image_removes_the_gain(scored: Path) -> None:
    differences = exact_match(scored)
    for image in ("swapped_prior", "black_prior"):
        assert differences[f"temporal minus current on {image}"]["low"] <= 0
        assert differences[f"temporal: clean minus {image}"]["low"] > 0
        assert differences[f"current: clean minus {image}"]["difference"] == 0


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_each_stage_trained_what_it_says(scored: Path) -> None:
    for name in ("current", "temporal"):
        kept = [
            json.loads((scored.parent / f"{name}{end}" / "model" / "sightline.json").read_text(encoding="utf-8"))
            for end in ("_connector", "")
        ]  # fmt: skip
        trained = [[p for p, plan in info["trained"].items() if plan != "frozen"] for info in kept]
        assert trained == [["connector"], ["language"]]
