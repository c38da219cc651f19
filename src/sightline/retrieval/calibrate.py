"""The number of reports at which few contradict the image: calibrated K with a bound on its risk.

Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814). The loss of showing K reports for a sample is the
share of them that contradict it. Per patient (the mean over the patient's samples) and made monotone by its running
maximum, it falls as K falls, and it is at most 1. On n patients who were not used for the index, the greatest K with

    n / (n + 1) * mean loss(K)  +  1 / (n + 1)  <=  alpha

then has, for a further patient who is exchangeable with these, an expected loss of at most alpha. Where no K
satisfies it, one report is shown without any promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import DataError
from ..metrics.findings import findings
from ..types import Sample
from .report import text_of

WORST = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Risk at one K.

    Args:
        k: reports shown.
        share: mean share of contradicting reports, per patient.
        risk: the same of the monotone loss, which the bound is for.
        bound: what is compared with alpha.
        holds: whether it is at most alpha.
    """

    k: int
    share: float
    risk: float
    bound: float
    holds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The K that was chosen and why.

    Args:
        k: reports shown.
        promised: whether its bound holds; if not, k is 1 and nothing is promised.
        alpha: most that the expected loss may be.
        patients, samples: whom it was calibrated on.
        table: risk by K.
    """

    k: int
    promised: bool
    alpha: float
    patients: int
    samples: int
    table: tuple[Coverage, ...]

    def to_dict(self) -> dict[str, Any]:
        """The calibration for JSON."""
        return {**asdict(self), "table": [asdict(row) for row in self.table]}

    def text(self) -> str:
        """The calibration for a reader, one line for each K."""
        head = f"calibrated K on {self.patients} patients ({self.samples} samples), alpha {self.alpha:g}"
        lines = [
            f"  K {row.k}: contradicting {row.share:.3f}, bound {row.bound:.3f}{' holds' if row.holds else ''}"
            for row in self.table
        ]
        end = f"  K = {self.k}"
        if not self.promised:
            least = self.table[0].bound
            end = (
                f"  WARNING: no K has a bound of at most {self.alpha:g} (K = 1 has {least:.3f}): one report is shown,"
                " and nothing is promised about it"
            )
        return "\n".join([head, *lines, end])


def calibrate(losses: Sequence[Sequence[float]], patients: Sequence[str], alpha: float) -> Calibration:
    """Choose K.

    Args:
        losses: per sample [k] the share of contradicting reports among the first 1, 2, ... k.
        patients: per sample.
        alpha: most that the expected loss may be.

    Raises:
        DataError: nobody to calibrate on.
    """
    if not len(losses):
        raise DataError(
            "there is nothing to calibrate K on",
            expected="samples of the valid split with labels or a report, and reports found for them",
            remedy="give the split a share in `split.valid`, or choose another rule than `calibrated`",
        )
    shares = np.asarray(losses, dtype=np.float64)  # [samples, k]
    loss = np.maximum.accumulate(shares, axis=1)
    who, of = np.unique(np.asarray(patients), return_inverse=True)
    n, each = len(who), np.bincount(of)[of][:, None]  # samples of the same patient [samples, 1]
    risk, share = ((values / each).sum(axis=0) / n for values in (loss, shares))  # [k] each
    bound = n / (n + 1) * risk + WORST / (n + 1)
    holds = bound <= alpha
    table = tuple(
        Coverage(
            k=i + 1, share=float(share[i]), risk=float(risk[i]), bound=float(bound[i]), holds=bool(holds[i])
        )
        for i in range(len(bound))
    )
    k = int(np.count_nonzero(holds))  # the bound never falls as K grows, so these are the first
    return Calibration(k=max(1, k), promised=k > 0, alpha=alpha, patients=n, samples=len(shares), table=table)


def loss_curve(contradicting: Sequence[bool], k: int) -> list[float]:
    """Share of contradicting reports among the first 1, 2, ... k; where fewer were found, among those."""
    counted = np.cumsum(np.asarray(contradicting, dtype=np.float64)) / np.arange(1, len(contradicting) + 1)
    return [float(counted[min(i, len(counted) - 1)]) for i in range(k)]


def truth(sample: Sample, topic: str) -> dict[str, int]:
    """What is known of a sample's image: its labels of 0 or 1, else what the rule labeller reads in its report."""
    known = {name: value for name, value in sample.labels.items() if value in (0, 1)}
    return known or stated(text_of(sample, topic))


def contradicts(text: str, known: Mapping[str, int]) -> bool:
    """Whether a report states a finding other than it is known to be."""
    return any(known.get(name, value) != value for name, value in stated(text).items())


def stated(text: str) -> dict[str, int]:
    """The findings that a report states to be present (1) or absent (0)."""
    return dict(_stated(text))


@lru_cache(maxsize=100_000)
def _stated(text: str) -> Iterable[tuple[str, int]]:
    return tuple((name, value) for name, value in findings(text).items() if value is not None)
