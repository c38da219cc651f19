"""A measure group by group: each group's value, the gap between the best and the worst, and the equity-scaled score.

Nothing is scored anew. A group's value is the measure's own statistic with the rows of all others taken out, so it
exists for averages and for ratios alike, and the gap is a statistic of the same rows that can be resampled like any
other:

    gap      highest - lowest value of the groups (which two, the data decide once)
    equity   overall / (1 + sum over groups of |group - overall|)

The second is the equity-scaled score of Harvard-FairVLMed (FairCLIP, Luo et al. 2024, arXiv:2403.19949, there of the
AUC): it equals the score where all groups have the same, and falls with every group that has another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor

import numpy as np

from .measure import Measure, Statistic, ratio

LEAST = 10  # patients of a group whose score takes part in the gap
WHOLE = {"0-1": 1.0, "0-10": 10.0, "0-100": 100.0}  # the full score, by unit


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A group that takes no part, and why.

    Args:
        n: rows of the group.
        patients: patients they belong to.
        why: the reason, as words that follow the group's name.
    """

    n: int
    patients: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouped:
    """One measure by the groups of one attribute.

    Args:
        groups: by name, the measure on the rows of each group.
        gap: best minus worst group, over all rows; None where fewer than two groups are left.
        equity: the equity-scaled score; None of rates of errors and of measures without a full score.
        worst, best: names of groups; "" without a gap.
        left_out: groups that take no part, by name; "" is that of rows whose attribute is not known.
    """

    groups: Mapping[str, Measure]
    gap: Measure | None
    equity: Measure | None
    worst: str
    best: str
    left_out: Mapping[str, LeftOut]


def grouped(measure: Measure, labels: Sequence[str], *, least: int = LEAST) -> Grouped:
    """Divide a measure.

    Args:
        measure: over n rows.
        labels: [n] the group of each row; "" where it is not known.
        least: patients below which a group takes no part.
    """
    assert len(labels) == len(measure.keys), "one label for each row"
    places = {name: np.flatnonzero(np.array(labels) == name) for name in sorted(set(labels))}
    groups, left_out = {}, {}
    for name, place in places.items():
        part = _part(measure, place)
        patients = len(set(part.patients))
        why = _why(name, part, patients, least)
        if why:
            left_out[name] = LeftOut(n=len(place), patients=patients, why=why)
        else:
            groups[name] = part
    gap, equity, worst, best = None, None, "", ""
    if len(groups) > 1:
        ordered = sorted(groups, key=lambda name: (groups[name].value(), name))
        masks = np.stack([_mask(len(labels), places[name]) for name in ordered])  # [groups, n], lowest first
        apart = difference(measure.statistic, masks[-1], masks[0])
        gap = _derived(measure, "gap", apart, higher_is_better=False)
        if measure.higher_is_better and measure.unit in WHOLE:
            equity = _derived(measure, "equity", scaled(measure.statistic, masks, WHOLE[measure.unit]))
        worst, best = (ordered[0], ordered[-1])[:: 1 if measure.higher_is_better else -1]
    return Grouped(groups=groups, gap=gap, equity=equity, worst=worst, best=best, left_out=left_out)


def band(value: str, width: float) -> str:
    """A number's band: of 37 and width 20, `20-39`. "" stays, and so does what is no number; width 0 makes no bands."""
    if not width:
        return value
    try:
        low = floor(float(value) / width) * width
    except (ValueError, OverflowError):
        return value
    top = low + width - (1 if float(width).is_integer() else 0)
    return f"{low:g}-{top:g}"


def values(statistic: Statistic, masks: np.ndarray) -> Statistic:
    """A statistic on each of several sets of rows.

    Args:
        statistic: over n rows.
        masks: [groups, n] 1 for the rows of a group.

    Returns:
        Multiplicities [R, n] to values [R, groups].
    """
    return lambda weights: np.stack([statistic(weights * mask) for mask in masks], axis=1)


def difference(statistic: Statistic, high: np.ndarray, low: np.ndarray) -> Statistic:
    """The value of one group minus that of another, [R]; undefined where one of them is.

    Of the groups that have the highest and the lowest value in the data this is the gap. Resampled, it may fall below
    0, while max - min computed on every resample could not: it would shut out 0 where groups are alike.

    Args:
        statistic: over n rows.
        high: [n] 1 for the rows of one group.
        low: [n] 1 for those of the other.
    """
    return lambda weights: statistic(weights * high) - statistic(weights * low)


def scaled(statistic: Statistic, masks: np.ndarray, whole: float = 1.0) -> Statistic:
    """The equity-scaled score, [R], in the measure's unit.

    Args:
        statistic: over n rows.
        masks: [groups, n].
        whole: the full score; distances are counted as shares of it, so that the unit does not matter.
    """
    found = values(statistic, masks)

    def equity(weights: np.ndarray) -> np.ndarray:
        overall = statistic(weights)
        away = np.abs(found(weights) - overall[:, None]).sum(axis=1) / whole
        return ratio(overall, 1 + away)

    return equity


def _part(measure: Measure, place: np.ndarray) -> Measure:
    """The measure on some of its rows."""
    total, whole = len(measure.keys), measure.statistic

    def statistic(weights: np.ndarray) -> np.ndarray:
        spreaded = np.zeros((len(weights), total))
        spreaded[:, place] = weights
        return whole(spreaded)

    return replace(
        measure, statistic=statistic, keys=tuple(measure.keys[i] for i in place), per_sample=None, parts={},
        patients=tuple(measure.patients[i] for i in place),
    )  # fmt: skip


def _why(name: str, part: Measure, patients: int, least: int) -> str:
    """Why a group takes no part; "" where it does."""
    if not name:
        return "whose attribute is not known"
    if patients < least:
        return f"has {patients} patient(s), fewer than {least}"
    return "has answers on which the score is not defined" if np.isnan(part.value()) else ""


def _mask(rows: int, place: np.ndarray) -> np.ndarray:
    mask = np.zeros(rows)
    mask[place] = 1.0
    return mask


def _derived(measure: Measure, what: str, statistic: Statistic, *, higher_is_better: bool = True) -> Measure:
    """A measure of the same rows by another statistic."""
    return replace(
        measure, name=f"{measure.name}_{what}", statistic=statistic, per_sample=None, parts={},
        higher_is_better=higher_is_better,
    )  # fmt: skip
