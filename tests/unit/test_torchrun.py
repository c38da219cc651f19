"""`sightline run` under torchrun and `accelerate launch`: the first process starts those that train, the others end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import small
from sightline import runs, stages
from sightline.cli import app
from sightline.errors import RunError
from sightline.stages import torchrun
from sightline.stages.launch import SHARD, Spread
from sightline.stages.torchrun import Called

TORCHRUN = {
    "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "ROLE_RANK": "0",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none",
}  # fmt: skip
ZERO3 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({**TORCHRUN, SHARD: "ddp"}, None),  # one that this program started
        (TORCHRUN, Called(0, 2)),
        ({**TORCHRUN, "RANK": "1"}, Called(1, 2)),
        ({**TORCHRUN, "ACCELERATE_USE_FSDP": "true"}, Called(0, 2, "fsdp2")),
        ({**TORCHRUN, **ZERO3}, Called(0, 2, "zero3")),
        ({**TORCHRUN, **ZERO3, "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"}, Called(0, 2, "zero2")),
    ],
)
def test_who_started_a_process(given: dict[str, str], expected: Called | None) -> None:
    assert torchrun.called(given) == expected


def test_several_machines_are_refused() -> None:
    with pytest.raises(RunError, match="not all on one machine") as error:
        torchrun.called({**TORCHRUN, "WORLD_SIZE": "4"})
    assert error.value.found == "2 of 4 here"


def test_what_they_say_is_forgotten() -> None:
    kept = {"PATH": "/bin", "OMP_NUM_THREADS": "1"}
    given = {**TORCHRUN, **ZERO3, **kept, "FSDP_VERSION": "2"}
    torchrun.forget(given)
    assert given == kept


@pytest.mark.parametrize(
    ("given", "words", "expected"),
    [
        ({}, [], None),
        ({}, ["--processes", "3", "--shard", "zero2"], Spread(3, "zero2")),
        (TORCHRUN, [], Spread(2, "ddp")),
        (TORCHRUN, ["--shard", "fsdp2"], Spread(2, "fsdp2")),
        ({**TORCHRUN, **ZERO3}, [], Spread(2, "zero3")),
        ({**TORCHRUN, "RANK": "1"}, [], "nothing"),
    ],
)
def test_the_first_process_does_what_processes_does(
    given: dict[str, str], words: list[str], expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "r.yaml"
    place.write_text(json.dumps({"name": "r", "stages": {"data": {"stage": "prepare", "reader": "phantom"}}}))
    asked: list[Any] = []

    def seen(checked: Any, root: Path, **how: Any) -> dict[str, Path]:
        asked.append(how["spread"])
        assert "RANK" not in os.environ
        return {"data": root}

    monkeypatch.setattr(stages, "execute", seen)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(app, ["run", str(place), "--runs", str(tmp_path), *words])
    assert done.exit_code == 0, done.output
    assert asked == ([] if expected == "nothing" else [expected])


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--nproc-per-node", "2", "-m", "sightline"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m", "sightline"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LAUNCHERS))
def test_a_launcher_trains_a_stage_by_two_processes(name: str, language: Path, tmp_path: Path) -> None:
    made = small.document(language)
    made["stages"] = {stage: made["stages"][stage] for stage in ("data", "taught")}
    place = tmp_path / "small.yaml"
    place.write_text(json.dumps(made), encoding="utf-8")
    words = ["run", str(place), "--runs", str(tmp_path / "runs"), "--shard", "fsdp2"]
    command = [sys.executable, "-m", *LAUNCHERS[name], *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "tiny" / "taught"
    assert runs.read_json(folder / runs.MANIFEST)["processes"] == {"count": 2, "shard": "fsdp2"}
    assert [e["model"] for e in small.events(folder, "divided")] == ["FSDPAnswers"]
    assert done.stdout.count("data: prepare") == 1
