"""Noise as a diffusion model adds it: the picture fades while the noise grows."""

from __future__ import annotations

import numpy as np

from ...errors import ImageError
from . import Degradation

STEPS, STEP = 1000, 500


def diffusion(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """The image after some steps of a forward diffusion, clipped to [0, 1].

    What POVID shows as the rejected image (Zhou et al., arXiv:2402.11411, `train_dpo_inherent.py` at
    github.com/YiyangZhou/POVID): the schedule of `shares`, step 500 of 1000. There the sum goes back to 8 bits
    unclipped, so what lies outside [0, 1] wraps modulo 256 and too bright turns dark; here it is clipped.

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: the record's random numbers; one for each value, so the noise has colour.
        strength: how far the diffusion goes; the step is `round(500 * strength)`. 1 is POVID's step, 1.998 the
            last one. Step 0 leaves the image as it is, where POVID's would already add noise of 0.005.

    Returns:
        float32 [H, W, 3] in [0, 1].

    Raises:
        ImageError: a step beyond 999.
    """
    if not 0.0 <= STEP * strength < STEPS - 0.5:
        raise ImageError(
            "the degradation 'diffusion' has no such step", found=f"strength {strength}, a step beyond 999",
            expected="strength from 0 to 1.998", remedy="set degrade.strength; 1 is step 500",
        )  # fmt: skip
    step = round(STEP * strength)
    if step == 0:
        return pixels.astype(np.float32)
    kept, added = shares(step)
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels.astype(np.float32) * np.float32(kept) + noise * np.float32(added), 0.0, 1.0)


def shares(step: int) -> tuple[float, float]:
    """What is kept of the image and the noise's standard deviation, in units of full brightness.

    The square roots of abar and 1 - abar, where abar is the running product of 1 - beta, and beta a sigmoid
    over [-6, 6] scaled to lie between 1e-5 and 5e-3.

    Args:
        step: from 0 to 999.
    """
    beta = (5e-3 - 1e-5) / (1.0 + np.exp(-np.linspace(-6.0, 6.0, STEPS))) + 1e-5  # [1000]
    left = float(np.prod(1.0 - beta[: step + 1]))
    return left**0.5, (1.0 - left) ** 0.5


DEGRADE = Degradation(apply=diffusion, same_patient=True, paper="POVID, arXiv:2402.11411")
