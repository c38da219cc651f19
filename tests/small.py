"""The small recipe: eight phantom patients, a tiny model, a few steps of every stage; and how to run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import models
from sightline import recipe, stages


def document(language: Path) -> dict[str, Any]:
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    return {
        "name": "tiny",
        "seed": 3,
        "stages": {
            "data": {
                "stage": "prepare",
                "reader": "phantom",
                "patients": 8,
                "size": 64,
                "split": {"train": 0.75, "valid": 0, "test": 0.25},
            },
            "taught": {
                "stage": "sft",
                "data": "data",
                "model": part,
                "max_tokens": 2048,
                "trainable": {
                    "connector": {"full": {"lr": 1e-2}},
                    "language": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}},
                },
                "train": {"steps": 2, "batch": 2},
            },
            "pairs": {
                "stage": "prefer",
                "data": "data",
                "kinds": {"wrong_finding": 1, "degraded": 1},
                "degrade": {"kind": "black"},
            },
            "aligned": {
                "stage": "align",
                "data": "pairs",
                "where": {"kind": "degraded"},
                "model": "taught",
                "max_tokens": 2048,
                "loss": {"name": "dpo", "beta": 0.1},
                "train": {"steps": 8, "batch": 4, "warmup": 0.0},
                "trainable": {"language": {"lora": {"r": 2, "alpha": 4, "dropout": 0.3, "lr": 1e-2}}},
            },
        },
    }


def only(language: Path, *names: str) -> dict[str, Any]:
    """The recipe with these stages alone."""
    own = document(language)
    return {**own, "stages": {name: own["stages"][name] for name in names}}


def taught(language: Path, root: Path) -> Path:
    """Execute the recipe as far as its stage `taught`; the stage's folder."""
    own = only(language, "data", "taught")
    return stages.execute(recipe.check(own, "test"), root, say=lambda line: None)["taught"]


def run(language: Path, root: Path, **change: Any) -> dict[str, Path]:
    """Execute the recipe; with changes, in a further stage `again` that is `aligned` with these changes."""
    own = document(language)
    if change:
        own["stages"]["again"] = {**own["stages"]["aligned"], **change}
    return stages.execute(recipe.check(own, "test"), root, say=lambda line: None)


def curve(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "curve.json").read_text(encoding="utf-8"))


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    return [e for e in map(json.loads, lines) if e["event"] == kind]
