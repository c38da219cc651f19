"""Image files to pixels: `read` takes a sample's reference and returns a float array [H, W, 3] in [0, 1].

The suffix picks a format plug-in, the plug-in looks at the bytes. Importing this package imports numpy only;
a format is imported when a file needs it. `volume` and `extent` are `read` and `header` of three-dimensional images;
`check` and `picture` take both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import plugins
from ..errors import ImageError
from ..types import ImageRef
from . import files
from .formats import MAX_PIXELS, Format
from .volume import Volume, slices

Times = Callable[[int], Sequence[int]]


def read(root: Path, ref: ImageRef, *, max_pixels: int = MAX_PIXELS, record: str = "") -> np.ndarray:
    """Pixels of the image that a sample points to.

    Args:
        root: the data root that `ref.path` is relative to.
        ref: the reference.
        max_pixels: largest width x height that is decoded.
        record: id of the record, for messages.

    Returns:
        float32 array [H, W, 3] in [0, 1].

    Raises:
        ImageError: the path, the type or the bytes are not right; `where` names record, field and file.
    """
    path, form = _find(root, ref, record, "raster")
    try:
        pixels: np.ndarray = form.read(path, max_pixels=max_pixels)
        return pixels
    except ImageError as error:
        raise placed(error, ref, record) from None


def volume(
    root: Path, ref: ImageRef, *, max_pixels: int = MAX_PIXELS, times: Times | None = None, record: str = ""
) -> Volume:
    """The volume that a sample points to, as it is stored.

    Args:
        root: the data root that `ref.path` is relative to.
        ref: the reference.
        max_pixels: most voxels of one point of time.
        times: number of points of time -> those that are wanted; None takes all.
        record: id of the record, for messages.

    Raises:
        ImageError: as `read`.
    """
    path, form = _find(root, ref, record, "volume")
    try:
        made: Volume = form.read(path, max_pixels=max_pixels, times=times)
        return made
    except ImageError as error:
        raise placed(error, ref, record) from None


def picture(root: Path, ref: ImageRef, *, record: str = "") -> np.ndarray:
    """What people are shown of an image: its pixels, or the three middle slices of a volume. [H, W, 3] in [0, 1].

    Raises:
        ImageError: as `read`.
    """
    if ref.form == "raster":
        return read(root, ref, record=record)
    return slices(volume(root, ref, times=lambda total: [0], record=record))


def check(root: Path, ref: ImageRef, *, max_pixels: int = MAX_PIXELS, record: str = "") -> str:
    """Verify that an image decodes to its end, without keeping its pixels; return its SHA-256.

    Raises:
        ImageError: as `read`.
    """
    path, form = _find(root, ref, record, ref.form)
    try:
        form.check(path, max_pixels=max_pixels)
        return files.hash_file(path)
    except ImageError as error:
        raise placed(error, ref, record) from None


def header(root: Path, ref: ImageRef, *, record: str = "") -> tuple[int, int, int, int]:
    """Width and height as shown, channels and bits as stored, without decoding.

    Raises:
        ImageError: the path or the type is not right, or the header is damaged.
    """
    width, height, channels, bits = _header(root, ref, record, "raster")
    return width, height, channels, bits


def extent(root: Path, ref: ImageRef, *, record: str = "") -> tuple[int, ...]:
    """The shape of a volume as it is stored, (D, H, W) or (D, H, W, T), without decoding.

    Raises:
        ImageError: as `header`.
    """
    return _header(root, ref, record, "volume")


def _header(root: Path, ref: ImageRef, record: str, wanted: str) -> tuple[int, ...]:
    path, form = _find(root, ref, record, wanted)
    try:
        return form.header(path)
    except ImageError as error:
        raise placed(error, ref, record) from None


@lru_cache(maxsize=1)
def suffixes() -> dict[str, Format]:
    """File-name endings that can be read, with the format that reads them."""
    found = {name: plugins.load("formats", name) for name in plugins.names("formats")}
    return {suffix: form for form in found.values() for suffix in form.suffixes}


def _find(root: Path, ref: ImageRef, record: str, wanted: str) -> tuple[Path, Format]:
    """The real file and its format, which must hold what the caller wants: `raster` or `volume`."""
    path = files.resolve(root, ref.path, record=record)
    name = ref.path.lower()
    ending = max((s for s in suffixes() if name.endswith(s)), key=len, default="")
    shown = "".join(Path(name).suffixes[-2:]) or "no suffix"
    known = sorted(s for s, form in suffixes().items() if form.form == ref.form)
    if not ending or suffixes()[ending].form != ref.form:
        raise ImageError(
            "this kind of image is not read", where=files.place(ref.path, record),
            found=f"{shown}, form {ref.form}", expected=f"for the form {ref.form} one of {', '.join(known)}",
            remedy="convert it: pictures to PNG, volumes (DICOM series too) to NIfTI, one a file",
        )  # fmt: skip
    if ref.form != wanted:
        raise ImageError(
            f"a {ref.form} stands where a {wanted} is read", where=files.place(ref.path, record),
            found=f"{shown}, form {ref.form}", expected=f"form {wanted}",
            remedy="a family reads either pictures or volumes (`umbrella`): choose it by the data",
        )  # fmt: skip
    return path, suffixes()[ending]


def placed(error: ImageError, ref: ImageRef, record: str) -> ImageError:
    """The same error with the record, the field and the relative path in place of the bare file name."""
    where = files.place(ref.path, record)
    return ImageError(
        error.what, where=where, found=error.found, expected=error.expected, remedy=error.remedy
    )
