"""A threshold on confidence: split conformal by hand, its promise in simulation, and its edges."""

import numpy as np
import pytest

from sightline import stats
from sightline.errors import DataError


def people(n):
    return [f"p{i:04d}" for i in range(n)]


def test_one_question_a_patient_is_split_conformal():
    """19 patients, alpha 0.1: (wrong and surer + 1) / 20 <= 0.1 leaves room for one wrong answer above it."""
    sure = np.arange(1, 20) / 20  # 0.05 ... 0.95
    right = np.ones(19, dtype=bool)
    right[[4, 9, 14]] = False  # wrong at 0.25, 0.50, 0.75
    found = stats.abstain(sure, right, people(19), 0.1)
    assert found.threshold == 0.5
    assert found.bound == pytest.approx(0.1)
    assert (found.answered, found.risk) == (pytest.approx(9 / 19), pytest.approx(1 / 19))
    given, wrong = stats.applied(found, sure, right)
    assert (given.sum(), wrong.sum()) == (9, 1)


def test_a_patient_weighs_the_same_whatever_its_questions():
    """Two patients: one wrong answer out of four costs 1/8, out of one 1/2; alpha 0.42 allows 2/3 r + 1/3."""
    sure, right = [0.9, 0.8, 0.7, 0.6, 0.95], [False, True, True, True, True]
    found = stats.abstain(sure, right, ["a", "a", "a", "a", "b"], 0.42)
    assert (found.threshold, found.risk) == (0.0, 0.125)
    assert found.bound == pytest.approx(2 / 3 / 8 + 1 / 3)
    strict = stats.abstain(sure, right, ["a", "a", "a", "a", "b"], 0.41)
    assert (strict.threshold, strict.risk, strict.answered) == (0.9, 0.0, 0.5)


def test_all_is_answered_where_nothing_is_wrong_and_nothing_where_patients_are_too_few():
    found = stats.abstain(np.full(9, 0.6), np.ones(9, dtype=bool), people(9), 0.1)
    assert (found.threshold, found.answered, found.useful) == (0.0, 1.0, True)
    assert "at most 0.1" in found.promise
    few = stats.abstain(np.full(8, 0.6), np.ones(8, dtype=bool), people(8), 0.1)
    assert (few.threshold, few.answered, few.useful, few.patients_least) == (1.0, 0.0, False, 9)
    assert "8 patients" in few.promise
    assert "at least 9" in few.promise
    assert not stats.applied(few, [1.0], [True])[0].any()


def test_equal_confidences_are_answered_or_left_together():
    sure, right = np.full(40, 0.7), np.arange(40) >= 20
    found = stats.abstain(sure, right, people(40), 0.2)
    assert (found.threshold, found.answered) == (0.7, 0.0)
    assert found.useful  # a surer answer would be given


def test_the_promise_holds_over_calibrations():
    """4000 times: calibrate on 40 patients with 1-6 questions, look at one further patient."""
    random = np.random.default_rng(31)
    lost, answered = [], []
    for _ in range(4000):
        skill = np.repeat(random.beta(5, 2, 41), counts := random.integers(1, 7, 41))
        owner = np.repeat(np.arange(41), counts)
        right = random.random(len(owner)) < skill
        sure = np.clip(0.3 * skill + 0.3 * right + 0.4 * random.random(len(owner)), 0, 1)
        known = owner < 40
        found = stats.abstain(sure[known], right[known], owner[known].astype(str), 0.1)
        given, wrong = stats.applied(found, sure[~known], right[~known])
        lost.append(wrong.mean())
        answered.append(given.mean())
    assert np.mean(lost) <= 0.1
    assert np.mean(lost) > 0.06  # and it is not bought by silence
    assert np.mean(answered) > 0.5


def test_what_is_no_confidence_is_refused():
    with pytest.raises(DataError, match="nothing to calibrate"):
        stats.abstain([], [], [], 0.1)
    with pytest.raises(DataError, match="within 0 and 1") as caught:
        stats.abstain([0.2, -0.7], [True, False], ["a", "b"], 0.1)
    assert "-0.7" in str(caught.value)
