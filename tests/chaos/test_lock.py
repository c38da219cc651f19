"""One run at a time in a stage folder; a dead holder holds nothing."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from faults import Hold
from harness import Lab, Trial

from sightline import runs
from sightline.errors import RunError


def hold(trial: Trial, step: int) -> Any:
    """A run that waits in the middle of a step, and holds its lock."""
    sign = trial.root / "holding"
    running = trial.start(Hold(step, sign))
    limit = time.monotonic() + 60
    while not (sign.exists() and sign.read_text()):
        assert time.monotonic() < limit
        assert running.process.is_alive(), running.output.read_text()[-2000:]
        time.sleep(0.01)
    return running


def wait_for_end(pid: int) -> None:
    """Until the process is gone and reaped."""
    limit = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < limit
        time.sleep(0.002)


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_second_run_is_refused_and_a_dead_one_holds_nothing(lab: Lab, workers: int) -> None:
    train = {"extra": {"dataloader_num_workers": workers}} if workers else {}
    trial = lab.trial("aligned", **train)
    first = hold(trial, 5)
    try:
        second = trial.run()
        assert second.code == 1
        assert second.seconds < 2
        assert "run: another run is using this stage folder" in second.text
        assert f"found:    pid {first.process.pid} on " in second.text
        assert f" since {time.strftime('%Y-%m-%d')}" in second.text
        assert "remedy:   wait for it, or choose another folder with --runs" in second.text
        first.process.kill()
        wait_for_end(
            first.process.pid
        )  # not `join`: a data worker that lives on for a moment keeps its pipe open
        with runs.lock(trial.folder):
            pass
        trial.finish()
    finally:
        first.kill()
    assert trial.result() == lab.unbroken("aligned", **train)[0]


def contend(folder: Path, go: Event, out: Path) -> None:
    """Try once to take the lock, and say what came of it."""
    go.wait(30)
    try:
        with runs.lock(folder):
            out.write_text("held")
            time.sleep(1.0)
    except RunError as error:
        out.write_text(error.found)


def test_of_many_that_start_together_one_runs(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    go = context.Event()
    outs = [tmp_path / f"{i}.txt" for i in range(12)]
    processes = [context.Process(target=contend, args=(tmp_path / "stage", go, out)) for out in outs]
    try:
        for process in processes:
            process.start()
        go.set()
        for process in processes:
            process.join(30)
        said = [out.read_text() for out in outs]
    finally:
        for process in processes:
            process.kill()
            process.join(10)
    assert said.count("held") == 1
    assert all(text == "held" or text.startswith("pid ") or text == "an unnamed process" for text in said)


def test_a_lock_inside_one_process_is_refused_too(tmp_path: Path) -> None:
    with (
        runs.lock(tmp_path / "stage"),
        pytest.raises(RunError, match="another run"),
        runs.lock(tmp_path / "stage"),
    ):
        pass
    with runs.lock(tmp_path / "stage"):
        pass
