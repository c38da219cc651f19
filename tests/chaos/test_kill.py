"""SIGKILL at any moment: the same command finishes the run, and the result is the same to the last bit."""

from __future__ import annotations

import random
import time

import pytest
from faults import FileOperation
from harness import SAVE_EVERY, STEPS, Lab, Trial, consumed

from sightline import runs

TRAIN = {"extra": {"dataloader_num_workers": 1}}
STAGING = ".work/checkpoints/staging"


def operations(lab: Lab, stage: str, below: str) -> int:
    """How many file operations below a folder a whole run makes. Watching them changes nothing."""
    trial = lab.trial(stage)
    count = trial.root / "operations"
    ended = trial.run(FileOperation(below, count=count))
    assert ended.code == 0, ended.text[-3000:]
    assert trial.result() == lab.unbroken(stage)[0]
    return int(count.read_text())


def kill_in_save(trial: Trial, at: int, *, torn: bool, below: str) -> None:
    ended = trial.run(FileOperation(below, at=at, torn=torn))
    assert ended.code == -9, f"operation {at} was not reached: {ended.text[-2000:]}"
    assert not trial.folder.exists()


def kill_in_step(trial: Trial, step: int, share: float, pace: float) -> None:
    """Kill from outside, a share of a step's time after the step's first batch went in."""
    running = trial.start()
    try:
        limit = time.monotonic() + 60
        while not any(line["step"] >= step for line in mine(trial, running.process.pid)):
            assert time.monotonic() < limit
            assert running.process.is_alive(), running.output.read_text()[-2000:]
            time.sleep(0.002)
        time.sleep(share * pace)
    finally:
        running.kill()
    assert running.process.exitcode in (-9, 0)


def mine(trial: Trial, pid: int) -> list[dict]:
    """Complete ledger lines of one process."""
    place = trial.root / "ledger.jsonl"
    text = place.read_text() if place.exists() else ""
    return [line for line in trial.ledger() if line["pid"] == pid] if text.endswith("\n") else []


def check(lab: Lab, trial: Trial, **train: object) -> None:
    """Finish the trial; all results and the records of every step are as undisturbed."""
    before = trial.held()
    done = len(trial.ledger())
    trial.finish()
    result, steps = lab.unbroken(trial.stage, **train)
    assert trial.result() == result
    assert consumed(trial.ledger()) == steps
    resumed = [line["step"] for line in trial.ledger()[done:]]
    assert resumed[:1] == ([before[-1] + 1] if before and before[-1] < STEPS else [1] if not before else [])
    assert resumed == sorted(set(resumed))
    assert not (trial.folder / runs.SCRATCH).exists()


def kills(lab: Lab, stage: str, number: int, total: int) -> None:
    """Half the kills inside a save, at one of `total` file operations; half at random places in a step."""
    rng = random.Random(f"kills {stage}")
    done = 0
    while done < number:
        trial = lab.trial(stage)
        if done % 2 == 0:
            kill_in_save(trial, rng.randint(1, total), torn=done % 4 == 0, below=STAGING)
        else:
            kill_in_step(trial, rng.randint(1, STEPS), rng.random(), pace=0.06)
        if trial.folder.exists():  # it had ended before the kill came: not a kill
            continue
        done += 1
        last = max((line["step"] for line in trial.ledger()), default=0)
        assert last - max(trial.held(), default=0) <= SAVE_EVERY
        check(lab, trial)


@pytest.mark.parametrize("stage", ["taught", "aligned"])
def test_killed_runs_finish_identically(lab: Lab, stage: str) -> None:
    kills(lab, stage, 2, total=150)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["taught", "aligned"])
def test_twenty_kills(lab: Lab, stage: str) -> None:
    total = operations(lab, stage, STAGING)
    assert total > 150
    kills(lab, stage, 20, total)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["taught", "aligned"])
def test_four_kills_in_one_run(lab: Lab, stage: str) -> None:
    rng = random.Random(f"four {stage}")
    trial = lab.trial(stage)
    for step in (2, 4, 7, 9):
        kill_in_step(trial, step, rng.random(), pace=0.06)
    assert not trial.folder.exists()
    check(lab, trial)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["taught", "aligned"])
def test_kills_between_the_last_checkpoint_and_the_last_rename(lab: Lab, stage: str) -> None:
    """While the model is written, sealed and renamed: the next start ends with the same result."""
    below = f".{stage}.work/"
    total = operations(lab, stage, below)
    start = operations(lab, stage, ".work/checkpoints/")
    for at in range(start, total + 1, 7):
        trial = lab.trial(stage)
        ended = trial.run(FileOperation(below, at=at))
        assert ended.code == -9, ended.text[-2000:]
        trial.finish()
        assert trial.result() == lab.unbroken(stage)[0]
        assert not (trial.folder / runs.SCRATCH).exists()


def test_a_run_killed_while_its_model_is_written_does_not_train_again(lab: Lab) -> None:
    trial = lab.trial("aligned")
    ended = trial.run(FileOperation(".aligned.work/model", at=2))
    assert ended.code == -9, ended.text[-2000:]
    trained = len(trial.ledger())
    assert trained == STEPS
    trial.finish()
    assert len(trial.ledger()) == trained
    assert trial.result() == lab.unbroken("aligned")[0]


@pytest.mark.slow
def test_one_worker_makes_no_difference_and_is_as_safe(lab: Lab) -> None:
    with_worker = lab.unbroken("aligned", **TRAIN)
    assert with_worker[1] == lab.unbroken("aligned")[1]
    assert with_worker[0][0] == lab.unbroken("aligned")[0][0]
    trial = lab.trial("aligned", **TRAIN)
    kill_in_step(trial, 5, 0.5, pace=0.06)
    check(lab, trial, **TRAIN)


@pytest.mark.slow
def test_a_killed_run_says_that_it_resumes(lab: Lab) -> None:
    trial = lab.trial("aligned")
    kill_in_step(trial, 5, 0.0, pace=0.06)
    ended = trial.finish()
    assert "aligned: resuming an interrupted run" in ended.text
    assert [e["resumed_at"] for e in trial.events("training")] == [0, SAVE_EVERY]
