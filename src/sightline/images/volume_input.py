"""From a volume to the input of a tower: turn, resample, cut to size, normalise. The counterpart of `Preprocess`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch

from ..errors import ImageError, ModelError
from .volume import (
    Frames,
    Scale,
    Three,
    Volume,
    fit,
    frames,
    mirror,
    normalise,
    resample,
    spacing_to_fit,
    to_ras,
)

VERSION = "volumes.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What volumes of one kind become.

    Args:
        size: voxels along the axes right, anterior and superior.
        times: points of time; 0 for volumes without a time axis.
        spacing: mm, per axis; None: the one spacing, the same along all axes, at which the whole volume just fits.
    """

    size: tuple[int, int, int]
    times: int = 0
    spacing: Three | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Edges, and the number of points of time where there is a time axis."""
        return (*self.size, self.times) if self.times else self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeInput:
    """From volumes to the input of a tower. What is not asked for is refused: a 3-D file where only `fmri` is known.

    Args:
        t1: what volumes without a time axis become.
        fmri: what volumes with one become.
        scale: how intensities are normalised.
        frames: which points of time are taken. A window starts where the hash of (seed, the file) says: a file is the
            same picture wherever it is shown.
        seed: decides windows and nothing else.
        flip: exchange left and right of every volume.
    """

    t1: Box | None = None
    fmri: Box | None = None
    scale: Scale = "znorm"
    frames: Frames = "even"
    seed: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.t1 is None and self.fmri is None:
            raise ModelError("no kind of volume is read", expected="a size for `t1`, for `fmri`, or both")
        if (self.t1 and self.t1.times) or (self.fmri and not self.fmri.times):
            raise ModelError(
                "a kind of volume has the wrong axes", found=f"t1={self.t1}, fmri={self.fmri}",
                expected="t1 without `times`, fmri with `times`",
            )  # fmt: skip

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Pictures are not read.

        Raises:
            ImageError: always.
        """
        raise self._pictures()

    def grid(self, height: int, width: int) -> tuple[int, ...]:
        """Pictures are not read.

        Raises:
            ImageError: always.
        """
        raise self._pictures()

    def box(self, axes: int) -> Box:
        """What a volume of three or four axes becomes.

        Raises:
            ImageError: this model does not read such volumes.
        """
        found = self.fmri if axes == 4 else self.t1
        if found is None:
            raise ImageError(
                "this model does not read volumes of this kind",
                found="a volume with a time axis" if axes == 4 else "a volume without a time axis",
                expected="volumes without one (t1)" if axes == 4 else "volumes with one (fmri)",
                remedy="say `model.patches.fmri` (or `t1`) as well, or leave these volumes out",
            )  # fmt: skip
        return found

    def times(self, total: int, name: str) -> list[int]:
        """Which points of time of a file are read.

        Args:
            total: how many there are.
            name: what the file is called for good: its SHA-256.
        """
        return frames(total, self.box(4).times, self.frames, seed=self.seed, record=name)

    def extent(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape that a volume of this shape gets; it decides how many tokens stand for it.

        Raises:
            ImageError: not a kind that is read, or a scan that is too short.
        """
        box = self.box(len(shape))
        if box.times:
            frames(int(shape[3]), box.times)
        return box.shape

    def apply(self, volume: Volume) -> Volume:
        """A volume, its points of time chosen already, as it is shown: RAS, of this kind's size, normalised."""
        box = self.box(volume.values.ndim)
        turned = to_ras(volume)
        made = fit(resample(turned, box.spacing or spacing_to_fit(turned, box.size)), box.size)
        made = normalise(mirror(made) if self.flip else made, self.scale)
        return replace(made, values=np.ascontiguousarray(made.values))

    def tensor(self, volume: Volume) -> torch.Tensor:
        """The same with one channel in front: float32 [1, D, H, W] or [1, D, H, W, T]."""
        return torch.from_numpy(self.apply(volume).values)[None]

    def key(self) -> str:
        """32 hexadecimal digits that change with anything the result depends on, for caches."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]

    def _pictures(self) -> ImageError:
        return ImageError(
            "this model reads volumes, not pictures", expected="an image of the form volume (NIfTI)",
            remedy="use a reader of volumes, or a family that reads pictures",
        )  # fmt: skip
