"""Gradient checkpointing in every family: the layers run twice, and loss and gradients are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from test_pair_pass import SETS, setting, step
from torch import nn

import models
from sightline.models import trainable
from sightline.models.family import Bundle
from sightline.settings import Full, Plan
from sightline.train.trainers import Answers

assert setting  # the fixture: one model of each family


@contextmanager
def counted(layer: nn.Module) -> Iterator[list[int]]:
    """How often a layer's norm runs; the layer itself is what is wrapped."""
    calls: list[int] = []
    norm = next(m for m in layer.modules() if "norm" in type(m).__name__.lower())
    handle = norm.register_forward_hook(lambda *args: calls.append(1))
    try:
        yield calls
    finally:
        handle.remove()


def first(bundle: Bundle, part: str) -> nn.Module:
    """The first layer of a part."""
    module = bundle.family.module(bundle.model, bundle.family.parts[part][0])
    return next(m for m in module.modules() if isinstance(m, nn.ModuleList))[0]


def test_layers_run_twice_and_gradients_stay(setting: tuple[Answers, Callable[..., Any]]) -> None:
    answers, make = setting
    batch, layer = make(SETS["one image"]), first(answers.bundle, "language")
    answers.train()
    with counted(layer) as once:
        loss, wanted = step(answers, batch)
    answers.gradient_checkpointing_enable()
    try:
        with counted(layer) as twice:
            again, found = step(answers, batch)
    finally:
        answers.bundle.family.language(answers.bundle.model).gradient_checkpointing_disable()
        answers.eval()
    assert len(twice) == 2 * len(once) > 0
    assert again == pytest.approx(loss, rel=1e-12)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("trains", "times"), [(True, 2), (False, 1)])
def test_a_tower_is_computed_again_where_it_trains(
    language: Path, tmp_path: Path, trains: bool, times: int
) -> None:
    bundle = models.bundle(language)
    asked = {"connector": Plan(full=Full(lr=1e-3))} | ({"vision": Plan(full=Full(lr=1e-3))} if trains else {})
    answers = Answers(bundle, trainable.apply(bundle, asked, 0), given="pixels")
    answers.gradient_checkpointing_enable()
    answers.train()
    images = [torch.rand(3, 28, 28)]
    with counted(first(bundle, "vision")) as calls:
        sum(tokens.square().sum() for tokens in bundle.tokens(images, [()], "pixels")).backward()
    assert len(calls) == times
