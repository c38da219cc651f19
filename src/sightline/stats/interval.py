"""A 95 % interval from bootstrap draws: bias-corrected and accelerated percentiles, taken further out by Student's t.

Plain percentiles (Efron and Tibshirani 1993, chapter 13) miss in two ways where patients are few:

- They are too narrow by sqrt((n - 1) / n), for they divide by n where the variance of n patients divides by n - 1, and
  by the ratio of a normal to a t quantile. Hesterberg 2015 (arXiv:1411.5279) mends both by taking other percentiles.
- They lean the wrong way where the measure is skewed or biased, as ratios are. BCa (Efron 1987) shifts the
  percentiles by the median bias of the draws and by the acceleration, the skewness of what patients add.

Both corrections only choose other percentiles of the same draws; intervals stay within the range of the measure.
docs/decisions/0008-intervals.md has the coverage that was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from .measured import Statistic
from .resamples import leave_out

LEVEL = 0.95
MOST_GROUPS = 100
MOST_BIAS = 1.0  # standard errors; beyond, the draws are no picture of the measure
ROUNDING = 1e-12


def interval(
    draws: np.ndarray, value: float, patients: int, acceleration: float = 0.0
) -> tuple[tuple[float, float] | None, int]:
    """The 95 % interval of a measure.

    Args:
        draws: [R] the measure on resamples; NaN where undefined.
        value: the measure on the data, which always lies within.
        patients: how many were resampled.
        acceleration: of `acceleration`.

    Returns:
        The interval, or None where there are fewer than two patients or no draw is defined; without width where all
        draws are the value. And how many draws were undefined.
    """
    defined = draws[~np.isnan(draws)]
    dropped = len(draws) - len(defined)
    if patients < 2 or not len(defined):
        return None, dropped
    if max(defined.max(), value) - min(defined.min(), value) <= ROUNDING * max(1.0, abs(value)):
        return (value, value), dropped
    low, high = np.percentile(defined, levels(defined, value, patients, acceleration))
    return (min(float(low), value), max(float(high), value)), dropped


def levels(draws: np.ndarray, value: float, patients: int, acceleration: float) -> list[float]:
    """Which percentiles of the draws are the ends of the interval, 0-100.

    Args:
        draws: [R] defined.
        value: the measure on the data; draws that equal it count half.
        patients: at least 2.
        acceleration: see `interval`.
    """
    normal = NormalDist()
    near = np.abs(draws - value) <= ROUNDING * max(1.0, abs(value))
    below = float(((draws < value) & ~near).mean() + near.mean() / 2)
    bias = normal.inv_cdf(min(max(below, normal.cdf(-MOST_BIAS)), normal.cdf(MOST_BIAS)))
    ends = []
    for z in (-reach(patients), reach(patients)):
        lean = max(1 - acceleration * (bias + z), 0.1)  # beyond its pole the formula says nothing
        ends.append(100 * normal.cdf(bias + (bias + z) / lean))
    return ends


def acceleration(statistic: Statistic, patients: Sequence[str]) -> float:
    """BCa's acceleration: a sixth of the standardised third moment of what each patient adds, by the jackknife.

    Args:
        statistic: the measure.
        patients: the patient of each row. Of more than `MOST_GROUPS` patients, so many groups are left out instead:
            their second and third moments are sums of those of their patients.

    Returns:
        The acceleration; 0 where nobody adds anything, or leaving a patient out leaves nothing defined.
    """
    without = np.concatenate([statistic(weights) for weights in leave_out(patients, MOST_GROUPS)])
    added = without.mean() - without
    if np.isnan(without).any() or np.abs(added).max() <= ROUNDING * max(1.0, abs(without).max()):
        return 0.0
    return float((added**3).sum() / (6 * (added**2).sum() ** 1.5))


@lru_cache(maxsize=1024)
def reach(patients: int) -> float:
    """How many standard errors of the draws the interval reaches: 1.96 for many patients, more for few.

    Args:
        patients: at least 2.
    """
    return student((1 + LEVEL) / 2, patients - 1) * (patients / (patients - 1)) ** 0.5


def student(share: float, freedom: int) -> float:
    """The quantile of Student's t, by halving; the distribution function is a finite sum for whole degrees of freedom.

    Abramowitz and Stegun 1964, 26.7.3 and 26.7.4. From 1000 degrees on their expansion 26.7.5 is exact to 1e-9.

    Args:
        share: below the quantile, 0.5 to 1.
        freedom: degrees of freedom, at least 1.
    """
    z = NormalDist().inv_cdf(share)
    if freedom >= 1000:
        return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    low, high = 0.0, 1.0
    while _below(high, freedom) < share:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _below(middle, freedom) < share else (low, middle)
    return (low + high) / 2


def _below(t: float, freedom: int) -> float:
    """The share of Student's t below a quantile that is not negative."""
    angle = np.arctan2(t, freedom**0.5)
    odd = freedom % 2
    steps = np.arange(1 + odd, freedom - 1, 2)  # 2, 4, ... for odd degrees, 1, 3, ... for even ones
    terms = np.cumprod(np.concatenate([[1.0], steps / (steps + 1) * np.cos(angle) ** 2]))
    if odd:
        inside = 2 / np.pi * (angle + (np.sin(angle) * np.cos(angle) * terms.sum() if freedom > 1 else 0.0))
    else:
        inside = np.sin(angle) * terms.sum()
    return float(0.5 + inside / 2)
