"""contrast with a frozen text tower: it reads before the first step only, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models_contrast
import small
from sightline import recipe, runs, stages
from sightline.errors import Interrupted
from sightline.train.contrast import ContrastTrainer

FULL = {"full": {"lr": 2e-2}}
DATA = {
    "stage": "prepare", "reader": "phantom", "patients": 24, "size": 64,
    "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
}  # fmt: skip
ENCODER = {
    "stage": "contrast", "data": "data", "model": {"encoder": "models_contrast:toy", "width": 8},
    "trainable": {"heads": FULL}, "validate_every": 4,
    "train": {"steps": 12, "batch": 6, "save_every": 4, "warmup": 0},
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return execute(tmp_path_factory.mktemp("data"), {"data": DATA})["data"]


def execute(root: Path, asked: dict[str, Any]) -> dict[str, Path]:
    made = recipe.check({"name": "tiny", "seed": 3, "stages": asked}, "test")
    return stages.execute(made, root, say=lambda line: None)


def run(root: Path, data: Path, **encoder: Any) -> Path:
    (root / "tiny").mkdir(parents=True, exist_ok=True)
    if not (root / "tiny" / "data").exists():
        (root / "tiny" / "data").symlink_to(data)
    return execute(root, {"data": DATA, "encoder": {**ENCODER, **encoder}})["encoder"]


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts the text tower was given, call by call."""
    seen: list[int] = []
    plain = models_contrast.encode_texts

    def counted(model: Any, tokens: Any) -> Any:
        seen.append(len(tokens["input_ids"]))
        return plain(model, tokens)

    # The family is frozen, but a plain object all the same.
    monkeypatch.setitem(models_contrast.ENCODER.__dict__, "encode_texts", counted)
    return seen


def test_the_result_is_that_of_reading_anew_in_every_step(
    data: Path, tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = run(tmp_path / "kept", data)
    assert calls == [28], "one batch of 28 different reports, before the first step"
    monkeypatch.setattr("sightline.stages.contrast.read", lambda encoder, texts: None)
    plain = run(tmp_path / "plain", data)
    assert len(calls) > 12
    one, other = small.curve(kept), small.curve(plain)
    assert [e["loss"] for e in one] == pytest.approx([e["loss"] for e in other], abs=1e-6)
    assert one[-1]["loss"] < 0.9 * one[0]["loss"]
    for a, b in zip(
        read(kept, "validation.json")["history"], read(plain, "validation.json")["history"], strict=True
    ):
        assert a == pytest.approx(b, abs=1e-6)
    values = [[row["value"] for row in read(folder, "scores.json")["rows"]] for folder in (kept, plain)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_a_text_tower_that_trains_reads_in_every_step(
    data: Path, tmp_path: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> Any:
        raise AssertionError("its texts are not to be kept")

    monkeypatch.setattr("sightline.stages.contrast.read", never)
    folder = run(tmp_path, data, trainable={"text": FULL}, train={"steps": 3, "batch": 6, "warmup": 0})
    assert calls[:3] == [6, 6, 6]
    assert len(small.curve(folder)) == 3


def test_a_run_that_was_cut_goes_on_to_the_same_bytes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ContrastTrainer.compute_loss

    def cut(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 10:
            raise Interrupted("cut")
        return whole(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ContrastTrainer, "compute_loss", cut)
        with pytest.raises(Interrupted):
            run(tmp_path / "cut", data)
    again, once = run(tmp_path / "cut", data), run(tmp_path / "once", data)
    assert [e["resumed_at"] for e in small.events(again, "training")] == [0, 8]
    assert runs.content(again) == runs.content(once)
