"""Stored reference log-probabilities: whatever they depend on changes their name, and they never drift."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
from sightline.data.chat import Chat
from sightline.data.collate import PairCollator, Plan
from sightline.data.rows import encode_pairs
from sightline.losses.dpo import dpo
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels
from sightline.recipe import Align
from sightline.settings import Full, Lora
from sightline.settings import Plan as Part
from sightline.train.reference import reference_key
from sightline.train.trainers import Answers, pair_logps
from sightline.types import Degrade, Message, Preference
from small import run

PROMPT = (Message(role="user", parts=(0, "Is there fluid?")),)


@pytest.fixture(scope="module")
def taught(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(language, tmp_path_factory.mktemp("runs"))["taught"]


def records(picture: Any, seed: int = 1) -> list[Preference]:
    noise = Degrade(kind="replace", seed=seed)
    plain = Preference(id="a", patient="p", images=(picture,), prompt=PROMPT, chosen="Yes", rejected="No")
    return [plain, replace(plain, id="b", rejected="Yes", rejected_images=noise)]


def key(taught: Path, place: Path, *, change: str = "", **section: Any) -> str:
    """The name under which references would be kept, after one change to what they depend on."""
    bundle = checkpoint.load(taught / "model")
    if change == "adapter":
        shutil.copytree(taught, place / "taught")
        file = place / "taught" / "model" / "adapter_model.safetensors"
        tensors = load_file(file)
        first = sorted(tensors)[0]
        save_file({**tensors, first: tensors[first] + 1e-6}, file)
        taught = place / "taught"
    picture = models.picture(place, "a.png", seed=2 if change == "pixel" else 1)
    if change == "template":
        bundle.tokenizer.chat_template = bundle.tokenizer.chat_template.replace("<|im_end|>", "<|im_end|> ")
    if change == "tokenizer":
        bundle.tokenizer = models.word_tokenizer(
            ["user", "assistant", "Yes", "No", "Is", "there", "fluid", "?"]
        )
    if change == "tower":
        with torch.no_grad():
            next(bundle.model.model.vision_tower.parameters()).add_(1e-6)
    if change == "preprocessing":
        bundle.preprocess = replace(bundle.preprocess, mean=(0.4, 0.5, 0.5))
    pairs, _ = encode_pairs(records(picture, seed=2 if change == "seed" else 1), Chat.of(bundle), 500)
    asked = Align(**{"stage": "align", "data": "pairs", "model": "taught"} | section)
    stage: Any = SimpleNamespace(parents={"taught": taught})
    look = Features(bundle, place, place / "kept")
    return reference_key(stage, asked, bundle, pairs, look)


@pytest.mark.parametrize(
    "change", ["pixel", "template", "tokenizer", "adapter", "seed", "tower", "preprocessing"]
)
def test_a_change_misses_the_store(taught: Path, tmp_path: Path, change: str) -> None:
    plain = key(taught, tmp_path)
    assert key(taught, tmp_path) == plain
    assert key(taught, tmp_path, change=change) != plain


@pytest.mark.parametrize(
    ("section", "same"),
    [
        ({"loss": {"name": "dpo", "beta": 0.9}}, True),
        ({"loss": {"name": "ipo"}}, True),
        ({"trainable": {"language": {"lora": {"r": 4, "lr": 1e-3}}}}, True),
        ({"train": {"steps": 7}}, True),
        ({"train": {"precision": "bfloat16"}}, False),
        ({"reference": "base"}, False),
        ({"speed": {"share": False}}, False),
    ],
    ids=str,
)
def test_what_the_reference_does_not_depend_on_finds_it(
    taught: Path, tmp_path: Path, section: dict[str, Any], same: bool
) -> None:
    assert (key(taught, tmp_path, **section) == key(taught, tmp_path)) == same


def test_the_reference_does_not_drift_while_the_connector_trains(language: Path, tmp_path: Path) -> None:
    bundle: Bundle = models.bundle(language)
    picture = models.picture(tmp_path, "a.png", seed=1)
    chat, look = Chat.of(bundle), Pixels(bundle, tmp_path)
    pairs, _ = encode_pairs(records(picture), chat, 500)
    asked = {"connector": Part(full=Full(lr=1e-2)), "language": Part(lora=Lora(r=2, lr=1e-2))}
    bare = Answers(bundle, bundle.model, given="pixels").eval()
    plan = Plan(look=look, pad=chat.pad, image_token=chat.image_token)
    batch = PairCollator(plan, {})(pairs)
    with torch.no_grad():
        before = bare(batch)
    batch["reference"] = before.view(2, 2)
    trained = trainable.apply(bundle, asked, 0)
    answers = Answers(bundle, trained, given="pixels").eval()
    steps = torch.optim.AdamW([p for p in answers.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(200):
        loss = dpo(pair_logps(answers(batch), batch)).mean()
        steps.zero_grad()
        loss.backward()
        steps.step()
    with torch.no_grad():
        moved = answers(batch)
        with answers.adapters_off():
            after = answers(batch)
    assert float((moved - before).abs().max()) > 1
    assert torch.equal(after, before)


def test_the_small_recipe_s_store_is_readable(taught: Path) -> None:
    stored = list((taught.parent / ".references").glob("*.json"))
    assert len(stored) == 1
    values = json.loads(stored[0].read_text(encoding="utf-8"))
    assert all(len(v) == 2 and v[0] < 0 and v[1] < 0 for v in values.values())
