"""Simulated studies whose truth is known: 60 patients with 1 to 12 images each, for the tests of intervals and tests.

Images of one patient resemble each other: each patient has a difficulty of its own.

- mean: whether an answer is right; the truth is a probability.
- ratio: made-up objects over named ones, as in CHAIR. Hard patients name more and make up more, so that the two are
  not independent.
- difference: whether two models answer rightly, with the difficulty of patient and image in common.
- null: the same with two models that are equally good: the log-odds of the right answer (a number), whether it is
  right (yes or no), and the ratio of made-up objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from sightline import stats
from sightline.metrics.measure import Measure, average, ratio, tally

PATIENTS, MOST_IMAGES = 60, 12
SEEDS = {"fast": 20_260, "full": 618_033}  # chosen before anything was looked at
KEYS = tuple((f"s{i:04d}", 0) for i in range(PATIENTS * MOST_IMAGES))
PEOPLE = [f"p{i:03d}" for i in range(PATIENTS * MOST_IMAGES)]
TRUTH = {
    "mean": NormalDist().cdf(0.8 / (1 + 0.49) ** 0.5),
    "ratio": (0.3 * 7 * 0.2 + 0.7 * 5 * 0.1) / (0.3 * 7 + 0.7 * 5),
    "difference": NormalDist().cdf(0.8 / 1.65**0.5) - NormalDist().cdf(0.5 / 1.65**0.5),
}


@dataclass(frozen=True)
class Found:
    """Shares over all studies: intervals that hold the truth, that lie above it, and tests that reject."""

    covered: dict[str, float]
    above: dict[str, float]
    rejected: dict[str, float]


def simulate(seed: int, studies: int, resamples: int = 1000, permutations: int = 999) -> Found:
    """Simulate studies and count."""
    random = np.random.default_rng(seed)
    covered = dict.fromkeys(TRUTH, 0)
    above = dict.fromkeys(TRUTH, 0)
    rejected = dict.fromkeys(("number", "yes_no", "ratio"), 0)
    for study in range(studies):
        owner = np.repeat(np.arange(PATIENTS), random.integers(1, MOST_IMAGES + 1, PATIENTS))
        ends = intervals(random, owner, study, resamples)
        for name, (low, high) in ends.items():
            covered[name] += low <= TRUTH[name] <= high
            above[name] += low > TRUTH[name]
        for name, pair in equals(random, owner).items():
            p = stats.paired(*pair, seed=study, resamples=2, permutations=permutations).p
            rejected[name] += p <= 0.05
    return Found(*({k: v / studies for k, v in each.items()} for each in (covered, above, rejected)))


def intervals(
    random: np.random.Generator, owner: np.ndarray, seed: int, resamples: int
) -> dict[str, tuple[float, float]]:
    """The intervals of one study's mean, ratio and paired difference."""
    hard = random.normal(size=PATIENTS)[owner]
    right = random.normal(size=len(owner)) < 0.8 + 0.7 * hard
    one = stats.score(measure(right, owner), seed=seed, resamples=resamples).interval
    named, (made_up,) = objects(random, owner, models=1)
    two = stats.score(rate(made_up, named, owner), seed=seed, resamples=resamples).interval
    margins = latent(random, owner, (0.8, 0.5))
    sides = [measure(each > 0, owner) for each in margins]
    three = stats.paired(*sides, seed=seed, resamples=resamples, permutations=1)
    return {"mean": one, "ratio": two, "difference": (three.low, three.high)}


def equals(random: np.random.Generator, owner: np.ndarray) -> dict[str, tuple[Measure, Measure]]:
    """Pairs of equally good models."""
    margins = latent(random, owner, (0.8, 0.8))
    named, made_up = objects(random, owner, models=2)
    return {
        "number": tuple(measure(each, owner) for each in margins),
        "yes_no": tuple(measure(each > 0, owner) for each in margins),
        "ratio": tuple(rate(each, named, owner) for each in made_up),
    }


def latent(random: np.random.Generator, owner: np.ndarray, skills: tuple[float, ...]) -> list[np.ndarray]:
    """How sure each model is of the right answer to each image, [n] each: the variance is 1.65."""
    both = 0.7 * random.normal(size=PATIENTS)[owner] + 0.6 * random.normal(size=len(owner))
    return [
        skill + both + 0.4 * random.normal(size=PATIENTS)[owner] + 0.8 * random.normal(size=len(owner))
        for skill in skills
    ]


def objects(
    random: np.random.Generator, owner: np.ndarray, models: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Objects named per image, and how many of them each model makes up; truth 0.1375."""
    hard = random.random(PATIENTS) < 0.3
    named = 1 + random.poisson(np.where(hard, 6, 4)[owner])
    made_up = []
    for _ in range(models):
        share = np.where(hard, random.beta(4, 16, PATIENTS), random.beta(2, 18, PATIENTS))
        made_up.append(random.binomial(named, share[owner]))
    return named, made_up


def measure(values: np.ndarray, owner: np.ndarray) -> Measure:
    """The mean of one value per image."""
    values = np.asarray(values, dtype=float)
    return Measure(name="mean", statistic=average(values), per_sample=values, **names(owner))


def rate(above: np.ndarray, below: np.ndarray, owner: np.ndarray) -> Measure:
    """The ratio of two sums over images."""
    columns = np.stack([above, below], axis=1).astype(float)
    statistic = tally(columns, lambda sums: ratio(sums[:, 0], sums[:, 1]))
    return Measure(name="ratio", statistic=statistic, **names(owner))


def names(owner: np.ndarray) -> dict[str, Any]:
    """Keys and patients of the images."""
    return {"keys": KEYS[: len(owner)], "patients": tuple(map(PEOPLE.__getitem__, owner.tolist()))}
