"""Events, the bar, and signals that wait for the end of a step."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState

from sightline.runs import Run
from sightline.train.callbacks import Events, Progress, StopAtStep


@pytest.fixture
def _handlers() -> Iterator[None]:
    """Whatever a test does, the session's own handlers come back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def at(step: int, total: int = 10) -> TrainerState:
    return TrainerState(global_step=step, max_steps=total)


def listening() -> StopAtStep:
    stop = StopAtStep()
    stop.on_train_begin(None, at(0), TrainerControl())
    return stop


@pytest.mark.usefixtures("_handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_to_save_and_stop_at_the_end_of_the_step(number: int) -> None:
    stop, control = listening(), TrainerControl()
    stop.on_step_end(None, at(3), control)
    assert not control.should_save
    assert not control.should_training_stop
    os.kill(os.getpid(), number)
    assert stop.asked
    stop.on_step_end(None, at(4), control)
    assert control.should_save
    assert control.should_training_stop


@pytest.mark.usefixtures("_handlers")
def test_after_the_first_signal_the_old_handlers_stand_so_that_a_second_one_ends() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    stop = listening()
    os.kill(os.getpid(), signal.SIGTERM)
    assert (stop.asked, seen) == (True, [])
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [signal.SIGTERM]


@pytest.mark.usefixtures("_handlers")
def test_a_signal_in_the_last_step_lets_the_run_end() -> None:
    stop, control = listening(), TrainerControl()
    os.kill(os.getpid(), signal.SIGTERM)
    stop.on_step_end(None, at(10), control)
    assert not control.should_training_stop


@pytest.mark.usefixtures("_handlers")
def test_release_gives_signals_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    stop = listening()
    assert signal.getsignal(signal.SIGINT) != before
    stop.release()
    assert signal.getsignal(signal.SIGINT) == before


def test_events_hold_the_figures_of_each_step_and_nothing_else(tmp_path: Path) -> None:
    run = Run(name="taught", folder=tmp_path / "taught", work=tmp_path, key="k", parents={})
    Events(run).on_log(None, at(5), None, logs={"loss": 0.5, "epoch": 1.0, "note": "text"})
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert (line["event"], line["step"], line["loss"], line["epoch"]) == ("step", 5, 0.5, 1.0)
    assert "note" not in line


def test_the_bar_starts_where_training_stands_and_shows_the_loss(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress("aligned")
    bar.on_train_begin(None, at(6), None)
    bar.on_step_end(None, at(8), None)
    bar.on_log(None, at(8), None, logs={"loss": 0.69314, "margin": 0.25})
    bar.close()
    shown = capsys.readouterr().err
    assert "aligned" in shown
    assert "8/10" in shown
    assert "loss=0.693, margin=0.250" in shown


def test_a_bar_that_never_opened_can_be_closed() -> None:
    Progress("taught").close()
