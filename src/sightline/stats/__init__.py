"""Intervals and comparisons that respect patients.

Turns of one patient are not independent, so patients are resampled, never turns. A resample is a row of whole
multiplicities; a measure maps a matrix of such rows to values, and two measures that are compared see the same
matrix. All randomness comes from a SHA-256 of (seed, name, purpose).

Intervals are percentiles of the bootstrap, taken further out by Student's t for the number of patients
(`interval.py`); docs/decisions/0008-intervals.md says why.
"""

from .agreement import cohen
from .conformal import Threshold, abstain, applied
from .contrast import Paired, difference_of_differences, paired
from .exchange import exchanged
from .holm import holm
from .interval import interval
from .measured import DROPPED, Measured, Statistic
from .power import patients_needed
from .ranks import correlation
from .resamples import bootstrap, generator, resample
from .scores import score, score_parts

__all__ = [
    "DROPPED",
    "Measured",
    "Paired",
    "Statistic",
    "Threshold",
    "abstain",
    "applied",
    "bootstrap",
    "cohen",
    "correlation",
    "difference_of_differences",
    "exchanged",
    "generator",
    "holm",
    "interval",
    "paired",
    "patients_needed",
    "resample",
    "score",
    "score_parts",
]
