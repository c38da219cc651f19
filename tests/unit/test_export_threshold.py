"""The threshold of abstention that is stored with an exported model, and that `serve` finds there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import models
import models_export
from sightline import runs
from sightline.export import opened
from sightline.serve import opening, sources, sure
from sightline.stages import export as stage

ENTRY = {"threshold": 0.75, "of": "choices", "alpha": 0.1, "promise": "held", "patients": 9}
HELD = sure.Held(threshold=0.75, of="choices", alpha=0.1, promise="held")


@pytest.fixture(scope="module")
def taught(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished stage with a model, and beside it an evaluation that calibrated a threshold for it."""
    run = tmp_path_factory.mktemp("runs") / "made"
    place = run / "taught"
    models_export.save(models.bundle(language), place)
    runs.seal(place, {"stage": "sft", "section": {"stage": "sft"}, "parents": {}})
    (run / "evaluate").mkdir()
    runs.write_json(run / "evaluate" / "abstain.json", {"models": {"taught": ENTRY}})
    parents = {"taught": runs.content(place)}
    runs.seal(run / "evaluate", {"stage": "evaluate", "section": {"stage": "evaluate"}, "parents": parents})
    return place


def order(place: Path, to: Path, **how: Any) -> stage.Order:
    return stage.Order(place=place / "model", to=to, home=to, **how)


def test_an_export_brings_its_threshold_along_and_serve_finds_it(taught: Path, tmp_path: Path) -> None:
    made = order(taught, tmp_path / "made", kind="merged")
    stage.make(made)
    assert sure.carried(opened.report(made.to)) is None
    assert stage.carry(made) is True
    assert sure.carried(opened.report(made.to)) == HELD
    assert opened.report(made.to)["kind"] == "merged"
    assert opening.open_model(sources.find(made.to), opening.How()).held == HELD
    half = opening.How(precision="bfloat16")
    assert opening.open_model(sources.find(made.to), half).held is None
    assert opening.open_model(sources.find(taught), half).held is None
    assert opening.open_model(sources.find(taught), opening.How()).held == HELD


@pytest.mark.parametrize(
    ("kind", "precision"), [("int8", "float32"), ("onnx_int8", "float32"), ("merged", "bfloat16")]
)
def test_one_that_answers_otherwise_brings_none(
    taught: Path, tmp_path: Path, kind: str, precision: str
) -> None:
    runs.write_json(tmp_path / "export.json", {"kind": kind})
    assert stage.carry(order(taught, tmp_path, kind=kind, precision=precision)) is False
    assert opened.report(tmp_path) == {"kind": kind}


def test_a_threshold_of_another_model_is_not_taken(taught: Path, tmp_path: Path) -> None:
    alone = tmp_path / "taught"
    alone.mkdir()
    (alone / "weights").write_text("2")
    runs.seal(alone, {"stage": "sft", "section": {"stage": "sft"}, "parents": {}})
    evaluate = tmp_path / "evaluate"
    evaluate.mkdir()
    runs.write_json(evaluate / "abstain.json", {"models": {"taught": ENTRY}})
    runs.seal(evaluate, {"stage": "evaluate", "parents": {"taught": runs.content(taught)}})
    runs.write_json(tmp_path / "export.json", {"kind": "onnx"})
    assert stage.carry(order(alone, tmp_path, kind="onnx")) is False
    (alone / "manifest.json").unlink()
    assert stage.carry(order(alone, tmp_path, kind="onnx")) is False
