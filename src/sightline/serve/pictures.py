"""Data URLs to pictures. Nothing is fetched and no file is named: an image comes with the request, or not at all.

What is not a plain PNG or JPEG of a usable size is refused from its first bytes and its header, before memory is
taken for its pixels. The bytes stay in memory (an anonymous file, where the system has them): the decoder of data sets
reads them, so an image is here exactly what it is to `prepare` and `evaluate`.
"""

from __future__ import annotations

import binascii
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ImageError
from ..images.formats import raster
from .backend import Picture, Refused
from .limits import Limits

DATA = re.compile(r"data:(image/(?:png|jpeg));base64,", re.IGNORECASE)
MAGIC = {"image/png": raster.PNG, "image/jpeg": raster.JPEG}
FIELD = "messages.content.image_url.url"
SCANS = 100  # of a JPEG: cameras write ten at most, and each of them is a pass over the whole picture


def read(url: str, when: str, limits: Limits) -> Picture:
    """The picture that a data URL holds.

    Args:
        url: `data:image/png;base64,...` or `data:image/jpeg;base64,...`.
        when: `current` or `prior`.
        limits: of its size.

    Raises:
        Refused: another kind of URL or file, damaged, too large or too small. Nothing of the URL is repeated.
    """
    data, kind = _bytes(url)
    check_dicom(data, FIELD)
    if not data.startswith(MAGIC[kind]):
        raise Refused(400, "image_type", f"the image is not the {kind} that it says it is", field=FIELD)
    if kind == "image/jpeg" and data.count(b"\xff\xda") > SCANS:
        raise Refused(
            400, "image_unreadable", f"the image is stored in more than {SCANS} passes", field=FIELD
        )
    try:
        with in_memory(data) as path:
            _check_size(path, limits)
            pixels = raster.raster(path, max_pixels=limits.pixels)
    except ImageError as error:
        raise Refused(400, "image_unreadable", error.what, field=FIELD) from None
    return Picture(pixels=pixels, sha256=hashlib.sha256(data).hexdigest(), when=when)


def _bytes(url: str) -> tuple[bytes, str]:
    """The bytes of a data URL, and the media type that it claims."""
    found = DATA.match(url[:64])
    if found is None:
        what = "images are taken as data URLs of PNG or JPEG files only; nothing is fetched and no file is opened"
        raise Refused(400, "image_url", what, field=FIELD)
    try:
        return binascii.a2b_base64(url[found.end() :], strict_mode=True), found[1].lower()
    except (binascii.Error, ValueError):
        raise Refused(400, "image_base64", "the image's base64 text is damaged", field=FIELD) from None


def _check_size(path: Path, limits: Limits) -> None:
    """Refuse by what the header says."""
    width, height, *_ = raster.header(path)
    if width * height > limits.pixels:
        what = f"the image has {width * height} pixels, and at most {limits.pixels} are taken"
        raise Refused(400, "image_too_large", what, field=FIELD)
    if min(width, height) < limits.side:
        what = (
            f"the image is {width} x {height} pixels, and at least {limits.side} x {limits.side} are needed"
        )
        raise Refused(400, "image_too_small", what, field=FIELD)


def check_dicom(data: bytes, field: str = "") -> None:
    """Say of a DICOM file that it is one, instead of that it is damaged: no reader for them is here.

    Raises:
        Refused: it is.
    """
    if data[128:132] == b"DICM":
        what = "DICOM files are not read here: export the image as PNG, or convert the series to NIfTI"
        raise Refused(400, "dicom", what, field=field)


@contextmanager
def in_memory(data: bytes) -> Iterator[Path]:
    """The bytes as a file that is nowhere on a disk, where the system can do that."""
    if not Path("/proc/self/fd").is_dir():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image"
            path.write_bytes(data)
            yield path
        return
    handle = os.memfd_create("image")
    try:
        with os.fdopen(os.dup(handle), "wb") as stream:
            stream.write(data)
        yield Path(f"/proc/self/fd/{handle}")
    finally:
        os.close(handle)
