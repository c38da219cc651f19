"""A box of the image covered with the mean of what surrounds it: what is in it cannot be seen, the rest can."""

from __future__ import annotations

import numpy as np

from ...errors import ImageError
from .. import regions
from . import Degradation

MIDDLE = (0.25, 0.25, 0.75, 0.75)
BORDER = 0.02  # width of what surrounds a box, as a share of the image's shorter edge


def occluded(
    pixels: np.ndarray,
    rng: np.random.Generator,
    *,
    strength: float = 1.0,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """The image with a box covered by its surroundings' mean, each channel by its own.

    Occlusion after Zeiler and Fergus 2014 (arXiv:1311.2901), who cover with grey; the mean of the box itself would
    still tell how bright the finding was.

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: not used; nothing is drawn.
        strength: share of the cover, from 0 (the image itself) to 1 (nothing left in the box).
        box: left, top, right and bottom as shares of width and height; None covers a quarter of the area in the middle.

    Returns:
        float32 [H, W, 3] in [0, 1].

    Raises:
        ImageError: strength outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ImageError(
            "the degradation 'occluded' takes a share", found=str(strength), expected="strength from 0 to 1"
        )
    made = pixels.astype(np.float32)
    height, width = made.shape[:2]
    rows, columns = regions.slices(box or MIDDLE, height, width)
    wide = max(1, round(BORDER * min(height, width)))
    around = np.zeros((height, width), dtype=bool)
    around[
        max(0, rows.start - wide) : rows.stop + wide, max(0, columns.start - wide) : columns.stop + wide
    ] = True
    around[rows, columns] = False
    if not around.any():  # the box is the whole image
        around[:] = True
    mean = made[around].mean(axis=0, dtype=np.float64).astype(np.float32)  # [3]
    share = np.float32(strength)
    made[rows, columns] = np.clip((1 - share) * made[rows, columns] + share * mean, 0.0, 1.0)
    return made


DEGRADE = Degradation(apply=occluded, same_patient=True, paper="Zeiler and Fergus 2014, arXiv:1311.2901")
