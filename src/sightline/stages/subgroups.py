"""Scores by subgroups of patients: each group, the worst, the gap with its interval and test, and what changes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import isnan
from typing import Any

from .. import stats
from ..judging import BETWEEN_MODELS, Measures, Side
from ..metrics.measure import Measure
from ..metrics.subgroups import Grouped, LeftOut, band, grouped
from ..recipe import Subgroup
from ..types import Prediction
from .carried import attributes_of

CLEAN = "clean"
UNKNOWN = "(not known)"


def subgroups(
    made: Mapping[Side, Sequence[Prediction]],
    measures: Measures,
    names: Sequence[str],
    wanted: Sequence[Subgroup] | None,
    *,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """Every measure of answers to clean images that models are compared by, group by group.

    Args:
        made: answers, which carry the attributes; see `stages.carried`.
        measures: of the same answers.
        names: models in the order of the recipe.
        wanted: attributes, with the width of their bands where they are numbers.
        seed: of intervals and tests.
        resamples: of intervals and tests.

    Returns:
        `rows`: {attribute, group, model, image, metric, value, low, high, n, patients}.
        `gaps`: {attribute, model, image, metric, higher_is_better, worst, best, gap, low, high, p, chance, equity,
        equity_low, equity_high, n, patients}; `p` tests whether groups differ at all, corrected after Holm over all
        gaps, `chance` is the gap that groups of these sizes show on average where they do not.
        `changes`: {question, attribute, metric, a, b, difference, low, high, p, n, patients} of the gap, each model
        against the one before; `p` is corrected among these.
        `left_out`: {attribute, group, why, n, patients, metrics}.
    """
    found: dict[str, list[dict[str, Any]]] = {"rows": [], "gaps": [], "changes": []}
    left_out: dict[tuple[str, str, str], dict[str, Any]] = {}
    for attribute, width in attributes_of(wanted).items():
        divided: dict[tuple[str, str], Grouped] = {}
        for model in names:
            labels = {p.sample: band(p.attributes.get(attribute, ""), width) for p in made[model, CLEAN]}
            for name, measure in measures[model, CLEAN].items():
                if name in BETWEEN_MODELS and not isnan(measure.value()):
                    own = [labels.get(sample, "") for sample, _ in measure.keys]
                    divided[model, name] = grouped(measure, own)
                    found["rows"] += _rows(attribute, model, divided[model, name], seed, resamples)
                    found["gaps"] += _gap(
                        attribute, model, divided[model, name], measure, own, seed, resamples
                    )
                    _note(left_out, attribute, name, divided[model, name].left_out)
        found["changes"] += _changes(attribute, divided, names, seed, resamples)
    for key in ("gaps", "changes"):
        _correct(found[key])
    return {**found, "left_out": list(left_out.values())}


def _rows(attribute: str, model: str, divided: Grouped, seed: int, resamples: int) -> list[dict[str, Any]]:
    """One row for each group."""
    out = []
    for group, measure in divided.groups.items():
        score = stats.score(measure, seed=seed, resamples=resamples)
        low, high = score.interval or (None, None)
        out.append(
            {
                "attribute": attribute, "group": group, "model": model, "image": CLEAN, "metric": measure.name,
                "value": score.value, "low": low, "high": high, "n": score.n, "patients": score.patients,
            }
        )  # fmt: skip
    return out


def _gap(
    attribute: str,
    model: str,
    divided: Grouped,
    measure: Measure,
    labels: Sequence[str],
    seed: int,
    resamples: int,
) -> list[dict[str, Any]]:
    """The gap of one measure, or nothing where there is none."""
    if divided.gap is None or isnan(divided.gap.value()):
        return []
    score = stats.score(divided.gap, seed=seed, resamples=resamples)
    low, high = score.interval or (None, None)
    taken = [label if label in divided.groups else "" for label in labels]
    p, chance = stats.exchanged(measure, taken, seed=seed, permutations=resamples) or (None, None)
    row = {
        "attribute": attribute, "model": model, "image": CLEAN, "metric": measure.name,
        "higher_is_better": measure.higher_is_better, "worst": divided.worst, "best": divided.best,
        "gap": score.value, "low": low, "high": high, "p": p, "chance": chance,
        "n": sum(len(each.keys) for each in divided.groups.values()),
        "patients": len({patient for each in divided.groups.values() for patient in each.patients}),
    }  # fmt: skip
    equity: dict[str, Any] = {"equity": None, "equity_low": None, "equity_high": None}
    if divided.equity is not None:
        scaled = stats.score(divided.equity, seed=seed, resamples=resamples)
        low, high = scaled.interval or (None, None)
        equity = {"equity": scaled.value, "equity_low": low, "equity_high": high}
    return [{**row, **equity}]


def _changes(
    attribute: str,
    divided: Mapping[tuple[str, str], Grouped],
    names: Sequence[str],
    seed: int,
    resamples: int,
) -> list[dict[str, Any]]:
    """By how much the gap grew from one model to the next, of measures that both have by the same groups."""
    out = []
    for before, after in pairwise(names):
        for name in [metric for model, metric in divided if model == after]:
            one, other = divided[after, name], divided.get((before, name))
            if other is None or one.gap is None or other.gap is None or set(one.groups) != set(other.groups):
                continue
            if isnan(one.gap.value() - other.gap.value()):
                continue
            found = stats.paired(one.gap, other.gap, seed=seed, resamples=resamples)
            out.append(
                {
                    "question": f"{after} minus {before}: gap by {attribute}", "attribute": attribute, "metric": name,
                    "a": one.gap.value(), "b": other.gap.value(), "difference": found.difference, "low": found.low,
                    "high": found.high, "p": found.p, "n": found.n, "patients": found.patients,
                }
            )  # fmt: skip
    return out


def _note(
    left_out: dict[tuple[str, str, str], dict[str, Any]],
    attribute: str,
    metric: str,
    groups: Mapping[str, LeftOut],
) -> None:
    """Keep which groups took no part: one entry for each reason, with the metrics that it holds for."""
    for group, each in groups.items():
        entry = left_out.setdefault(
            (attribute, group, each.why),
            {
                "attribute": attribute, "group": group or UNKNOWN, "why": each.why, "n": each.n,
                "patients": each.patients, "metrics": [],
            },
        )  # fmt: skip
        if metric not in entry["metrics"]:
            entry["metrics"].append(metric)


def _correct(rows: Iterable[dict[str, Any]]) -> None:
    """Correct the p-values of rows after Holm."""
    known = [row for row in rows if row["p"] is not None]
    for row, p in zip(known, stats.holm([row["p"] for row in known]), strict=True):
        row["p"] = p
