"""Calibration error, Brier score and risk against coverage, by hand and under weights."""

from dataclasses import replace

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.metrics.calibration import aurc, calibration, ece, ece_width, opened, picks, risk_coverage
from sightline.types import Prediction


def said(i, p_yes, gold, **other):
    return Prediction(
        sample=f"s{i:03d}", patient=f"p{i // 2}", turn=0, question="Is there an effusion?", answer=gold,
        text="Yes" if p_yes >= 0.5 else "No", choices={"yes": float(np.log(p_yes)), "no": float(np.log(1 - p_yes))},
    )  # fmt: skip


def one(statistic, n):
    return float(statistic(np.ones((1, n)))[0])


def test_four_answers_by_hand():
    turns = [said(0, 0.9, "Yes"), said(1, 0.8, "No"), said(2, 0.3, "No"), said(3, 0.4, "Yes")]
    found = {m.name: m.value() for m in calibration(turns, bins=2)}
    # confidence 0.9 right, 0.8 wrong, 0.7 right, 0.6 wrong
    assert set(found) == {"ece", "ece_width", "brier", "aurc"}
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.09 + 0.36) / 4)
    assert found["ece"] == pytest.approx(abs(0.6 + 0.7 - 1) / 4 + abs(0.8 + 0.9 - 1) / 4)
    assert found["ece_width"] == pytest.approx(abs(3.0 - 2) / 4)  # all above 0.5: one bin
    assert {m.name: m.value() for m in calibration(turns, bins=5)}["ece_width"] == pytest.approx(
        (abs(0.9 - 1) + abs(1.5 - 1) + abs(0.6 - 0)) / 4  # (0.8, 1], (0.6, 0.8], (0.4, 0.6]
    )
    # errors by coverage: 0 to 1/4, then rising to 1/4 at 1/2, flat to 3/4, rising to 1/2
    shares = np.linspace(1e-7, 1, 2_000_001)
    errors = np.clip(shares - 0.25, 0, 0.25) + np.clip(shares - 0.75, 0, 0.25)
    assert found["aurc"] == pytest.approx((errors / shares).mean(), abs=1e-5)


def test_a_bin_of_equal_mass_cuts_through_equal_confidences():
    sure, right = np.array([0.6, 0.6, 0.6, 0.9]), np.array([True, False, True, True])
    # halves: two thirds of the group, and one third with the sure one
    assert one(ece(sure, right, 2), 4) == pytest.approx(
        (2 * abs(0.6 - 2 / 3) + abs(0.6 + 0.9 - 2 / 3 - 1)) / 4
    )
    swapped = one(ece(sure, right[[1, 0, 2, 3]], 2), 4)
    assert swapped == pytest.approx(one(ece(sure, right, 2), 4))


def test_one_bin_is_the_distance_of_means():
    random = np.random.default_rng(0)
    sure, right = random.uniform(0.5, 1, 50), random.random(50) < 0.7
    expected = abs(sure.mean() - right.mean())
    assert one(ece(sure, right, 1), 50) == pytest.approx(expected)
    assert one(ece_width(sure, right, 1), 50) == pytest.approx(expected)


def test_weights_are_repetitions():
    random = np.random.default_rng(4)
    sure, right = np.round(random.uniform(0.5, 1, 40), 1), random.random(40) < 0.7
    times = random.integers(0, 4, 40)
    for kind in (ece, ece_width, aurc):
        again = one(kind(np.repeat(sure, times), np.repeat(right, times)), times.sum())
        assert float(kind(sure, right)(times[None].astype(float))[0]) == pytest.approx(again, abs=1e-12)


def test_a_calibrated_model_has_a_small_error_and_a_too_sure_one_its_distance():
    random = np.random.default_rng(1)
    sure = random.uniform(0.5, 1, 40_000)
    assert one(ece(sure, random.random(40_000) < sure), 40_000) < 0.015
    too_sure = random.random(40_000) < sure - 0.2
    assert one(ece(sure, too_sure), 40_000) == pytest.approx(0.2, abs=0.015)
    assert one(ece_width(sure, too_sure), 40_000) == pytest.approx(0.2, abs=0.015)


def test_aurc_of_chance_of_the_best_and_of_the_worst_order():
    n, wrong = 20_000, 0.3
    right = np.arange(n) >= wrong * n
    best = one(aurc(np.where(right, 0.9, 0.6), right), n)
    assert best == pytest.approx(wrong + 0.7 * np.log(0.7), abs=1e-9)  # the best order, Geifman et al. 2019
    assert one(aurc(np.full(n, 0.8), right), n) == pytest.approx(wrong)
    assert one(aurc(np.where(right, 0.6, 0.9), right), n) == pytest.approx(wrong - wrong * np.log(wrong))


def test_the_curve_ends_with_the_error_rate_of_all():
    sure, right = np.array([0.9, 0.8, 0.8, 0.6]), np.array([True, False, True, False])
    assert risk_coverage(sure, right) == [(0.25, 0.0), (0.75, pytest.approx(1 / 3)), (1.0, 0.5)]


def test_choices_need_not_be_yes_and_no():
    turn = replace(said(0, 0.5, "B."), question="Which?", choices={"a": -1.0, "b": -0.5, "c": -3.0})
    p = np.exp([-1.0, -0.5, -3.0]) / np.exp([-1.0, -0.5, -3.0]).sum()
    found = picks([turn])
    assert found.right.tolist() == [True]
    assert found.confidence[0] == pytest.approx(p[1])
    assert found.brier[0] == pytest.approx((p[0] ** 2 + (1 - p[1]) ** 2 + p[2] ** 2) / 2)
    assert not picks([replace(turn, answer="something else")]).turns


def test_open_answers_are_ranked_by_their_log_probability():
    turns = [
        replace(said(i, 0.5, answer), question="Where?", text=text, choices={}, logp=logp)
        for i, (answer, text, logp) in enumerate(
            [("lung", "Lung.", -0.1), ("liver", "spleen", -2.0), ("l", "l", None)]
        )
    ]
    found = opened(turns)
    assert found.confidence.tolist() == pytest.approx([np.exp(-0.1), np.exp(-2.0)])
    assert found.right.tolist() == [True, False]
    (measure,) = calibration(turns)
    assert (measure.name, measure.value()) == ("aurc_open", pytest.approx(0.5 + 0.5 * np.log(0.5)))
    assert calibration([replace(t, topic="report") for t in turns]) == []


def test_what_is_no_number_is_refused():
    with pytest.raises(DataError, match="not finite") as caught:
        calibration([replace(said(3, 0.5, "Yes"), choices={"yes": float("nan"), "no": 0.0})])
    assert "sample s003, turn 0" in str(caught.value)
    with pytest.raises(DataError, match="needs bins"):
        calibration([said(0, 0.6, "Yes")], bins=0)
