"""The contract of a connector: what it joins, how it is built and how it starts.

A connector is one file in `connectors/`. Its sizes come from the two models that it joins, its options from the recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from .. import plugins
from ..errors import ModelError, RecipeError
from ..settings import Connector as Asked

GAIN = 0.425  # second moment of GELU of a unit normal


@dataclass(frozen=True, kw_only=True)
class Joint:
    """What a connector joins.

    Args:
        depth: layers of the tower whose output it may see.
        width: of the tower's features.
        hidden: width of a word.
        heads: attention heads of each side, `vision` and `language`; 0 for a side that has none.
    """

    depth: int
    width: int
    hidden: int
    heads: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Connector:
    """One kind of connector.

    Args:
        name: the file's name.
        build: (joint, *, options) -> the module. It is given features of one layer [images, tokens, width], or, where
            it `fuses`, of all layers of both studies, and returns [images, tokens, hidden].
        start: (module, spread) -> nothing; random weights whose output is spread like words.
        fuses: sees all layers of the tower, of the current image and of the prior one, and makes one map of both:
            `forward(current, prior, present)` with [images, depth, tokens, width] twice and which images have a prior.
    """

    name: str
    build: Callable[..., nn.Module]
    start: Callable[[nn.Module, float], None]
    fuses: bool = False


def find(asked: Any) -> tuple[Connector, dict[str, Any], Path | None]:
    """The plug-in that a `model` section's `connector` means, its options, and the file of its weights.

    Raises:
        ModelError: there is none of that name, or it takes no such options.
    """
    wanted = Asked.of(asked)
    try:
        known = plugins.bind("connectors", wanted.plugin, wanted.options)
        found: Connector = plugins.load("connectors", wanted.plugin)
    except RecipeError as error:
        if error.what.startswith("no connectors"):
            raise ModelError(
                f"unknown connector '{wanted.name}'", where="model.connector",
                expected=f"{', '.join(n for n in plugins.names('connectors') if n != 'mlp')}, mlpNx_gelu",
            ) from None  # fmt: skip
        raise
    return found, known, None if wanted.weights is None else Path(wanted.weights)


def make(asked: Any, joint: Joint, spread: float) -> tuple[nn.Module, Connector]:
    """A connector between two models, random or with its weights.

    Args:
        asked: the `connector` of a `model` section.
        joint: what it joins.
        spread: standard deviation of the table of words.

    Raises:
        ModelError: it cannot join these two, or its weights do not fit.
    """
    kind, options, weights = find(asked)
    module = kind.build(joint, **options)
    kind.start(module, spread)
    if weights is not None:
        load(module, weights)
    return module, kind


def load(module: nn.Module, weights: Path) -> None:
    """Fill a connector with the tensors of a file: all of them, and no others.

    Raises:
        ModelError: no safetensors file, or names or shapes that do not fit; they are named.
    """
    where = f"model.connector.weights, {weights}"
    if weights.suffix != ".safetensors" or not weights.is_file():
        raise ModelError(
            "a connector's weights cannot be opened", where=where, expected="a .safetensors file",
            remedy="convert them: pickles are not opened",
        )  # fmt: skip
    own, stored = module.state_dict(), load_file(weights)
    missing, unexpected = sorted(set(own) - set(stored)), sorted(set(stored) - set(own))
    odd = [
        f"{k} {tuple(stored[k].shape)}, not {tuple(own[k].shape)}"
        for k in sorted(own.keys() & stored)
        if own[k].shape != stored[k].shape
    ]
    if missing or unexpected or odd:
        raise ModelError(
            "a connector's weights do not fit", where=where,
            found=f"{len(unexpected)} unexpected: {unexpected[:5]}; of other shape: {odd[:5]}",
            expected=f"{len(missing)} missing: {missing[:5]}",
            remedy="give the connector, the tower and the language model that they were trained with",
        )  # fmt: skip
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def start_layers(layers: list[nn.Linear], spread: float) -> None:
    """Random layers with GELU between them whose output has this spread, for input of unit variance per channel."""
    for place, layer in enumerate(layers):
        second = 1.0 if place == 0 else GAIN
        scale = spread if layer is layers[-1] else 1.0
        nn.init.normal_(layer.weight, std=scale * (second * layer.in_features) ** -0.5)
    for layer in layers:
        nn.init.zeros_(layer.bias)
