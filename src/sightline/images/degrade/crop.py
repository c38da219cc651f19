"""A small piece of the picture at full size: sharp, but most of what was asked about lies outside."""

from __future__ import annotations

import numpy as np

from ...errors import ImageError
from ..transforms import resize
from . import Degradation

LEAST, MOST = 0.01, 0.20  # of the area; mDPO's code never keeps less than 1 %, its paper says 0 to 20 %


def crop(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """A random piece of the image, enlarged to the image's own height and width.

    What mDPO shows as the rejected image (Wang et al., arXiv:2406.11839, `modeling_bunny_phi.py` at
    github.com/luka-group/mDPO), there drawn anew on every step from pixels that are already preprocessed, and
    with a ratio of sides from 3/4 to 4/3. Here the piece has the image's own ratio, so nothing is stretched.

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: the record's random numbers; three are drawn, for the area and the place.
        strength: share, from 0 to 1, of what mDPO takes away. With u drawn evenly from 0.01 to 0.2, the area
            kept is 1 - strength * (1 - u): at 1 between 1 and 20 %, at 0.5 between 50.5 and 60 %, at 0 all of
            it. The piece of a higher strength lies within that of a lower one, to the pixel that rounding takes.

    Returns:
        float32 [H, W, 3] in [0, 1], resized bilinearly; at least one pixel is kept each way.

    Raises:
        ImageError: strength outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ImageError(
            "the degradation 'crop' takes a share", found=str(strength), expected="strength from 0 to 1"
        )
    height, width = pixels.shape[:2]
    area, down, right = rng.random(3)
    side = (1.0 - strength * (1.0 - (LEAST + (MOST - LEAST) * area))) ** 0.5
    rows, columns = max(1, round(height * side)), max(1, round(width * side))
    top, left = round(down * (height - rows)), round(right * (width - columns))
    piece = pixels[top : top + rows, left : left + columns]
    return resize(piece, (height, width), "bilinear").astype(np.float32)


DEGRADE = Degradation(apply=crop, same_patient=True, paper="mDPO, arXiv:2406.11839")
