"""A real T1 and a real fMRI through `umbrella_tiny`: read as they lie in the head, trained on together, asked about."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import small
from sightline import images, recipe, runs, stages
from sightline.images.volume import to_ras
from sightline.models import checkpoint, features
from sightline.types import ImageRef, View

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("SIGHTLINE_VOLUMES", ROOT / "runs" / ".volumes"))
SCANS = {
    "sMRI": KEPT / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz",
    "fMRI": KEPT / "sub-RAPIDTIDETEST.nii.gz",
}
SHAPES = {"sMRI": (197, 233, 189), "fMRI": (64, 64, 29, 260)}
SPACINGS = {"sMRI": (1, 1, 1), "fMRI": (3.5, 3.5, 3.99)}
TIMES = [0, 130, 259]
ASKED = (
    "Is this scan one volume or a series of volumes?",
    "Does this scan hold time?",
    "What kind of scan is it?",
)
TOLD = {"sMRI": ("One volume.", "No", "A T1."), "fMRI": ("A series of volumes.", "Yes", "An fMRI.")}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not all(path.is_file() for path in SCANS.values()),
        reason=f"no real volumes in {KEPT.name}: python examples/fetch_volumes.py",
    ),
]


def mirrored(path: Path, to: Path) -> Path:
    """The same head, stored from right to left and from top to bottom, with an affine that says so."""
    stock = nibabel.load(path)
    flip = np.diag([-1.0, 1, -1, 1])
    flip[[0, 2], 3] = [stock.shape[0] - 1, stock.shape[2] - 1]
    values = np.flip(np.asarray(stock.dataobj), (0, 2))
    values = values[..., TIMES] if stock.ndim == 4 else values
    made = nibabel.Nifti1Image(values, stock.affine @ flip)
    made.header.set_xyzt_units("mm", "sec")
    if stock.ndim == 4:
        made.header.set_zooms((*made.header.get_zooms()[:3], 1.5))
    nibabel.save(made, to)
    return to


@pytest.mark.parametrize("kind", list(SCANS))
def test_a_real_head_lies_in_ras_however_it_is_stored(kind: str, tmp_path: Path) -> None:
    path = SCANS[kind]
    ref = ImageRef(path=path.name, kind=kind, form="volume")
    assert images.extent(path.parent, ref) == SHAPES[kind]
    made = images.volume(path.parent, ref, times=lambda total: TIMES)
    assert made.spacing == pytest.approx(SPACINGS[kind], abs=1e-3)
    assert made.seconds == (1.5 * 259 / 2 if kind == "fMRI" else 0)  # between the points that were taken
    stock = nibabel.as_closest_canonical(nibabel.load(path))
    expected = stock.get_fdata(dtype=np.float32)
    expected = expected[..., TIMES] if kind == "fMRI" else expected
    turned = to_ras(made)
    assert np.array_equal(turned.values, expected)
    other = mirrored(path, tmp_path / "m.nii.gz")
    again = images.volume(
        tmp_path, ImageRef(path=other.name, kind=kind, form="volume"), times=lambda total: [0, 1, 2]
    )
    assert again.orientation == "LAI"
    assert np.array_equal(to_ras(again).values, expected)
    # A mirrored head would be noticed; left and right this T1 is symmetric.
    for axis in (2,) if kind == "sMRI" else (0, 2):
        assert np.abs(expected - np.flip(expected, axis)).mean() > 1


def records(root: Path) -> None:
    """UMBRELLA's directory format: three questions about each scan, and one that shows both."""
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        for kind in SCANS:
            for i, (question, answer) in enumerate(zip(ASKED, TOLD[kind], strict=True)):
                write(root / split, f"{split}-{kind}-{i}", [kind], [([kind], question)], [answer])
        turns = [(["sMRI"], "Remember this scan."), (["fMRI"], "Is this one of the same kind?")]
        write(root / split, f"{split}-both", ["sMRI", "fMRI"], turns, ["I do.", "No"])
    for path in SCANS.values():
        shutil.copy(path, root)


def write(
    folder: Path, name: str, kinds: list[str], asked: list[tuple[list[str], str]], told: list[str]
) -> None:
    turns: list[dict[str, Any]] = []
    for (shown, question), answer in zip(asked, told, strict=True):
        parts = [{"type": "image", "modality": kind, "image_path": SCANS[kind].name} for kind in shown]
        turns.append({"role": "user", "content": [*parts, {"type": "text", "text": question}]})
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    row = {
        "task_id": name, "task_type": "T1", "subject_ids": [name], "modalities": kinds,
        "images": [{"path": SCANS[kind].name, "token": "<image>", "modality": kind} for kind in kinds],
        "conversations": turns, "metadata": {"subject_id": name, "task": "kind"},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(row), encoding="utf-8")


def document(root: Path) -> dict[str, Any]:
    """The recipe with these scans for its phantoms, and fewer steps; the model is its own."""
    made = yaml.safe_load((ROOT / "recipes" / "umbrella_tiny.yaml").read_text(encoding="utf-8"))
    parts = made["stages"]
    parts["data"] = {"stage": "prepare", "reader": "umbrella", "root": str(root), "split": {"by": "official"}}
    parts["taught"]["train"] = {"steps": 8, "batch": 7, "warmup": 0.1}
    parts["evaluate"] |= {"images": ["clean", "black"], "metrics": ["vqa"], "resamples": 100}
    return made


def test_umbrella_tiny_learns_from_real_volumes_and_answers(tmp_path: Path) -> None:
    records(tmp_path / "raw")
    done = stages.execute(recipe.check(document(tmp_path / "raw"), "test"), tmp_path / "runs", say=print)
    facts = runs.read_json(done["data"] / "dataset.json")
    assert (facts["counts"], facts["rejected"]) == ({"train": 7, "test": 7}, 0)
    losses = [entry["loss"] for entry in small.curve(done["taught"])]
    assert len(losses) == 8  # all seven records in every batch: both kinds of volume together
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    weights = load_file(done["taught"] / "model" / "full.safetensors")
    assert all(name.startswith("model.vision_tower.embeddings.") for name in weights)
    info = runs.read_json(done["taught"] / "model" / checkpoint.INFO)
    base = checkpoint.compose(info["base"]["model"], info["base"]["seed"])
    before = dict(base.model.named_parameters())
    for name, value in weights.items():  # those of T1 and those of fMRI
        assert (value - before[name]).abs().max() > 1e-4, name
    ref = ImageRef(path=SCANS["fMRI"].name, kind="fMRI", form="volume", sha256=runs.hash_file(SCANS["fMRI"]))
    seen = features.pixels(base, tmp_path / "raw", View(ref, "r"))
    assert tuple(seen.values.shape) == (1, 24, 24, 24, 8)
    assert float(seen.values.std()) > 0.1
    assert bool(torch.isfinite(seen.values).all())
    for model in ("base", "taught"):
        for image in ("clean", "black"):
            lines = (done["evaluate"] / "predictions" / f"{model}-{image}.jsonl").read_text(encoding="utf-8")
            answers = [json.loads(line) for line in lines.splitlines()]
            assert len(answers) == 2 * 3 + 2
            assert all(a["choices"] or math.isfinite(a["logp"]) for a in answers)
    rows = json.loads((done["evaluate"] / "scores.json").read_text(encoding="utf-8"))["rows"]
    counted = {(r["model"], r["image"], r["metric"]): r["n"] for r in rows}
    assert counted["taught", "clean", "accuracy"] == 3
    assert counted["taught", "clean", "exact_match"] == 8
