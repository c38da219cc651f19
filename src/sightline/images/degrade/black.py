"""A black picture: what a model says when there is nothing to see."""

from __future__ import annotations

import numpy as np

from ...errors import ImageError
from . import Degradation


def black(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """The image with brightness taken away; at strength 1 all zeros.

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: not used; nothing is drawn.
        strength: share of the brightness that is taken away, from 0 to 1.

    Returns:
        float32 [H, W, 3] in [0, 1].

    Raises:
        ImageError: strength outside [0, 1].
    """
    if not 0.0 <= strength <= 1.0:
        raise ImageError(
            "the degradation 'black' takes a share", found=str(strength), expected="strength from 0 to 1"
        )
    return pixels.astype(np.float32) * np.float32(1.0 - strength)


DEGRADE = Degradation(
    apply=black, same_patient=True, volumes=True, paper="the blank-image control of blind baselines"
)
