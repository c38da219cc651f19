"""F1 of labels that are there or not, as statistics that can be resampled: per label, macro, micro, weighted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Prediction
from .measure import Measure, Statistic, keys, mean_of, patients, ratio, tally

FIVE = ("cardiomegaly", "edema", "consolidation", "atelectasis", "pleural_effusion")
"""The findings of the CheXpert competition, over which papers give a figure of their own."""


def f1_measures(
    turns: Sequence[Prediction],
    gold: np.ndarray,
    said: np.ndarray,
    names: Sequence[str],
    *,
    prefix: str,
    by: str,
) -> list[Measure]:
    """F1 of several labels.

    Args:
        turns: the rows, sorted.
        gold: [n, labels] whether a label is in the reference.
        said: [n, labels] whether it is in the answer.
        names: of the labels.
        prefix: what the measures' names begin with.
        by: who labelled, for the description.

    Returns:
        `PREFIX_f1` (mean over the labels that some reference has; parts: each label), `PREFIX_f1_5`, `PREFIX_f1_micro`
        and `PREFIX_f1_weighted` (by how often references have a label). Labels that no reference has are left out and
        named. Nothing where no reference has any.
    """
    hits, missed, extra = gold & said, gold & ~said, ~gold & said
    columns = np.concatenate([hits, missed, extra], axis=1).astype(float)  # [n, 3 labels]
    count = len(names)
    known = [place for place in range(count) if gold[:, place].any()]
    if not known:
        return []
    each = {names[place]: tally(columns, _one(place, count)) for place in known}
    out = tuple(name for place, name in enumerate(names) if place not in known)
    five = [each[name] for name in FIVE if name in each]

    def made(
        suffix: str, statistic: Statistic, what: str, parts: dict[str, Statistic] | None = None
    ) -> Measure:
        return Measure(
            name=f"{prefix}_f1{suffix}", statistic=statistic, keys=keys(turns), patients=patients(turns),
            parts=parts or {}, doc=f"{what} F1 of findings in reports, labelled by {by}", left_out=out,
        )  # fmt: skip

    measures = [made("", mean_of(list(each.values())), "macro", dict(each))]
    if five:
        measures.append(made("_5", mean_of(five), f"macro (of {', '.join(FIVE)})"))
    measures.append(made("_micro", tally(columns, lambda sums: _pooled(sums, known, count)), "micro"))
    measures.append(made("_weighted", tally(columns, lambda sums: _weighted(sums, known, count)), "weighted"))
    return measures


def _one(place: int, count: int) -> Statistic:
    """F1 of one label from summed columns [R, 3 labels]; NaN where no reference has it."""

    def formula(sums: np.ndarray) -> np.ndarray:
        hits, missed, extra = (sums[:, place + count * k] for k in range(3))
        return np.where(hits + missed > 0, ratio(2 * hits, 2 * hits + missed + extra), np.nan)

    return formula


def _pooled(sums: np.ndarray, known: Sequence[int], count: int) -> np.ndarray:
    """F1 of all labels in one pot."""
    hits, missed, extra = (sums[:, [p + count * k for p in known]].sum(axis=1) for k in range(3))
    return ratio(2 * hits, 2 * hits + missed + extra)


def _weighted(sums: np.ndarray, known: Sequence[int], count: int) -> np.ndarray:
    """The mean of the labels' F1, each weighing as much as references have it."""
    values = np.stack([_one(place, count)(sums) for place in known], axis=1)  # [R, known]
    times = np.stack([sums[:, place] + sums[:, place + count] for place in known], axis=1)
    return ratio((np.nan_to_num(values) * times).sum(axis=1), times.sum(axis=1))
