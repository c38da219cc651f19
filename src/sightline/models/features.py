"""Pixels and features of images as a model wants them; features of a frozen tower once, memory-mapped.

A feature is keyed by all that it depends on: the file's SHA-256, the preprocessing, the tower's weights, the
layer, and the degradation with its record. What is stored under a key can therefore never be stale.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import images, runs
from ..errors import RunError
from ..images import degrade
from ..types import View
from .family import Bundle

BATCH = 32


def pixels(bundle: Bundle, root: Path, view: View) -> Tensor:
    """One view as tower input: decoded, degraded if asked, preprocessed. [3, S, S]."""
    array = images.read(root, view.image, record=view.record)
    if view.degrade is not None:
        array = degrade.apply(array, view.degrade, view.record)
    return bundle.preprocess(array)


@dataclass
class Features:
    """Features of a frozen tower for any number of views.

    Args:
        bundle: the model whose tower is used.
        root: data root of the images.
        folder: where features are kept; safe to share between stages and runs.
    """

    bundle: Bundle
    root: Path
    folder: Path
    place: dict[str, tuple[np.ndarray, int]] = field(default_factory=dict)
    computed: int = 0

    def __post_init__(self) -> None:
        if not self.bundle.tower:
            self.bundle.tower = tower_hash(self.bundle)
        self.folder.mkdir(parents=True, exist_ok=True)
        for index in sorted(self.folder.glob("*.json")):
            self._open(index)

    def key(self, view: View) -> str:
        """What the feature of a view depends on, as one hash."""
        spoiled = "" if view.degrade is None else degrade.key(view.degrade, view.record)
        config = self.bundle.model.config
        layer = f"{config.vision_feature_layer}/{config.vision_feature_select_strategy}"
        return runs.digest(view.image.sha256, self.bundle.preprocess.key(), self.bundle.tower, layer, spoiled)

    def __call__(self, view: View) -> Tensor:
        """The feature [tokens, width] of a view that `prepare` has seen."""
        table, row = self.place[self.key(view)]
        return torch.from_numpy(np.array(table[row]))

    def prepare(self, views: Sequence[View], *, what: str = "images") -> None:
        """Compute what is missing, with a progress bar, and keep it."""
        missing = {self.key(v): v for v in views}
        missing = {k: v for k, v in missing.items() if k not in self.place}
        if not missing:
            return
        keys = list(missing)
        name = runs.digest(*keys)[:32]
        part = self.folder / f".{name}.{os.getpid()}.part"
        table: np.memmap | None = None
        with tqdm(total=len(keys), desc=f"features of {what}", unit="image") as bar:
            for start in range(0, len(keys), BATCH):
                chunk = keys[start : start + BATCH]
                batch = torch.stack([pixels(self.bundle, self.root, missing[k]) for k in chunk])
                made = encode(self.bundle, batch).float().numpy()  # [n, tokens, width]
                if table is None:
                    shape = (len(keys), *made.shape[1:])
                    table = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
                table[start : start + len(chunk)] = made
                bar.update(len(chunk))
        assert table is not None
        table.flush()
        part.rename(self.folder / f"{name}.npy")
        runs.write_json(self.folder / f"{name}.json", {"keys": keys})
        self.computed += len(keys)
        self._open(self.folder / f"{name}.json")

    def _open(self, index: Path) -> None:
        keys = runs.read_json(index)["keys"]
        try:
            table = np.load(index.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            raise RunError(
                "stored features are damaged", where=str(index.with_suffix(".npy")),
                remedy="delete that file and its .json; they are computed again",
            ) from None  # fmt: skip
        self.place.update({key: (table, row) for row, key in enumerate(keys)})


@torch.no_grad()
def encode(bundle: Bundle, batch: Tensor) -> Tensor:
    """Features [N, tokens, width] of pixels [N, 3, S, S], without gradients."""
    return bundle.family.encode_images(bundle.model, batch)


def tower_hash(bundle: Bundle) -> str:
    """SHA-256 of the vision tower's weights, names and shapes."""
    mixed = hashlib.sha256()
    for name in bundle.family.parts["vision"]:
        tower: nn.Module = bundle.family.module(bundle.model, name)
        for key, value in sorted(tower.state_dict().items()):
            mixed.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            mixed.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return mixed.hexdigest()


@dataclass
class Pixels:
    """Pixels of views, read anew each time: for towers that train."""

    bundle: Bundle
    root: Path

    def __call__(self, view: View) -> Tensor:
        """Tower input [3, S, S] of a view."""
        return pixels(self.bundle, self.root, view)

    def prepare(self, views: Sequence[View], *, what: str = "images") -> None:
        """Nothing is computed beforehand."""


def looker(bundle: Bundle, root: Path, folder: Path, *, frozen: bool) -> Features | Pixels:
    """What turns a view into a tensor: stored features of a frozen tower, or pixels."""
    return Features(bundle, root, folder) if frozen else Pixels(bundle, root)
