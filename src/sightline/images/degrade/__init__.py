"""Corruptions of images, each a pure function of (kind, strength, seed, record id).

They stand for the rejected side of a preference pair and for what a model is shown when it is asked whether
it looks at the picture at all. The random numbers come from a hash, never from a worker, an order or a clock,
so a degraded image can be cached like any other; only `fresh` lets the epoch in, and ends that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import plugins
from ...errors import ImageError
from ...types import Cover, Degrade
from ..formats import check_pixels
from ..volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Degradation:
    """One kind of corruption.

    Args:
        apply: (pixels [H, W, 3], rng, *, strength) -> float32 pixels of the same shape in [0, 1].
        same_patient: the result stands for the same patient as the input.
        volumes: it also makes sense voxel by voxel, on [D, H, W] or [D, H, W, T].
        swaps: not an operation on pixels: the caller shows another patient's image (`swapped.partners`).
        paper: where the kind comes from.
    """

    apply: Callable[..., np.ndarray]
    same_patient: bool = True
    swaps: bool = False
    volumes: bool = False
    paper: str = ""


def apply(
    pixels: np.ndarray, spec: Degrade, record: str, *, epoch: int = 0, fresh: bool = False
) -> np.ndarray:
    """Degrade one image; the same arguments give the same bytes in every process.

    Args:
        pixels: [H, W, 3] floats in [0, 1]; left unchanged.
        spec: kind, strength and seed. Two strengths of one seed share their random numbers; only the counts of
            `poisson` take more or fewer of them as the strength changes.
        record: id of the record that shows the image.
        epoch: counts only where `fresh` is set.
        fresh: draw anew each epoch; results must then not be cached.

    Returns:
        float32 array of the same shape in [0, 1].

    Raises:
        ImageError: pixels, strength or kind do not fit.
        RecipeError: no such kind.
    """
    where = f"record {record}, field image"
    check_pixels(pixels, where=where)
    if not math.isfinite(spec.strength) or spec.strength < 0:
        raise ImageError(
            "a degradation's strength is not usable", where=where, found=str(spec.strength),
            expected="a finite number of at least 0", remedy="set degrade.strength",
        )  # fmt: skip
    rng = generator(spec, record, epoch=epoch, fresh=fresh)
    boxed = {"box": spec.box} if isinstance(spec, Cover) else {}
    result = find(spec.kind).apply(pixels, rng, strength=spec.strength, **boxed)
    check_pixels(result, where=f"{where}, result of degradation '{spec.kind}'")
    assert result.shape == pixels.shape, "a degradation keeps the shape"
    return np.ascontiguousarray(result, dtype=np.float32)


def apply_volume(volume: Volume, spec: Degrade, record: str) -> Volume:
    """Degrade one volume: its values are brought to [0, 1], degraded like those of a picture, and brought back.

    Args:
        volume: left unchanged.
        spec: as for `apply`.
        record: as for `apply`.

    Raises:
        ImageError: the kind works on pictures only, or the strength does not fit.
        RecipeError: no such kind.
    """
    where = f"record {record}, field image"
    kind = find(spec.kind)
    if not kind.volumes or not math.isfinite(spec.strength) or spec.strength < 0:
        known = [name for name in plugins.names("degrade") if find(name).volumes]
        raise ImageError(
            "a volume cannot be degraded like this", where=where, found=f"{spec.kind}, strength {spec.strength}",
            expected=f"one of {', '.join(known)} (or swapped), strength 0 or more",
        )  # fmt: skip
    low, high = float(volume.values.min()), float(volume.values.max())
    spread = high - low if high > low else 1.0
    pixels = np.clip((volume.values - low) / spread, 0.0, 1.0).astype(np.float32)
    made = kind.apply(pixels, generator(spec, record), strength=spec.strength)
    return dataclasses.replace(volume, values=np.ascontiguousarray(made * spread + low, dtype=np.float32))


def find(kind: str) -> Degradation:
    """The degradation of that name; a bare function from outside the package is wrapped.

    Raises:
        RecipeError: no such kind.
    """
    found = plugins.load("degrade", kind)
    return found if isinstance(found, Degradation) else Degradation(apply=found)


def generator(spec: Degrade, record: str, *, epoch: int = 0, fresh: bool = False) -> np.random.Generator:
    """Random numbers of one record: seeded by SHA-256 of (seed, kind, record id[, epoch])."""
    words = (spec.seed, spec.kind, record, *((epoch,) if fresh else ()))
    return np.random.Generator(np.random.PCG64(int.from_bytes(_digest(words)[:16], "big")))


def key(spec: Degrade, record: str) -> str:
    """32 hexadecimal digits that name the degraded image of a record in caches (never for `fresh`)."""
    box = spec.box if isinstance(spec, Cover) else ()
    return _digest(("degrade.1", spec.kind, float(spec.strength), spec.seed, record, *box)).hex()[:32]


def _digest(words: tuple[str | int | float, ...]) -> bytes:
    """SHA-256 of a list; JSON keeps `["a", "bc"]` and `["ab", "c"]` apart."""
    return hashlib.sha256(json.dumps(words, ensure_ascii=True).encode("ascii")).digest()
