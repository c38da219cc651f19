"""When to abstain: a threshold on confidence with a promise about the errors that get through.

Conformal risk control (Angelopoulos et al. 2022, arXiv 2208.02814). An answer is given if its confidence is above
the threshold; else a human is asked. The loss of one patient is the share of its questions that are answered and
wrong: it falls as the threshold rises, and it is at most 1. On n patients whom the model was not taught with, the
least threshold with

    n / (n + 1) * mean loss  +  1 / (n + 1)  <=  alpha

gives a further patient, exchangeable with these, an expected loss of at most alpha. With one question per patient
this is split conformal prediction (Vovk et al. 2005) on the confidence of wrong answers.

The promise is an average over patients and over such calibration sets. It is none for one patient, for a subgroup, or
for another hospital; nor is it one about the share of errors among the answers that are given, which stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from ..errors import DataError
from .resamples import owners

NEVER = 1.0  # no confidence is above it
ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Above which confidence an answer is given.

    Args:
        threshold: answers with more confidence are given; 1 where none may be.
        alpha: most that a further patient's expected share of questions answered wrongly may be.
        bound: what the rule compares with alpha, at this threshold.
        answered: share of the calibration questions that it answers, per patient.
        risk: share of them that it answers wrongly, per patient.
        patients, answers: whom it was calibrated on.
        patients_least: patients without whom this alpha cannot be promised unless nothing is answered.
    """

    threshold: float
    alpha: float
    bound: float
    answered: float
    risk: float
    patients: int
    answers: int
    patients_least: int

    @property
    def useful(self) -> bool:
        """Whether it answers anything."""
        return self.threshold < NEVER

    @property
    def promise(self) -> str:
        """What it promises, as a sentence."""
        if not self.useful:
            return (
                f"no answer may be given: {self.patients} patients do not show that the share of questions answered "
                f"wrongly can be held at {self.alpha:g} (at least {self.patients_least} are needed)"
            )
        return (
            f"answers with a confidence above {self.threshold:.6g} are given, the others are left to a human; for a "
            f"further patient who is exchangeable with the {self.patients} of the calibration, the expected share of "
            f"questions that are answered and wrong is at most {self.alpha:g}"
        )


def abstain(
    confidence: Sequence[float] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
    patients: Sequence[str],
    alpha: float,
) -> Threshold:
    """The least threshold whose bound holds.

    Args:
        confidence: [n] of each answer, 0-1.
        right: [n] whether it is right.
        patients: [n] whose it is.
        alpha: most that the expected share of questions answered wrongly may be, 0-1.

    Raises:
        DataError: there is nobody to calibrate on, or a confidence is not within 0-1.
    """
    sure, wrong = np.asarray(confidence, dtype=float), ~np.asarray(right, dtype=bool)
    _check(sure)
    count, owner = owners(patients)
    shares = 1.0 / np.bincount(owner)[owner] / count  # [n] what a question adds to a mean over patients
    levels = np.unique(np.append(sure[wrong], 0.0))  # only there does the risk fall
    mass = np.bincount(np.searchsorted(levels, sure[wrong]), weights=shares[wrong], minlength=len(levels))
    risk = np.append(np.cumsum(mass[::-1])[::-1][1:], 0.0)  # [levels] of what is surer than each
    bound = (count * risk + 1) / (count + 1)
    holds = np.flatnonzero(bound <= alpha + ROUNDING)
    place = int(holds[0]) if len(holds) else len(levels) - 1
    held = float(levels[place]) if len(holds) else NEVER
    return Threshold(
        threshold=held, alpha=alpha, bound=float(bound[place]), answered=float(shares[sure > held].sum()),
        risk=float(risk[place]), patients=count, answers=len(sure), patients_least=max(1, ceil(1 / alpha - 1 - 1e-9)),
    )  # fmt: skip


def applied(
    found: Threshold,
    confidence: Sequence[float] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Which answers a threshold gives, and which of them are wrong: [n] bool each."""
    given = np.asarray(confidence, dtype=float) > found.threshold
    return given, given & ~np.asarray(right, dtype=bool)


def _check(sure: np.ndarray) -> None:
    """Refuse what cannot be calibrated on."""
    if not len(sure):
        raise DataError(
            "there is nothing to calibrate a threshold on",
            expected="answers with confidences of the valid split",
            remedy="give the split a share in `split.valid`, and questions that are answered by yes or no",
        )
    if not ((sure >= 0) & (sure <= 1)).all():
        raise DataError(
            "a confidence is not within 0 and 1",
            found=f"{sure.min():g} to {sure.max():g}",
            expected="probabilities",
        )
