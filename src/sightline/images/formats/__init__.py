"""What an image format is, and what pixels are: the contract between files, transforms and degradations.

Pixels are a float32 array [H, W, 3] with values in [0, 1]; grey is repeated three times. A format of volumes gives a
`volume.Volume` instead: float32 [D, H, W] or [D, H, W, T] in the scanner's own unit, with spacing and orientation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import ImageError

MAX_PIXELS = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of image file.

    Args:
        read: (path, *, max_pixels) -> pixels [H, W, 3]; of a volume (path, *, max_pixels, times) -> Volume, where
            `max_pixels` counts the voxels of one point of time and `times` chooses among these.
        header: (path) -> (width, height, channels, bits) without decoding; the size is as shown, channels and
            bits are as stored. Of a volume (path) -> its shape as stored, three edges and perhaps the number of times.
        check: (path, *, max_pixels) raises where `read` would, without making the float array.
        suffixes: lower-case endings of file names, with the dot.
        form: what it holds, `raster` or `volume`: the `form` of a reference to such a file.
    """

    read: Callable[..., Any]
    header: Callable[..., tuple[int, ...]]
    check: Callable[..., None]
    suffixes: tuple[str, ...]
    form: str = "raster"


def check_pixels(pixels: np.ndarray, *, where: str = "") -> None:
    """Refuse anything that is not a finite array [H, W, 3] of floats in [0, 1].

    Raises:
        ImageError: wrong dimensions, type, NaN or infinite values, or values outside [0, 1].
    """
    expected = "a float array [H, W, 3] with values in [0, 1]"
    if not isinstance(pixels, np.ndarray):
        raise ImageError(
            "an image is not an array", where=where, found=type(pixels).__name__, expected=expected
        )
    if pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(
            "an image has the wrong dimensions", where=where, found=f"shape {list(pixels.shape)}",
            expected=expected, remedy="repeat grey three times; put channels last",
        )  # fmt: skip
    if pixels.dtype.kind != "f":
        raise ImageError(
            "an image has the wrong number type", where=where, found=str(pixels.dtype), expected=expected,
            remedy="divide 8-bit values by 255 and 16-bit values by 65535",
        )  # fmt: skip
    low, high = float(pixels.min()), float(pixels.max())  # NaN spreads to both
    if not np.isfinite([low, high]).all():
        raise ImageError(
            "an image holds NaN or infinite values", where=where, found=f"from {low} to {high}",
            expected=expected, remedy="look at what made these values",
        )  # fmt: skip
    if low < 0.0 or high > 1.0:
        raise ImageError(
            "an image holds values outside [0, 1]", where=where, found=f"from {low:.6g} to {high:.6g}",
            expected=expected, remedy="divide 8-bit values by 255 and 16-bit values by 65535",
        )  # fmt: skip
