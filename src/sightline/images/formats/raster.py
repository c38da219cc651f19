"""PNG and JPEG files as pixels.

The first bytes decide, not the suffix: only PNG and JPEG decoders can be reached. The size is checked from
the header before memory is taken, so a small file that claims a huge picture costs nothing. Rules:

- 8-bit values are divided by 255, 16-bit values by 65535, whatever range is used: no windowing happens here,
  so 12-bit data in a 16-bit file come out dark and want windowing before.
- 1-, 2- and 4-bit grey and palettes are expanded; CMYK becomes RGB by Pillow's plain formula.
- Alpha is composited over black, the air of a radiograph; hidden colours do not show through.
- EXIF orientation is applied. Colour profiles and gamma are ignored, as vision encoders are trained.
- An animation is refused. Of a JPEG with several pictures (a phone's MPO) the first, the photograph, is read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ...errors import ImageError
from ..files import check_regular
from . import Format

Picture = PngImageFile | JpegImageFile

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
HEAD = 26  # up to the bit depth and colour type of a PNG
PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # by colour type
LOWER_BYTES = {2: "RGB;16L", 4: "RGBA", 6: "RGBA;16L"}
ORIENTATION = 0x0112
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>|0x[0-9a-fA-F]{6,}")

# Everything that decoders were seen to raise on damaged bytes; see also Pillow's own fuzzing harness.
DAMAGE = (
    OSError, EOFError, ValueError, SyntaxError, TypeError, KeyError, IndexError, AttributeError, RuntimeError,
    OverflowError, ZeroDivisionError, AssertionError, MemoryError, Warning, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
KNOWN = {
    b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"RIFF": "WebP or another RIFF",
    b"%PDF": "PDF", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"\0\0\0\x0cjP": "JPEG 2000",
}  # fmt: skip


def raster(path: Path, *, max_pixels: int = 50_000_000) -> np.ndarray:
    """Pixels of a PNG or JPEG file.

    Args:
        path: a regular file, as `files.resolve` returns it.
        max_pixels: largest width x height that is decoded.

    Returns:
        float32 array [H, W, 3] in [0, 1].

    Raises:
        ImageError: not a PNG or JPEG, too many pixels, an animation, truncated or damaged.
    """
    with _opened(path, max_pixels) as (image, head):
        image.load()
        turn = image.getexif().get(ORIENTATION, 1)
        deep_colour = head.startswith(PNG) and head[24] == 16 and head[25] != 0
        pixels = _deepen(image, path, head[25]) if deep_colour else _to_float(image)
    return np.ascontiguousarray(_orient(pixels, turn))


def header(path: Path) -> tuple[int, int, int, int]:
    """Width and height as shown, and channels and bits as stored, from the first bytes of a file.

    A palette counts as three channels. Orientation in a PNG counts where it stands before the pixels.

    Raises:
        ImageError: not a PNG or JPEG, or a damaged header.
    """
    with _opened(path, None) as (image, head):
        width, height = image.size
        png = isinstance(image, PngImageFile)
        # Pillow would decode the whole PNG to look for EXIF behind the pixels.
        turn = 1 if png and "exif" not in image.info else image.getexif().get(ORIENTATION, 1)
        if turn in (5, 6, 7, 8):
            width, height = height, width
        return width, height, PNG_CHANNELS[head[25]] if png else len(image.getbands()), head[24] if png else 8


def check(path: Path, *, max_pixels: int = 50_000_000) -> None:
    """Verify that a file decodes to its end: checksums and pixels of a PNG, all coefficients of a JPEG.

    Cheaper than `raster`: no float array, and a JPEG is rebuilt at one eighth of its size.

    Raises:
        ImageError: as `raster`; also for a PNG whose checksums do not match its bytes.
    """
    with _opened(path, max_pixels) as (image, _):
        if isinstance(image, PngImageFile):
            image.verify()
        else:
            image.draft("L", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
            image.getexif()
            return
    with _opened(path, max_pixels) as (image, _):
        image.load()
        image.getexif()


@contextmanager
def _opened(path: Path, max_pixels: int | None) -> Iterator[tuple[Picture, bytes]]:
    """The picture with its header read, and the first bytes; whatever Pillow raises becomes an ImageError."""
    where = f"file {path.name}"
    try:
        check_regular(path, where)
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            stream.seek(0)
            image = _kind(head, where)(stream)
            if isinstance(image, PngImageFile) and head[12:16] != b"IHDR":
                raise SyntaxError("the PNG header is not first")
            _check_size(image, max_pixels, where)
            yield image, head
    except DAMAGE as error:
        raise _wrap(error, where) from None


def _kind(head: bytes, where: str) -> type[Picture]:
    """The decoder for these first bytes. Image.open is passed by, and with it every other format."""
    if head.startswith(PNG):
        return PngImageFile
    if head.startswith(JPEG):
        return JpegImageFile
    name = next((kind for magic, kind in KNOWN.items() if head.startswith(magic)), "")
    text = bool(head) and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head)
    found = f"a {name} file" if name else "a text file" if text else f"bytes {head[:8].hex(' ') or '(none)'}"
    raise ImageError(
        "the image file has the wrong type", where=where, found=found,
        expected="a PNG or JPEG file, whatever its suffix says",
        remedy="convert it to PNG, or name the right file",
    )  # fmt: skip


def _check_size(image: Picture, max_pixels: int | None, where: str) -> None:
    """Refuse huge pictures and animations by what the header claims, before memory is taken."""
    width, height = image.size
    if max_pixels is not None and width * height > max_pixels:
        raise ImageError(
            "the image is too large", where=where, found=f"{width} x {height} = {width * height} pixels",
            expected=f"at most {max_pixels} pixels", remedy="scale the image down, or raise max_pixels",
        )  # fmt: skip
    if isinstance(image, PngImageFile) and image.n_frames > 1:
        raise ImageError(
            "the image is an animation", where=where, found=f"{image.n_frames} frames",
            expected="one picture", remedy="save the frame that is meant as a file of its own",
        )  # fmt: skip


def _wrap(error: BaseException, where: str) -> ImageError:
    """A decoder's exception in our words, without memory addresses or absolute paths."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    found = ADDRESS.sub("...", f"{type(error).__name__}: {text}")[:200]
    cut = "truncated" in text.lower() or isinstance(error, EOFError)
    return ImageError(
        "the image file is truncated" if cut else "the image file is damaged or cannot be read",
        where=where, found=found, expected="a complete PNG or JPEG file",
        remedy="fetch the file again, or take the record out",
    )  # fmt: skip


def _to_float(image: Picture) -> np.ndarray:
    """Decoded picture -> float32 [H, W, 3]."""
    if image.mode == "I;16":
        grey = np.asarray(image).astype(np.float32) / np.float32(65535)  # [H, W]
        return np.repeat(grey[:, :, None], 3, axis=2)  # [H, W, 3]
    if image.has_transparency_data:
        return _over_black(np.asarray(image.convert("RGBA"), np.float32) / np.float32(255))
    return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)  # [H, W, 3]


def _deepen(upper: Picture, path: Path, colour: int) -> np.ndarray:
    """16-bit colour, of which Pillow keeps the upper byte only -> float32 [H, W, 3].

    A second pass unpacks the same big-endian bytes as if they were little-endian: that yields the lower ones.
    Grey with alpha is unpacked as four bytes: both of the grey value, both of alpha.
    """
    with path.open("rb") as stream:
        lower = PngImageFile(stream)
        lower.tile = [lower.tile[0]._replace(args=LOWER_BYTES[colour])]
        lower.load()
        low = np.asarray(lower).astype(np.float32)  # [H, W, 3 or 4]
    if colour == 4:
        grey_alpha = (low[:, :, 0::2] * 256 + low[:, :, 1::2]) / np.float32(65535)  # [H, W, 2]
        return _over_black(grey_alpha[:, :, [0, 0, 0, 1]])
    values = (np.asarray(upper).astype(np.float32) * 256 + low) / np.float32(65535)
    return values if colour == 2 else _over_black(values)


def _over_black(values: np.ndarray) -> np.ndarray:
    """[H, W, 4] with alpha -> [H, W, 3] composited over black."""
    return values[:, :, :3] * values[:, :, 3:]


def _orient(pixels: np.ndarray, turn: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8; EXIF 2.32, tag 0x0112) to [H, W, 3]; others leave it as it is."""
    if turn in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


FORMAT = Format(read=raster, header=header, check=check, suffixes=(".png", ".jpg", ".jpeg", ".jpe", ".jfif"))
