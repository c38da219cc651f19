"""Too few X-rays: the grain of counted photons, as a film of too low a dose has it."""

from __future__ import annotations

import numpy as np

from . import Degradation

PHOTONS = 100.0  # that reach a pixel of full brightness, at strength 1
NOTHING = 1e-12  # below this strength the noise is smaller than a step of float32


def poisson(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """The image as counts of photons, clipped to [0, 1].

    Each value becomes Poisson(value * photons) / photons, the shot noise of ImageNet-C (Hendrycks and
    Dietterich, arXiv:1903.12261), whose five severities have 60, 25, 12, 5 and 3 photons. A simplification:
    brightness is taken for the radiation that came through. In a radiograph as it is shown bright is dense, few
    photons and much noise, and what is shown is their logarithm; here the brighter is the noisier.

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: the record's random numbers. Where the three channels are equal one count stands for all, as in an
            X-ray; otherwise each has its own.
        strength: how many times fewer photons than 100; at 1 a pixel of half brightness has a standard deviation
            of 0.07, at 10 (10 photons) of 0.22. 0 leaves the image as it is, and there is no upper bound. Two
            strengths have different grain: how many random numbers a count takes depends on its mean.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    if strength < NOTHING:
        return pixels.astype(np.float32)
    photons = PHOTONS / strength
    grey = bool((pixels == pixels[:, :, :1]).all())
    light = pixels[:, :, :1] if grey else pixels
    counts = rng.poisson(light.astype(np.float64) * photons)  # [H, W, 1 or 3]
    made = np.minimum(counts / photons, 1.0).astype(np.float32)
    return np.repeat(made, 3, axis=2) if grey else made


DEGRADE = Degradation(apply=poisson, same_patient=True, paper="shot noise of ImageNet-C, arXiv:1903.12261")
