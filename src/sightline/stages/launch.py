"""Start the processes of one training stage, watch them, and end them together. No torch here.

The process that runs the recipe holds the stage's lock, and the lock stays held until the last of them has ended. Each
is told its place in the environment, as `torchrun` would, and runs `stages.member`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from .. import errors, runs
from ..errors import RecipeError, RunError, SightlineError
from ..serve.ports import free_port

PRESETS = Path(__file__).parent.parent / "train" / "shards"
SHARD = "SIGHTLINE_SHARD"
TRAINING = ("sft", "align", "contrast")
FAILED = "failed.json"  # in the scratch of a stage: why a process ended
GRACE = 40.0  # seconds that the others are given to end when one has
PACE = 0.05  # seconds between two looks at them


@dataclass(frozen=True)
class Spread:
    """How training stages are run: by so many processes, divided as a preset says.

    Raises:
        RecipeError: fewer than two processes, or no preset of that name.
    """

    processes: int
    shard: str = "ddp"

    def __post_init__(self) -> None:
        if self.processes < 2:
            raise RecipeError(
                "several processes are at least two", where="--processes", found=str(self.processes)
            )
        known = presets()
        if self.shard not in known:
            raise RecipeError("unknown preset", where="--shard", found=self.shard, expected=", ".join(known))


class Started(Protocol):
    """A process under way: `subprocess.Popen`, or what a test has in its place."""

    pid: int

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""

    def send_signal(self, number: int) -> None:
        """Pass a signal on."""

    def kill(self) -> None:
        """End it at once."""

    def wait(self) -> int:
        """Wait for its end."""


Start = Callable[[Path, Mapping[str, str], Path | None], Started]


def presets() -> list[str]:
    """The short names of all presets."""
    return sorted(place.stem for place in PRESETS.glob("*.yaml"))


def refuse_foreign() -> None:
    """Refuse to run a recipe in one of several processes: each would do all of it.

    Raises:
        RunError: another launcher has made this process one of several.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and SHARD not in os.environ:
        raise RunError(
            "this process is one of several that another launcher started",
            found=f"WORLD_SIZE={os.environ['WORLD_SIZE']}", expected="one process, which starts the others itself",
            remedy="sightline run RECIPE --processes N --shard NAME",
        )  # fmt: skip


def run_stage(module: Any, run: runs.Run, section: Any, seed: int, spread: Spread | None) -> None:
    """Run a stage here, or in several processes where they are asked for and it trains."""
    if spread is not None and section.stage in TRAINING:
        launch(run, section, seed, spread)
    else:
        module.run(run, section, seed)


def launch(run: runs.Run, section: Any, seed: int, spread: Spread, start: Start | None = None) -> None:
    """Run one training stage in several processes; what they make stands in `run.work`.

    Args:
        run: the stage at work; this process holds its lock.
        section: its recipe section.
        seed: the recipe's seed.
        spread: how many processes, and how the model is divided.
        start: starts a process from the job's file, its environment and where its words go.

    Raises:
        SightlineError: the error of the process that failed first.
    """
    if section.stage == "contrast" and spread.shard != "ddp":
        raise RecipeError(
            "an encoder is not divided among processes", where=f"stage {run.name}, --shard", found=spread.shard,
            expected="ddp: every process holds the encoder, and the loss sees the pairs of all",
        )  # fmt: skip
    run.scratch.mkdir(exist_ok=True)
    (run.scratch / FAILED).unlink(missing_ok=True)
    job = run.scratch / "job.json"
    runs.write_json(job, {
        "name": run.name, "folder": str(run.folder), "work": str(run.work), "key": run.key, "seed": seed,
        "parents": {name: str(place) for name, place in run.parents.items()}, "resumed": run.resumed,
        "section": section.model_dump(mode="json"),
    })  # fmt: skip
    run.facts["processes"] = {"count": spread.processes, "shard": spread.shard}
    run.event("processes", count=spread.processes, shard=spread.shard)
    started: list[Started] = []
    try:
        port = str(free_port())
        for rank in range(spread.processes):
            words = None if rank == 0 else run.scratch / f"process-{rank}.txt"
            started.append((start or popen)(job, environment(rank, spread, port), words))
        with passing_on(started):
            codes = watch(started)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    if any(codes):
        raise failure(run, codes)


def environment(rank: int, spread: Spread, port: str) -> dict[str, str]:
    """What tells a process its place; talk among them stays on this machine."""
    cores = os.cpu_count() or 1
    given = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": spread.processes, "LOCAL_WORLD_SIZE": spread.processes,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, SHARD: spread.shard,
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", max(1, cores // spread.processes)),
    }  # fmt: skip
    if sys.platform == "linux":
        given["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return {name: str(value) for name, value in given.items()}


def popen(job: Path, given: Mapping[str, str], words: Path | None) -> Started:
    """Start one process in a session of its own, so that signals reach it once: through this one.

    It keeps the lock's handle open, and ends when its standard input is closed: when this process is gone.
    """
    with open(words or os.devnull, "a", encoding="utf-8") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "sightline.stages.member", str(job)], stdin=subprocess.PIPE,
            stdout=stream if words else None, stderr=stream if words else None, start_new_session=True,
            env={**os.environ, **given}, pass_fds=runs.held(),
        )  # fmt: skip


@contextmanager
def passing_on(started: Sequence[Started]) -> Iterator[None]:
    """SIGTERM and SIGINT go to all processes: they finish the step, save, and end."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        for process in started:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def watch(started: Sequence[Started]) -> list[int]:
    """Wait for all of them. Where one has failed, the others cannot go on and are ended after a while.

    Returns:
        Their exit codes; -9 of one that was ended here.
    """
    limit: float | None = None
    while True:
        codes = [process.poll() for process in started]
        if None not in codes:
            return [code for code in codes if code is not None]
        if limit is None and any(codes):
            hurt = any(code is not None and code < 0 for code in codes)
            limit = time.monotonic() + (0 if hurt else GRACE)
        if limit is not None and time.monotonic() >= limit:
            for process in started:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        time.sleep(PACE)


def failure(run: runs.Run, codes: Sequence[int]) -> SightlineError:
    """The error of the process that failed first, as it told it; or what is known of its end."""
    place = run.scratch / FAILED
    if place.is_file():
        told = runs.read_json(place)
        kind: type[SightlineError] = getattr(errors, told.pop("kind"))
        return kind(told.pop("what"), **told)
    return RunError(
        "a process of the training ended without a word", where=f"stage {run.name}",
        found=", ".join(f"process {rank}: {code}" for rank, code in enumerate(codes)),
        expected="0 of each",
        remedy=f"look above and at process-*.txt in {run.scratch}; give the same command again to go on",
    )  # fmt: skip
