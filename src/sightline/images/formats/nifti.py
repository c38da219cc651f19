"""NIfTI files (`.nii`, `.nii.gz`, versions 1 and 2) as volumes.

The header is read by nibabel, the values in one pass from front to end: what is not asked for is never kept, a
compressed file is decompressed once, and its checksum counts. Rules:

- The size is checked from the header before memory is taken.
- The affine decides where left is: the sform where it is coded, else the qform. A file that codes neither, or codes
  two that are mirror images of each other, is refused: guessing would exchange left and right half of the time.
- Oblique axes are named after the nearest ones of the body; the tilt itself is not undone.
- Lengths become millimetres and times seconds by the units of the header; unknown units count as mm and s.
- Stored numbers are scaled by the file's slope and intercept. NaN, infinite and constant values are refused: a scan
  that cannot be read is never shown as zeros.
"""

from __future__ import annotations

import gzip
import logging
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import nibabel
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from ...errors import ImageError
from ..files import check_regular
from ..volume import AXES, Three, Volume
from . import Format

Times = Callable[[int], Sequence[int]]

SIZES = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}  # by the number that a header begins with
SINGLE = (b"n+1", b"n+2")  # header and values in one file
MILLIMETRES = {"unknown": 1.0, "mm": 1.0, "meter": 1000.0, "micron": 0.001}
SECONDS = {"unknown": 1.0, "sec": 1.0, "msec": 1e-3, "usec": 1e-6}
LONG = 20  # all points of time that are read together may hold this many times what one may
MAX_HEAD = 1 << 24  # bytes in front of the values
MAX_REST = 1 << 26  # bytes behind them
PIECE = 1 << 20
DAMAGE = (
    OSError, EOFError, ValueError, TypeError, KeyError, IndexError, OverflowError, ZeroDivisionError, MemoryError,
    zlib.error, HeaderDataError, WrapStructError, np.linalg.LinAlgError,
)  # fmt: skip
QUIET = logging.Logger("sightline.nifti")  # nibabel writes a header's faults to the terminal otherwise
QUIET.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class _Head:
    """What a header says of the values: [*shape], and [frames] of them one behind the other."""

    shape: tuple[int, ...]
    frames: int
    dtype: np.dtype
    offset: int
    scaling: tuple[float, float]
    spacing: Three
    seconds: float
    orientation: str

    @property
    def voxels(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]


def nifti(path: Path, times: Times | None = None, *, max_pixels: int = 50_000_000) -> Volume:
    """The volume that a NIfTI file holds.

    Args:
        path: a regular file, as `files.resolve` returns it.
        times: number of points of time -> those that are wanted, ascending; None takes all. Not asked for a volume
            without a time axis.
        max_pixels: most voxels of one point of time; all that are read together may hold 20 times as many.

    Returns:
        Values as stored, in the orientation that they are stored in.

    Raises:
        ImageError: not a NIfTI, too large, without orientation, truncated, damaged, or without content.
    """
    with _opened(path) as (stream, head):
        _check_size(head, max_pixels, path)
        chosen = list(range(head.frames))
        if times is not None and len(head.shape) == 4:
            chosen = list(times(head.frames))
        _check_length(head, len(chosen), max_pixels, path)
        made = np.empty((*head.shape[:3], len(chosen)), np.float32)
        for at, frame in enumerate(_frames(stream, head, path, chosen[-1] + 1)):
            for place in [i for i, wanted in enumerate(chosen) if wanted == at]:
                made[..., place] = frame
        if len(chosen) == head.frames:
            _drain(stream, path)
    _check_content(float(made.min()), float(made.max()), path)
    step = head.seconds * (chosen[-1] - chosen[0]) / (len(chosen) - 1) if len(chosen) > 1 else 0.0
    values = made if len(head.shape) == 4 else made[..., 0]
    return Volume(
        values=np.ascontiguousarray(values), spacing=head.spacing, seconds=step, orientation=head.orientation
    )


def header(path: Path) -> tuple[int, ...]:
    """The shape as stored, (D, H, W) or (D, H, W, T), from the header alone.

    Raises:
        ImageError: not a NIfTI of three or four axes, or a damaged header.
    """
    with _opened(path) as (_, head):
        return head.shape


def check(path: Path, *, max_pixels: int = 50_000_000) -> None:
    """Verify that a file holds all values that its header promises, all finite, one point of time at a time.

    Raises:
        ImageError: as `nifti`; also for a compressed file whose checksum does not match.
    """
    with _opened(path) as (stream, head):
        _check_size(head, max_pixels, path)
        low, high = np.inf, -np.inf
        for frame in _frames(stream, head, path, head.frames):
            low, high = min(low, float(frame.min())), max(high, float(frame.max()))
        _drain(stream, path)
    _check_content(low, high, path)


def write(path: Path, volume: Volume) -> None:
    """Write a volume as NIfTI-1 of 32-bit floats, compressed where the name ends in `.gz`; equal volumes, equal bytes.

    The orientation goes into sform and qform, with the origin in the middle.
    """
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for axis, (letter, mm) in enumerate(zip(volume.orientation, volume.spacing, strict=True)):
        row = next(i for i, pair in enumerate(AXES) if letter in pair)
        matrix[row, axis] = mm if letter == AXES[row][0] else -mm
    matrix[:3, 3] = -matrix[:3, :3] @ ((np.array(volume.values.shape[:3]) - 1) / 2)
    image = nibabel.Nifti1Image(volume.values, matrix)
    image.set_sform(matrix, code=1)
    image.set_qform(matrix, code=1)
    image.header.set_xyzt_units("mm", "sec")
    if volume.times:
        image.header.set_zooms((*volume.spacing, volume.seconds))
    raw = image.to_bytes()
    path.write_bytes(gzip.compress(raw, 6, mtime=0) if path.suffix == ".gz" else raw)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], _Head]]:
    """The file behind its header, decompressed; whatever goes wrong with it becomes an ImageError."""
    where = f"file {path.name}"
    try:
        check_regular(path, where)
        with path.open("rb") as plain:
            packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            stream: Any = gzip.GzipFile(fileobj=plain) if packed else plain
            yield stream, _head(stream, where)
    except DAMAGE as error:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        cut = isinstance(error, EOFError)
        raise ImageError(
            "the volume is truncated" if cut else "the volume is damaged or cannot be read", where=where,
            found=f"{type(error).__name__}: {text}"[:200], expected="a complete NIfTI file",
            remedy="fetch the file again, or take the record out",
        ) from None  # fmt: skip


def _head(stream: IO[bytes], where: str) -> _Head:
    """Read and judge a header."""
    first = stream.read(4)
    sizes = {int.from_bytes(first, "little"), int.from_bytes(first, "big")} & set(SIZES)
    size = min(sizes, default=0)
    block = first + stream.read(size - 4) if size else b""
    made = SIZES[size](block, check=False) if size and len(block) == size else None
    if made is None or bytes(made["magic"])[:3] not in SINGLE:
        raise ImageError(
            "the image file is not a NIfTI volume", where=where, found=f"bytes {first.hex(' ') or '(none)'}",
            expected="NIfTI 1 or 2 in one file, compressed by gzip or not",
            remedy="convert it (dcm2niix, mri_convert), or name the right file",
        )  # fmt: skip
    made.check_fix(logger=QUIET, error_level=40)
    shape = _shape(made, where)
    dtype, offset = made.get_data_dtype(), int(made.get_data_offset())
    if dtype.kind not in "iuf":
        raise ImageError(
            "a volume holds no plain numbers", where=where, found=str(dtype), expected="whole or real numbers",
            remedy="save one number per voxel: the magnitude of complex data, one channel of colours",
        )  # fmt: skip
    if not size <= offset <= MAX_HEAD:
        raise ValueError(f"values are said to begin at byte {offset}")
    slope, inter = made.get_slope_inter()
    spacing, orientation = _placed(made, where)
    zooms = made.get_zooms()
    unit = SECONDS.get(made.get_xyzt_units()[1], 0.0)
    seconds = max(0.0, float(zooms[3])) * unit if len(zooms) > 3 and len(shape) == 4 else 0.0
    skipped = stream.read(offset - size)
    if len(skipped) < offset - size:
        raise EOFError("the file ends in front of its values")
    return _Head(
        shape=shape, frames=shape[3] if len(shape) == 4 else 1, dtype=dtype, offset=offset,
        scaling=(1.0 if slope is None else float(slope), 0.0 if inter is None else float(inter)),
        spacing=spacing, seconds=seconds, orientation=orientation,
    )  # fmt: skip


def _shape(made: Any, where: str) -> tuple[int, ...]:
    """Three edges, and the number of points of time where there are several; further axes of one are dropped."""
    shape = tuple(int(n) for n in made.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise ImageError(
            "this is not a volume of three axes, or four with time", where=where,
            found=f"shape {list(made.get_data_shape())}", expected="[D, H, W] or [D, H, W, T]",
            remedy="split the file into volumes",
        )  # fmt: skip
    return shape


def _placed(made: Any, where: str) -> tuple[Three, str]:
    """Spacing in mm and orientation, by the affine."""
    forms = [
        form for form in (made.get_sform(coded=True)[0], made.get_qform(coded=True)[0]) if form is not None
    ]
    hands = {bool(np.linalg.det(form[:3, :3]) > 0) for form in forms}
    if len(hands) != 1:
        raise ImageError(
            "the volume does not say where left and right are", where=where,
            found="sform and qform are mirror images" if hands else "neither an sform nor a qform is coded",
            expected="a coded sform or qform, or two that agree",
            remedy="mend the header where the orientation is known for certain (fslorient, nib-conform)",
        )  # fmt: skip
    matrix = np.asarray(forms[0], float)[:3, :3]
    lengths = np.sqrt((matrix**2).sum(axis=0)) * MILLIMETRES[made.get_xyzt_units()[0]]
    codes = nibabel.aff2axcodes(forms[0])
    if not np.isfinite(lengths).all() or min(lengths) <= 0 or None in codes:
        raise ImageError(
            "the volume's affine does not span a space", where=where, found=f"edges {lengths.tolist()}",
            expected="three edges above 0 in different directions",
        )  # fmt: skip
    first, second, third = (float(n) for n in lengths)
    return (first, second, third), "".join(map(str, codes))


def _frames(stream: IO[bytes], head: _Head, path: Path, count: int) -> Iterator[np.ndarray]:
    """The first `count` points of time, one after the other, scaled. float32 [D, H, W] each."""
    size = head.voxels * head.dtype.itemsize
    for at in range(count):
        raw = stream.read(size)
        if len(raw) < size:
            raise EOFError(f"{len(raw)} of {size} bytes of point of time {at}")
        stored = np.frombuffer(raw, head.dtype).reshape(head.shape[:3], order="F")
        frame = apply_read_scaling(stored, *head.scaling).astype(np.float32)
        if not np.isfinite(frame).all():
            raise ImageError(
                "a volume holds NaN or infinite values", where=f"file {path.name}",
                found=f"{int((~np.isfinite(frame)).sum())} of {frame.size} values at point of time {at}",
                expected="finite values", remedy="mend the file where its origin is known (fslmaths -nan)",
            )  # fmt: skip
        yield frame


def _drain(stream: IO[bytes], path: Path) -> None:
    """Read what stands behind the values: a compressed file is whole only if its checksum, at its end, fits."""
    seen = 0
    while piece := stream.read(PIECE):
        seen += len(piece)
        if seen > MAX_REST:
            raise ImageError(
                "a volume's file goes on behind its values", where=f"file {path.name}",
                found=f"more than {MAX_REST} bytes", expected="the end of the file",
            )  # fmt: skip


def _check_size(head: _Head, most: int, path: Path) -> None:
    """Refuse huge volumes by what the header claims, before memory is taken."""
    if head.voxels > most:
        raise ImageError(
            "the volume is too large", where=f"file {path.name}",
            found=f"{' x '.join(map(str, head.shape[:3]))} = {head.voxels} voxels",
            expected=f"at most {most} voxels", remedy="scale the volume down, or raise max_pixels",
        )  # fmt: skip


def _check_length(head: _Head, count: int, most: int, path: Path) -> None:
    """Refuse to hold too many points of time at once."""
    if head.voxels * count > most * LONG:
        raise ImageError(
            "the volume is too long to be held at once", where=f"file {path.name}",
            found=f"{count} points of time of {head.voxels} voxels",
            expected=f"at most {most * LONG} values", remedy="take fewer points of time, or raise max_pixels",
        )  # fmt: skip


def _check_content(low: float, high: float, path: Path) -> None:
    """Refuse a volume in which nothing can be seen."""
    if low == high:
        raise ImageError(
            "a volume shows nothing", where=f"file {path.name}", found=f"every value is {low:g}",
            expected="values that differ", remedy="fetch the file again, or take the record out",
        )  # fmt: skip


FORMAT = Format(read=nifti, header=header, check=check, suffixes=(".nii", ".nii.gz"), form="volume")
