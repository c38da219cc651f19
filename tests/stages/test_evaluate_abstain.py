"""evaluate with `abstain`: the valid split is asked too, and a threshold is kept beside the scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from sightline import recipe, stages
from sightline.errors import RecipeError, RunError


def document(language: Path, **changed: Any) -> dict[str, Any]:
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    evaluate = {
        "stage": "evaluate", "data": "data", "models": ["base", "taught"], "images": ["clean", "black"],
        "metrics": ["vqa", "calibration"], "generate": {"max_new_tokens": 4, "batch": 8}, "resamples": 100,
        "abstain": {"alpha": 0.5},
    }  # fmt: skip
    return {
        "name": "shy",
        "seed": 3,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": 12, "size": 64,
                     "split": {"train": 0.4, "valid": 0.3, "test": 0.3}},
            "taught": {"stage": "sft", "data": "data", "model": part, "max_tokens": 2048,
                       "trainable": {"connector": {"full": {"lr": 1e-2}}}, "train": {"steps": 2, "batch": 2}},
            "evaluate": {**evaluate, **changed},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    stages.execute(recipe.check(document(language), "test"), root, say=lambda _: None)
    return root / "shy" / "evaluate"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_threshold_for_every_model_from_the_valid_split(folder: Path) -> None:
    found = read(folder / "abstain.json")
    assert (found["alpha"], found["split"]) == (0.5, "valid")
    assert list(found["models"]) == ["base", "taught"]
    for one in found["models"].values():
        assert one["of"] == "choices"
        assert one["bound"] <= 0.5
        assert one["patients"] == 5
        assert 0 <= one["threshold"] <= 1
        assert one["test"]["patients"] in (3, 4, 5)
        assert 0 <= one["test"]["wrong"]["value"] <= one["test"]["answered"]["value"] <= 1


def test_only_the_test_split_is_scored(folder: Path) -> None:
    assert {p.name for p in (folder / "predictions").iterdir() if p.is_file()} == {
        f"{m}-{i}.jsonl" for m in ("base", "taught") for i in ("clean", "black")
    }
    scores = read(folder / "scores.json")
    assert (
        {"ece", "ece_width", "brier", "aurc", "aurc_open"}
        >= {r["metric"] for r in scores["rows"] if r["metric"][:3] in ("ece", "bri", "aur")}
        >= {"ece", "ece_width", "brier", "aurc"}
    )
    by_test = {row["test"] for row in scores["paired"]}
    assert by_test <= {"exchange", "influence", ""}
    assert "exchange" in by_test
    taught = scores["calibration"]["taught"]
    assert sum(b["n"] for b in taught["bins"]) == taught["n"]
    (brier,) = [
        r["value"]
        for r in scores["rows"]
        if (r["model"], r["image"], r["metric"]) == ("taught", "clean", "brier")
    ]
    assert taught["measures"]["brier"]["value"] == pytest.approx(brier)


def test_decoded_answers_have_a_log_probability_and_picked_ones_choices(folder: Path) -> None:
    lines = (folder / "predictions" / "taught-clean.jsonl").read_text(encoding="utf-8").splitlines()
    made = [json.loads(line) for line in lines]
    assert {bool(p["choices"]) for p in made} == {True, False}
    for p in made:
        assert (p["logp"] is None) == bool(p["choices"])
        assert p["logp"] is None or p["logp"] < 0


def test_the_report_says_when_to_abstain(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "When to abstain" in page
    assert "How sure is it?" in page


def test_it_is_calibrated_on_another_split_that_has_somebody(language: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="calibrate on another split"):
        recipe.check(document(language, abstain={"split": "test"}), "test")
    own = document(language)
    own["stages"]["data"]["split"] = {"train": 0.6, "valid": 0, "test": 0.4}
    own["stages"]["data"]["patients"] = 6
    with pytest.raises(RunError, match="nobody to calibrate"):
        stages.execute(recipe.check(own, "test"), tmp_path, say=lambda _: None)
