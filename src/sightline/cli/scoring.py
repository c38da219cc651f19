"""Scores a file of answers by any metric, without a model and without a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

from .. import plugins, stats
from ..data.predicted import predictions
from ..errors import DataError
from ..metrics.measure import Measure, Metric
from ..types import Prediction
from .listing import table
from .measure import parse

COLUMNS = ("metric", "part", "value", "low", "high", "n", "patients")


def score(metric: str, path: Path, words: Sequence[str], *, seed: int, resamples: int) -> dict[str, Any]:
    """Score a file of answers.

    Args:
        metric: a metric's name, or `module:function`.
        path: predictions as JSON lines, or a file in the metric's own layout.
        words: options of the metric as `key=value`.
        seed: decides the resamples.
        resamples: how many.

    Returns:
        `metric`, `version`, `options`, `answers` (how many), `scores` (figures by name, or by section where the metric
        has sections), `rows` (figures and parts with 95 % intervals over patients), and `notes`.

    Raises:
        DataError: the file cannot be read as answers, or the metric finds nothing to score in it.
        RecipeError: an unknown metric or option.
    """
    plugin: Metric = plugins.load("metrics", metric)
    options = plugins.bind("metrics", metric, parse(words))
    predictions = read(path, plugin, options)
    measures = plugin.score(predictions, **options)
    if not measures:
        raise DataError(
            f"'{metric}' finds nothing to score in these answers", where=str(path),
            found=f"{len(predictions)} predictions", remedy="score them by a metric that fits their questions",
        )  # fmt: skip
    plain = {each.name: _number(each.value()) for each in measures}
    return {
        "metric": metric,
        "version": plugin.version,
        "options": options,
        "answers": len(predictions),
        "scores": plain if plugin.sections is None else _sections(plugin.sections(measures)),
        "rows": rows(measures, seed=seed, resamples=resamples),
        "notes": list(dict.fromkeys(note for each in measures for note in each.notes)),
    }


def shown(found: Mapping[str, Any], *, as_json: bool) -> str:
    """What `score` returns as JSON, or as a table with its notes below."""
    if as_json:
        return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False, default=str)
    lines = [table(COLUMNS, found["rows"]), "", *found["notes"]]
    return "\n".join(lines).rstrip()


def rows(measures: Sequence[Measure], *, seed: int, resamples: int) -> list[dict[str, Any]]:
    """A row for each measure and for each of its parts that is a number of its own."""
    made = []
    for each in measures:
        scores = {"": stats.score(each, seed=seed, resamples=resamples)}
        if each.parts:
            scores |= stats.score_parts(each, seed=seed, resamples=resamples)
        for part, one in scores.items():
            low, high = one.interval if one.interval is not None else (None, None)
            row = {"metric": each.name, "part": part, "value": _number(one.value), "low": low, "high": high}
            made.append({**row, "n": one.n, "patients": one.patients})
    return made


def read(path: Path, plugin: Metric, options: Mapping[str, Any]) -> list[Prediction]:
    """The answers of a file.

    A file that ends in `.jsonl` holds one `types.Prediction` a line, as `evaluate` writes them into `predictions/`. Any
    other file is in the metric's own layout.

    Raises:
        DataError: no such file, a line that is no prediction, or a metric without a layout of its own.
    """
    if not path.is_file():
        raise DataError("no such file of answers", where=str(path))
    if path.suffix == ".jsonl":
        return predictions(path)
    if plugin.answers is None:
        raise DataError(
            "this metric reads predictions only", where=str(path), found=f"a file that ends in '{path.suffix}'",
            expected="a .jsonl file with one prediction a line",
            remedy="give a file of RUN/predictions/, which an evaluate stage writes",
        )  # fmt: skip
    return plugin.answers(path, options)


def _number(value: float) -> float | None:
    return None if isnan(value) else value


def _sections(found: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    return {section: {k: _number(v) for k, v in each.items()} for section, each in found.items()}
