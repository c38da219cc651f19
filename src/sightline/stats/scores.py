"""A measure as a number with its interval."""

from __future__ import annotations

import numpy as np

from ..types import Score
from .interval import acceleration, interval
from .measured import DROPPED, Measured, Statistic
from .resamples import bootstrap, resample


def score(measure: Measured, *, seed: int = 0, resamples: int = 1000) -> Score:
    """A measure's value with its 95 % interval over resampled patients.

    The interval is None where there are fewer than two patients or no resample is defined. Undefined
    resamples are dropped; where there were any, the part `dropped_resamples` counts them.
    """
    ones = np.ones((1, len(measure.keys)))
    patients = len(set(measure.patients))
    value = float(measure.statistic(ones)[0])
    draws = bootstrap(measure, seed=seed, resamples=resamples)
    found, dropped = interval(draws, value, patients, acceleration(measure.statistic, measure.patients))
    parts = {name: _evaluate(part, ones) for name, part in measure.parts.items()}
    if dropped:
        parts[DROPPED] = float(dropped)
    per_sample = None if measure.per_sample is None else tuple(map(float, measure.per_sample))
    return Score(
        value=value, interval=found, per_sample=per_sample, parts=parts, n=len(measure.keys), patients=patients
    )  # fmt: skip


def score_parts(measure: Measured, *, seed: int = 0, resamples: int = 1000) -> dict[str, Score]:
    """Every part of a measure that is a statistic, with its own interval from the measure's resamples."""
    chosen = {name: part for name, part in measure.parts.items() if callable(part)}
    ones = np.ones((1, len(measure.keys)))
    patients = len(set(measure.patients))
    draws: dict[str, list[np.ndarray]] = {name: [] for name in chosen}
    for weights in resample(measure.patients, seed=seed, name=measure.name, resamples=resamples):
        for name, part in chosen.items():
            draws[name].append(part(weights))
    scores = {}
    for name, part in chosen.items():
        value = float(part(ones)[0])
        lean = acceleration(part, measure.patients)
        found, _ = interval(np.concatenate(draws[name]), value, patients, lean)
        scores[name] = Score(value=value, interval=found, n=len(measure.keys), patients=patients)
    return scores


def _evaluate(part: Statistic | float, weights: np.ndarray) -> float:
    """A part as a number."""
    return float(part(weights)[0]) if callable(part) else float(part)
