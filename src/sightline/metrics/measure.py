"""What a metric returns: a number that can be computed again under any resampling of its rows, fast.

A `Measure` does not hold its value. It holds a statistic that maps integer multiplicities of its rows to
values, many resamples at once, so intervals, paired differences and subgroups all come from one function.
Nearly every metric is a formula of weighted sums; `tally` makes a statistic of those two things, and a whole
bootstrap of it is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .answers import closed

Statistic = Callable[[np.ndarray], np.ndarray]
Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number of one model, ready to be resampled.

    Args:
        name: `balanced_accuracy`, `bleu`, ...
        statistic: maps multiplicities [R, n] (float, whole numbers) to values [R]; NaN where undefined.
        keys: (sample, turn) of each of the n rows, sorted.
        patients: the patient of each row, the unit of resampling.
        per_sample: [n] values whose plain mean is the measure, or None where it is not an average.
        parts: named components, as statistics over the same rows or as plain numbers.
        higher_is_better: False for rates of errors.
        unit: what the number is in (`0-1`, `0-100`, `nats`).
        doc: one sentence that defines the number.
        left_out: topics or findings that could not be scored, by name.
        notes: sentences that belong beside the number: how it differs from another of the same name, what it lacks.
        tables: named tables behind the number, of plain values: `rows` and `columns` (names) and `counts`.
    """

    name: str
    statistic: Statistic
    keys: tuple[Key, ...]
    patients: tuple[str, ...]
    per_sample: np.ndarray | None = None
    parts: Mapping[str, Statistic | float] = field(default_factory=dict)
    higher_is_better: bool = True
    unit: str = "0-1"
    doc: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def value(self) -> float:
        """The measure on the data as they are: every row once."""
        return float(self.statistic(np.ones((1, len(self.keys))))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a metric file registers.

    Args:
        score: predictions (and keyword-only options) in, measures out.
        version: raised whenever the same answers would score differently; part of what makes a result stale.
        paper: where the metric was defined.
        answers: reads a file of answers in the metric's own layout, given its path and the options; None where there
            is no such layout.
        sections: measures to the figures of each section, in the order and the names of the metric's own program.
        attributes: attributes of samples that it reads, beside those that its options name.
        needs_model: whether it runs a model of its own, so that a run is verified without it unless that is wanted.
    """

    score: Callable[..., list[Measure]]
    version: int = 1
    paper: str = ""
    answers: Callable[[Path, Mapping[str, Any]], list[Prediction]] | None = None
    sections: Callable[[Sequence[Measure]], dict[str, dict[str, float]]] | None = None
    attributes: tuple[str, ...] = ()
    needs_model: bool = False


def rows(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions sorted by (sample, turn), so that no number depends on the order they came in.

    Raises:
        DataError: there are none, or a turn was answered twice.
    """
    if not predictions:
        raise DataError(
            "there are no predictions to score",
            found="0 predictions",
            expected="at least one",
            remedy="check that the split is not empty and that the model answered",
        )
    ordered = sorted(predictions, key=key)
    for one, two in pairwise(ordered):
        if key(one) == key(two):
            raise DataError(
                "two predictions answer the same turn",
                where=f"sample {two.sample}, turn {two.turn}",
                found=f"{one.model or 'model'}/{one.image} and {two.model or 'model'}/{two.image}",
                expected="one prediction for each turn of each sample",
                remedy="score one model and one image condition at a time",
            )
    return ordered


def written(ordered: Sequence[Prediction], report: str) -> list[Prediction]:
    """The turns whose wording is worth comparing: the reports, or the open answers where there are none."""
    reports = [p for p in ordered if p.topic == report]
    return reports or [p for p in ordered if closed(p.question, p.answer) is None]


def key(prediction: Prediction) -> Key:
    """What names a row: the sample and its turn."""
    return prediction.sample, prediction.turn


def keys(selected: Sequence[Prediction]) -> tuple[Key, ...]:
    """The keys of rows, in their order."""
    return tuple(key(p) for p in selected)


def patients(selected: Sequence[Prediction]) -> tuple[str, ...]:
    """The patients of rows, in their order."""
    return tuple(p.patient for p in selected)


def tally(columns: np.ndarray, formula: Callable[[np.ndarray], np.ndarray]) -> Statistic:
    """A statistic that is a formula of weighted sums.

    Args:
        columns: [n, k] what each row adds to each of k sums.
        formula: maps sums [R, k] to values [R].
    """
    return lambda weights: formula(weights @ columns)


def only(chosen: Sequence[int], statistic: Statistic) -> Statistic:
    """A statistic over some of the rows, as a statistic over all of them."""
    index = np.asarray(chosen, dtype=np.intp)
    return lambda weights: statistic(weights[:, index])


def average(values: np.ndarray) -> Statistic:
    """The weighted mean of one value per row."""
    columns = np.stack([np.asarray(values, dtype=float), np.ones(len(values))], axis=1)
    return tally(columns, lambda sums: ratio(sums[:, 0], sums[:, 1]))


def mean(name: str, turns: Sequence[Prediction], values: np.ndarray, **more: Any) -> Measure:
    """The mean of one value per turn as a measure.

    Args:
        name: the measure's.
        turns: what was scored, in order.
        values: [n], one for each.
        more: further arguments of `Measure`.
    """
    return Measure(
        name=name, statistic=average(values), keys=keys(turns), patients=patients(turns), per_sample=values, **more
    )  # fmt: skip


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """The mean of several statistics, over those that are defined in each resample.

    This is what computing the metric from scratch on the resampled rows would give: a topic that a resample
    leaves with one class only is left out there too.
    """

    def mean(weights: np.ndarray) -> np.ndarray:
        values = np.stack([statistic(weights) for statistic in statistics], axis=1)  # [R, topics]
        defined = ~np.isnan(values)
        return ratio(np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1))

    return mean


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Elementwise quotient; NaN where the denominator is 0."""
    below = np.asarray(below, dtype=float)
    return np.divide(above, below, out=np.full(below.shape, np.nan), where=below != 0)


def check_same_turns(one: Sequence[Prediction], other: Sequence[Prediction], remedy: str) -> None:
    """Refuse two sets of answers, each in its order, that are not about the same turns.

    Raises:
        DataError: a turn stands in one set only.
    """
    if keys(one) == keys(other):
        return
    lonely = sorted(set(keys(one)) ^ set(keys(other)))
    raise DataError(
        "the two sets of answers are not about the same turns",
        where=f"(sample, turn): {', '.join(map(str, lonely[:3]))}",
        found=f"{len(lonely)} turn(s) in one set only",
        remedy=remedy,
    )
