"""UMBRELLA's life in small: prepare volumes, train the patches alone, save, load, generate, score, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import pytest
from safetensors.torch import load_file

import models_umbrella
import small
from sightline import recipe, runs, stages
from sightline.models import checkpoint

REAL = Path(nibabel.__file__).parent / "tests" / "data"
PATCHES = {
    "t1": {"size": [12, 12, 12], "patch": [6, 6, 6]},
    "fmri": {"size": [12, 12, 12], "patch": [6, 6, 6], "times": 4, "time_patch": 4},
}


def document(language: Path, **data: Any) -> dict[str, Any]:
    part = {k: v for k, v in models_umbrella.section(language, PATCHES).items() if v is not None}
    return {
        "name": "umbrella",
        "seed": 1,
        "stages": {
            "data": {"stage": "prepare", **data},
            "taught": {
                "stage": "sft",
                "data": "data",
                "model": part,
                "max_tokens": 2048,
                "trainable": {"patches": {"full": {"lr": 1e-2}}},
                "train": {"steps": 3, "batch": 4},
            },
            "evaluate": {
                "stage": "evaluate",
                "data": "data",
                "models": ["base", "taught"],
                "images": ["clean", "noise", "black", "swapped"],
                "metrics": ["vqa", "comparison"],
                "generate": {"max_new_tokens": 3, "batch": 8},
                "resamples": 100,
            },
        },
    }


PHANTOMS = {
    "reader": "volume_phantom",
    "patients": 8,
    "size": 12,
    "times": 4,
    "split": {"train": 0.5, "valid": 0, "test": 0.5},
}


@pytest.fixture(scope="module")
def made(language: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    checked = recipe.check(document(language, **PHANTOMS), "test")
    return stages.execute(checked, tmp_path_factory.mktemp("runs"), say=lambda line: None)


def test_both_kinds_train_and_only_patches_are_saved(made: dict[str, Path]) -> None:
    assert len(small.curve(made["taught"])) == 3
    weights = load_file(made["taught"] / "model" / "full.safetensors")
    home = "model.vision_tower.embeddings."
    assert {name.removeprefix(home): tuple(value.shape) for name, value in weights.items()} == {
        "T1_proj.weight": (16, 1, 6, 6, 6),
        "T1_proj.bias": (16,),
        "T1_positional_embeddings": (1, 8, 16),
        "rsfMRI_proj.weight": (16, 864),
        "rsfMRI_proj.bias": (16,),
        "rsfMRI_positional_embeddings": (1, 8, 16),
    }
    assert all(moved > 1e-4 for moved in moves(made["taught"]).values())


def moves(taught: Path) -> dict[str, float]:
    """How far each trained weight has gone from its start, by its name in the patch embedding."""
    base = runs.read_json(taught / "model" / "sightline.json")["base"]["model"]
    before = dict(checkpoint.compose(base, 1).model.named_parameters())
    weights = load_file(taught / "model" / "full.safetensors")
    return {
        n.rpartition("embeddings.")[2]: float((w - before[n].detach()).abs().max())
        for n, w in weights.items()
    }


def test_answers_are_scored_under_every_kind_of_image(made: dict[str, Path]) -> None:
    scores = json.loads((made["evaluate"] / "scores.json").read_text())
    found = {(r["model"], r["image"], r["metric"]) for r in scores["rows"]}
    for image in ("clean", "noise", "black", "swapped"):
        assert {("taught", image, "accuracy"), ("taught", image, "sex_accuracy")} <= found
        lines = (made["evaluate"] / "predictions" / f"taught-{image}.jsonl").read_text().splitlines()
        assert len(lines) == 4 * (1 + 2 + 1)
    counted = {r["metric"]: r["n"] for r in scores["rows"] if (r["model"], r["image"]) == ("taught", "clean")}
    assert (counted["accuracy"], counted["comparison_accuracy"]) == (8, 4)


def test_the_report_shows_slices_of_volumes(made: dict[str, Path]) -> None:
    page = (made["evaluate"] / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") >= 4


def test_a_second_run_gives_the_same_bytes(made: dict[str, Path], language: Path, tmp_path: Path) -> None:
    own = document(language, **PHANTOMS)
    del own["stages"]["evaluate"]
    again = stages.execute(recipe.check(own, "test"), tmp_path, say=lambda line: None)
    for file in ("model/full.safetensors", "model/sightline.json"):
        assert runs.hash_file(again["taught"] / file) == runs.hash_file(made["taught"] / file)


def test_real_volumes_train_and_answer(language: Path, tmp_path: Path) -> None:
    """The T1 and the fMRI that nibabel ships, in UMBRELLA's own directory format, both in every batch."""
    root = tmp_path / "raw"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for name, kind in (("anatomical.nii", "sMRI"), ("functional.nii", "fMRI")):
            (root / f"{split}-{name}").write_bytes((REAL / name).read_bytes())
            shown = {"type": "image", "modality": kind, "image_path": f"{split}-{name}"}
            row = {
                "task_id": f"{split}-{kind}", "task_type": "T1", "subject_ids": [split], "modalities": [kind],
                "images": [{"path": f"{split}-{name}", "token": "<image>", "modality": kind}],
                "conversations": [
                    {"role": "user", "content": [shown, {"type": "text", "text": "Is it a brain?"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "Yes"}]},
                ],
                "metadata": {"subject_id": split, "task": "brain"},
            }  # fmt: skip
            (root / split / f"{kind}.json").write_text(json.dumps(row))
    own = document(language, reader="umbrella", root=str(root), split={"by": "official"})
    own["stages"]["evaluate"] |= {"images": ["clean", "black"], "metrics": ["vqa"]}
    done = stages.execute(recipe.check(own, "test"), tmp_path / "runs", say=lambda line: None)
    assert len(small.curve(done["taught"])) == 3
    moved = moves(done["taught"])  # four rows a step of two records: each stands in it twice
    assert len(moved) == 6
    assert min(moved.values()) > 1e-4
    rows = json.loads((done["evaluate"] / "scores.json").read_text())["rows"]
    accuracy = next(
        r for r in rows if (r["model"], r["image"], r["metric"]) == ("taught", "clean", "accuracy")
    )
    assert accuracy["n"] == 2
