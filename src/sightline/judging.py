"""Predictions to numbers: every metric with its interval, and every comparison on the same patients.

Floor 3: metrics and statistics know nothing of each other; here they meet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from math import isnan
from pathlib import Path
from typing import Any

from . import plugins, stats
from .metrics import looking, reliance
from .metrics.measure import Measure, Metric
from .types import Prediction

Side = tuple[str, str]
Measures = dict[Side, dict[str, Measure]]

UNAIDED = "unaided"  # the clean image, without the reports that were retrieved for it
ALONE = "_prior"  # a kind of images with this behind it: only images of earlier studies are shown so
OCCLUDED, ELSEWHERE = "occluded", "occluded_elsewhere"  # with the asked finding covered, or another place
NOTHING_SEEN = (
    "noise",
    "black",
    "swapped",
)  # the first that was asked stands for the model without its image
BETWEEN_MODELS = (
    "balanced_accuracy", "accuracy", "exact_match", "token_f1", "finding_f1", "margin", "auc", "bleu", "rouge_l",
    "amber_chair", "amber_cover", "amber_hal", "amber_cog", "amber_accuracy", "amber_f1", "amber_score",
    "bleu_coco", "rouge_l_coco", "cider", "meteor", "meteor_nltk", "bertscore", "chexpert_f1", "report_errors",
    "finding_hallucination", "finding_omission", "temporal_f1",
    "ece", "brier", "aurc", "aurc_open", "looks_at_finding", "image_text_similarity",
    "closed_accuracy", "open_recall", "open_f1", "grade_accuracy", "grade_balanced_accuracy", "grade_macro_f1",
    "grade_kappa", "diagnosis_accuracy", "diagnosis_balanced_accuracy", "diagnosis_macro_f1", "diagnosis_kappa",
    *reliance.NAMES,
)  # fmt: skip
BLIND = ("balanced_accuracy", "exact_match", "finding_f1", "margin")
WITHOUT_REPORTS = ("accuracy", *BLIND)
RISE = "margin"


def measure(
    predictions: Mapping[Side, Sequence[Prediction]],
    metrics: Sequence[str | Mapping[str, Mapping[str, Any]]],
    root: Path | None = None,
) -> Measures:
    """All measures of all metrics for every (model, image).

    Args:
        predictions: the answers of each side.
        metrics: names, or `{name: options}`.
        root: the data root, for metrics with an option `data` that is not given.
    """
    known = loaded(metrics, root)
    return {
        side: {m.name: m for metric, options in known for m in metric.score(list(made), **options)}
        for side, made in predictions.items()
    }


def loaded(
    metrics: Sequence[str | Mapping[str, Mapping[str, Any]]], root: Path | None = None
) -> list[tuple[Metric, dict[str, Any]]]:
    """Metrics with their options.

    Args:
        metrics: names, or `{name: options}`.
        root: the data root, for metrics with an option `data` that is not given.

    Raises:
        RecipeError: an unknown metric, or options that do not fit.
    """
    named = [({metric: {}} if isinstance(metric, str) else metric) for metric in metrics]
    return [
        (plugins.load("metrics", name), completed(name, options, root))
        for each in named
        for name, options in each.items()
    ]


def completed(name: str, options: Mapping[str, Any], root: Path | None) -> dict[str, Any]:
    """The options of a metric, with the data root where it reads data and is not told where."""
    given = dict(options)
    if root is not None and "data" not in given and "data" in plugins.options("metrics", name):
        given["data"] = str(root)
    return plugins.bind("metrics", name, given) if given else {}


def measure_reliance(predictions: Mapping[Side, Sequence[Prediction]]) -> Measures:
    """What retrieved reports do to every model, as measures of its answers to clean images.

    Over-reliance, harm and help need the answers without reports (`unaided`), copying those to a blind image; what
    was not asked is not measured.
    """
    found: Measures = {}
    order = {image: place for place, image in enumerate(NOTHING_SEEN)}
    for model in dict.fromkeys(model for model, _ in predictions):
        sides = {image: made for (name, image), made in predictions.items() if name == model}
        clean, unaided = sides.pop("clean", None), sides.pop(UNAIDED, None)
        if not clean:
            continue
        made = reliance.reliance(clean, unaided) if unaided else []
        blind = sorted(sides, key=lambda image: order.get(image, len(order)))
        made += reliance.copying(clean, {image: sides[image] for image in blind})
        found[model, "clean"] = {each.name: each for each in made}
    return found


def measure_looking(predictions: Mapping[Side, Sequence[Prediction]]) -> Measures:
    """Whether answers rest on the place of the finding, as a measure of each model's clean side.

    Args:
        predictions: the answers of each model to images with the finding covered, and with another place covered.
    """
    return {
        (model, "clean"): {each.name: each for each in looking.looking(made, predictions[model, ELSEWHERE])}
        for (model, image), made in predictions.items()
        if image == OCCLUDED and (model, ELSEWHERE) in predictions
    }


def tables(measures: Measures) -> dict[str, dict[str, Any]]:
    """The tables behind measures, such as confusion matrices, by "model, image" and "measure: table"."""
    found = {
        f"{model}, {image}": {
            f"{each.name}: {name}": dict(table)
            for each in named.values()
            for name, table in each.tables.items()
        }
        for (model, image), named in measures.items()
    }
    return {side: told for side, told in found.items() if told}


def notes(measures: Measures) -> dict[str, list[str]]:
    """What metrics say beside their numbers, by "model, image"; nothing for most."""
    found = {
        f"{model}, {image}": list(dict.fromkeys(note for each in named.values() for note in each.notes))
        for (model, image), named in measures.items()
    }
    return {side: told for side, told in found.items() if told}


def rows(measures: Measures, seed: int, resamples: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row per (model, image, metric) with its interval, and one per named part.

    Returns:
        Rows {model, image, metric, value, low, high, n, patients}, and the same for parts with `part`.
    """
    out, parts = [], []
    for (model, image), named in measures.items():
        for name, each in named.items():
            score = stats.score(each, seed=seed, resamples=resamples)
            if isnan(score.value):
                continue  # a rate among turns of which there are none
            low, high = score.interval if score.interval is not None else (None, None)
            row = {"model": model, "image": image, "metric": name}
            out.append(
                {
                    **row,
                    "value": score.value,
                    "low": low,
                    "high": high,
                    "n": score.n,
                    "patients": score.patients,
                }
            )
            parts += [
                {**row, "part": part, "value": value}
                for part, value in score.parts.items()
                if part != stats.DROPPED and not isnan(value)
            ]
    return out, parts


def comparisons(measures: Measures, models: Sequence[str], seed: int, resamples: int) -> list[dict[str, Any]]:
    """Paired differences on the same patients.

    Each model against the one before, where prior images were spoiled also under these; each model with against without
    its image (or its reports); and whether the gap between clean and blind has risen from one model to the next.

    Returns:
        Rows {question, metric, a, b, difference, low, high, p, n, patients}; `p` is corrected after Holm over
        all rows that have one.
    """
    images = list(dict.fromkeys(image for _, image in measures if image != "clean"))
    pairs: list[tuple[str, Side, Side, tuple[str, ...]]]
    pairs = [(f"{b} minus {a}", (b, "clean"), (a, "clean"), BETWEEN_MODELS) for a, b in pairwise(models)]
    pairs += [
        (f"{b} minus {a} on {i}", (b, i), (a, i), BLIND)
        for a, b in pairwise(models)
        for i in images
        if i.endswith(ALONE)
    ]
    asked = {image: WITHOUT_REPORTS if image == UNAIDED else BLIND for image in images}
    pairs += [(f"{m}: clean minus {i}", (m, "clean"), (m, i), asked[i]) for m in models for i in images]
    out = [row for each in pairs for row in _differences(measures, *each, seed=seed, resamples=resamples)]
    for before, after in pairwise(models):
        blind = [image for image in images if image != UNAIDED]
        out += _rises(measures, before, after, blind, seed=seed, resamples=resamples)
    known = [row for row in out if row["p"] is not None]
    for row, p in zip(known, stats.holm([row["p"] for row in known]), strict=True):
        row["p"] = p
    return out


def _differences(
    measures: Measures, question: str, a: Side, b: Side, names: Sequence[str], *, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """A - b for every measure that both sides have."""
    out = []
    for name in names:
        one, other = measures.get(a, {}).get(name), measures.get(b, {}).get(name)
        if one is None or other is None or isnan(one.value() - other.value()):
            continue
        found = stats.paired(one, other, seed=seed, resamples=resamples)
        out.append(
            {"question": question, "metric": name, "a": one.value(), "b": other.value(), **asdict(found)}
        )
    return out


def _rises(
    measures: Measures, before: str, after: str, images: Sequence[str], *, seed: int, resamples: int
) -> list[dict[str, Any]]:
    """How much the gap between clean and blind grew from one model to the next."""
    out = []
    for image in images:
        corners = ((after, "clean"), (after, image), (before, "clean"), (before, image))
        sides = [measures[c][RISE] for c in corners if RISE in measures.get(c, {})]
        if len(sides) < len(corners):
            continue
        found = stats.difference_of_differences(*sides, seed=seed, resamples=resamples)
        values = [s.value() for s in sides]
        gaps = {"a": values[0] - values[1], "b": values[2] - values[3]}
        question = f"rise of clean over {image}, {before} to {after}"
        out.append({"question": question, "metric": RISE, **gaps, **asdict(found)})
    return out
