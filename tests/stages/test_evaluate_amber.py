"""AMBER as a stage: a tiny model answers its queries, and the metric reads the word lists of the data root."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from sightline import recipe, stages
from sightline.errors import RecipeError
from small_amber import DESCRIBE, asked, described, pictures, write

METRIC = {"amber": {"similarity": "trigram", "nouns": "plain"}}


def document(language: Path, root: Path, *metrics: Any) -> dict[str, Any]:
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    return {
        "name": "described",
        "stages": {
            "phantoms": {"stage": "prepare", "reader": "phantom", "patients": 3, "size": 64,
                         "split": {"train": 1, "valid": 0, "test": 0}},
            "taught": {"stage": "sft", "data": "phantoms", "model": part, "max_tokens": 2048,
                       "trainable": {"language": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}},
                       "train": {"steps": 1, "batch": 2}},
            "queries": {"stage": "prepare", "reader": "amber", "root": str(root),
                        "split": {"train": 0, "valid": 0, "test": 1, "by": "official"}},
            "evaluate": {"stage": "evaluate", "data": "queries", "models": ["base", "taught"],
                         "images": ["clean", "black"], "metrics": list(metrics), "resamples": 100,
                         "generate": {"max_new_tokens": 4}},
        },
    }  # fmt: skip


def test_a_model_is_scored_from_queries_to_the_report(language: Path, tmp_path: Path) -> None:
    root = write(
        tmp_path / "raw", described(["sky"], ["cat"]), described(["man"], ["tree"]),
        asked("discriminative-hallucination", "no"), asked("relation", "yes"),
    )  # fmt: skip
    pictures(root, DESCRIBE, DESCRIBE, "Is there a cat?", "Is the man near?")
    folders = stages.execute(recipe.check(document(language, root, METRIC), "test"), tmp_path / "runs")
    found = json.loads((folders["evaluate"] / "scores.json").read_text(encoding="utf-8"))
    values = {(r["model"], r["image"], r["metric"]): r for r in found["rows"]}
    sides = [(model, image) for model in ("base", "taught") for image in ("clean", "black")]
    for side in sides:
        assert values[*side, "amber_cover"]["value"] == 0.0  # an untaught model of bytes names nothing
        assert (values[*side, "amber_hal"]["n"], values[*side, "amber_accuracy"]["n"]) == (2, 2)
        assert "answered: 2 of 2 generative, 2 of 2 yes/no queries" in found["notes"][", ".join(side)][0]
    assert any(row["metric"] == "amber_accuracy" for row in found["paired"])
    page = (folders["evaluate"] / "report.html").read_text(encoding="utf-8")
    assert "AMBER Hal" in page
    lines = (
        (folders["evaluate"] / "predictions" / "taught-clean.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert [json.loads(line)["answer"] for line in lines] == [
        "Objects: sky. Absent: cat.", "Objects: man. Absent: tree.", "No", "Yes",
    ]  # fmt: skip


def test_options_of_a_metric_are_checked_with_the_recipe(language: Path, tmp_path: Path) -> None:
    good = recipe.check(document(language, tmp_path, "vqa", METRIC), "test")
    assert good.stages["evaluate"].model_dump(mode="json")["metrics"] == ["vqa", METRIC]
    for wrong, message in (
        ({"amber": {"mode": "strict"}}, "mode: Input should be 'corrected' or 'exact'"),
        ({"amber": {"similar": "trigram"}}, "similar"),
        ({"ambre": {}}, "did you mean 'amber'"),
        ({"amber": {}, "vqa": {}}, "evaluate.metrics"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe.check(document(language, tmp_path, wrong), "test")
