"""Mllama is taught, kept and asked: several and no images in a batch, adapters in layers of both kinds, real sizes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import MllamaConfig, MllamaForConditionalGeneration
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

import models_mllama
from sightline import recipe, runs, stages
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, Together
from sightline.data.line import Row
from sightline.data.rows import encode_samples
from sightline.losses.logps import token_logps
from sightline.models import checkpoint, features, stock, trainable
from sightline.models.families import mllama
from sightline.models.family import Bundle
from sightline.settings import Full, Lora
from sightline.settings import Plan as Part
from sightline.train.trainers import Answers
from sightline.types import ImageRef, Message, Sample

SIZES = [(28, 28), (40, 33), (19, 90)]  # height and width: 1 x 1, 2 x 2 and 1 x 4 tiles
LORA = {"language": Part(lora=Lora(r=4, lr=1e-2))}


@dataclass(frozen=True)
class Setting:
    """A tiny Mllama, the folder of its pictures, and rows that show none, one and two of them."""

    bundle: Bundle
    root: Path
    rows: list[Row]

    def batch(self, rows: Sequence[Row], **how: Any) -> dict[str, Any]:
        chat = Chat.of(self.bundle)
        plan = Plan(
            look=lambda view: features.pixels(self.bundle, self.root, view),
            pad=chat.pad,
            image_token=chat.image_token,
            **how,
        )
        return SupervisedCollator(plan)([Together((row,)) for row in rows])


def setting_of(root: Path) -> Setting:
    bundle = checkpoint.compose(models_mllama.section(models_mllama.write(root / "mllama")), 0)
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
    refs = [ImageRef(path=f"{i}.png", sha256=runs.hash_file(root / f"{i}.png")) for i in range(3)]
    shown: list[tuple[int, ...]] = [(), (0,), (2, 1), (1,), (0, 2)]
    samples = [sample(f"s{i}", [refs[k] for k in numbers]) for i, numbers in enumerate(shown)]
    rows, aside = encode_samples(samples, Chat.of(bundle), 500, features.gridder(bundle, root))
    assert not aside
    return Setting(bundle, root, rows)


def sample(name: str, refs: Sequence[ImageRef]) -> Sample:
    """Images in front of and behind the words of the question; the second answer shows the last one again."""
    first = (*range(len(refs))[:1], "Is there fluid?", *range(len(refs))[1:])
    return Sample(
        id=name,
        patient="p",
        images=tuple(refs),
        messages=(
            Message(role="user", parts=first),
            Message(role="assistant", parts=("Yes, a little",)),
            Message(role="user", parts=("Where?",)),
            Message(role="assistant", parts=(*range(len(refs))[-1:], f"Left of {name}")),
        ),
    )


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return setting_of(tmp_path_factory.mktemp("mllama"))


@pytest.mark.parametrize("how", [{}, {"side": "left"}, {"pack": 10_000}, {"pack": 90}], ids=str)
@torch.no_grad()
def test_answers_of_a_batch_are_as_likely_as_one_by_one(setting: Setting, how: dict[str, Any]) -> None:
    """None, one and two images of different aspect ratios in one batch; an image opens the second answer."""
    batch = setting.batch(setting.rows, **how)
    assert [len(row.views) for row in setting.rows] == [0, 2, 3, 2, 3]
    assert sorted(set(batch["grids"])) == [(1, 1), (1, 4), (2, 2)]
    found = told(setting, batch)
    alone = [told(setting, setting.batch([row]))[0] for row in setting.rows]
    for one, other in zip(found, alone, strict=True):
        assert one.shape == other.shape
        assert float(other.sum()) < -100
        assert float((one - other).abs().max()) <= 1e-5  # of a token, in float32
        assert abs(float(one.double().sum() - other.double().sum())) <= 1e-5  # of an answer


def told(setting: Setting, batch: dict[str, Any]) -> list[Tensor]:
    """Log-probabilities of each answer's tokens, in their order."""
    bundle = setting.bundle
    states = bundle.forward(batch, given="pixels")
    logps = token_logps(states, batch["labels"], bundle.head, batch["source"])
    return [logps[(batch["answer"] == i) & (batch["labels"] != -100)] for i in range(batch["answers"])]


def test_labels_never_name_the_token_behind_the_head_s_last_row(setting: Setting) -> None:
    """The image token's id is the size of the head's vocabulary: learned, it would be out of bounds."""
    batch = setting.batch(setting.rows)
    edge = setting.bundle.model.lm_head.out_features
    assert setting.bundle.image_token == edge
    assert int((batch["input_ids"] == edge).sum()) == 2 + 3 + 2 + 3
    assert int(batch["labels"].max()) < edge
    assert bool((batch["labels"][batch["input_ids"] == edge] == -100).all())


def test_a_step_teaches_adapters_in_layers_of_both_kinds(tmp_path: Path) -> None:
    own = setting_of(tmp_path)
    trained = trainable.apply(own.bundle, {**LORA, "connector": Part(full=Full(lr=1e-3))}, 0)
    answers = Answers(own.bundle, trained, given="pixels")
    batch = own.batch(own.rows)
    wanted = {n: p for n, p in trained.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(list(wanted.values()), lr=1e-2)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = -answers(batch).mean()
        loss.backward()
        losses.append(float(loss.detach()))
        optimizer.step()
    assert losses[1] < losses[0] - 1
    kinds = [f"{kind}.{p}_proj" for kind in ("self_attn", "cross_attn") for p in "qkvo"]
    for kind in [*kinds, "layers.1.mlp.gate_proj", "multi_modal_projector"]:
        mine = [p for n, p in wanted.items() if kind in n and ".lora_A" not in n]
        assert mine, kind
        assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in mine), kind
    assert all(float(p.detach().abs().max()) > 0 for n, p in wanted.items() if ".lora_B" in n)
    rest = [p for n, p in trained.named_parameters() if n not in wanted]
    assert all(p.grad is None for p in rest)


def test_rows_without_an_image_take_the_way_of_others_and_compute_the_same(tmp_path: Path) -> None:
    """Given an image that no row shows, layers of cross-attention take part and have gradients, which are zero."""
    own = setting_of(tmp_path)
    trained = trainable.apply(own.bundle, {**LORA, "connector": Part(full=Full(lr=1e-3))}, 0)
    found = []
    for always in ((), own.rows[1].views[:1]):
        trained.zero_grad()
        said = Answers(own.bundle, trained, given="pixels")(own.batch(own.rows[:1], always=tuple(always)))
        said.sum().backward()
        found.append((said.detach(), {n: p.grad for n, p in trained.named_parameters() if p.requires_grad}))
    (plain, before), (full, after) = found
    assert torch.equal(plain, full)
    passed = [name for name, grad in before.items() if grad is None]
    assert any("cross_attn.k_proj" in name for name in passed)
    assert any("multi_modal_projector" in name for name in passed)
    assert all(after[name] is not None and not after[name].any() for name in passed)
    assert all(torch.equal(after[name], grad) for name, grad in before.items() if grad is not None)


def test_real_sizes(tmp_path: Path) -> None:
    """Llama-3.2-11B-Vision-Instruct on the meta device, by our names of its parts."""
    config = MllamaConfig(vision_config=MllamaVisionConfig(image_size=560), text_config=MllamaTextConfig())
    config.save_pretrained(tmp_path)
    bundle = Bundle(
        family=mllama.FAMILY,
        model=stock.outline(MllamaForConditionalGeneration, tmp_path),
        tokenizer=None,
        preprocess=lambda image: Tensor(),  # type: ignore[arg-type]
        image_token=config.image_token_id,
        tokens_per_image=4 * 1601,
    )
    assert {p.device.type for p in bundle.model.parameters()} == {"meta"}
    asked = {"language": Part(lora=Lora(r=16, lr=1e-4))}
    trainable.apply(bundle, asked, 0)
    rows = {row.part: row for row in trainable.table(bundle, asked)}
    assert {part: row.total for part, row in rows.items()} == {
        "vision": 863_567_379,
        "connector": 31_461_376,
        "language": 9_249_855_504 + 525_336_576,
    }
    assert sum(row.total for row in rows.values()) == 10_670_220_835
    layer = 16 * (4 * 4096 + 2 * (4096 + 1024) + 3 * (4096 + 14336))  # q and o, k and v, the three of the MLP
    assert rows["language"].trainable == 40 * layer == 52_428_800
    cross = [n for n, p in bundle.model.named_parameters() if ".lora_A" in n and ".cross_attn." in n]
    assert len(cross) == 8 * 4
    assert bundle.image_token == 128_256 == bundle.model.lm_head.out_features


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Prepared, taught for three steps and asked, as a recipe."""
    root = tmp_path_factory.mktemp("life")
    part = {**models_mllama.section(models_mllama.write(root / "mllama"))}
    lora = {"language": {"lora": {"r": 4, "alpha": 8, "lr": 1e-2}}}
    own = {
        "name": "beside", "seed": 1,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": 6, "size": 64,
                     "split": {"train": 0.5, "valid": 0, "test": 0.5}},
            "taught": {"stage": "sft", "data": "data", "model": part, "max_tokens": 2048,
                       "trainable": {"connector": {"full": {"lr": 1e-3}}, **lora}, "train": {"steps": 3, "batch": 2}},
            "evaluate": {"stage": "evaluate", "data": "data", "models": ["base", "taught"],
                         "images": ["clean", "black"], "generate": {"max_new_tokens": 4, "batch": 8},
                         "resamples": 100},
        },
    }  # fmt: skip
    stages.execute(recipe.check(own, "test"), root / "runs", say=lambda line: None)
    return root / "runs", own


def test_it_is_taught_and_asked_as_a_recipe(life: tuple[Path, dict[str, Any]]) -> None:
    folder = life[0] / "beside" / "evaluate" / "predictions"
    read = {path.stem: predictions(path) for path in folder.iterdir()}
    assert sorted(read) == ["base-black", "base-clean", "taught-black", "taught-clean"]
    choices = {name: [p["choices"]["yes"] for p in made if p["choices"]] for name, made in read.items()}
    assert len(choices["taught-clean"]) > 10
    assert choices["taught-clean"] != choices["base-clean"]  # it learned something
    assert choices["taught-clean"] != choices["taught-black"]  # and it looks


def test_an_interrupted_evaluation_goes_on_to_the_same_answers(life: tuple[Path, dict[str, Any]]) -> None:
    root, own = life
    folder = root / "beside" / "evaluate" / "predictions"
    before = {p.name: predictions(p) for p in folder.iterdir()}
    for ledger in (root / "beside" / ".answers").glob("*.jsonl"):
        lines = ledger.read_bytes().splitlines(keepends=True)
        ledger.write_bytes(lines[0] + lines[1][:20])  # killed in the middle of the second study
    own["stages"]["evaluate"]["resamples"] = 200
    stages.execute(recipe.check(own, "test"), root, say=lambda line: None)
    for path in folder.iterdir():
        for one, other in zip(predictions(path), before[path.name], strict=True):
            assert one["choices"] == pytest.approx(other["choices"], abs=1e-4)  # its batches are others
            assert {**one, "choices": {}} == {**other, "choices": {}}


def predictions(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
