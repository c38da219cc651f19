"""A volume as bytes that a page can cut slices from: decoded once, turned, scaled to 8 bits, sent back, forgotten.

A model that reads pictures is asked about a slice. Which one, a person decides on the page, and sends that slice as a
picture; so the volume is read here by the reader of data sets, with its refusals, and no second one stands in a
browser. What memory it may take is known from the header, before its values are read:

- one volume is decoded at a time, its first point of time alone;
- at most `PLACES` of them are waited for, decoded or sent at a time, and a slow reader is not waited for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..errors import ImageError
from ..images.formats import nifti
from ..images.volume import Volume, to_ras
from .backend import Refused
from .limits import Limits
from .pictures import check_dicom, in_memory

PLACES = 4
PATIENCE = 60.0  # seconds in which a volume must have been taken
SHARES = (0.5, 99.5)  # percentiles that become black and white
LOOKED_AT = 1_000_000  # voxels that they are counted over
BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Shrunk:
    """A volume in 8 bits.

    Args:
        voxels: [X, Y, Z]; indices grow to the right, the front and the top of the body.
        spacing: mm between their middles, per axis.
        times: points of time in the file, of which this is the first.
    """

    voxels: np.ndarray
    spacing: tuple[float, float, float]
    times: int


def shrunk(data: bytes, limits: Limits) -> Shrunk:
    """The volume in the bytes of a NIfTI file, compressed or not.

    Raises:
        Refused: DICOM, another kind of file, damaged, or too large by its header.
    """
    check_dicom(data)
    try:
        with in_memory(data) as path:
            shape = nifti.header(path)
            _check(shape, limits)
            volume = to_ras(nifti.nifti(path, lambda count: [0], max_pixels=limits.voxels))
    except ImageError as error:
        raise Refused(400, "volume_unreadable", error.what) from None
    times = shape[3] if len(shape) == 4 else 1
    return Shrunk(voxels=_eight_bits(volume), spacing=volume.spacing, times=times)


def _check(shape: tuple[int, ...], limits: Limits) -> None:
    """Refuse by what the header says."""
    voxels = shape[0] * shape[1] * shape[2]
    if voxels > limits.voxels:
        what = f"the volume has {voxels} voxels at a point of time, and at most {limits.voxels} are taken"
        raise Refused(400, "volume_too_large", what)


def _eight_bits(volume: Volume) -> np.ndarray:
    """Values between two percentiles to 0-255. uint8 [X, Y, Z]."""
    values = volume.values[..., 0] if volume.times else volume.values
    flat = values.reshape(-1)
    low, high = np.percentile(flat[:: max(1, flat.size // LOOKED_AT)], SHARES)
    if low == high:  # nearly all of it is background
        low, high = float(flat.min()), float(flat.max())
    made = np.empty(values.shape, np.uint8)
    scale = np.float32(255 / max(float(high) - float(low), 1e-30))
    with np.errstate(over="ignore"):  # what is too far above white for a number is white
        for place in range(len(values)):  # a layer at a time: no second volume of floats
            made[place] = np.clip(np.rint((values[place] - np.float32(low)) * scale), 0, 255)
    return made


class Room:
    """Counts volumes from the moment their bytes are here to that of their last byte. One event loop uses it.

    Args:
        places: so many at a time.
    """

    def __init__(self, places: int) -> None:
        self.free = places

    @contextmanager
    def taken(self) -> Iterator[Callable[[], None]]:
        """A place; it is free again when what this gives is called, or when the block fails.

        Raises:
            Refused: 429 where there is none.
        """
        if not self.free:
            raise Refused(429, "busy", "too many volumes are being read; come again later", after=2)
        self.free -= 1
        left = False

        def leave() -> None:
            nonlocal left
            self.free, left = self.free + (not left), True

        try:
            yield leave
        except BaseException:
            leave()
            raise


class Voxels(Response):
    """The voxels as bytes, the last axis fastest; shape, spacing and points of time stand in the headers.

    Args:
        made: the volume.
        leave: called when it is sent, or nobody takes it.
    """

    media_type = "application/octet-stream"

    def __init__(self, made: Shrunk, leave: Callable[[], None]) -> None:
        headers = {
            "sightline-shape": ",".join(map(str, made.voxels.shape)),
            "sightline-spacing": ",".join(f"{mm:.6g}" for mm in made.spacing),
            "sightline-times": str(made.times),
        }
        super().__init__(made.voxels.tobytes(), headers=headers)
        self.leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, within a time."""
        try:
            async with asyncio.timeout(PATIENCE):
                await super().__call__(scope, receive, send)
        finally:
            self.leave()
