"""Where an interval ends, how large a difference is, how many patients it takes, and exact permutations."""

from itertools import product
from math import ceil

import numpy as np
import pytest

import simulated
from sightline import stats
from sightline.stats import interval as interval_of
from sightline.stats.interval import acceleration, levels, reach, student
from sightline.stats.permutation import flip
from sightline.stats.power import standardised
from sightline.stats.resamples import leave_out


@pytest.mark.parametrize(
    ("freedom", "quantile"),  # Abramowitz and Stegun 1964, table 26.10
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (59, 2.001), (120, 1.980)],
)
def test_students_t(freedom, quantile):
    assert student(0.975, freedom) == pytest.approx(quantile, abs=5.1e-4)


def test_students_t_where_the_expansion_takes_over():
    assert student(0.975, 999) > student(0.975, 1000) > student(0.975, 1001) > 1.959963984540054
    assert student(0.975, 999) - student(0.975, 1000) == pytest.approx(2.4e-6, abs=2e-7)


def test_an_interval_of_a_mean_has_the_width_of_a_t_interval():
    values = np.random.default_rng(0).normal(size=15)
    one = simulated.measure(values, np.arange(15))
    low, high = stats.score(one, resamples=20_000).interval
    half = student(0.975, 14) * values.std(ddof=1) / 15**0.5
    assert (high - low) / 2 == pytest.approx(half, rel=0.04)
    assert reach(15) == pytest.approx(2.145 * (15 / 14) ** 0.5, abs=1e-3)


def test_symmetric_draws_are_cut_at_both_ends_alike():
    draws = np.arange(-500, 501) / 100.0
    low, high = levels(draws, 0.0, 10**6, 0.0)
    assert low == pytest.approx(2.5, abs=1e-3)
    assert high == pytest.approx(97.5, abs=1e-3)


def test_bias_and_acceleration_move_the_ends():
    """z0 = 0.2, a = 0.1, z = -1.96 and 1.96, after Efron and Tibshirani 1993, equation 14.10."""
    draws = np.concatenate([np.full(42_074, -1.0), np.full(57_926, 1.0)])
    low, high = levels(-draws, 0.0, 10**9, 0.1)
    # z0 + (z0 + z) / (1 - a (z0 + z)) = 0.2 - 1.76 / 1.176 = -1.2966 and 0.2 + 2.16 / 0.784 = 2.9551
    assert low == pytest.approx(9.74, abs=0.02)
    assert high == pytest.approx(99.844, abs=0.005)


def test_acceleration_of_a_mean_is_a_sixth_of_its_skewness():
    values = np.random.default_rng(3).exponential(size=80)
    centred = values - values.mean()
    expected = (centred**3).mean() / (centred**2).mean() ** 1.5 / (6 * 80**0.5)
    assert acceleration(simulated.measure(values, np.arange(80)).statistic, [f"p{i}" for i in range(80)]) == (
        pytest.approx(expected, rel=1e-9)
    )
    assert acceleration(lambda weights: np.ones(len(weights)), ["a", "b"]) == 0.0


def test_many_patients_are_left_out_in_groups():
    patients = [f"p{i:04d}" for i in range(450)]
    (weights,) = leave_out(patients, 100)
    assert weights.shape == (100, 450)
    assert (weights == 0).sum(axis=0).tolist() == [1] * 450
    values = np.random.default_rng(5).exponential(size=20_000) ** 1.5
    whole = simulated.average(values)
    centred = values - values.mean()
    expected = (centred**3).mean() / (centred**2).mean() ** 1.5 / (6 * 20_000**0.5)
    assert acceleration(whole, [f"p{i:05d}" for i in range(20_000)]) == pytest.approx(expected, abs=0.06)


def test_the_estimate_always_lies_within():
    draws = np.linspace(2.0, 3.0, 200)  # every draw is above: a biased measure
    (low, high), dropped = interval_of(draws, 1.9, 30)
    assert (low, dropped) == (1.9, 0)
    assert 1.9 < high < 3.0


@pytest.mark.parametrize("sums", [[3, 1, 2, 2], [1, -1, 2, 5, 0, 4], [2.5, 2.5, -1.0]])
def test_few_patients_are_permuted_exactly(sums):
    values = np.array(sums, dtype=float)
    every = [abs(np.dot(signs, values)) for signs in product((-1, 1), repeat=len(values))]
    expected = np.mean([total >= abs(values.sum()) - 1e-9 for total in every])
    assert flip(values, np.random.default_rng(0), 10_000) == pytest.approx(expected, abs=1e-15)


def test_more_patients_are_drawn_and_agree_with_all():
    values = np.random.default_rng(1).normal(0.5, 1, size=14)
    exact = flip(values, np.random.default_rng(0), 2**13)
    drawn = flip(values, np.random.default_rng(0), 2**13 - 1)
    assert exact * 2**13 == int(exact * 2**13)
    assert exact != drawn
    assert drawn == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 2**13) ** 0.5)


def test_a_ratio_is_tested_by_what_each_patient_adds():
    random = np.random.default_rng(8)
    owner = np.repeat(np.arange(40), 3)
    below = 1 + random.poisson(4, 120)
    few, many = random.binomial(below, 0.1), random.binomial(below, 0.3)
    found = stats.paired(*(simulated.rate(above, below, owner) for above in (few, many)))
    assert found.test == "influence"
    assert found.p < 0.001
    assert found.high < 0
    assert found.odds_ratio is None
    mean = stats.paired(*(simulated.measure(v, owner) for v in (few, many)))
    assert mean.test == "exchange"


def test_effect_is_the_difference_in_standard_deviations_of_one_patient():
    random = np.random.default_rng(2)
    one, other = random.normal(0.5, 1, 100), random.normal(0, 1, 100)
    found = stats.paired(*(simulated.measure(v, np.arange(100)) for v in (one, other)), resamples=20_000)
    gap = one - other
    assert found.effect == pytest.approx(gap.mean() / gap.std(ddof=1), rel=0.02)
    twice = stats.paired(
        *(simulated.measure(np.repeat(v, 5), np.repeat(np.arange(100), 5)) for v in (one, other)),
        resamples=20_000,
    )
    assert twice.effect == pytest.approx(
        found.effect, rel=0.02
    )  # more turns of a patient are not more patients
    assert standardised(np.zeros(10), 0.0, 5) is None


def test_odds_ratio_of_matched_answers():
    first = np.array([1] * 30 + [1] * 12 + [0] * 4 + [0] * 14)
    second = np.array([1] * 30 + [0] * 12 + [1] * 4 + [0] * 14)
    found = stats.paired(*(simulated.measure(v, np.arange(60)) for v in (first, second)))
    assert found.odds_ratio == pytest.approx(12.5 / 4.5)
    assert 0.5 < found.odds_low < 1 < found.odds_ratio < found.odds_high < 12
    assert (found.low, found.p) == (pytest.approx(0.0), pytest.approx(0.075, abs=0.005))
    assert (
        stats.paired(*(simulated.measure(v, np.arange(60)) for v in (first + 0.5, second))).odds_ratio is None
    )


@pytest.mark.parametrize(("effect", "patients"), [(0.5, 34), (0.2, 199), (1.0, 10), (-0.5, 34)])
def test_patients_needed_as_in_tables_of_the_paired_t_test(effect, patients):
    """Cohen 1988: 34, 199 and 10 pairs for d = 0.5, 0.2 and 1.0 at 80 % and 5 %."""
    assert stats.patients_needed(effect) == patients
    assert stats.patients_needed(effect, power=0.9) == ceil((3.2415155 / effect) ** 2 + 1.9207)


def test_so_many_patients_see_the_difference_four_times_in_five():
    random = np.random.default_rng(12)
    needed = stats.patients_needed(0.45)
    seen = [
        flip(random.normal(0.45, 1, size=needed), random, 400) <= 0.05 for _ in range(600)
    ]  # fmt: skip
    assert np.mean(seen) == pytest.approx(0.8, abs=0.05)


def test_nothing_is_needed_where_there_is_no_effect():
    assert stats.patients_needed(None) is None
    assert stats.patients_needed(0.0) is None
    assert stats.patients_needed(50.0) == 2
