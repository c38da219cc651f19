"""Volumes as a model is given them: what `features` does for pictures, for files that have a third axis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import images
from ..errors import ImageError
from ..images import degrade
from ..images.files import place
from ..images.seen import Seen
from ..images.volume_input import VolumeInput
from ..types import ImageRef, View
from .family import Grid


def taken(preprocess: Any, ref: ImageRef, record: str = "") -> VolumeInput:
    """The preprocessing of a model that reads volumes.

    Raises:
        ImageError: it reads pictures.
    """
    if isinstance(preprocess, VolumeInput):
        return preprocess
    raise ImageError(
        "this model reads pictures, not volumes", where=place(ref.path, record), found="form volume",
        expected="form raster", remedy="use the family `umbrella`, or a reader of pictures",
    )  # fmt: skip


def seen(preprocess: VolumeInput, root: Path, view: View) -> Seen:
    """One view of a volume as tower input: read, degraded if asked, turned, resampled and normalised."""
    name = view.image.sha256 or view.image.path
    volume = images.volume(
        root, view.image, times=lambda total: preprocess.times(total, name), record=view.record
    )
    if view.degrade is not None:
        volume = degrade.apply_volume(volume, view.degrade, view.record)
    try:
        return Seen(preprocess.tensor(volume), preprocess.box(volume.values.ndim).shape)
    except ImageError as error:
        raise images.placed(error, view.image, view.record) from None


def grid(preprocess: VolumeInput, root: Path, ref: ImageRef) -> Grid:
    """The shape that a file's volume gets, from its header alone.

    Raises:
        ImageError: not a kind that the model reads, or a scan that is too short.
    """
    shape = images.extent(root, ref)
    try:
        return preprocess.extent(shape)
    except ImageError as error:
        raise images.placed(error, ref, "") from None
