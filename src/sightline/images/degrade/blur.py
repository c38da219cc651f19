"""A picture out of focus: where things are can still be guessed, what they are cannot."""

from __future__ import annotations

import numpy as np

from . import Degradation

SIGMA = 0.10  # of the shorter side, at strength 1


def blur(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """The image smoothed by a Gaussian, the same at every size.

    One of the ways in which Image DPO spoils the rejected image (Luo et al., arXiv:2501.00569). At strength 1
    what is small is gone from a generated radiograph: a nodule, a pneumothorax and a device are at chance even
    for a classifier taught on blurred pictures. What is large, an effusion or a wide heart, can still be
    guessed from which part is bright (area under the curve 0.8; see `docs/degradations.md`).

    Args:
        pixels: [H, W, 3] in [0, 1].
        rng: not used; nothing is drawn.
        strength: the Gaussian's standard deviation in tenths of the shorter side: at 1 it is 10 %, or 22 of 224
            pixels. 0 leaves the image as it is, and there is no upper bound.

    Returns:
        float32 [H, W, 3] in [0, 1].
    """
    sharp = pixels.astype(np.float32)
    # Beyond a hundred times the picture nothing changes any more: all is its mean.
    sigma = min(SIGMA * strength * min(pixels.shape[:2]), 100.0 * max(pixels.shape[:2]))
    if sigma == 0.0:
        return sharp
    # One channel at a time: the same steps for each, so grey stays grey to the last bit.
    smooth = [_smooth(_smooth(sharp[:, :, c], sigma).T, sigma).T for c in range(3)]
    return np.clip(np.stack(smooth, axis=2), 0.0, 1.0)


def _smooth(plane: np.ndarray, sigma: float) -> np.ndarray:
    """Every row smoothed. [H, W] -> [H, W].

    The row and its mirror image make one period, so edges repeat themselves and nothing dark leaks in. The
    factor exp(-2 (sigma sin(w / 2))^2) is the Fourier transform of the discrete Gaussian (Lindeberg 1990,
    "Scale-space for discrete signals"): its variance is sigma^2 and its weights are never negative however
    narrow it is, and nothing is cut off however wide.
    """
    width = plane.shape[1]
    period = np.concatenate([plane, plane[:, ::-1]], axis=1)  # [H, 2 W]
    waves = np.pi * np.arange(width + 1) / width
    factor = np.exp(-2.0 * (sigma * np.sin(waves / 2.0)) ** 2).astype(np.float32)  # [W + 1]
    made = np.fft.irfft(np.fft.rfft(period, axis=1) * factor, n=2 * width, axis=1)[:, :width]
    return np.ascontiguousarray(made, dtype=np.float32)


DEGRADE = Degradation(apply=blur, same_patient=True, paper="Image DPO, arXiv:2501.00569")
