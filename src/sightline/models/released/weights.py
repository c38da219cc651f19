"""The weights of a released folder: one file or shards with an index, safetensors or `.bin`, never half of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ...errors import ModelError
from .pickles import tensors

State = dict[str, Tensor]
WHOLE = ("model.safetensors", "pytorch_model.bin")
MAX_JSON = 64 << 20  # bytes of a config or an index


def read(path: Path) -> State:
    """The tensors of one file.

    Raises:
        ModelError: it cannot be opened, or is no file of tensors.
    """
    if path.suffix != ".safetensors":
        return tensors(path)
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ModelError(
            "this is not a sound safetensors file", where=str(path), found=type(error).__name__,
            remedy="fetch it again",
        ) from None  # fmt: skip


def of_folder(folder: Path) -> State:
    """All weights of a model's folder; safetensors are preferred where both are there. Empty where there are none.

    Raises:
        ModelError: an index that does not fit its shards; names that are missing or unexpected are named.
    """
    for name in WHOLE:
        if (folder / f"{name}.index.json").is_file():
            return _sharded(folder, folder / f"{name}.index.json")
        if (folder / name).is_file():
            return read(folder / name)
    return {}


def _sharded(folder: Path, index: Path) -> State:
    """The tensors that an index names, each from the shard that it names."""
    where: Any = json_of(index).get("weight_map")
    if not isinstance(where, Mapping) or not all(
        isinstance(v, str) and Path(v).name == v and v.endswith((".bin", ".safetensors"))
        for v in where.values()
    ):
        raise ModelError(
            "this index names no shards of its own folder", where=str(index),
            expected="weight_map: {tensor: file}", remedy="fetch it again",
        )  # fmt: skip
    state: State = {}
    for shard in sorted(set(where.values())):
        held = read(folder / shard)
        wanted = {name for name, file in where.items() if file == shard}
        same(set(held), wanted, f"{folder / shard}, against {index.name}")
        state |= held
    return state


def same(found: set[str], expected: set[str], where: str) -> None:
    """Refuse names that are missing or unexpected.

    Raises:
        ModelError: with the first of each.
    """
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    if missing or unexpected:
        raise ModelError(
            "the weights of this checkpoint do not fit", where=where,
            found=f"{len(unexpected)} unexpected: {', '.join(unexpected[:5]) or 'none'}",
            expected=f"{len(missing)} missing: {', '.join(missing[:5]) or 'none'}",
            remedy="fetch all of its files, and give the base that it was trained on",
        )  # fmt: skip


def json_of(path: Path) -> dict[str, Any]:
    """A JSON object of a released folder.

    Raises:
        ModelError: no such file, or no object.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError("too large")
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "this file of the checkpoint cannot be read", where=str(path), found=type(error).__name__,
            expected="a JSON object",
        ) from None  # fmt: skip
    if not isinstance(made, dict):
        raise ModelError("this file of the checkpoint holds no JSON object", where=str(path))
    return made
