"""What `train.extra` says of AdamW counts, and what the optimizer could only pass over is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_fit import job

import models_contrast
from sightline import plugins, runs
from sightline.errors import RecipeError
from sightline.models import trainable
from sightline.settings import Full, Plan, Train
from sightline.train.arguments import UNUSED
from sightline.train.contrast import ContrastTrainer, Towers
from sightline.train.fit import Job, fit, optimizer

ASKED = {"text": Plan(full=Full(lr=0.02)), "heads": Plan(full=Full(lr=0.01))}


def contrast(**train: Any) -> Job:
    """A toy encoder: matrices, biases, a temperature."""
    encoder = models_contrast.toy({"width": 6}, 3)
    trained = trainable.apply(encoder, ASKED, 0)
    rows = models_contrast.pairs(8)
    return Job(
        answers=Towers(encoder, trained, given="pixels"), asked=ASKED, rows=rows, ids=[r.id for r in rows],
        collator=lambda rows: {**models_contrast.batch(len(rows)), "ids": [r.id for r in rows]},
        train=Train(steps=4, batch=8, warmup=0, schedule="constant_with_warmup", **train), seed=0,
        betas=(0.9, 0.95),
    )  # fmt: skip


def weights(own: Job) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in own.answers.bundle.model.named_parameters() if p.requires_grad}


def test_matrices_decay_and_biases_and_the_temperature_do_not() -> None:
    own = contrast(extra={"weight_decay": 0.2})
    found = optimizer(own).param_groups
    names = {p: name for name, p in weights(own).items()}
    decays = {names[p]: group["weight_decay"] for group in found for p in group["params"]}
    rates = {names[p]: group["lr"] for group in found for p in group["params"]}
    assert decays == {
        "text.weight": 0.2, "image_head.0.weight": 0.2, "image_head.0.bias": 0.0, "image_head.2.weight": 0.2,
        "image_head.2.bias": 0.0, "text_head.weight": 0.2, "text_head.bias": 0.0, "logit_scale": 0.0,
        "logit_bias": 0.0,
    }  # fmt: skip
    assert rates == {name: 0.02 if name == "text.weight" else 0.01 for name in decays}


def test_without_it_groups_are_what_they_were() -> None:
    found = optimizer(contrast()).param_groups
    assert [(g["part"], g["weight_decay"], g["betas"], g["eps"]) for g in found] == [
        ("text", 0.0, (0.9, 0.95), 1e-8), ("heads", 0.0, (0.9, 0.95), 1e-8)
    ]  # fmt: skip


def test_means_and_epsilon_can_be_set() -> None:
    extra = {"adam_beta1": 0.8, "adam_beta2": 0.99, "adam_epsilon": 1e-6}
    (group,) = optimizer(job(extra=extra)).param_groups
    assert (group["betas"], group["eps"]) == ((0.8, 0.99), 1e-6)
    (group,) = optimizer(job()).param_groups
    assert group["betas"] == (0.9, 0.999)


def trained(place: Path, **train: Any) -> dict[str, torch.Tensor]:
    place.mkdir()
    run = runs.Run(name="encoder", folder=place / "encoder", work=place, key="k", parents={})
    own, plugin = contrast(**train), plugins.load("contrasts", "siglip")
    fit(run, own, ContrastTrainer, plugin=plugin, loss=plugin.loss)
    return {name: p.detach().clone() for name, p in weights(own).items()}


def test_a_letter_that_no_text_has_shrinks_by_rate_times_decay(tmp_path: Path) -> None:
    """Its gradient is zero, so decay alone moves it: 4 steps of 1 - 0.02 * 0.5."""
    plain, decayed = (
        trained(tmp_path / name, extra=extra) for name, extra in (("a", {}), ("b", {"weight_decay": 0.5}))
    )
    unused = ord("~")
    assert torch.equal(plain["text.weight"][unused], weights(contrast())["text.weight"][unused])
    torch.testing.assert_close(decayed["text.weight"][unused], plain["text.weight"][unused] * 0.99**4)


@pytest.mark.parametrize("name", sorted(UNUSED))
def test_what_would_change_nothing_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=f"would change nothing: {name}") as caught:
        trained(tmp_path / "a", extra={name: "1e-3"})
    assert caught.value.found == UNUSED[name]
    assert caught.value.where == "train.extra"


@pytest.mark.parametrize(
    ("extra", "found"),
    [
        ({"weight_decay": "much"}, "could not convert string to float: 'much'"),
        ({"weight_decay": -0.1}, "Invalid weight_decay value: -0.1"),
        ({"adam_beta1": 1.0}, "Invalid beta parameter at index 0: 1.0"),
        ({"adam_epsilon": [1]}, "float() argument must be a string or a real number, not 'list'"),
    ],
)
def test_what_adamw_cannot_take_is_said(extra: dict[str, Any], found: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.extra. holds a value that does not fit") as caught:
        optimizer(job(extra=extra))
    assert caught.value.found == found
