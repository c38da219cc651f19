"""How far a model's confidence can be believed: calibration error, Brier score, and risk against coverage.

The confidence of an answer that was picked among choices is the share of its probability in that of all choices; that
of an open answer is the mean probability of its tokens (the exponential of their mean log-probability; Malinin and
Gales 2021, arXiv:2002.07650), which is good for ranking answers and is no probability of being right.

Every measure is a functional of the weighted distribution of (confidence, right), so that doubling all rows changes
nothing: equal-mass bins cut through rows where they must, and answers of equal confidence count as one group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .answers import closed, normalise
from .measure import Measure, Metric, Statistic, average, keys, patients, ratio, rows, tally

BINS = 15
NOTE = "ECE of few answers is above 0 even for a calibrated model, and its intervals lie high for the same reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sure:
    """Answers whose confidence and correctness are known, in the order of their keys.

    Args:
        turns: the answers.
        confidence: [n] 0-1.
        right: [n] bool.
        brier: [n] half the squared distance of all choices' probabilities from the truth; (p - y)^2 for two.
    """

    turns: tuple[Prediction, ...]
    confidence: np.ndarray
    right: np.ndarray
    brier: np.ndarray


def calibration(
    predictions: Sequence[Prediction], *, bins: int = 15, report: str = "report"
) -> list[Measure]:
    """Scores the confidence of answers.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        bins: bins of both calibration errors.
        report: the topic of turns that ask for a report, which is never simply right.

    Returns:
        Of answers picked among choices `ece` (bins of equal mass), `ece_width` (bins of equal width), `brier` and
        `aurc`; of open answers with a log-probability `aurc_open`. What does not apply is absent.

    Raises:
        DataError: no predictions, a turn answered twice, a log-probability that is not a number, or no bins.
    """
    ordered = rows(predictions)
    if bins < 1:
        raise DataError("a calibration error needs bins", found=f"bins={bins}", expected="at least 1")
    picked, open_answers = picks(ordered), opened(ordered, report)
    measures = []
    if len(picked.turns):
        sure, right = picked.confidence, picked.right
        doc = "mean distance of confidence and accuracy over "
        measures = [
            _measure(
                "ece", picked, ece(sure, right, bins), doc + f"{bins} bins of equally many answers", NOTE
            ),
            _measure(
                "ece_width", picked, ece_width(sure, right, bins), doc + f"{bins} equally wide bins", NOTE
            ),
            _measure("brier", picked, average(picked.brier), "mean of (p - y)^2", per_sample=picked.brier),
            _measure(
                "aurc", picked, aurc(sure, right), "mean over coverages of the error rate of the surest"
            ),
        ]
    if len(open_answers.turns):
        area = aurc(open_answers.confidence, open_answers.right)
        measures.append(
            _measure("aurc_open", open_answers, area, "the same of open answers, by mean log-probability")
        )
    return measures


def picks(ordered: Sequence[Prediction]) -> Sure:
    """The answers that were picked among choices of which one is right; ties go to the choice that stands first."""
    turns, confidence, right, brier = [], [], [], []
    for turn in ordered:
        gold = _gold(turn) if len(turn.choices) > 1 else None
        if gold is None:
            continue
        names, logps = list(turn.choices), np.array(list(turn.choices.values()), dtype=float)
        _check(turn, logps)
        p = np.exp(logps - logps.max())
        p /= p.sum()
        turns.append(turn)
        confidence.append(p.max())
        right.append(names[int(p.argmax())] == gold)
        brier.append((((p - [name == gold for name in names]) ** 2).sum()) / 2)
    return Sure(
        turns=tuple(turns), confidence=np.array(confidence), right=np.array(right, dtype=bool), brier=np.array(brier)
    )  # fmt: skip


def opened(ordered: Sequence[Prediction], report: str = "report") -> Sure:
    """The open answers that have a log-probability; right where their normal form is that of the right answer."""
    turns = [p for p in ordered if p.logp is not None and not p.choices and p.topic != report]
    for turn in turns:
        _check(turn, np.array([turn.logp]))
    confidence = np.array([math.exp(min(p.logp or 0.0, 0.0)) for p in turns])
    right = np.array([normalise(p.text) == normalise(p.answer) for p in turns], dtype=bool)
    return Sure(turns=tuple(turns), confidence=confidence, right=right, brier=np.zeros(0))


def ece(sure: np.ndarray, right: np.ndarray, bins: int = BINS) -> Statistic:
    """Expected calibration error over bins of equal mass (Nixon et al. 2019, arXiv:1904.01685).

    Args:
        sure: [n] confidence.
        right: [n] bool.
        bins: how many.
    """
    order, starts = _groups(sure)
    gaps = sure[order] - right[order]

    def error(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, order]
        mass = np.add.reduceat(drawn, starts, axis=1)  # [R, groups]
        gap = np.add.reduceat(drawn * gaps, starts, axis=1)
        ends, sums = np.cumsum(mass, axis=1), np.cumsum(gap, axis=1)
        before = np.zeros(len(weights))
        total = np.zeros(len(weights))
        line = np.arange(len(weights))
        for k in range(1, bins + 1):
            target = ends[:, -1] * (k / bins)
            place = np.minimum((ends < target[:, None]).sum(axis=1), len(starts) - 1)  # the group that is cut
            inside = ratio(target - (ends - mass)[line, place], mass[line, place])
            here = (sums - gap)[line, place] + np.nan_to_num(inside) * gap[line, place]
            total += np.abs(here - before)
            before = here
        return ratio(total, ends[:, -1])

    return error


def ece_width(sure: np.ndarray, right: np.ndarray, bins: int = BINS) -> Statistic:
    """Expected calibration error over equally wide bins of 0-1 (Guo et al. 2017, arXiv:1706.04599).

    Args:
        sure: [n] confidence; each bin holds its upper end.
        right: [n] bool.
        bins: how many.
    """
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    columns = np.zeros((len(sure), bins + 1))
    columns[np.arange(len(sure)), place] = sure - right
    columns[:, bins] = 1.0
    return tally(columns, lambda sums: ratio(np.abs(sums[:, :-1]).sum(axis=1), sums[:, -1]))


def aurc(sure: np.ndarray, right: np.ndarray) -> Statistic:
    """Area under the risk-coverage curve (Geifman et al. 2019, arXiv:1805.08206), 0-1.

    Risk at coverage c is the error rate among the c surest answers. The curve is integrated over c, within a group of
    equal confidence as if its errors were spread evenly; summing over answers instead, as is common, differs by the
    order of 1 / n and would depend on how often a row was drawn.

    Args:
        sure: [n] confidence.
        right: [n] bool.
    """
    order, starts = _groups(-sure)
    wrong = ~right[order]

    def area(weights: np.ndarray) -> np.ndarray:
        drawn = weights[:, order]
        mass = np.add.reduceat(drawn, starts, axis=1)  # [R, groups]
        errors = np.add.reduceat(drawn * wrong, starts, axis=1)
        end = np.cumsum(mass, axis=1)
        begin, before = end - mass, np.cumsum(errors, axis=1) - errors
        rate = np.nan_to_num(ratio(errors, mass))
        spread = np.log(np.where(begin > 0, end, 1.0) / np.where(begin > 0, begin, 1.0))
        return ratio((rate * mass + (before - rate * begin) * spread).sum(axis=1), end[:, -1])

    return area


def risk_coverage(sure: np.ndarray, right: np.ndarray) -> list[tuple[float, float]]:
    """(share answered, error rate among these) if only the surest are answered, at every distinct confidence."""
    order, starts = _groups(-sure)
    ends = np.append(starts[1:], len(sure))
    errors = np.cumsum(~right[order])[ends - 1]
    return [(float(end / len(sure)), float(e / end)) for end, e in zip(ends, errors, strict=True)]


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The order of rows by value, and where each group of equal values begins."""
    order = np.argsort(values, kind="stable")
    return order, np.flatnonzero(np.diff(values[order], prepend=-np.inf))


def _gold(turn: Prediction) -> str | None:
    """The right choice of a turn: by yes or no, else by normal form; None where it is none of the choices."""
    answer = closed(turn.question, turn.answer)
    if answer in turn.choices:
        return answer
    plain = normalise(turn.answer)
    return next((name for name in turn.choices if normalise(name) == plain), None)


def _check(turn: Prediction, logps: np.ndarray) -> None:
    """Refuse log-probabilities that are no numbers.

    Raises:
        DataError: one is not finite.
    """
    if not np.isfinite(logps).all():
        raise DataError(
            "a log-probability is not finite",
            where=f"sample {turn.sample}, turn {turn.turn}",
            found=", ".join(f"{value:g}" for value in logps),
            expected="finite log-probabilities in nats",
            remedy="compute log-softmax in float32 and check the model for non-finite weights",
        )


def _measure(
    name: str, found: Sure, statistic: Statistic, doc: str, *notes: str, per_sample: np.ndarray | None = None
) -> Measure:
    """An error of confidence as a measure."""
    return Measure(
        name=name, statistic=statistic, keys=keys(found.turns), patients=patients(found.turns), doc=doc,
        per_sample=per_sample, higher_is_better=False, notes=notes,
    )  # fmt: skip


METRIC = Metric(
    score=calibration,
    paper="Guo et al. 2017, arXiv:1706.04599 (ECE); Brier 1950; Geifman et al. 2019, arXiv:1805.08206 (AURC)",
)
