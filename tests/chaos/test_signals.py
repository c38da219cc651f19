"""SIGTERM and SIGINT: the step is finished, saved and left; the same command goes on exactly."""

from __future__ import annotations

import signal

import pytest
from faults import Signals
from harness import SAVE_EVERY, STEPS, Lab, consumed

from sightline.errors import Interrupted

TWO = {"accumulate": 2, "batch": 1}


def stop_and_go_on(lab: Lab, stage: str, fault: Signals, **train: object) -> None:
    trial = lab.trial(stage, **train)
    ended = trial.run(fault)
    assert ended.code == Interrupted.exit_code == 75, ended.text[-3000:]
    assert f"interrupted: stopped after step {fault.step} of {STEPS}; everything is saved" in ended.text
    assert "remedy:   give the same command again to go on" in ended.text
    assert max(trial.held()) == fault.step
    assert not trial.folder.exists()
    done = len(trial.ledger())
    trial.finish()
    assert trial.ledger()[done]["step"] == fault.step + 1
    assert (trial.result(), consumed(trial.ledger())) == lab.unbroken(stage, **train)


def test_sigterm_in_a_step_ends_at_its_end(lab: Lab) -> None:
    stop_and_go_on(lab, "aligned", Signals(4))


def test_sigterm_inside_an_accumulated_step_ends_at_its_end(lab: Lab) -> None:
    stop_and_go_on(lab, "taught", Signals(5, micro=0), **TWO)


@pytest.mark.slow
@pytest.mark.parametrize("train", [{}, TWO], ids=["1", "2"])
@pytest.mark.parametrize("stage", ["taught", "aligned"])
def test_sigterm_in_every_step(lab: Lab, stage: str, train: dict) -> None:
    for step in range(1, STEPS):
        stop_and_go_on(lab, stage, Signals(step, micro=step % 2 if train else 0), **train)


@pytest.mark.slow
def test_sigint_is_treated_alike(lab: Lab) -> None:
    stop_and_go_on(lab, "aligned", Signals(4, numbers=(signal.SIGINT,)))


@pytest.mark.slow
def test_a_signal_in_the_last_step_changes_nothing(lab: Lab) -> None:
    trial = lab.trial("aligned")
    ended = trial.run(Signals(STEPS))
    assert ended.code == 0, ended.text[-2000:]
    assert trial.result() == lab.unbroken("aligned")[0]


def test_a_second_signal_ends_at_once(lab: Lab) -> None:
    trial = lab.trial("aligned")
    ended = trial.run(Signals(5, numbers=(signal.SIGTERM, signal.SIGTERM)))
    assert ended.code == -signal.SIGTERM
    assert trial.held() == [SAVE_EVERY]
    trial.finish()
    assert trial.result() == lab.unbroken("aligned")[0]
