"""Generated heads with a known truth: a bright spot on one side, wide or narrow ventricles, and a pulse over time.

A volume is drawn in RAS. Left and right differ by the spot alone, so that only a model (and a reader of files) that
knows which side is which can name it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ImageError
from .volume import Volume

HEAD = 0.9  # half axes of the head, as a share of the half edge
SPOT = (0.45, 0.1, 0.2)  # where the spot is, in half edges: right, anterior, superior
WIDE = {
    "male": 0.42,
    "female": 0.18,
}  # half axis of the ventricles; a convention of these phantoms, not of people
LIGHT = {"head": 0.5, "ventricle": 0.15, "spot": 1.0}
UNIT = 1000.0  # what full brightness is in a file: scanners have no unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Brain:
    """What a generated head shows.

    Args:
        side: `left` or `right`: where the bright spot is.
        sex: `male` (wide ventricles) or `female` (narrow ones).
        pulse: whether the spot's brightness rises and falls over time; seen only where there is a time axis.
    """

    side: str
    sex: str
    pulse: bool = False

    def __post_init__(self) -> None:
        if self.side not in ("left", "right") or self.sex not in WIDE:
            raise ImageError(
                "a generated head has no such feature", found=f"side {self.side!r}, sex {self.sex!r}",
                expected="side left or right, sex male or female",
            )  # fmt: skip


def draw(brain: Brain, rng: np.random.Generator, *, size: int = 24, times: int = 0) -> Volume:
    """A head in RAS, 4 mm voxels, 2 s between points of time.

    Args:
        brain: what it shows.
        rng: decides noise and how large the head is.
        size: edge in voxels, at least 8.
        times: points of time; 0 for none.

    Raises:
        ImageError: too small.
    """
    if size < 8 or times < 0:
        raise ImageError("a generated head cannot be this small", found=f"{size} voxels, {times} times")
    at = (np.arange(size) + 0.5) * 2 / size - 1
    x, y, z = np.meshgrid(at, at, at, indexing="ij")  # right, anterior, superior
    half = HEAD * rng.uniform(0.92, 1.0)
    head = (x / half / 0.85) ** 2 + (y / half) ** 2 + (z / half / 0.9) ** 2 < 1
    wide = WIDE[brain.sex] * half
    ventricle = (x / wide) ** 2 + (y / wide / 1.4) ** 2 + (z / wide) ** 2 < 1
    sign = 1 if brain.side == "right" else -1
    spot = (x - sign * SPOT[0]) ** 2 + (y - SPOT[1]) ** 2 + (z - SPOT[2]) ** 2 < 0.28**2
    still = np.where(head, LIGHT["head"], 0.0)
    still = np.where(ventricle & head, LIGHT["ventricle"], still)
    still = np.where(spot & head, LIGHT["spot"], still)  # [D, H, W]
    made = still[..., None] * np.ones(max(times, 1))
    if brain.pulse and times:
        wave = 1 + 0.5 * np.cos(np.pi * np.arange(times))
        made = np.where((spot & head)[..., None], made * wave, made)
    noise = rng.normal(0, 0.03, made.shape) * head[..., None]
    values = (np.clip(made + noise, 0, None) * UNIT).astype(np.float32)
    return Volume(
        values=np.ascontiguousarray(values if times else values[..., 0]),
        spacing=(4.0, 4.0, 4.0),
        seconds=2.0 if times else 0.0,
        orientation="RAS",
    )
