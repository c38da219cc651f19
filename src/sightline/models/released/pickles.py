"""Tensors out of a torch `.bin` file, and nothing else out of it.

A pickle may run any code while it is read. `torch.load(weights_only=True)` allows a short list of harmless names;
before it, the file must be an archive of plain entries, and after it, a flat mapping of words to dense tensors of
floating point that lie whole within the bytes that were stored. Anything else is refused with its place.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ENTRIES = 100_000  # of an archive; a 70B shard has a few hundred


def tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of one file, on the CPU, mapped from disk.

    Args:
        path: a file that `torch.save` wrote, of a state dict.

    Raises:
        ModelError: the file is no such archive, asks for code, or holds anything but tensors.
    """
    where = str(path)
    _check_archive(path, where)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            "this file asks to run code, which is never done", where=where, found=_asked(error),
            expected="a state dict: names and tensors",
            remedy="do not trust it; take a release in safetensors, or ask its authors",
        ) from None  # fmt: skip
    except (
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
    ) as error:
        raise ModelError(
            "this file is damaged, or no file of torch", where=where, found=type(error).__name__,
            remedy="fetch it again and compare its hash",
        ) from None  # fmt: skip
    return _checked(held, path.stat().st_size, where)


def _check_archive(path: Path, where: str) -> None:
    """Refuse what is no archive of entries as they are: compressed ones may be far larger than the file."""
    if not path.is_file():
        raise ModelError("no such file", where=where)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise ModelError(
            "this is not a file of `torch.save` (since torch 1.6: an archive)", where=where,
            found=f"{path.stat().st_size} bytes, {type(error).__name__}",
            remedy="fetch it again; it may be a pointer of git LFS, cut off, or of an older torch",
        ) from None  # fmt: skip
    packed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED]
    if packed or len(entries) > ENTRIES or sum(e.file_size for e in entries) > path.stat().st_size:
        raise ModelError(
            "this archive is not one that torch writes", where=where,
            found=f"{len(entries)} entries, {len(packed)} of them compressed",
            expected="uncompressed entries that fit into the file", remedy="do not trust it",
        )  # fmt: skip


def _asked(error: Exception) -> str:
    """What a refused pickle asked for, from the first line that names it."""
    text = str(error)
    for mark in ("GLOBAL ", "Unsupported operand", "Unsupported class", "Unsupported global"):
        at = text.find(mark)
        if at >= 0:
            return " ".join(text[at:].split())[:80]
    return "a name that is not of a tensor"


def _checked(held: Any, size: int, where: str) -> dict[str, Tensor]:
    """A flat mapping of names to sound tensors.

    Raises:
        ModelError: anything else; the entry is named.
    """
    if not isinstance(held, dict):
        raise ModelError("this file holds no state dict", where=where, found=type(held).__name__)
    made: dict[str, Tensor] = {}
    for name, value in held.items():
        fault = _fault(name, value, size)
        if fault:
            raise ModelError(
                "an entry of this file is not a plain tensor", where=f"{where}, entry {str(name)[:80]}", found=fault,
                expected=f"a dense tensor of {', '.join(str(d).removeprefix('torch.') for d in DTYPES)}",
            )  # fmt: skip
        made[name] = value.detach()
    return made


def _fault(name: object, value: object, size: int) -> str:
    """Why an entry cannot be used, if so."""
    if not isinstance(name, str):
        return f"a name of type {type(name).__name__}"
    if not isinstance(value, Tensor):
        return type(value).__name__
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        return f"a tensor of layout {value.layout} on {value.device}"
    if value.dtype not in DTYPES:
        return f"numbers of type {value.dtype}"
    held = value.untyped_storage().nbytes()
    if value.numel() * value.element_size() > held or held > size:
        return f"shape {tuple(value.shape)} of {held} stored bytes, in a file of {size}"
    return ""
