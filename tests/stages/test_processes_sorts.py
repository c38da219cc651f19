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
from test_processes import WRAPPED, ZERO, Fork, losses, needs_deepspeed, run, words

import models
import models_gemma3
import models_idefics3
import models_llava_next
import models_mllama
import models_qwen
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


def every_second(root: Path) -> dict[str, Any]:
    """Rows of which every second shows nothing; two a step: where they differ, one process has a picture, one none."""
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
    return {"stage": "prepare", "reader": "chat_jsonl", "root": str(root), "split": {"by": "official"}}


def taught(model: dict[str, Any], **trainable: Any) -> dict[str, Any]:
    return {
        "stage": "sft", "data": "data", "model": model, "max_tokens": 2048, "trainable": trainable,
        "train": {"steps": STEPS, "batch": 2},
    }  # fmt: skip


def pictures(language: Path, root: Path) -> dict[str, Any]:
    """Tower and connector train."""
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    whole = {"vision": {"full": {"lr": 1e-3}}, "connector": {"full": {"lr": 1e-2}}}
    return {"data": every_second(root), "taught": taught(part, **whole)}


def tiles(language: Path, root: Path) -> dict[str, Any]:
    """LLaVA-1.6, whose end of a line of tiles is a weight outside of any layer's forward pass."""
    part = {"family": "llava_next", "path": str(models_llava_next.write(root.with_name("llava_next")))}
    whole = {"connector": {"full": {"lr": 1e-2}}, "newline": {"full": {"lr": 1e-2}}}
    return {"data": every_second(root), "taught": taught(part, **whole)}


def beside(language: Path, root: Path) -> dict[str, Any]:
    """Mllama, whose layers of cross-attention a batch without a picture would leave out."""
    part = {"family": "mllama", "path": str(models_mllama.write(root.with_name("mllama")))}
    lora = {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}
    return {
        "data": every_second(root),
        "taught": taught(part, connector={"full": {"lr": 1e-2}}, language=lora),
    }


def kept(language: Path, root: Path) -> dict[str, Any]:
    """The same with tower and connector frozen, so that tokens of pictures are kept and read."""
    made = beside(language, root)
    made["taught"]["trainable"].pop("connector")
    return made


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that was trained: in full, and adapters."""
    return {
        name: value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


Kind = Callable[[Path, Path], dict[str, Any]]
KINDS: tuple[Kind, ...] = (volumes, pictures, tiles, beside, kept)
SOON: tuple[tuple[Kind, str], ...] = (
    (volumes, "fsdp2"), (volumes, "zero3"), (pictures, "ddp"), (pictures, "fsdp2"), (tiles, "zero3"),
    (beside, "fsdp2"), (beside, "zero3"), (kept, "fsdp2"),
)  # fmt: skip


def case(kind: Kind, shard: str) -> Any:
    """One test; those that find what others do not run in every test run, the rest in the slow one."""
    marks = [] if (kind, shard) in SOON else [pytest.mark.slow]
    return pytest.param(kind, shard, marks=[*marks, *([needs_deepspeed] if shard.startswith("zero") else [])])


@pytest.mark.parametrize(
    ("kind", "shard"),
    [case(kind, shard) for kind in KINDS for shard in WRAPPED],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_the_losses_of_one(language: Path, tmp_path: Path, kind: Kind, shard: str) -> None:
    made = {"name": kind.__name__, "seed": 1, "stages": kind(language, tmp_path / "raw")}
    compare(made, tmp_path, shard)


def compare(made: dict[str, Any], tmp_path: Path, shard: str) -> None:
    """Train alone and by two processes, and compare losses and weights."""
    alone = run(made, tmp_path / "one")
    try:
        divided = run(made, tmp_path / "two", Spread(2, shard))
    except RunError:
        pytest.fail(words(tmp_path))
    assert len(losses(divided)) == STEPS
    assert losses(divided) == pytest.approx(losses(alone), abs=1e-5, rel=0)
    one, two = (weights(folder / "model") for folder in (alone, divided))
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-3


OTHERS: dict[str, Callable[[Path], Path]] = {
    "gemma3": models_gemma3.write,
    "qwen2_5_vl": models_qwen.write_2_5,
    "qwen3_vl": models_qwen.write_3,
    "idefics3": models_idefics3.write,
}


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["fsdp2", *ZERO[1:]])
@pytest.mark.parametrize("family", list(OTHERS))
def test_every_family_is_divided(tmp_path: Path, family: str, shard: str) -> None:
    """Rows with and without pictures; weights outside of any forward pass, as tables of positions, are found."""
    part = {"family": family, "path": str(OTHERS[family](tmp_path / "model"))}
    lora = {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}
    stages = {
        "data": every_second(tmp_path / "raw"),
        "taught": taught(part, connector={"full": {"lr": 1e-3}}, language=lora),
    }
    compare({"name": family, "seed": 1, "stages": stages}, tmp_path, shard)


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
