"""Processes whose rows show different sorts of images, or none, still do the same steps, and reach one's losses."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_processes import ZERO, Fork, losses, run, words

import models
import models_umbrella
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, one_of_each, together
from sightline.data.rows import encode_samples
from sightline.errors import RunError
from sightline.images.brain import Brain
from sightline.models.features import Pixels, gridder
from sightline.settings import Speed
from sightline.stages import launch
from sightline.stages.launch import Spread
from sightline.train import processes
from sightline.train.trainers import Answers
from sightline.types import View

STEPS = 6


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that wait for one another for good give up after a minute."""
    monkeypatch.setattr(launch, "popen", Fork)
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=60))


def volumes(language: Path, root: Path) -> dict[str, Any]:
    """Three records for each head: a T1, two of them, an fMRI; two rows a step, so one for each process."""
    part = {k: v for k, v in models_umbrella.section(language, models_umbrella.BOTH).items() if v is not None}
    return {
        "data": {
            "stage": "prepare", "reader": "volume_phantom", "patients": 3, "size": 8, "times": 6,
            "split": {"train": 1, "valid": 0, "test": 0},
        },
        "taught": {
            "stage": "sft", "data": "data", "model": part, "max_tokens": 2048,
            "trainable": {"patches": {"full": {"lr": 1e-2}}, "vision": {"full": {"lr": 1e-3}}},
            "train": {"steps": STEPS, "batch": 2},
        },
    }  # fmt: skip


def pictures(language: Path, root: Path) -> dict[str, Any]:
    """Every second row shows nothing, while tower and connector train."""
    root.mkdir()
    lines = []
    for i in range(6):
        shown = "<image>" * (i % 2)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(
            root / f"{i}.png"
        )
        said = [{"role": "user", "content": f"{shown}Is it {i}?"}, {"role": "assistant", "content": "Yes"}]
        lines.append(json.dumps({"messages": said, "images": [f"{i}.png"] * (i % 2)}))
    (root / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    return {
        "data": {"stage": "prepare", "reader": "chat_jsonl", "root": str(root), "split": {"by": "official"}},
        "taught": {
            "stage": "sft", "data": "data", "model": part, "max_tokens": 2048,
            "trainable": {"vision": {"full": {"lr": 1e-3}}, "connector": {"full": {"lr": 1e-2}}},
            "train": {"steps": STEPS, "batch": 2},
        },
    }  # fmt: skip


@pytest.mark.parametrize("shard", ["ddp", "fsdp2", *ZERO])
@pytest.mark.parametrize("kind", [volumes, pictures], ids=lambda kind: kind.__name__)
def test_the_losses_of_one(
    language: Path, tmp_path: Path, kind: Callable[[Path, Path], dict[str, Any]], shard: str
) -> None:
    made = {"name": kind.__name__, "seed": 1, "stages": kind(language, tmp_path / "raw")}
    alone = run(made, tmp_path / "one")
    try:
        divided = run(made, tmp_path / "two", Spread(2, shard))
    except RunError:
        pytest.fail(words(tmp_path))
    assert len(losses(divided)) == STEPS
    assert losses(divided) == pytest.approx(losses(alone), abs=1e-5, rel=0)
    one, two = (load_file(folder / "model" / "full.safetensors") for folder in (alone, divided))
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3


def test_a_batch_is_given_what_it_does_not_show_and_computes_the_same(language: Path, tmp_path: Path) -> None:
    made = models_umbrella.bundle(language)
    brain = Brain(side="left", sex="male")
    t1 = models_umbrella.head(tmp_path, "t.nii", brain)
    fmri = models_umbrella.head(tmp_path, "f.nii", brain, times=6)
    other = models_umbrella.head(tmp_path, "o.nii", brain, seed=1)
    chat = Chat.of(made)
    sample = models.sample("a", [("Is it?", "Yes")], [t1])
    rows, _ = encode_samples([sample], chat, 4096, gridder(made, tmp_path))
    always = one_of_each([View(ref, "r") for ref in (other, fmri, t1)])
    assert [view.image.path for view in always] == ["o.nii", "f.nii"]
    plain, full = (
        SupervisedCollator(Plan.of(chat, Pixels(made, tmp_path), Speed(), given))(together(rows, 1, 0))
        for given in ((), always)
    )
    assert [tuple(image.shape) for image in full["images"]] == [(1, 8, 8, 8), (1, 8, 8, 8, 6)]
    assert full["shown"].tolist() == plain["shown"].tolist() == [0]
    assert len(plain["images"]) == 1
    made.model.requires_grad_(True)
    found = []
    for batch in (plain, full):
        made.model.zero_grad()
        said = Answers(made, made.model, given="pixels")(batch)
        said.sum().backward()
        grads = {n: p.grad for n, p in made.model.named_parameters()}
        found.append((said.detach(), grads))
    assert torch.equal(found[0][0], found[1][0])
    for name, grad in found[1][1].items():
        if "rsfMRI" in name:
            assert found[0][1][name] is None
            assert grad is not None
            assert not grad.any()
        elif grad is not None:
            assert torch.equal(grad, found[0][1][name]), name
