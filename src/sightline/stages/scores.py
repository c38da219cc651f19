"""Answers to scores: what `evaluate` writes into `scores.json`, computed by the same words when a run is verified."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import judging
from ..judging import ELSEWHERE, OCCLUDED, Measures, Side
from ..recipe import Evaluate
from ..types import Prediction
from .attention import foretold
from .confidence import calibrated
from .subgroups import subgroups

Definitions = dict[str, dict[str, dict[str, Any]]]


def scored(
    made: Mapping[Side, Sequence[Prediction]],
    names: Sequence[str],
    section: Evaluate,
    *,
    seed: int,
    root: Path,
    reports: bool,
) -> tuple[dict[str, Any], Definitions]:
    """Every score of an evaluation with its interval, and every comparison.

    Args:
        made: the answers of each (model, image).
        names: the models, in the order of the recipe.
        section: which metrics, how many resamples.
        seed: of the recipe; decides the resamples.
        root: the data root, for metrics that read data.
        reports: whether the data set has retrieved reports, whose effect is then measured, too.

    Returns:
        `rows`, `paired`, `parts`, and where there are any `notes`, `tables`, `calibration`, `subgroups`,
        `attention`; and what each metric measured, by metric and measure.
    """
    covered = {side: each for side, each in made.items() if side[1] in (OCCLUDED, ELSEWHERE)}
    made = {side: each for side, each in made.items() if side not in covered}
    measures: Measures = {side: {} for side in made}
    defined: Definitions = {}
    for metric in section.metrics:
        found = judging.measure(made, [metric], root)
        defined[_name(metric)] = _definitions(found)
        for side, named in found.items():
            measures[side] |= named
    for side, named in (judging.measure_reliance(made) if reports else {}).items():
        measures[side] |= named
    for side, named in judging.measure_looking(covered).items():
        measures[side] |= named
    rows, parts = judging.rows(measures, seed, section.resamples)
    paired = judging.comparisons(measures, names, seed, section.resamples)
    scores: dict[str, Any] = {"rows": rows, "paired": paired, "parts": parts}
    if told := judging.notes(measures):
        scores["notes"] = told
    if behind := judging.tables(measures):
        scores["tables"] = behind
    sure = {name: calibrated(made[name, "clean"], seed, section.resamples) for name in names}
    if any(sure.values()):
        scores["calibration"] = {name: each for name, each in sure.items() if each}
    if section.subgroups:
        scores["subgroups"] = subgroups(
            made, measures, names, section.subgroups, seed=seed, resamples=section.resamples
        )
    if looked := foretold(covered, names, seed=seed, resamples=section.resamples):
        scores["attention"] = looked
    return scores, defined


def _name(metric: str | Mapping[str, Any]) -> str:
    """A metric's name, with or without options."""
    return metric if isinstance(metric, str) else next(iter(metric))


def _definitions(found: Measures) -> dict[str, dict[str, Any]]:
    """What each measure is: its unit, which way is better, and the sentence that defines it."""
    return {
        name: {"unit": each.unit, "higher_is_better": each.higher_is_better, "doc": each.doc}
        for named in found.values()
        for name, each in named.items()
    }
