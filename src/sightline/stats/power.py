"""How large a difference is beside how much patients vary, and how many patients would show it."""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

LEVEL, POWER = 0.05, 0.8


def standardised(draws: np.ndarray, difference: float, patients: int) -> float | None:
    """A paired difference in standard deviations of one patient's difference (Cohen's d_z, per patient).

    The standard deviation comes from the bootstrap over patients: that of its draws, times the root of the number of
    patients. So it is as clustered as the interval, and it exists for ratios, too.

    Args:
        draws: [R] the difference on resamples; NaN where undefined.
        difference: the difference on the data.
        patients: how many were resampled.

    Returns:
        The effect, or None where the differences do not vary.
    """
    defined = draws[~np.isnan(draws)]
    if patients < 2 or len(defined) < 2:
        return None
    # Draws vary by (n - 1) / n of what n patients tell about further ones.
    one = float(defined.std()) * sqrt(patients) * sqrt(patients / (patients - 1))
    return difference / one if one > 1e-9 * max(1.0, abs(difference)) else None


def patients_needed(effect: float | None, *, level: float = LEVEL, power: float = POWER) -> int | None:
    """How many patients like these a further study needs to see a difference like this one.

    For a two-sided paired test: (z of 1 - level / 2 + z of power)^2 / effect^2, and z^2 / 2 for estimating the
    variance (Guenther 1981). As many images per patient as here are supposed. The observed effect is itself
    uncertain, so this is an order of magnitude, and no excuse for a test that found nothing.

    Args:
        effect: of `standardised`.
        level: of the test.
        power: the chance to see it.

    Returns:
        Patients, at least 2; None where there is no effect to see.
    """
    if effect is None or abs(effect) < 1e-6:
        return None
    z = NormalDist().inv_cdf(1 - level / 2)
    return max(2, ceil(((z + NormalDist().inv_cdf(power)) / effect) ** 2 + z**2 / 2))
