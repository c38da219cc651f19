"""Predictions to numbers: every metric with its interval, and every comparison on the same patients.

Floor 3: metrics and statistics know nothing of each other; here they meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from . import plugins, stats
from .metrics.measure import Measure
from .types import Prediction

Side = tuple[str, str]
Measures = dict[Side, dict[str, Measure]]

BETWEEN_MODELS = (
    "balanced_accuracy", "accuracy", "exact_match", "token_f1", "finding_f1", "margin", "auc", "bleu", "rouge_l",
)  # fmt: skip
BLIND = ("balanced_accuracy", "exact_match", "finding_f1", "margin")
RISE = "margin"


def measure(predictions: Mapping[Side, Sequence[Prediction]], metrics: Sequence[str]) -> Measures:
    """All measures of all metrics for every (model, image)."""
    loaded = [plugins.load("metrics", name) for name in metrics]
    return {
        side: {m.name: m for metric in loaded for m in metric.score(list(made))} for side, made in predictions.items()
    }


def rows(measures: Measures, seed: int, resamples: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row per (model, image, metric) with its interval, and one per named part.

    Returns:
        Rows {model, image, metric, value, low, high, n, patients}, and the same for parts with `part`.
    """
    out, parts = [], []
    for (model, image), named in measures.items():
        for name, each in named.items():
            score = stats.score(each, seed=seed, resamples=resamples)
            low, high = score.interval if score.interval is not None else (None, None)
            row = {"model": model, "image": image, "metric": name}
            out.append({**row, "value": score.value, "low": low, "high": high, "n": score.n, "patients": score.patients})
            parts += [
                {**row, "part": part, "value": value}
                for part, value in score.parts.items()
                if part != stats.DROPPED and value == value
            ]
    return out, parts


def comparisons(measures: Measures, models: Sequence[str], seed: int, resamples: int) -> list[dict[str, Any]]:
    """Paired differences: each model and the one before, each model with and without its image, and whether
    the gap between clean and blind has risen.

    Returns:
        Rows {question, metric, a, b, difference, low, high, p, n, patients}; `p` is corrected after Holm over
        all rows that have one.
    """
    images = list(dict.fromkeys(image for _, image in measures if image != "clean"))
    out: list[dict[str, Any]] = []

    def add(question: str, a: Side, b: Side, names: Sequence[str]) -> None:
        for name in names:
            one, other = measures.get(a, {}).get(name), measures.get(b, {}).get(name)
            if one is not None and other is not None:
                found = stats.paired(one, other, seed=seed, resamples=resamples)
                out.append({"question": question, "metric": name, "a": one.value(), "b": other.value(), **asdict(found)})

    for before, after in pairwise(models):
        add(f"{after} minus {before}", (after, "clean"), (before, "clean"), BETWEEN_MODELS)
    for model in models:
        for image in images:
            add(f"{model}: clean minus {image}", (model, "clean"), (model, image), BLIND)
    for before, after in pairwise(models):
        for image in images:
            sides = [measures.get(s, {}).get(RISE) for s in _corners(after, before, image)]
            if None not in sides:
                found = stats.difference_of_differences(*sides, seed=seed, resamples=resamples)  # type: ignore[arg-type]
                values = [s.value() for s in sides if s is not None]
                question = f"rise of clean over {image}, {before} to {after}"
                gaps = {"a": values[0] - values[1], "b": values[2] - values[3]}
                out.append({"question": question, "metric": RISE, **gaps, **asdict(found)})
    known = [row for row in out if row["p"] is not None]
    for row, p in zip(known, stats.holm([row["p"] for row in known]), strict=True):
        row["p"] = p
    return out


def _corners(after: str, before: str, image: str) -> tuple[Side, Side, Side, Side]:
    return (after, "clean"), (after, image), (before, "clean"), (before, image)
