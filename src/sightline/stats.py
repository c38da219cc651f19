"""Intervals and comparisons that respect patients.

Turns of one patient are not independent, so patients are resampled, never turns. A resample is a row of whole
multiplicities; a measure maps a matrix of such rows to values, and two measures that are compared see the
same matrix. All randomness comes from a SHA-256 of (seed, name, purpose).

Percentile intervals are used (Efron and Tibshirani 1993, chapter 13). They are narrow where few patients were
seen, and a measure that is the same in every resample has an interval without width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .errors import DataError
from .types import Score

Statistic = Callable[[np.ndarray], np.ndarray]
DROPPED = "dropped_resamples"
_CHUNK_BYTES = 16_000_000
_ROUNDING = 1e-12


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A difference on the same rows.

    Args:
        difference: first minus second, in the measure's unit.
        low, high: 95 % interval, or None where there are fewer than two patients or nothing is defined.
        p: two-sided p-value of the permutation test, or None where the measure is not an average.
        n: rows compared.
        patients: patients they belong to.
        dropped: resamples in which the difference was undefined.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    patients: int
    dropped: int = 0


def score(measure: Measured, *, seed: int = 0, resamples: int = 1000) -> Score:
    """A measure's value with its 95 % percentile interval over resampled patients.

    The interval is None where there are fewer than two patients or no resample is defined. Undefined
    resamples are dropped; where there were any, the part `dropped_resamples` counts them.
    """
    ones = np.ones((1, len(measure.keys)))
    value = float(measure.statistic(ones)[0])
    draws = bootstrap(measure, seed=seed, resamples=resamples)
    interval, dropped = _interval(draws, value, measure.patients)
    parts = {name: _evaluate(part, ones) for name, part in measure.parts.items()}
    if dropped:
        parts[DROPPED] = float(dropped)
    per_sample = None if measure.per_sample is None else tuple(map(float, measure.per_sample))
    return Score(
        value=value, interval=interval, per_sample=per_sample, parts=parts, n=len(measure.keys),
        patients=len(set(measure.patients)),
    )  # fmt: skip


def score_parts(measure: Measured, *, seed: int = 0, resamples: int = 1000) -> dict[str, Score]:
    """Every part of a measure that is a statistic, with its own interval from the measure's resamples."""
    chosen = {name: part for name, part in measure.parts.items() if callable(part)}
    ones = np.ones((1, len(measure.keys)))
    draws: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    for weights in resample(measure.patients, seed=seed, name=measure.name, resamples=resamples):
        for name, part in chosen.items():
            draws[name].append(part(weights))
    scores = {}
    for name, part in chosen.items():
        value = float(part(ones)[0])
        interval, _ = _interval(np.concatenate(draws[name]), value, measure.patients)
        scores[name] = Score(
            value=value, interval=interval, n=len(measure.keys), patients=len(set(measure.patients))
        )
    return scores


def bootstrap(measure: Measured, *, seed: int = 0, resamples: int = 1000) -> np.ndarray:
    """The measure on each resample, [resamples]; NaN where undefined."""
    chunks = resample(measure.patients, seed=seed, name=measure.name, resamples=resamples)
    return np.concatenate([measure.statistic(weights) for weights in chunks])


def resample(patients: Sequence[str], *, seed: int, name: str, resamples: int) -> Iterator[np.ndarray]:
    """Patients drawn with replacement, as multiplicities of their rows, in chunks of bounded size.

    Args:
        patients: the patient of each of n rows.
        seed: any whole number.
        name: the measure's. The draws depend on seed, name and the set of patients, not on the order of rows.
        resamples: how many.

    Yields:
        [r, n] float whole numbers; the chunks hold `resamples` rows together.
    """
    known, owner = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    chunk = max(1, _CHUNK_BYTES // (8 * len(owner)))
    random = generator(seed, name, "bootstrap")
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = random.integers(0, len(known), size=(size, len(known)))
        drawn += len(known) * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * len(known)).reshape(size, len(known))
        yield counts.astype(float)[:, owner]


def generator(seed: int, name: str, purpose: str) -> np.random.Generator:
    """A random generator that depends on its arguments and on nothing else."""
    digest = hashlib.sha256(f"{seed}\n{name}\n{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def paired(
    a: Measured, b: Measured, *, seed: int = 0, resamples: int = 1000, permutations: int = 10_000
) -> Paired:
    """The difference a - b on the same rows, with interval and permutation test.

    Both sides see the same resamples. The test exchanges the two sides patient by patient.

    Raises:
        DataError: the two measures are not about the same rows.
    """
    return _contrast([(1.0, a), (-1.0, b)], seed=seed, resamples=resamples, permutations=permutations)


def difference_of_differences(
    a_clean: Measured, a_blind: Measured, b_clean: Measured, b_blind: Measured,
    *, seed: int = 0, resamples: int = 1000, permutations: int = 10_000,
) -> Paired:  # fmt: skip
    """(a_clean - a_blind) - (b_clean - b_blind): by how much more a than b depends on seeing the image.

    The test exchanges the models a and b patient by patient, keeping clean with clean and blind with blind.

    Raises:
        DataError: the four measures are not about the same rows.
    """
    terms = [(1.0, a_clean), (-1.0, b_clean), (-1.0, a_blind), (1.0, b_blind)]  # equal models cancel exactly
    return _contrast(terms, seed=seed, resamples=resamples, permutations=permutations)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        adjusted[place] = highest
    return adjusted


def _contrast(
    terms: Sequence[tuple[float, Measured]], *, seed: int, resamples: int, permutations: int
) -> Paired:
    """A weighted sum of measures on the same rows, its interval, and its permutation test."""
    first = terms[0][1]
    orders = [_order(first, measure) for _, measure in terms]

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = np.zeros(len(weights))
        for (sign, measure), order in zip(terms, orders, strict=True):
            total += sign * measure.statistic(weights if order is None else weights[:, order])
        return total

    value = float(statistic(np.ones((1, len(first.keys))))[0])
    chunks = resample(first.patients, seed=seed, name=first.name, resamples=resamples)
    draws = np.concatenate([statistic(weights) for weights in chunks])
    interval, dropped = _interval(draws, value, first.patients)
    low, high = interval or (None, None)
    values = _row_values(terms, orders)
    p = None if values is None else _permute(values, first, seed=seed, permutations=permutations)
    return Paired(
        difference=value, low=low, high=high, p=p, n=len(first.keys), patients=len(set(first.patients)),
        dropped=dropped,
    )  # fmt: skip


def _order(a: Measured, b: Measured) -> np.ndarray | None:
    """For each row of b the number of the same row in a; None where the rows stand in the same order.

    Raises:
        DataError: a row of one side is missing on the other, or belongs to another patient there.
    """
    if a.keys == b.keys and a.patients == b.patients:
        return None
    place = {key: i for i, key in enumerate(a.keys)}
    lonely = sorted(set(a.keys) ^ set(b.keys))
    if lonely:
        raise DataError(
            f"'{a.name}' and '{b.name}' were not computed on the same turns",
            where=f"first unmatched (sample, turn): {', '.join(map(str, lonely[:3]))}",
            found=f"{len(lonely)} turn(s) on one side only",
            expected="the same turns on both sides",
            remedy="evaluate both models on the same split with the same questions",
        )
    order = np.array([place[key] for key in b.keys], dtype=np.intp)
    for row, patient in zip(order, b.patients, strict=True):
        if a.patients[row] != patient:
            raise DataError(
                "a turn belongs to different patients on the two sides",
                where=f"(sample, turn) {a.keys[row]}",
                expected="the same patient on both sides",
                remedy="evaluate both models on the same prepared data",
            )
    return order


def _row_values(
    terms: Sequence[tuple[float, Measured]], orders: Sequence[np.ndarray | None]
) -> np.ndarray | None:
    """The contrast of each row, [n] in the first measure's order; None where a measure is not an average."""
    total = np.zeros(len(terms[0][1].keys))
    for (sign, measure), order in zip(terms, orders, strict=True):
        if measure.per_sample is None:
            return None
        values = np.asarray(measure.per_sample, dtype=float)
        if order is None:
            total += sign * values
        else:
            total[order] += sign * values
    return total


def _permute(values: np.ndarray, measure: Measured, *, seed: int, permutations: int) -> float:
    """Two-sided p-value of exchanging the sides per patient; the observed arrangement counts as one.

    Patients without a difference change nothing under exchange and are left out.
    """
    _, owner = np.unique(np.asarray(measure.patients, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(owner, weights=values)  # [patients]
    sums = sums[np.abs(sums) > _ROUNDING]
    if not len(sums):
        return 1.0
    random = generator(seed, measure.name, "permutation")
    observed = abs(sums.sum())
    chunk = max(1, _CHUNK_BYTES // (8 * len(sums)))
    extreme = 0
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        signs = random.integers(0, 2, size=(size, len(sums))) * 2.0 - 1.0
        extreme += int((np.abs(signs @ sums) >= observed * (1 - 1e-9)).sum())
    return (1 + extreme) / (1 + permutations)


def _interval(
    draws: np.ndarray, value: float, patients: Sequence[str]
) -> tuple[tuple[float, float] | None, int]:
    """The 2.5 % and 97.5 % percentiles of the defined draws, and how many draws were undefined."""
    defined = draws[~np.isnan(draws)]
    dropped = len(draws) - len(defined)
    if len(set(patients)) < 2 or not len(defined):
        return None, dropped
    if max(defined.max(), value) - min(defined.min(), value) <= _ROUNDING * max(1.0, abs(value)):
        return (value, value), dropped
    low, high = np.percentile(defined, [2.5, 97.5])
    return (float(low), float(high)), dropped


def _evaluate(part: Statistic | float, weights: np.ndarray) -> float:
    """A part as a number."""
    return float(part(weights)[0]) if callable(part) else float(part)
