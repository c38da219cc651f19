"""Image files to pixels: `read` takes a sample's reference and returns a float array [H, W, 3] in [0, 1].

The suffix picks a format plug-in, the plug-in looks at the bytes. Importing this package imports numpy only;
a format is imported when a file needs it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import plugins
from ..errors import ImageError
from ..types import ImageRef
from . import files
from .formats import MAX_PIXELS, Format


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
    path, form = _find(root, ref, record)
    try:
        return form.read(path, max_pixels=max_pixels)
    except ImageError as error:
        raise _placed(error, ref, record) from None


def check(root: Path, ref: ImageRef, *, max_pixels: int = MAX_PIXELS, record: str = "") -> str:
    """Verify that an image decodes to its end, without keeping its pixels; return its SHA-256.

    Raises:
        ImageError: as `read`.
    """
    path, form = _find(root, ref, record)
    try:
        form.check(path, max_pixels=max_pixels)
        return files.hash_file(path)
    except ImageError as error:
        raise _placed(error, ref, record) from None


def header(root: Path, ref: ImageRef, *, record: str = "") -> tuple[int, int, int, int]:
    """Width and height as shown, channels and bits as stored, without decoding.

    Raises:
        ImageError: the path or the type is not right, or the header is damaged.
    """
    path, form = _find(root, ref, record)
    try:
        return form.header(path)
    except ImageError as error:
        raise _placed(error, ref, record) from None


@lru_cache(maxsize=1)
def suffixes() -> dict[str, Format]:
    """File-name endings that can be read, with the format that reads them."""
    found = {name: plugins.load("formats", name) for name in plugins.names("formats")}
    return {suffix: form for form in found.values() for suffix in form.suffixes}


def _find(root: Path, ref: ImageRef, record: str) -> tuple[Path, Format]:
    """The real file and its format."""
    path = files.resolve(root, ref.path, record=record)
    name = ref.path.lower()
    ending = max((s for s in suffixes() if name.endswith(s)), key=len, default="")
    if ref.form == "volume" or not ending:
        shown = "".join(Path(name).suffixes[-2:]) or "no suffix"
        raise ImageError(
            "this kind of image is not read yet; volumes (DICOM, NIfTI) are not either",
            where=files.place(ref.path, record), found=f"{shown}, form {ref.form}",
            expected=f"form raster, and one of {', '.join(sorted(suffixes()))}",
            remedy="convert it to PNG, one picture a file",
        )  # fmt: skip
    return path, suffixes()[ending]


def _placed(error: ImageError, ref: ImageRef, record: str) -> ImageError:
    """The same error with the record, the field and the relative path in place of the bare file name."""
    where = files.place(ref.path, record)
    return ImageError(
        error.what, where=where, found=error.found, expected=error.expected, remedy=error.remedy
    )
