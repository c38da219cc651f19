"""sft on eight patients with tiny parts: what is trained, saved, repeated, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import models
import small
from sightline import recipe, stages
from sightline.data import prepare
from sightline.errors import RunError
from sightline.models import checkpoint

Say = list[str]


@pytest.fixture(scope="module")
def document(language: Path) -> dict[str, Any]:
    """A recipe of two stages."""
    whole = small.only(language, "data", "taught")
    whole["stages"]["taught"]["trainable"]["vision"] = "frozen"
    whole["stages"]["taught"]["train"] = {"steps": 12, "batch": 2, "save_every": 5}
    return whole


def run(document: dict[str, Any], root: Path, **taught: Any) -> tuple[dict[str, Path], Say]:
    """Execute the recipe with changes to the sft stage; the folders, and what was said."""
    own = json.loads(json.dumps(document))
    own["stages"]["taught"].update(taught)
    said: Say = []
    return stages.execute(recipe.check(own, "test"), root, say=said.append), said


@pytest.fixture(scope="module")
def done(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    root = tmp_path_factory.mktemp("runs")
    return root, run(document, root)[0]


def curve(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "curve.json").read_text(encoding="utf-8"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


def test_the_loss_falls_and_every_step_is_noted(done: tuple[Path, dict[str, Path]]) -> None:
    entries = curve(done[1]["taught"])
    assert [e["step"] for e in entries] == list(range(1, 13))
    losses = [e["loss"] for e in entries]
    assert sum(losses[-3:]) < 0.93 * sum(losses[:3])


def test_the_saved_model_opens_and_was_trained(done: tuple[Path, dict[str, Path]], language: Path) -> None:
    opened = checkpoint.load(done[1]["taught"] / "model")
    base = models.bundle(language, seed=3)
    for part, changed in (
        ("model.vision_tower", False),
        ("model.multi_modal_projector", True),
        ("model.language_model", True),
    ):
        pairs = zip(
            opened.model.get_submodule(part).parameters(),
            base.model.get_submodule(part).parameters(),
            strict=True,
        )
        assert any(not torch.equal(a, b) for a, b in pairs) == changed, part
    info = json.loads((done[1]["taught"] / "model" / "sightline.json").read_text(encoding="utf-8"))
    assert info["parent"] is None
    assert info["trained"]["vision"] == "frozen"
    assert info["trained"]["connector"]["full"] == {"lr": 0.01}


def test_what_is_up_to_date_is_skipped(document: dict[str, Any], done: tuple[Path, dict[str, Path]]) -> None:
    root, folders = done
    before = (folders["taught"] / "manifest.json").stat().st_mtime_ns
    assert run(document, root)[1] == ["data: up to date", "taught: up to date"]
    assert (folders["taught"] / "manifest.json").stat().st_mtime_ns == before


def test_a_second_run_gives_the_same_bits_and_no_features_are_computed(
    document: dict[str, Any],
    done: tuple[Path, dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    again = run(document, tmp_path)[0]
    assert [e["loss"] for e in curve(again["taught"])] == [e["loss"] for e in curve(done[1]["taught"])]
    one, other = weights(again["taught"]), weights(done[1]["taught"])
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)

    def refuse(*args: Any) -> None:
        raise AssertionError("features were computed again")

    monkeypatch.setattr("sightline.models.features.encode", refuse)
    third, said = run(document, tmp_path, train={"steps": 2, "batch": 2})
    assert said == ["data: up to date", "taught: sft"]
    assert len(curve(third["taught"])) == 2


def test_nothing_but_the_result_is_left(done: tuple[Path, dict[str, Path]]) -> None:
    names = {p.name for p in done[1]["taught"].iterdir()}
    assert {"curve.json", "events.jsonl", "manifest.json", "model", "set_aside.json"} <= names
    assert "checkpoints" not in names
    assert not list(done[1]["taught"].parent.glob(".taught.work"))


def test_logs_hold_no_words_of_the_records(done: tuple[Path, dict[str, Path]]) -> None:
    text = (done[1]["taught"] / "events.jsonl").read_text(encoding="utf-8")
    assert "effusion" not in text
    assert '"event": "training"' in text


def test_samples_that_do_not_fit_are_set_aside(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing to train on"):
        run(document, tmp_path, max_tokens=32)
    aside = json.loads((tmp_path / "tiny" / ".taught.work" / "set_aside.json").read_text(encoding="utf-8"))
    data = prepare.load(tmp_path / "tiny" / "data")
    assert {a["id"] for a in aside} == {s.id for s in data.samples("train")}
    assert all(a["max_tokens"] == 32 < a["tokens"] for a in aside)


def test_a_tower_that_trains_sees_pixels(document: dict[str, Any], tmp_path: Path) -> None:
    asked = {"vision": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}, "connector": {"full": {"lr": 1e-2}}}
    folders, _ = run(document, tmp_path, trainable=asked, train={"steps": 2, "batch": 2})
    stored = weights(folders["taught"])
    moved = [
        n for n, v in stored.items() if "vision_tower" in n and "lora_B" in n and float(v.abs().sum()) > 0
    ]
    assert moved
    assert not (tmp_path / "tiny" / ".features").exists()


def test_full_training_without_lora(document: dict[str, Any], tmp_path: Path) -> None:
    folders, _ = run(
        document, tmp_path, trainable={"connector": {"full": {"lr": 1e-2}}}, train={"steps": 2, "batch": 2}
    )
    stored = load_file(folders["taught"] / "model" / "full.safetensors")
    opened = dict(checkpoint.load(folders["taught"] / "model").model.named_parameters())
    assert len(stored) == 4
    assert all(torch.equal(opened[n], v) for n, v in stored.items())
