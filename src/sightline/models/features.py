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
from ..images import degrade
from ..types import View
from .family import Bundle

BATCH = 8


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
        place = self.folder / f"{runs.digest(*keys)[:32]}.npy"
        part = place.with_name(f".{place.stem}.{os.getpid()}.part")
        try:
            self._fill(part, [missing[k] for k in keys], what)
            runs.write_json(place.with_suffix(".json"), {"keys": keys, "sha256": runs.hash_file(part)})
            part.rename(place)
            runs.sync_parent(place)
        finally:
            part.unlink(missing_ok=True)
        self.computed += len(keys)
        self._open(place.with_suffix(".json"))

    def _fill(self, part: Path, views: Sequence[View], what: str) -> None:
        """Write one feature per view; views with equal pixels are encoded once."""
        table: np.memmap | None = None
        first: dict[str, int] = {}
        twins: list[tuple[int, int]] = []
        batch: list[tuple[int, Tensor]] = []
        with tqdm(total=len(views), desc=f"  features of {what}", unit="image") as bar:
            for row, view in enumerate(views):
                shown = pixels(self.bundle, self.root, view)
                same = first.setdefault(hashlib.sha256(shown.numpy().tobytes()).hexdigest(), row)
                if same != row:
                    twins.append((row, same))
                else:
                    batch.append((row, shown))
                if len(batch) == BATCH or (batch and row == len(views) - 1):
                    made = encode(self.bundle, torch.stack([p for _, p in batch]))  # [n, tokens, width]
                    if table is None:
                        shape = (len(views), *made.shape[1:])
                        table = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
                    table[[r for r, _ in batch]] = made.float().numpy()
                    batch = []
                bar.update()
        assert table is not None
        for row, same in twins:
            table[row] = table[same]
        table.flush()
        with part.open("rb") as stream:
            os.fsync(stream.fileno())

    def _open(self, index: Path) -> None:
        """Use a stored table if its bytes are what was written; say so and compute anew if not."""
        stored, path = runs.read_json(index), index.with_suffix(".npy")
        try:
            if runs.hash_file(path) != stored["sha256"]:
                raise ValueError("its bytes have changed")
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, KeyError) as error:
            reason = "it is missing" if isinstance(error, FileNotFoundError) else "its bytes have changed"
            print(f"  stored features {path.name} are not used ({reason}); they are computed again")
            return
        self.place.update({key: (table, row) for row, key in enumerate(stored["keys"])})


@torch.no_grad()
def encode(bundle: Bundle, batch: Tensor) -> Tensor:
    """Features [N, tokens, width] of pixels [N, 3, S, S], N <= 8, without gradients.

    The batch is always filled up to the same size: an image's feature then never depends, not even in its last
    bit, on what else happened to be missing.
    """
    filled = torch.cat([batch, batch.new_zeros(BATCH - len(batch), *batch.shape[1:])])
    return bundle.family.encode_images(bundle.model, filled)[: len(batch)]


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
