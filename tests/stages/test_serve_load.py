"""64 people at once for two minutes, and 100 who leave in the middle: clients and server are processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"


def measured(script: str, result: str, folder: Path, *words: str) -> dict[str, Any]:
    """What a script of `bench` measured."""
    line = [sys.executable, str(BENCH / script), "--out", str(folder), *words]
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    made: dict[str, Any] = json.loads((folder / result).read_text(encoding="utf-8"))
    return made


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_minutes_of_64_people(tmp_path: Path) -> None:
    """A bare server beside it is asked as often: what that one takes is the machine's delay, and not the server's."""
    words = ("--clients", "64", "--seconds", "120", "--slots", "16", "--queue", "32")
    made = measured("load.py", "load-tiny-cpu.json", tmp_path, *words)
    assert set(made["statuses"]) == {"200", "429"}
    assert made["broken"] == {}
    assert made["refusals_without_retry_after"] == 0
    assert made["statuses"]["200"] >= 200
    assert made["health_looks"] >= 500
    assert made["health_p99"] <= 0.25 + made["bare_p99"]
    assert made["memory_drift"] <= 0.05
    assert made["leavers"] == 100
    assert made["freed_max"] <= 1.0 + made["bare_max"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_people_are_answered_faster_together_than_one_by_one(tmp_path: Path) -> None:
    """Against transformers' `generate`, one question after the other, in rounds that alternate."""
    words = (
        "--contenders",
        "loop,all",
        "--clients",
        "8",
        "--requests",
        "16",
        "--tokens",
        "64",
        "--rounds",
        "3",
    )
    made = measured("serve.py", "serve-tiny-cpu.json", tmp_path, *words)
    loop, together = (next(r for r in made["rows"] if r.get("contender") == name) for name in ("loop", "all"))
    assert (loop["wrong"], together["wrong"], together["requests"]) == (0, 0, 16)
    assert together["against_first"]["median"] >= 2.5
