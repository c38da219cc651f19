"""A recipe with prior images from its data to its scores: a temporal connector learns beside LoRA and is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from sightline import recipe, stages
from sightline.models import checkpoint

DINO = {
    "model_type": "dinov2", "image_size": 28, "patch_size": 14, "hidden_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 2, "mlp_ratio": 2,
}  # fmt: skip


def document(language: Path) -> dict[str, Any]:
    part = {k: v for k, v in models.section(language, DINO).items() if k != "path"}
    lora = {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}
    taught = {"stage": "sft", "data": "data", "max_tokens": 4096, "train": {"steps": 2, "batch": 2}}
    return {
        "name": "prior",
        "stages": {
            "data": {
                "stage": "prepare", "reader": "phantom_changes", "patients": 6, "studies": 2, "size": 64,
                "split": {"train": 0.5, "valid": 0, "test": 0.5},
            },
            "first": {
                **taught,
                "model": {**part, "connector": {"name": "temporal", "no_prior": "learned"}},
                "trainable": {"connector": {"full": {"lr": 1e-2}}},
            },
            "second": {**taught, "model": "first", "trainable": {"language": lora}},
            "scored": {
                "stage": "evaluate", "data": "data", "models": ["second"], "images": ["clean", "swapped_prior"],
                "generate": {"max_new_tokens": 2}, "resamples": 100,
            },
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(language: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return stages.execute(recipe.check(document(language), "test"), root, say=lambda line: None)


def test_the_connector_and_then_the_language_model_learn(made: dict[str, Path]) -> None:
    infos = [
        json.loads((made[n] / "model" / "sightline.json").read_text(encoding="utf-8"))
        for n in ("first", "second")
    ]
    assert [sorted(info["trained"]) for info in infos] == [["connector"], ["language"]]
    asked = infos[1]["base"]["model"]
    assert asked["connector"] == {"name": "temporal", "weights": None, "no_prior": "learned"}
    opened = checkpoint.load(made["second"] / "model")
    assert opened.prior == "fuse"
    assert opened.tokens_per_image == 4


def test_features_and_tokens_are_kept(made: dict[str, Path]) -> None:
    kept = [
        json.loads(p.read_text(encoding="utf-8")) for p in (made["data"].parent / ".features").glob("*.json")
    ]
    shapes = {tuple(entry["shape"]) for each in kept for entry in each["entries"].values()}
    assert shapes == {(1, 3, 4, 16), (4, 32)}  # of the tower; behind the frozen connector of the second stage


def test_another_patient_s_prior_image_is_a_kind_of_images(made: dict[str, Path]) -> None:
    rows = json.loads((made["scored"] / "scores.json").read_text(encoding="utf-8"))["rows"]
    assert {row["image"] for row in rows} == {"clean", "swapped_prior"}
    files = sorted(p.name for p in (made["scored"] / "predictions").iterdir())
    assert files == ["second-clean.jsonl", "second-swapped_prior.jsonl"]
