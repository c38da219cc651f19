"""Noise in place of the image: nothing of the picture is left."""

from __future__ import annotations

import numpy as np

from . import Degradation


def replace(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """Pure normal noise, clipped to [0, 1]; only the shape of `pixels` matters.

    What MMed-RAG's training shows as the rejected image (Xia et al., arXiv:2410.13085, `train_dpo_2stages.py`
    at github.com/richard-peng-xia/MMed-RAG), there drawn unseeded on every access and rounded to 8 bits. At
    strength 1 half of the values are exactly 0 and 16 % exactly 1.

    Args:
        pixels: [H, W, 3].
        rng: the record's random numbers.
        strength: the standard deviation, in units of full brightness; no share of the image is mixed in.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    noise = rng.standard_normal(pixels.shape, dtype=np.float32)
    return np.clip(noise * np.float32(strength), 0.0, 1.0)


DEGRADE = Degradation(apply=replace, same_patient=True, volumes=True, paper="MMed-RAG, arXiv:2410.13085")
