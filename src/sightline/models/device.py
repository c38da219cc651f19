"""Where a model computes: on this process's GPU where there is one, else on the CPU.

A trainer takes its model there by itself. Here is what is asked, and what is computed before there is a trainer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .encoder import Learner
from .family import Bundle
from .trainable import members


def chosen() -> torch.device:
    """This process's GPU where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def place(bundle: Bundle, dtype: torch.dtype) -> None:
    """Make a model ready to answer, where `chosen` says.

    Connector and language model are put into `dtype` before they move, so that the device never holds more than it
    has to; the tower stays in the precision that its features are kept in.

    Raises:
        ModelError: the device has no room for it.
    """
    for part in bundle.family.parts:
        if part not in bundle.family.tower:
            for _, member in members(bundle, part):
                if isinstance(member, nn.Parameter):
                    member.data = member.data.to(dtype)
                else:
                    member.to(dtype)
    _move(bundle.model.modules(), chosen())


@contextmanager
def lent(bundle: Learner, *, whole: bool = False) -> Iterator[None]:
    """While this lasts, a model is where `chosen` says; then it goes back to where it was.

    Args:
        bundle: a model, or an encoder.
        whole: with its language model, whose memory it takes too; without it, all that images and texts pass before.

    Raises:
        ModelError: the device has no room for it.
    """
    apart: set[nn.Module] = set()
    if isinstance(bundle, Bundle) and not whole:
        held = [m for _, m in members(bundle, "language") if isinstance(m, nn.Module)]
        apart = {inner for member in held for inner in member.modules()}
    found = [module for module in bundle.model.modules() if module not in apart]
    first = next(chain.from_iterable(m.parameters(recurse=False) for m in found), None)
    home, away = None if first is None or first.is_meta else first.device, chosen()
    if home is None or home == away:
        yield
        return
    _move(found, away)
    try:
        yield
    finally:
        _move(found, home)


def moved(value: Any, device: torch.device) -> Any:
    """A batch with every tensor in it on a device, those in lists and mappings too."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(each, device) for key, each in value.items()}
    return [moved(each, device) for each in value] if isinstance(value, list) else value


def _move(found: Iterable[nn.Module], device: torch.device) -> None:
    """Move what modules themselves hold; parameters stay the objects that they are."""
    try:
        for module in found:
            module._apply(lambda held: held.to(device), recurse=False)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "the GPU has no room for this model", where=str(device), found=str(error).partition(". ")[0],
            expected="a GPU that holds all of it, and what it computes",
            remedy="ask in `precision: bfloat16`, free the GPU, or hide it (CUDA_VISIBLE_DEVICES=) to use the CPU",
        ) from None  # fmt: skip
