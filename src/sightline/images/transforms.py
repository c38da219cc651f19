"""Pixels to what a vision tower takes: pad, resize, crop, normalise.

Everything is computed in float32, so 16-bit depth survives. Processors that resize 8-bit images round after
each pass, which is the whole difference from them: 1.06 steps of 1/255 at most, 0.2 on average.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from ..errors import ImageError, ModelError
from .formats import check_pixels

Colour = tuple[float, float, float]

RESAMPLES = ("nearest", "bilinear", "bicubic")
PILLOW_RESAMPLES = {0: "nearest", 2: "bilinear", 3: "bicubic"}
MAX_MADE = 100_000_000  # pixels; padding or enlarging a long thin picture must not take all memory
# What a processor may do beyond one square picture: passed over in silence it would change the model's input.
BEYOND = ("image_grid_pinpoints", "do_image_splitting", "do_pan_and_scan", "rescale_offset")


class Processor(Protocol):
    """What is used of a transformers image processor."""

    def to_dict(self) -> dict[str, Any]:
        """Its settings: size, crop_size, image_mean, image_std, resample, do_..."""


def pad_square(image: np.ndarray, colour: Colour = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Put the image in the middle of a square, as LLaVA does (`expand2square`, haotian-liu/LLaVA).

    Args:
        image: [H, W, 3] in [0, 1].
        colour: red, green and blue of the rest, in [0, 1].

    Returns:
        float32 [S, S, 3] with S = max(H, W); where the margins differ by one the first is the smaller.

    Raises:
        ImageError: not an image, a colour outside [0, 1], or a square too large to make.
    """
    check_pixels(image)
    if len(colour) != 3 or not all(0.0 <= value <= 1.0 for value in colour):
        raise ImageError("a padding colour does not fit", found=str(colour), expected="three in [0, 1]")
    height, width = image.shape[:2]
    if height == width:
        return image.astype(np.float32, copy=False)
    side = max(height, width)
    _check_made(side, side, "padding")
    square = np.empty((side, side, 3), np.float32)
    square[:] = np.asarray(colour, np.float32)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = image
    return square


def resize(
    image: np.ndarray, size: int | tuple[int, int], resample: str = "bicubic", antialias: bool = True
) -> np.ndarray:
    """Scale an image to exactly this size.

    Args:
        image: [H, W, 3] in [0, 1].
        size: side of a square, or (height, width), in pixels.
        resample: `nearest`, `bilinear` or `bicubic`.
        antialias: smooth before shrinking, as Pillow does; `nearest` never smooths.

    Returns:
        float32 [height, width, 3]; what bicubic overshoots is clipped to [0, 1].

    Raises:
        ImageError: not an image, an unknown `resample`, or a size that cannot be made.
    """
    check_pixels(image)
    height, width = (size, size) if isinstance(size, int) else size
    if resample not in RESAMPLES:
        raise ImageError("unknown resampling", found=repr(resample), expected=", ".join(RESAMPLES))
    if height < 1 or width < 1:
        raise ImageError("an image cannot be this small", found=f"{height} x {width}", expected="1 or more")
    _check_made(height, width, "resizing")
    image = image.astype(np.float32, copy=False)
    if image.shape[:2] == (height, width):
        return image
    image = np.require(image, requirements=("C", "W"))  # torch takes no flipped and no read-only views
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]  # [1, 3, H, W]
    if resample == "nearest":
        made = functional.interpolate(batch, (height, width), mode="nearest-exact")
    else:
        # Columns, then rows, clipped between as 8-bit resizers do: overshoot must not reach the second pass.
        wide = functional.interpolate(
            batch, (batch.shape[2], width), mode=resample, antialias=antialias, align_corners=False
        ).clamp(0.0, 1.0)
        made = functional.interpolate(
            wide, (height, width), mode=resample, antialias=antialias, align_corners=False
        )
    return made[0].clamp(0.0, 1.0).permute(1, 2, 0).contiguous().numpy()  # [height, width, 3]


def crop_centre(image: np.ndarray, size: int) -> np.ndarray:
    """The middle square of an image.

    Args:
        image: [H, W, 3] in [0, 1], at least `size` each way.
        size: side in pixels.

    Returns:
        float32 [size, size, 3].

    Raises:
        ImageError: not an image, or smaller than `size`.
    """
    check_pixels(image)
    height, width = image.shape[:2]
    if size < 1 or size > min(height, width):
        raise ImageError(
            "an image is too small to crop", found=f"{height} x {width}", expected=f"{size} or more"
        )
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size].astype(np.float32, copy=False)


def normalise(image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Centre and scale each channel, and put channels first.

    Args:
        image: [H, W, 3] in [0, 1].
        mean: one number per channel, in units of full brightness.
        std: the same, above 0.

    Returns:
        float32 tensor [3, H, W].

    Raises:
        ImageError: not an image, or mean and std that do not fit.
    """
    check_pixels(image)
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, [*mean, *std])) or min(std) <= 0:
        raise ImageError(
            "mean and std do not fit", found=f"mean {tuple(mean)}, std {tuple(std)}",
            expected="three finite numbers each, std above 0",
        )  # fmt: skip
    made = (image - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(made.transpose(2, 0, 1), dtype=np.float32))  # [3, H, W]


def eight_bits(image: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] as the nearest of 256 levels: what image processors of transformers are fed with. uint8."""
    check_pixels(image)
    return np.rint(image * 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """From pixels to the input of a vision tower: pad, resize, crop, normalise.

    Args:
        size: side of the result in pixels.
        mean, std: per channel, in units of full brightness.
        resample: `nearest`, `bilinear` or `bicubic`; always with antialiasing.
        pad: fill up to a square with the mean colour first, so that nothing is cut off or stretched.
        crop_from: 0 stretches the picture to the square; otherwise the shorter edge is scaled to this many
            pixels and the middle square is cut out (CLIP's way, which loses what lies at the edges).
    """

    size: int
    mean: Colour
    std: Colour
    resample: str = "bicubic"
    pad: bool = True
    crop_from: int = 0

    def __post_init__(self) -> None:
        wrong = [
            self.size < 1,
            self.resample not in RESAMPLES,
            self.crop_from != 0 and self.crop_from < self.size,
            len(self.mean) != 3 or len(self.std) != 3 or min(self.std, default=0) <= 0,
            not all(map(math.isfinite, [*self.mean, *self.std])),
        ]
        if any(wrong):
            raise ModelError(
                "the image preprocessing does not fit together", found=str(self._settings()),
                expected=f"size >= 1, three means, three std > 0, resample in {RESAMPLES}, "
                "crop_from 0 or >= size",
            )  # fmt: skip

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Pixels [H, W, 3] in [0, 1] -> float32 tensor [3, size, size].

        Raises:
            ImageError: not an image, or one too long and thin to make square.
        """
        check_pixels(image)
        if self.pad:
            image = pad_square(image, self._colour())  # [S, S, 3]
        image = resize(image, self._target(image), self.resample)
        return normalise(crop_centre(image, self.size), self.mean, self.std)  # [3, size, size]

    def grid(self, height: int, width: int) -> tuple[int, ...]:
        """Nothing: every image becomes one square, whatever its size."""
        return ()

    def key(self) -> str:
        """32 hexadecimal digits that change with anything the result depends on, for caches."""
        text = json.dumps(["preprocess.1", self._settings()], sort_keys=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]

    @classmethod
    def from_processor(cls, processor: Processor, *, pad: bool | None = None) -> Preprocess:
        """What a CLIP- or SigLIP-like image processor of transformers does to one picture.

        Args:
            processor: anything whose `to_dict` gives the processor's settings.
            pad: fill up to a square first, as the original LLaVA does and its processor does not say;
                None follows the processor's `do_pad`.

        Raises:
            ModelError: it does something that is not done here (tiles, odd scaling, no square).
        """
        settings = processor.to_dict()
        _check_plain(settings)
        padded = bool(settings.get("do_pad")) if pad is None else pad
        size, crop_from = _sizes(settings, padded)
        flat = settings.get("do_normalize", True)
        return cls(
            size=size,
            mean=_three(settings["image_mean"]) if flat else (0.0, 0.0, 0.0),
            std=_three(settings["image_std"]) if flat else (1.0, 1.0, 1.0),
            resample=_resample(settings.get("resample", 3)),
            pad=padded,
            crop_from=crop_from,
        )

    def _settings(self) -> dict[str, Any]:
        """The fields as plain values."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _colour(self) -> Colour:
        """The mean in the 8-bit steps that LLaVA pads with."""
        red, green, blue = (int(min(max(value, 0.0), 1.0) * 255) / 255 for value in self.mean)
        return red, green, blue

    def _target(self, image: np.ndarray) -> tuple[int, int]:
        """Height and width to scale to."""
        if not self.crop_from:
            return self.size, self.size
        height, width = image.shape[:2]
        short = min(height, width)
        return int(self.crop_from * height / short), int(self.crop_from * width / short)


def _check_made(height: int, width: int, doing: str) -> None:
    """Refuse to make a picture that does not fit a reasonable memory."""
    if height * width > MAX_MADE:
        raise ImageError(
            f"{doing} would make an image too large", found=f"{height} x {width} pixels",
            expected=f"at most {MAX_MADE} pixels", remedy="cut the image: it is long and thin, or very large",
        )  # fmt: skip


def _check_plain(settings: Mapping[str, Any]) -> None:
    """Refuse processors that do more, or less, than is done here."""
    odd = [name for name in BEYOND if settings.get(name)]
    odd += [name for name in ("do_resize", "do_rescale") if not settings.get(name, True)]
    factor = settings.get("rescale_factor", 1 / 255)
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        odd.append("rescale_factor")
    if odd:
        raise ModelError(
            "the image processor does something that is not supported",
            found=", ".join(f"{name}={settings.get(name)!r}" for name in odd),
            expected="one picture, resized, divided by 255 and normalised",
            remedy="write the preprocessing of this tower as a Preprocess",
        )  # fmt: skip


def _sizes(settings: Mapping[str, Any], padded: bool) -> tuple[int, int]:
    """Side of the result and length of the shorter edge before the crop (0: stretched)."""
    size, edge = _square(settings.get("size"), "size")
    if not settings.get("do_center_crop"):
        if edge and not padded:
            raise ModelError(
                "the image processor makes pictures that are not square",
                found=f"size {settings.get('size')}",
                expected="height and width, or a centre crop", remedy="pad=True makes every picture square",
            )  # fmt: skip
        return size, 0
    crop, _ = _square(settings.get("crop_size"), "crop_size")
    if crop == size and (padded or not edge):
        return size, 0
    if not (padded or edge):
        raise ModelError(
            "the image processor stretches pictures and then cuts them", found=f"size {settings.get('size')}",
            expected="shortest_edge before a centre crop", remedy="pad=True makes every picture square",
        )  # fmt: skip
    return crop, size


def _square(size: object, name: str) -> tuple[int, bool]:
    """A side in pixels, and whether it is the shorter edge only."""
    if isinstance(size, int):
        return size, False
    if isinstance(size, Mapping):
        given = {key: value for key, value in size.items() if value is not None}
        if set(given) == {"shortest_edge"}:
            return int(given["shortest_edge"]), True
        if set(given) == {"height", "width"} and given["height"] == given["width"]:
            return int(given["height"]), False
    raise ModelError(
        "the image processor's size is not supported", found=f"{name}={size!r}",
        expected="one number, equal height and width, or shortest_edge",
    )  # fmt: skip


def _three(values: float | Sequence[float]) -> Colour:
    """One number per channel; a single number counts for all."""
    red, green, blue = [values] * 3 if isinstance(values, (int, float)) else values
    return float(red), float(green), float(blue)


def _resample(value: object) -> str:
    """Pillow's number, or a name, as a name."""
    name = PILLOW_RESAMPLES.get(int(value)) if isinstance(value, int) else str(value).lower()
    if name not in RESAMPLES:
        raise ModelError(
            "the image processor's resampling is not supported", found=repr(value),
            expected=", ".join(RESAMPLES),
        )  # fmt: skip
    return name
