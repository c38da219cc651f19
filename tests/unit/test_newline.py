"""LLaVA-1.6's end of a line of tiles as a part of its own: what trains, its gradient, saving, kept tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import models
import models_llava_next
from sightline import runs
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, together
from sightline.data.rows import encode_samples
from sightline.errors import ModelError
from sightline.inference import in_precision
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels, gridder, looker
from sightline.settings import Full, Generate, Lora, Speed
from sightline.settings import Plan as Trains
from sightline.train.trainers import Answers
from sightline.types import ImageRef, View

NAME = "model.image_newline"
ASKED = {"newline": Trains(full=Full(lr=1e-2))}
SIZES = [(28, 28), (40, 93)]  # height and width: one tile, and two beside each other


@pytest.fixture
def made(tmp_path: Path) -> Bundle:
    return models_llava_next.bundle(tmp_path / "language")


@pytest.fixture
def refs(tmp_path: Path) -> list[ImageRef]:
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return [
        ImageRef(path=f"{i}.png", sha256=runs.hash_file(tmp_path / f"{i}.png")) for i in range(len(SIZES))
    ]


def batch(made: Bundle, root: Path, refs: list[ImageRef]) -> dict[str, Any]:
    chat = Chat.of(made)
    samples = [models.sample(f"s{i}", [("Is it?", "Yes")], [ref]) for i, ref in enumerate(refs)]
    rows, aside = encode_samples(samples, chat, 4096, gridder(made, root))
    assert aside == []
    return SupervisedCollator(Plan.of(chat, Pixels(made, root), Speed()))(together(rows, 1, 0))


def test_it_alone_gets_a_gradient_and_it_is_that_of_finite_differences(
    made: Bundle, tmp_path: Path, refs: list[ImageRef]
) -> None:
    made.model.double()
    trained = trainable.apply(made, ASKED, 0)
    answers = Answers(made, trained, given="pixels")
    with models.doubled():
        shown = batch(made, tmp_path, refs)
        shown["images"] = [image.double() for image in shown["images"]]
        answers(shown).sum().backward()
        reached = [
            n for n, p in made.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
        ]
        assert reached == [NAME]
        newline = made.model.get_parameter(NAME)
        found, step, values = float(newline.grad[5]), 1e-5, []
        for sign in (1, -1):
            with torch.no_grad():
                newline[5] += sign * step
                values.append(float(answers(shown).sum()))
                newline[5] -= sign * step
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)
    assert abs(found) > 1e-4
    rows = {row.part: (row.how, row.total, row.trainable) for row in trainable.table(made, ASKED)}
    assert rows["newline"] == ("full", 32, 32)
    assert rows["connector"][2] == rows["vision"][2] == rows["language"][2] == 0


@pytest.mark.parametrize(
    "beside", [{}, {"language": Trains(lora=Lora(r=2, alpha=4, lr=1e-3))}], ids=["", "lora"]
)
def test_it_is_saved_and_opened(made: Bundle, tmp_path: Path, beside: dict[str, Trains]) -> None:
    asked = {**ASKED, **beside}
    before = made.model.get_parameter(NAME).detach().clone()
    trained = trainable.apply(made, asked, 0)
    models.stir(made.model.parameters(), seed=1)
    plain = {part: plan.model_dump(mode="json") for part, plan in asked.items()}
    checkpoint.save(tmp_path / "m", made, trained, parent=None, trained=plain, home=tmp_path / "m")
    back = checkpoint.load(tmp_path / "m")
    assert torch.equal(back.model.get_parameter(NAME), made.model.get_parameter(NAME))
    assert (back.model.get_parameter(NAME) - before).abs().max() > 0.01


def test_a_trained_connector_alone_leaves_it_as_it_was(made: Bundle) -> None:
    """Models that were trained before it was a part are opened as they were."""
    trainable.apply(made, {"connector": Trains(full=Full(lr=1e-3))}, 0)
    names = {n for n, p in made.model.named_parameters() if p.requires_grad}
    assert names == {
        f"model.multi_modal_projector.linear_{i}.{w}" for i in (1, 2) for w in ("weight", "bias")
    }


def test_tokens_are_kept_only_while_it_is_frozen(made: Bundle, tmp_path: Path, refs: list[ImageRef]) -> None:
    views = [View(ref, "r") for ref in refs]
    assert trainable.frozen(made, ASKED) == {"vision": True, "connector": False}
    assert trainable.frozen(made, {"language": ASKED["newline"]}) == {"vision": True, "connector": True}
    look = looker(made, tmp_path, tmp_path / "kept", views, trainable.frozen(made, ASKED), Speed())
    assert look.given == "features"
    with pytest.raises(ModelError, match="tokens of a connector that trains"):
        looker(made, tmp_path, tmp_path / "kept", views, trainable.frozen(made, ASKED), Speed(cache="after"))
    before = Features(made, tmp_path, tmp_path / "kept", "tokens").key(views[0])
    with torch.no_grad():
        made.model.get_parameter(NAME).add_(1)
    assert Features(made, tmp_path, tmp_path / "kept", "tokens").key(views[0]) != before


def test_it_goes_into_the_precision_of_the_connector(made: Bundle) -> None:
    newline = made.model.get_parameter(NAME)
    in_precision(made, Generate(precision="bfloat16"))
    assert newline is made.model.get_parameter(NAME)
    assert newline.dtype == made.model.lm_head.weight.dtype == torch.bfloat16
    assert {p.dtype for p in made.model.model.vision_tower.parameters()} == {torch.float32}


def test_it_has_no_layer_for_an_adapter(made: Bundle) -> None:
    with pytest.raises(ModelError, match="'newline' has no linear layer for LoRA"):
        trainable.apply(made, {"newline": Trains(lora=Lora(r=2, lr=1e-3))}, 0)
