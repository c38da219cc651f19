"""Differences of measures on the same rows: interval, test, size, and the patients who would show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .interval import acceleration, interval
from .measured import Measured, Statistic
from .permutation import flip
from .power import patients_needed, standardised
from .resamples import generator, leave_out, owners, resample

Terms = Sequence[tuple[float, Measured]]
Orders = Sequence[np.ndarray | None]
EXCHANGE, INFLUENCE = "exchange", "influence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """A difference on the same rows.

    Args:
        difference: first minus second, in the measure's unit.
        low, high: 95 % interval, or None where there are fewer than two patients or nothing is defined.
        p: two-sided p-value of a permutation test over patients, or None where there is none.
        n: rows compared.
        patients: patients they belong to.
        dropped: resamples in which the difference was undefined.
        test: `exchange` (of the two sides' rows, for averages), `influence` (of what each patient adds to the
            difference, for ratios), or "" without a test.
        effect: the difference in standard deviations of one patient's difference, or None.
        odds_ratio, odds_low, odds_high: of yes/no measures, rows that only the first side has right over those that
            only the second has right, with its 95 % interval; None for other measures.
        patients_needed: patients who would show this difference with 80 % power at 5 %, or None.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    patients: int
    dropped: int = 0
    test: str = ""
    effect: float | None = None
    odds_ratio: float | None = None
    odds_low: float | None = None
    odds_high: float | None = None
    patients_needed: int | None = None


def paired(
    a: Measured, b: Measured, *, seed: int = 0, resamples: int = 1000, permutations: int = 10_000
) -> Paired:
    """The difference a - b on the same rows, with interval and permutation test.

    Both sides see the same resamples. The test exchanges the two sides patient by patient; for a measure that is no
    average it turns the sign of each patient's influence on the difference (Hemerik, Goeman and Finos 2020,
    doi 10.1111/rssb.12369).

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


def _contrast(terms: Terms, *, seed: int, resamples: int, permutations: int) -> Paired:
    """A weighted sum of measures on the same rows, its interval, its test and its size."""
    first = terms[0][1]
    orders = [_order(first, measure) for _, measure in terms]
    sides = _sides(terms, orders)
    statistic, odds = _summed(terms, orders), None if sides is None else _odds(sides)
    patients = len(set(first.patients))
    value = float(statistic(np.ones((1, len(first.keys))))[0])
    draws, ratios = [], []
    for weights in resample(first.patients, seed=seed, name=first.name, resamples=resamples):
        draws.append(statistic(weights))
        if odds is not None:
            ratios.append(odds(weights))
    lean = acceleration(statistic, first.patients)
    found, dropped = interval(np.concatenate(draws), value, patients, lean)
    low, high = found or (None, None)
    sums, test = _contributions(terms, orders, statistic, value)
    p = None if sums is None else flip(sums, generator(seed, first.name, "permutation"), permutations)
    effect = standardised(np.concatenate(draws), value, patients)
    ratio, ratio_low, ratio_high = _ratio(odds, ratios, first.patients)
    return Paired(
        difference=value, low=low, high=high, p=p, n=len(first.keys), patients=patients, dropped=dropped,
        test=test, effect=effect, patients_needed=patients_needed(effect), odds_ratio=ratio, odds_low=ratio_low,
        odds_high=ratio_high,
    )  # fmt: skip


def _summed(terms: Terms, orders: Orders) -> Statistic:
    """The weighted sum of the measures as one statistic over the rows of the first."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = np.zeros(len(weights))
        for (sign, measure), order in zip(terms, orders, strict=True):
            total += sign * measure.statistic(weights if order is None else weights[:, order])
        return total

    return statistic


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


def _contributions(
    terms: Terms, orders: Orders, statistic: Statistic, value: float
) -> tuple[np.ndarray | None, str]:
    """What each patient adds to the contrast, [patients], and of which kind that is.

    For averages the sums of its rows, whose signs an exchange of the sides turns. Else the jackknife's pseudo-values
    (Efron and Tibshirani 1993, chapter 11), of which that is true in the limit; none where leaving out one patient
    leaves nothing defined.
    """
    first = terms[0][1]
    count, owner = owners(first.patients)
    rows = _rows(terms, orders)
    if rows is not None:
        total = sum(sign * values for (sign, _), values in zip(terms, rows, strict=True))
        return np.bincount(owner, weights=total), EXCHANGE
    if count < 2 or np.isnan(value):
        return None, ""
    without = np.concatenate([statistic(weights) for weights in leave_out(first.patients)])
    if np.isnan(without).any():
        return None, ""
    return value + (count - 1) * (value - without), INFLUENCE


def _rows(terms: Terms, orders: Orders) -> list[np.ndarray] | None:
    """The values of each measure's rows, [n] in the first one's order; None where a measure is not an average."""
    out = []
    for (_, measure), order in zip(terms, orders, strict=True):
        if measure.per_sample is None:
            return None
        values = np.asarray(measure.per_sample, dtype=float)
        if order is not None:
            values = values[np.argsort(order)]
        out.append(values)
    return out


def _sides(terms: Terms, orders: Orders) -> tuple[np.ndarray, np.ndarray] | None:
    """The rows of two measures that are right or wrong, [n] each; None for other measures."""
    rows = _rows(terms, orders) if len(terms) == 2 else None
    if rows is None or not all(np.isin(values, (0.0, 1.0)).all() for values in rows):
        return None
    return rows[0], rows[1]


def _odds(sides: tuple[np.ndarray, np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """The odds ratio of matched pairs under resampling; half a row is added to both counts (Haldane 1956)."""
    one, other = sides
    columns = np.stack([one * (1 - other), other * (1 - one)], axis=1)  # [n, 2]

    def statistic(weights: np.ndarray) -> np.ndarray:
        counts = weights @ columns  # [R, 2]
        return (counts[:, 0] + 0.5) / (counts[:, 1] + 0.5)

    return statistic


def _ratio(
    odds: Statistic | None, ratios: Sequence[np.ndarray], patients: Sequence[str]
) -> tuple[float | None, float | None, float | None]:
    """The odds ratio with its interval, or Nones."""
    if odds is None:
        return None, None, None
    value = float(odds(np.ones((1, len(patients))))[0])
    lean = acceleration(odds, patients)
    found, _ = interval(np.concatenate(ratios), value, len(set(patients)), lean)
    return (value, *(found or (None, None)))
