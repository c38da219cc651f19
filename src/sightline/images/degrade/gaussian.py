"""Noise on top of the image: part of the picture can still be seen."""

from __future__ import annotations

import numpy as np

from . import Degradation


def gaussian(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """The image plus normal noise, clipped to [0, 1].

    What MMed-RAG's report scripts do when they collect a model's answers to noisy images (Xia et al.,
    arXiv:2410.13085, github.com/richard-peng-xia/MMed-RAG), with standard deviation 1.

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: the record's random numbers.
        strength: the standard deviation, in units of full brightness; 0 leaves the image as it is.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(pixels.astype(np.float32) + noise * np.float32(strength), 0.0, 1.0)


DEGRADE = Degradation(apply=gaussian, same_patient=True, volumes=True, paper="MMed-RAG, arXiv:2410.13085")
