"""A volume and what is done to it before a model sees it: turned, resampled, cut to size, scaled.

Axes follow the array: `orientation` has one letter per axis, the side that its index grows towards (`RAS`: right,
anterior, superior). Nothing here changes the proportions of a body: sizes are reached by padding and cropping, and
the spacing that belongs to the values is carried along. Nothing is mirrored unless `mirror` is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import ImageError
from ..runs import digest

Three = tuple[float, float, float]
Scale = Literal["znorm", "znorm_minback", "none"]
Frames = Literal["first", "even", "window"]

AXES = ("RL", "AP", "SI")  # each axis of the body: the letter of RAS first
SCALES = ("znorm", "znorm_minback", "none")
FRAMES = ("first", "even", "window")
MAX_MADE = 500_000_000  # values; resampling and padding must not take all memory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Volume:
    """A 3-D image, or several of them over time.

    Args:
        values: float32 [D, H, W] or [D, H, W, T], finite.
        spacing: millimetres from one voxel's middle to the next, per axis.
        seconds: from one point of time to the next; 0 where there is one only, or it is not known.
        orientation: where each of the three axes leads: one letter of R or L, one of A or P, one of S or I.
    """

    values: np.ndarray
    spacing: Three
    seconds: float = 0.0
    orientation: str = "RAS"

    def __post_init__(self) -> None:
        shape = self.values.shape
        if self.values.dtype != np.float32 or len(shape) not in (3, 4) or 0 in shape:
            raise ImageError(
                "a volume has the wrong shape or number type",
                found=f"{self.values.dtype} {list(shape)}", expected="float32 [D, H, W] or [D, H, W, T]",
            )  # fmt: skip
        if len(self.spacing) != 3 or not np.isfinite(self.spacing).all() or min(self.spacing) <= 0:
            raise ImageError(
                "a volume's spacing does not fit", found=str(self.spacing),
                expected="three finite numbers above 0, in mm",
            )  # fmt: skip
        if not (np.isfinite(self.seconds) and self.seconds >= 0):
            raise ImageError(
                "a volume's time step does not fit", found=f"{self.seconds} s", expected="0 or more"
            )
        if len(self.orientation) != 3 or {_axis(letter) for letter in self.orientation} != {0, 1, 2}:
            raise ImageError(
                "a volume's orientation does not fit", found=repr(self.orientation),
                expected="three letters such as RAS or LPS",
            )  # fmt: skip

    @property
    def times(self) -> int:
        """Points of time; 0 for a volume without a time axis."""
        return self.values.shape[3] if self.values.ndim == 4 else 0


def _axis(letter: str) -> int:
    """Which axis of the body a letter belongs to; -1 for none."""
    return next((i for i, pair in enumerate(AXES) if letter in pair and letter), -1)


def to_ras(volume: Volume) -> Volume:
    """The same volume with axes that lead right, anterior and superior; only turned, never resampled.

    An oblique scan keeps its tilt: its axes are taken for those of the body that they are nearest to.
    """
    return turn(volume, "RAS")


def turn(volume: Volume, orientation: str) -> Volume:
    """The same volume with its axes in another order and direction.

    Raises:
        ImageError: not an orientation.
    """
    order = [
        next((i for i, letter in enumerate(volume.orientation) if _axis(letter) == _axis(wanted)), 0)
        for wanted in orientation
    ]
    first, second, third = (volume.spacing[i] for i in (*order, 0, 0, 0)[:3])
    checked = replace(volume, orientation=orientation)
    values = volume.values.transpose(*order, *([3] if volume.times else []))
    for axis, i in enumerate(order):
        if volume.orientation[i] != orientation[axis]:
            values = np.flip(values, axis)
    return replace(checked, values=np.ascontiguousarray(values), spacing=(first, second, third))


def mirror(volume: Volume) -> Volume:
    """Left and right exchanged: another body, not another view. Only for those who ask for it."""
    side = next(i for i, letter in enumerate(volume.orientation) if letter in AXES[0])
    return replace(volume, values=np.ascontiguousarray(np.flip(volume.values, side)))


def spacing_to_fit(volume: Volume, size: Sequence[int]) -> Three:
    """The one spacing, the same along all axes, at which all of a volume just fits into a size, in mm."""
    shape = volume.values.shape[:3]
    whole = max(n * mm / edge for n, mm, edge in zip(shape, volume.spacing, size, strict=True))
    return (whole, whole, whole)


def resample(volume: Volume, spacing: Three) -> Volume:
    """The same volume at another spacing, about the same middle.

    Linear between voxels; where voxels become larger, each is the mean of those that it covers with weights that
    fall off linearly (a triangle filter), so that nothing is skipped.

    Args:
        volume: any orientation; `spacing` counts along its own axes.
        spacing: mm, above 0.

    Returns:
        [D', H', W'(, T)] with D' = D x old / new, rounded, at least 1; its spacing is exactly the one asked for.

    Raises:
        ImageError: a spacing that is not above 0, or a volume too large to make.
    """
    if len(spacing) != 3 or not np.isfinite(spacing).all() or min(spacing) <= 0:
        raise ImageError(
            "a spacing does not fit", found=str(spacing), expected="three numbers above 0, in mm"
        )
    shape, values = volume.values.shape, volume.values
    target = [
        max(1, round(n * old / new)) for n, old, new in zip(shape, volume.spacing, spacing, strict=False)
    ]
    _check_made([*target, *shape[3:]])
    for axis, (n, old, new) in enumerate(zip(target, volume.spacing, spacing, strict=True)):
        if n == shape[axis] and np.isclose(old, new, rtol=1e-6, atol=0):
            continue
        weights = _weights(shape[axis], n, new / old)  # [new, old]
        values = np.moveaxis(np.tensordot(weights, values, axes=(1, axis)), 0, axis)
    return replace(volume, values=np.ascontiguousarray(values, dtype=np.float32), spacing=spacing)


def _weights(old: int, new: int, step: float) -> np.ndarray:
    """What each old voxel gives to each new one; `step` is the new spacing in old voxels. float32 [new, old]."""
    centres = (np.arange(new) + 0.5 - new / 2) * step + old / 2 - 0.5
    reach = max(1.0, step)
    near = np.clip(centres, 0, old - 1)[:, None] - np.arange(old)[None, :]
    weights = np.clip(1 - np.abs(near) / reach, 0, None)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def fit(volume: Volume, size: Sequence[int], fill: float = 0.0) -> Volume:
    """Cut or pad every axis around the middle to a size; the spacing stays.

    Args:
        volume: any.
        size: three numbers of voxels.
        fill: what padding is filled with. Where the margins differ by one the first is the smaller.

    Returns:
        [*size(, T)].

    Raises:
        ImageError: a size below 1, or too large to make.
    """
    if len(size) != 3 or min(size) < 1:
        raise ImageError("a volume's size does not fit", found=str(list(size)), expected="three of 1 or more")
    _check_made([*size, *volume.values.shape[3:]])
    shape = volume.values.shape[:3]
    if tuple(size) == shape:
        return volume
    made = np.full((*size, *volume.values.shape[3:]), fill, np.float32)
    source, place = [], []
    for have, want in zip(shape, size, strict=True):
        cut, margin = max(0, have - want) // 2, max(0, want - have) // 2
        length = min(have, want)
        source.append(slice(cut, cut + length))
        place.append(slice(margin, margin + length))
    made[tuple(place)] = volume.values[tuple(source)]
    return replace(volume, values=made)


def normalise(volume: Volume, how: Scale = "znorm", background: float = 0.0) -> Volume:
    """Intensities brought to one scale: scanners have no unit.

    Args:
        volume: any; over time all points are scaled together.
        how: `znorm` gives the foreground mean 0 and standard deviation 1 and leaves the background as it is;
            `znorm_minback` then puts the background at the foreground's least value (as SwiFT and UMBRELLA call it);
            `none` changes nothing.
        background: the value of what is not body; foreground is every voxel that differs from it at some time.

    Returns:
        The same shape; all zeros above the background where the foreground is flat.

    Raises:
        ImageError: unknown `how`.
    """
    if how not in SCALES:
        raise ImageError("unknown normalisation", found=repr(how), expected=", ".join(SCALES))
    if how == "none":
        return volume
    values = volume.values.copy()
    inside = values != background
    inside = inside.any(axis=3) if volume.times else inside
    body = values[inside].astype(np.float64)  # [voxels(, T)]
    if not body.size:
        return volume
    spread = float(body.std())
    body = (body - body.mean()) / (spread if spread > 0 else 1.0)
    values[inside] = body
    if how == "znorm_minback":
        values[~inside] = body.min()
    return replace(volume, values=values)


def frames(total: int, count: int, how: Frames = "first", *, seed: int = 0, record: str = "") -> list[int]:
    """Which points of time are taken.

    Args:
        total: how many there are.
        count: how many are wanted.
        how: the `first` ones; as many spread `even`ly over all of it; or a `window` of consecutive ones that starts
            where the hash of (seed, record) says.
        seed: decides the window and nothing else, as does `record`.
        record: what the scan is called for good.

    Raises:
        ImageError: fewer than are wanted, which is never mended by made-up ones; or an unknown `how`.
    """
    if how not in FRAMES:
        raise ImageError("unknown choice of time", found=repr(how), expected=", ".join(FRAMES))
    if not 1 <= count <= total:
        raise ImageError(
            "a scan is too short", found=f"{total} points of time", expected=f"{count} or more",
            remedy="ask for fewer (`times`), or leave short scans out (`min_times` of the reader)",
        )  # fmt: skip
    if how == "even":
        return [(2 * i + 1) * total // (2 * count) for i in range(count)]
    start = int(digest(str(seed), "window", record)[:13], 16) % (total - count + 1) if how == "window" else 0
    return list(range(start, start + count))


def slices(volume: Volume) -> np.ndarray:
    """The middle slice along each axis of the body, side by side, for people: first point of time only.

    Voxels are shown in their true proportions, top is superior or anterior, and the body's right is on the right of the
    slices seen from behind and from below.

    Returns:
        float32 [H, W, 3] in [0, 1]; the least value is black, the 99.5th percentile white.
    """
    turned = to_ras(volume)
    one = replace(turned, values=turned.values[..., 0], seconds=0.0) if turned.times else turned
    mm = min(one.spacing)
    values = resample(one, (mm, mm, mm)).values  # [D, H, W]
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    values = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    middle = [n // 2 for n in values.shape]
    planes = [
        np.take(values, at, axis).T[::-1] for axis, at in enumerate(middle)
    ]  # sagittal, coronal, axial: [rows, columns]
    tall = max(plane.shape[0] for plane in planes)
    wide = [np.pad(p, (((tall - len(p)) // 2, (tall - len(p) + 1) // 2), (0, 0))) for p in planes]
    joined = np.concatenate(wide, axis=1)
    return np.ascontiguousarray(np.repeat(joined[:, :, None], 3, axis=2), dtype=np.float32)


def _check_made(shape: Sequence[int]) -> None:
    """Refuse to make a volume that does not fit a reasonable memory."""
    if np.prod([float(n) for n in shape]) > MAX_MADE:
        raise ImageError(
            "this would make a volume too large", found=" x ".join(map(str, shape)),
            expected=f"at most {MAX_MADE} values", remedy="take a larger spacing, a smaller size or fewer times",
        )  # fmt: skip
