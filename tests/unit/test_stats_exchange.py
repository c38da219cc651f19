"""Groups dealt anew, and rank correlation, against exact enumeration and against scipy."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from sightline import stats
from sightline.metrics.measure import Measure, average


def measure(values: list[float], patients: list[str] | None = None) -> Measure:
    names = tuple(f"p{i:03d}" for i in range(len(values))) if patients is None else tuple(patients)
    keys = tuple((f"s{i:03d}", 0) for i in range(len(values)))
    return Measure(name="accuracy", statistic=average(np.array(values)), keys=keys, patients=names)


def test_p_and_chance_are_those_of_all_arrangements():
    values, labels = [1.0, 1, 1, 0, 0, 1], ["A", "A", "A", "B", "B", "B"]
    observed = abs(np.mean(values[:3]) - np.mean(values[3:]))
    gaps = []
    for order in permutations(range(6)):
        given = np.array(labels)[list(order)]
        means = [np.mean(np.array(values)[given == g]) for g in "AB"]
        gaps.append(max(means) - min(means))
    found = stats.exchanged(measure(values), labels, seed=1, permutations=20_000)
    assert found is not None
    p, chance = found
    assert p == pytest.approx(np.mean(np.array(gaps) >= observed - 1e-9), abs=0.015)
    assert chance == pytest.approx(np.mean(gaps), abs=0.01)


def test_rows_without_a_group_take_no_part():
    values, labels = [1.0] * 8 + [0.0] * 8, ["A"] * 8 + ["B"] * 8
    alone = stats.exchanged(measure(values), labels, seed=1)
    more = stats.exchanged(measure(values + [0.0] * 20), [*labels, *[""] * 20], seed=1)
    assert alone is not None
    assert more is not None
    assert alone[0] == pytest.approx(more[0], abs=0.002)
    assert alone[0] < 0.01
    assert alone[1] == pytest.approx(more[1], abs=0.02)


def test_patients_move_whole():
    """Thirty rows of two patients are two things to deal: no gap between them is remarkable."""
    rows = [1.0] * 15 + [0.0] * 15
    found = stats.exchanged(measure(rows, ["a"] * 15 + ["b"] * 15), ["A"] * 15 + ["B"] * 15)
    assert found == (1.0, 1.0)


def test_nothing_is_tested_where_patients_belong_to_two_groups_or_there_is_one():
    rows = [1.0, 0.0, 1.0, 0.0]
    assert stats.exchanged(measure(rows, ["a", "a", "b", "b"]), ["en", "zh", "en", "zh"]) is None
    assert stats.exchanged(measure(rows), ["en"] * 4) is None
    assert stats.exchanged(measure([np.nan] * 4), ["a", "a", "b", "b"]) is None


@pytest.mark.slow
def test_it_rejects_as_often_as_it_should():
    """500 studies of 60 patients without a difference, seeds 0 to 499: the share of p <= 0.05."""
    rejected = 0
    for seed in range(500):
        rng = np.random.default_rng(seed)
        labels = [("A", "B", "C")[i] for i in rng.integers(0, 3, 60)]
        found = stats.exchanged(
            measure((rng.random(60) < 0.7).astype(float).tolist()), labels, seed=seed, permutations=300
        )
        assert found is not None
        rejected += found[0] <= 0.05
    assert 0.03 <= rejected / 500 <= 0.07


def test_ranks_equal_scipy_with_ties_and_with_multiplicities():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)
    other = np.round(other + one / 2, 1)
    statistic = stats.correlation(one, other)
    weights = np.stack([np.ones(40), rng.integers(0, 4, 40)]).astype(float)
    times = weights[1].astype(int)
    expected = [
        spearmanr(one, other).statistic,
        spearmanr(np.repeat(one, times), np.repeat(other, times)).statistic,
    ]
    assert statistic(weights) == pytest.approx(expected, abs=1e-12)
    assert stats.correlation(one, 3 * one + 1)(weights) == pytest.approx([1, 1])
    assert stats.correlation(one, -one)(weights) == pytest.approx([-1, -1])


def test_ranks_without_variation_are_undefined():
    flat = stats.correlation(np.ones(5), np.arange(5.0))
    assert np.isnan(flat(np.ones((1, 5)))[0])
    assert np.isnan(stats.correlation(np.arange(5.0), np.arange(5.0))(np.zeros((1, 5)))[0])
