"""Features of images that are shown once: computed when they are asked for, kept in memory alone, never on a disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ..images.seen import Seen
from ..types import View
from . import device
from .encoder import Learner
from .features import BATCH, encode, pixels


@dataclass
class Passing:
    """Features of the tower, the numbers that `features.Features` would keep.

    Args:
        bundle: the model or encoder whose tower is used.
        root: data root of the images.
        known: features by what decides a view's pixels.
        held: pixels [H, W, 3] by path, of images that are in no file.
    """

    bundle: Learner
    root: Path
    known: dict[tuple[str, ...], Seen] = field(default_factory=dict)
    held: Mapping[str, np.ndarray] = field(default_factory=dict)

    def prepare(self, views: Sequence[View], *, what: str = "images") -> None:
        """Compute what is missing; nothing is told, whatever `what` is."""
        missing = {each.sight: each for view in views for each in view.each if each.sight not in self.known}
        names = list(missing)
        with device.lent(self.bundle):
            for part in (names[i : i + BATCH] for i in range(0, len(names), BATCH)):
                shown = [self._pixels(missing[name]) for name in part]
                for name, seen, made in zip(part, shown, encode(self.bundle, shown), strict=True):
                    self.known[name] = Seen(made.float().cpu(), seen.grid)

    def __call__(self, view: View) -> Seen:
        """The feature [tokens, width] of a view that `prepare` has seen; those of an image and its prior as one."""
        both = [self.known[each.sight] for each in view.each]
        return Seen(torch.cat([seen.values for seen in both]), both[0].grid) if len(both) > 1 else both[0]

    def _pixels(self, view: View) -> Seen:
        """One view as tower input, from its file or from memory."""
        array = self.held.get(view.image.path)
        if array is None:
            return pixels(self.bundle, self.root, view)
        return Seen(self.bundle.preprocess(array), self.bundle.preprocess.grid(*array.shape[:2]))
