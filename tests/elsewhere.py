"""A device that no machine has: its tensors refuse to be mixed with this machine's, as those of a GPU do.

Values are kept, and computed with, in ordinary memory, so results are those of the CPU to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from sightline.models import device

THERE = torch.device("lazy", 0)  # a name that torch knows and can guard, and that no code looks for
CARRIES = ("aten::_to_copy", "aten::copy_", "aten::index.Tensor", "aten::index_put_", "aten::index_put")


class Away(Tensor):
    """A tensor on that device; `inner` holds its values."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Away:
        made = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=THERE,
        )  # fmt: skip
        made.inner = inner
        return made

    def tolist(self) -> Any:
        """Plain numbers, as from any device."""
        return self.inner.tolist()

    def numpy(self, *args: Any, **how: Any) -> Any:
        """Arrays share memory with tensors, and cannot with these."""
        raise TypeError(f"a tensor on {THERE} is no array")

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *rest: Any) -> Away:
        return Away(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(func, args, kwargs or {})


class Elsewhere(TorchDispatchMode):
    """While it lasts, the device can be named; `operations` counts what was computed there."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = compute(func, args, kwargs or {})
        self.operations += any(isinstance(each, Away) for each in tree_flatten(made)[0])
        return made


def compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on either side.

    Raises:
        RuntimeError: it mixes tensors of both.
    """
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    away = [each for each in given if isinstance(each, Away)]
    name = func._schema.name + (f".{func._overloadname}" if func._overloadname == "Tensor" else "")
    here = [each for each in given if not isinstance(each, Away) and each.dim() > 0]
    if away and here and not any(name.startswith(each) for each in CARRIES):
        raise RuntimeError(f"{name}: tensors on {THERE} and {here[0].device} in one operation")
    there = bool(away)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]).type == THERE.type
        kwargs = {**kwargs, "device": torch.device("cpu") if there else kwargs["device"]}
    plain = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if func._schema.is_mutable and isinstance(args[0], Tensor) and plain is _inner(args[0]):
        return args[0]
    return tree_map(lambda each: Away(each) if isinstance(each, Tensor) else each, plain) if there else plain


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, Away) else value


def _in_full(known: Any, otherwise: Any) -> Any:
    """What is asked of autocast, which does not know the device: nothing is lowered there."""
    return lambda *names, **how: otherwise if THERE.type in names else known(*names, **how)


@contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """While this lasts, the device is there, and Sightline chooses it."""
    torch._C._set_only_lift_cpu_tensors(
        True
    )  # `torch.tensor(..., device=...)` moves what it made, where it is seen
    try:
        with pytest.MonkeyPatch.context() as patch, Elsewhere() as mode:
            patch.setattr(device, "chosen", lambda: THERE)
            patch.setattr(torch, "is_autocast_enabled", _in_full(torch.is_autocast_enabled, False))
            patch.setattr(torch, "autocast", _in_full(torch.autocast, nullcontext()))
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
