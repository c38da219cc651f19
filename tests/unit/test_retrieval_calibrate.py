"""Calibrated K: the bound by hand, its promise over simulated calibrations, and what contradicts what."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.retrieval.calibrate import calibrate, contradicts, loss_curve, stated, truth
from sightline.types import Message, Sample


def test_the_loss_is_the_share_among_the_first() -> None:
    assert loss_curve([True, False, False, True], 5) == [1.0, 0.5, pytest.approx(1 / 3), 0.5, 0.5]
    assert loss_curve([False], 3) == [0.0, 0.0, 0.0]


def test_the_bound_by_hand() -> None:
    """Nine patients, one of them with two samples: n/(n+1) = 0.9, B/(n+1) = 0.1."""
    losses = [[0.0, 0.0, 1 / 3]] * 8 + [[1.0, 0.5, 2 / 3], [0.0, 0.5, 1 / 3]]
    patients = [f"p{i}" for i in range(8)] + ["p8", "p8"]
    made = calibrate(losses, patients, alpha=0.2)
    # The monotone loss of the last patient is (1, 1, 1) and (0, 0.5, 0.5): 0.5, 0.75, 0.75 on average.
    risks = [0.5 / 9, 0.75 / 9, (8 / 3 + 0.75) / 9]
    assert [row.risk for row in made.table] == pytest.approx(risks)
    assert [row.bound for row in made.table] == pytest.approx([0.9 * r + 0.1 for r in risks])
    assert [row.bound for row in made.table] == pytest.approx([0.15, 0.175, 0.4416666667])
    assert [row.share for row in made.table] == pytest.approx([0.5 / 9, 0.5 / 9, (8 / 3 + 0.5) / 9])
    assert (made.k, made.promised, made.patients, made.samples) == (2, True, 9, 10)
    assert [row.holds for row in made.table] == [True, True, False]
    assert calibrate(losses, patients, alpha=0.175).k == 2
    assert calibrate(losses, patients, alpha=0.17).k == 1
    assert made.to_dict()["table"][1] == {
        "k": 2, "share": pytest.approx(0.5 / 9), "risk": pytest.approx(0.75 / 9), "bound": pytest.approx(0.175),
        "holds": True,
    }  # fmt: skip


def test_without_a_k_that_holds_one_report_is_shown_and_it_is_said() -> None:
    made = calibrate([[0.5, 0.5]] * 9, [str(i) for i in range(9)], alpha=0.3)
    assert (made.k, made.promised) == (1, False)
    assert "WARNING: no K has a bound of at most 0.3 (K = 1 has 0.550)" in made.text()
    few = calibrate([[0.0, 0.0]] * 8, [str(i) for i in range(8)], alpha=0.1)
    assert (few.k, few.promised) == (1, False)  # 1/9 > 0.1: nine patients are needed, however good
    assert calibrate([[0.0, 0.0]] * 9, [str(i) for i in range(9)], alpha=0.1).k == 2
    with pytest.raises(DataError, match="nothing to calibrate K on"):
        calibrate([], [], alpha=0.1)


def test_a_k_that_only_looks_better_later_is_not_taken() -> None:
    """The share falls from K = 2 to K = 4; the monotone loss does not."""
    made = calibrate([[0.0, 0.5, 0.3, 0.0]] * 99, [str(i) for i in range(99)], alpha=0.1)
    assert [row.risk for row in made.table] == pytest.approx([0.0, 0.5, 0.5, 0.5])
    assert made.k == 1
    assert made.promised


def population(source: np.random.Generator, count: int, k: int) -> np.ndarray:
    """Monotone losses of many patients: the further down a report stands, the more often it contradicts."""
    skill = source.beta(2, 6, size=count)[:, None]
    chance = np.clip(skill * np.linspace(0.1, 1.4, k), 0, 1)
    wrong = source.random((count, k)) < chance
    shares = np.cumsum(wrong, axis=1) / np.arange(1, k + 1)
    return np.maximum.accumulate(shares, axis=1)


@pytest.mark.parametrize("alpha", [0.12, 0.2, 0.3])
def test_two_hundred_calibrations_keep_the_promised_risk(alpha: float) -> None:
    """In expectation over calibration and a new patient, the risk of the chosen K is at most alpha."""
    source = np.random.default_rng(7)
    everyone = population(source, 40_000, 10)
    means = everyone.mean(axis=0)
    realised, chosen = [], []
    for _ in range(200):
        drawn = source.choice(len(everyone), size=120, replace=False)
        made = calibrate(everyone[drawn].tolist(), [str(i) for i in drawn], alpha)
        assert made.promised
        realised.append(float(means[made.k - 1]))
        chosen.append(made.k)
    mean, noise = np.mean(realised), np.std(realised) / np.sqrt(len(realised))
    share = np.mean(np.array(realised) <= alpha)
    told = f"{share:.0%} of splits at most alpha, mean K {np.mean(chosen):.2f}"
    print(f"alpha {alpha}: mean risk {mean:.4f} +- {noise:.4f}, {told}")
    assert mean <= alpha + 2 * noise
    assert np.mean(chosen) > 1  # the promise is not kept by showing one report always
    loose = [calibrate_without_bound(everyone[source.choice(len(everyone), 120)], alpha) for _ in range(200)]
    assert np.mean([means[k - 1] for k in loose]) > mean  # what the correction is for


def calibrate_without_bound(losses: np.ndarray, alpha: float) -> int:
    """K by the plain mean: what one would do without the theory."""
    return max(1, int(np.count_nonzero(losses.mean(axis=0) <= alpha)))


def sample(labels: dict[str, int], report: str) -> Sample:
    return Sample(
        id="s",
        patient="p",
        images=(),
        messages=(
            Message(role="user", parts=("Describe.",)),
            Message(role="assistant", parts=(report,), topic="report"),
        ),
        labels=labels,
    )


def test_what_contradicts() -> None:
    known = {"effusion_left": 1, "cardiomegaly": 0}
    assert contradicts("No left effusion.", known)
    assert contradicts("Cardiomegaly.", known)
    assert not contradicts(
        "Small left effusion. No cardiomegaly. Left nodule.", known
    )  # the nodule is not known
    assert not contradicts("Nothing is said.", known)
    assert stated("Small left effusion. No nodule.") == {"effusion_left": 1, "nodule": 0}


def test_truth_is_the_labels_or_else_the_report() -> None:
    assert truth(sample({"nodule": 1, "device": -1}, "No nodule."), "report") == {"nodule": 1}
    assert truth(sample({}, "No nodule. Device in place."), "report") == {"nodule": 0, "device": 1}
    assert truth(sample({}, "Unremarkable."), "report") == {}
