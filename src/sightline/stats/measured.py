"""What can be resampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

Statistic = Callable[[np.ndarray], np.ndarray]
DROPPED = "dropped_resamples"


class Measured(Protocol):
    """What can be resampled; `metrics.measure.Measure` is one."""

    @property
    def name(self) -> str:
        """The name, from which the randomness comes."""

    @property
    def statistic(self) -> Statistic:
        """Multiplicities [R, n] to values [R]."""

    @property
    def keys(self) -> tuple[tuple[str, int], ...]:
        """(sample, turn) of each row."""

    @property
    def patients(self) -> tuple[str, ...]:
        """The patient of each row."""

    @property
    def per_sample(self) -> np.ndarray | None:
        """[n] values whose plain mean is the measure, or None."""

    @property
    def parts(self) -> Mapping[str, Statistic | float]:
        """Named components."""
