"""The small forms of recipes, whole, from an empty folder: how long they take, what they leave, one question each."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from sightline import NOTICE
from sightline.data import prepare
from sightline.models import checkpoint
from sightline.settings import Generate
from sightline.stages.consultation import consult

ROOT = Path(__file__).parents[2]
MOST = 600  # seconds of one core: ten minutes, were there one core only
BLIND = {"noise", "black", "swapped"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]


@dataclass(frozen=True)
class Done:
    """A recipe that was run: where, and how long it took."""

    home: Path
    seconds: float
    core_seconds: float

    def curve(self, stage: str, key: str = "loss") -> list[float]:
        rows = json.loads((self.home / stage / "curve.json").read_text(encoding="utf-8"))
        return [row[key] for row in rows if key in row]

    def said(self, model: str) -> list[dict[str, Any]]:
        """What a model answered to clean images."""
        place = self.home / "evaluate" / "predictions" / f"{model}-clean.jsonl"
        return [json.loads(line) for line in place.read_text(encoding="utf-8").splitlines()]

    def scores(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        rows = json.loads((self.home / "evaluate" / "scores.json").read_text(encoding="utf-8"))["rows"]
        return {(r["model"], r["image"], r["metric"]): r for r in rows}


def sightline(*words: str) -> str:
    """Run the command line in the project's folder and return what it printed."""
    command = [sys.executable, "-m", "sightline", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def run(name: str, root: Path) -> Done:
    """Run a recipe from an empty folder; one thread, as `conftest` says."""
    assert os.environ["OMP_NUM_THREADS"] == "1"
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    said = sightline("run", f"recipes/{name}.yaml", "--runs", str(root))
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    cores = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"\n{name}: {seconds:.0f} s, {cores:.0f} s of one core")
    assert f"report: {root / name / 'evaluate' / 'report.html'}" in said
    assert NOTICE in said
    return Done(root / name, seconds, cores)


def falls(curve: list[float]) -> bool:
    """Whether the last fifth of a curve lies below its first one."""
    part = max(1, len(curve) // 5)
    return fmean(curve[-part:]) < fmean(curve[:part])


@pytest.fixture(scope="module")
def mmed_rag(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run("mmed_rag_tiny", tmp_path_factory.mktemp("mmed_rag"))


@pytest.fixture(scope="module")
def siglip_mllama(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run("siglip_mllama_tiny", tmp_path_factory.mktemp("siglip_mllama"))


@pytest.fixture(scope="module")
def llava_next(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run("llava_next_tiny", tmp_path_factory.mktemp("llava_next"))


@pytest.fixture(scope="module")
def umbrella(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return run("umbrella_tiny", tmp_path_factory.mktemp("umbrella"))


def test_mmed_rag_goes_from_the_retriever_to_the_second_alignment(mmed_rag: Done) -> None:
    assert mmed_rag.core_seconds < MOST
    assert falls(mmed_rag.curve("encoder"))
    assert falls(mmed_rag.curve("taught"))
    made = json.loads((mmed_rag.home / "pairs" / "dataset.json").read_text(encoding="utf-8"))
    assert made["counts"]["train"] > 0
    for stage in ("aligned_image", "aligned"):
        assert len(mmed_rag.curve(stage)) == 12
        assert all(map(isfinite, mmed_rag.curve(stage, "margin")))
    measured = mmed_rag.scores()
    for model, image in product(("taught", "aligned"), ("clean", "unaided", "noise", "black")):
        assert 0 <= measured[model, image, "balanced_accuracy"]["value"] <= 1
    for model in ("taught", "aligned"):
        assert (model, "clean", "over_reliance") in measured


def test_siglip_mllama_learns_retrieves_and_is_measured(siglip_mllama: Done) -> None:
    assert siglip_mllama.core_seconds < MOST
    assert falls(siglip_mllama.curve("encoder"))
    assert falls(siglip_mllama.curve("taught"))
    lines = (siglip_mllama.home / "retrieved" / "retrieved.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert all(len(row["reports"]) == 3 and 1 <= row["kept"] <= 3 for row in found)
    assert {row["id"].partition("/")[0] for row in found} == {"chest", "clinic"}
    measured = siglip_mllama.scores()
    for model, image in product(("base", "taught"), ("clean", "unaided", "black", "swapped")):
        assert 0 <= measured[model, image, "balanced_accuracy"]["value"] <= 1
    assert ("taught", "clean", "over_reliance") in measured


def test_siglip_mllama_answers_one_question_in_one_call(siglip_mllama: Done) -> None:
    data = prepare.load(siglip_mllama.home / "data")
    sample = next(s for s in data.samples("test") if s.messages[1].topic != "report")
    place = data.root / sample.images[0].path
    words = ["ask", str(siglip_mllama.home / "taught"), "--index", str(siglip_mllama.home / "retrieved")]
    question = sample.messages[0].text
    told = json.loads(
        sightline(*words, "--image", str(place), "--question", question, "--kind", "closed", "--json")
    )
    said = siglip_mllama.said("taught")
    evaluated = next(p for p in said if (p["sample"], p["turn"]) == (sample.id, 0))
    assert told["choices"] == pytest.approx(evaluated["choices"], abs=1e-4)
    assert told["answer"] == evaluated["text"]
    assert told["logp"] == max(told["choices"].values())
    assert [set(r) for r in told["reports"]] == [{"id", "similarity", "text", "behind", "shown"}] * 3
    assert all(-1 <= r["similarity"] <= 1 for r in told["reports"])
    assert told["notice"] == NOTICE


def test_llava_next_learns_and_is_aligned(llava_next: Done) -> None:
    assert llava_next.core_seconds < MOST
    assert falls(llava_next.curve("taught"))
    loss, margin = llava_next.curve("aligned"), llava_next.curve("aligned", "margin")
    assert len(loss) == len(margin) == 24
    assert all(map(isfinite, (*loss, *margin)))
    taught, aligned = (llava_next.said(name) for name in ("taught", "aligned"))
    assert [p["sample"] for p in taught] == [p["sample"] for p in aligned]
    assert all(a["choices"] != b["choices"] for a, b in zip(taught, aligned, strict=True) if a["choices"])
    measured = llava_next.scores()
    for model, image in product(("base", "taught", "aligned"), ("clean", *BLIND)):
        assert 0 <= measured[model, image, "balanced_accuracy"]["value"] <= 1


def test_llava_next_answers_one_question(llava_next: Done) -> None:
    data = prepare.load(llava_next.home / "lessons")
    place = data.root / data.samples("test")[0].images[0].path
    words = [
        "ask",
        str(llava_next.home / "aligned"),
        "--image",
        str(place),
        "--question",
        "Is there a nodule?",
    ]
    told = json.loads(sightline(*words, "--kind", "closed", "--json"))
    assert set(told["choices"]) == {"yes", "no"}
    assert told["reports"] == []


def test_umbrella_learns_by_its_patches_alone(umbrella: Done) -> None:
    assert umbrella.core_seconds < MOST
    assert falls(umbrella.curve("taught"))
    _, info = checkpoint.lineage(umbrella.home / "taught" / "model")[0]
    trained = {part for part, plan in info["trained"].items() if isinstance(plan, dict)}
    assert trained == {"patches"}
    measured = umbrella.scores()
    for model, image in product(("base", "taught"), ("clean", *BLIND)):
        assert 0 <= measured[model, image, "comparison_balanced_accuracy"]["value"] <= 1


def test_umbrella_answers_one_question_about_a_scan(umbrella: Done) -> None:
    data = prepare.load(umbrella.home / "data")
    scan = next(s for s in data.samples("test") if len(s.images) == 1)
    bundle = checkpoint.load(umbrella.home / "taught" / "model")
    reply = consult(
        bundle, [data.root / scan.images[0].path], scan.messages[0].text, generate=Generate(max_new_tokens=4)
    )
    assert reply.logp is not None
    assert reply.logp < 0
    assert reply.reports == ()
