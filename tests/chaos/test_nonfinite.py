"""A loss or gradient that is not a number stops in its step, names its records, spoils no checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from faults import BadGradient, BadImage
from harness import SAVE_EVERY, Lab, Trial
from safetensors.numpy import load_file


def assert_checkpoints_finite(trial: Trial) -> None:
    """Every checkpoint verifies, and its weights are numbers."""
    found = trial.held()
    assert found
    for step in found:
        for path in Path(trial.checkpoints / f"checkpoint-{step}").glob("*.safetensors"):
            assert all(np.isfinite(value).all() for value in load_file(path).values())


def mend(lab: Lab, trial: Trial) -> None:
    """With the cause gone, the same command resumes and ends as if it had never been."""
    trial.finish()
    assert trial.result() == lab.unbroken(trial.stage)[0]


@pytest.mark.parametrize("stage", ["taught", pytest.param("aligned", marks=pytest.mark.slow)])
def test_an_image_of_nan_stops_in_its_first_step(lab: Lab, stage: str) -> None:
    plan = lab.unbroken(stage)[1]
    late = {record for ids in plan[:4] for record in ids}
    step, record = next((i + 1, r) for i, ids in enumerate(plan) for r in ids if r not in late)
    trial = lab.trial(stage)
    if stage == "aligned":  # the reference's log-probabilities were computed while the image was whole
        copy_references(lab, trial)
    ended = trial.run(BadImage(record))
    assert ended.code == 1, ended.text[-3000:]
    assert f"non-finite: the loss is nan at step {step}" in ended.text
    assert f"where:    records {', '.join(plan[step - 1])}" in ended.text
    assert "remedy:   look at these records" in ended.text
    assert max(line["step"] for line in trial.ledger()) == step
    assert_checkpoints_finite(trial)
    assert not trial.folder.exists()
    mend(lab, trial)


def copy_references(lab: Lab, trial: Trial) -> None:
    """Let a trial find the reference log-probabilities that an undisturbed run stored."""
    whole = lab.trial("aligned")
    whole.finish()
    shutil.copytree(whole.folder.parent / ".references", trial.folder.parent / ".references")


@pytest.mark.parametrize(
    ("factor", "value"),
    [(1e30, "inf"), *(pytest.param(x, "nan", marks=pytest.mark.slow) for x in (float("nan"), float("inf")))],
)
def test_a_bad_gradient_stops_before_the_weights_change(lab: Lab, factor: float, value: str) -> None:
    """1e30 is finite in each gradient but not in their norm: clipping would turn the step into nothing."""
    trial = lab.trial("aligned")
    ended = trial.run(BadGradient(5, factor))
    assert ended.code == 1, ended.text[-3000:]
    assert "non-finite: the norm of the gradients is" in ended.text
    assert f"is {value} at step 5" in ended.text
    assert f"where:    records {', '.join(lab.unbroken('aligned')[1][4])}" in ended.text
    assert max(line["step"] for line in trial.ledger()) == 5
    assert trial.held() == [SAVE_EVERY]
    assert_checkpoints_finite(trial)
    mend(lab, trial)


@pytest.mark.slow
def test_all_records_of_an_accumulated_step_are_named(lab: Lab) -> None:
    train = {"batch": 1, "accumulate": 2}
    trial = lab.trial("taught", **train)
    ended = trial.run(BadGradient(2, float("nan")))
    assert ended.code == 1, ended.text[-3000:]
    assert f"where:    records {', '.join(lab.unbroken('taught', **train)[1][1])}" in ended.text
