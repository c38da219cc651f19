"""Two processes train what one trains: the same losses, whole weights, and a run that goes on after a kill."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import small
from sightline import recipe, runs, stages
from sightline.errors import Interrupted, RecipeError, RunError
from sightline.stages import launch
from sightline.stages.launch import Spread
from sightline.train import processes

STEPS = 10


def document(language: Path, train: Mapping[str, Any], stage: str = "taught") -> dict[str, Any]:
    """The small recipe's first stages; only `stage` has its own number of steps, and no dropout."""
    made = small.document(language)
    made["stages"][stage]["train"] = {"steps": STEPS, "batch": 4, "save_every": 3, "warmup": 0.2, **train}
    made["stages"]["aligned"]["trainable"]["language"]["lora"]["dropout"] = 0.0
    wanted = ("data", "taught") if stage == "taught" else ("data", "taught", "pairs", "aligned")
    made["stages"] = {name: made["stages"][name] for name in wanted}
    return made


class Fork:
    """A process forked from the test's, in the place of a new one: it has imported everything already."""

    def __init__(self, job: Path, given: Mapping[str, str], words: Path | None) -> None:
        self.words = words or job.with_name("process-0.txt")
        self.process = multiprocessing.get_context("fork").Process(target=self.act, args=(job, given))
        self.process.start()
        self.pid = self.process.pid

    def act(self, job: Path, given: Mapping[str, str]) -> None:
        os.environ.update(given)
        handle = os.open(self.words, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        from sightline.stages import member

        if given[launch.SHARD].startswith("zero"):
            messages: Any = import_module("deepspeed.comm.torch")
            messages.build_shm_op = lambda: None  # it would be compiled first; gloo carries the same
        signal.signal(signal.SIGTERM, member.interrupt)
        code = 1
        try:
            code = member.perform(job)
        except BaseException:
            import traceback

            traceback.print_exc()
        os._exit(code)

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self) -> int:
        self.process.join()
        return self.process.exitcode or 0


def run(made: dict[str, Any], root: Path, spread: Spread | None = None) -> Path:
    """Run the recipe and return the folder of its last stage."""
    folders = stages.execute(recipe.check(made, "test"), root, say=lambda line: None, spread=spread)
    return list(folders.values())[-1]


def losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in small.curve(folder)]


def event(folder: Path, kind: str) -> list[dict[str, Any]]:
    return small.events(folder, kind)


def words(root: Path) -> str:
    """What processes said before they ended, for the message of a failed test."""
    return "\n".join(p.read_text(errors="replace")[-3000:] for p in root.rglob("process-*.txt"))


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "popen", Fork)


@pytest.fixture(scope="module")
def alone(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(document(language, {}), tmp_path_factory.mktemp("alone"))


WRAPPED = {
    "ddp": "DistributedDataParallel", "fsdp2": "FSDPAnswers", "zero2": "DeepSpeedEngine", "zero3": "DeepSpeedEngine",
}  # fmt: skip
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
slow = pytest.mark.slow
ZERO_SLOWLY = [pytest.param(name, marks=[needs_deepspeed, slow]) for name in ("zero2", "zero3")]
ZERO = [pytest.param(name, marks=needs_deepspeed) for name in ("zero2", "zero3")]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("shard", ["ddp", "fsdp2", *ZERO])
def test_two_processes_reach_the_losses_of_one(
    language: Path, tmp_path: Path, alone: Path, shard: str
) -> None:
    try:
        folder = run(document(language, {}), tmp_path, Spread(2, shard))
    except RunError:
        pytest.fail(words(tmp_path))
    assert len(losses(folder)) == STEPS
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5, rel=0)
    assert [e["model"] for e in event(folder, "divided")] == [WRAPPED[shard]]
    one, two = (load_file(f / "model" / "adapter_model.safetensors") for f in (alone, folder))
    assert one.keys() == two.keys()
    assert max((one[k] - two[k]).abs().max().item() for k in one) < 1e-4
    assert json.loads((folder / runs.MANIFEST).read_text())["processes"] == {"count": 2, "shard": shard}
    assert not (folder / runs.SCRATCH).exists()
    before = event(folder, "finished")
    run(document(language, {}), tmp_path)  # with one process, the stage is up to date
    assert event(folder, "finished") == before


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("shard", ["fsdp2", pytest.param("ddp", marks=slow), *ZERO_SLOWLY])
def test_aligning_in_two_processes(language: Path, tmp_path: Path, shard: str) -> None:
    """Pairs, stored references, and a third answer that the policy imagines."""
    made = document(language, {"steps": 4}, "aligned")
    made["stages"]["aligned"]["loss"] = {"name": "povid"}
    one = run(made, tmp_path / "one")
    try:
        two = run(made, tmp_path / "two", Spread(2, shard))
    except RunError:
        pytest.fail(words(tmp_path))
    assert losses(two) == pytest.approx(losses(one), abs=1e-5, rel=0)
    for name in ("chosen", "rejected", "margin"):
        ours, theirs = ([e[name] for e in small.curve(f)] for f in (two, one))
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert [e["accuracy"] for e in small.curve(two)][2:] == [
        0.75,
        1.0,
    ]  # before, sides are equal but for rounding
    assert len(list((tmp_path / "two" / "tiny" / ".references").glob("*.json"))) == 1


CONTRAST = {
    "data": {
        "stage": "prepare", "reader": "phantom", "patients": 24, "size": 64,
        "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
    },
    "encoder": {
        "stage": "contrast", "data": "data", "model": {"encoder": "models_contrast:toy", "width": 8},
        "trainable": {"vision": "frozen", "text": {"full": {"lr": 2e-2}}, "heads": {"full": {"lr": 2e-2}}},
        "validate_every": 2, "train": {"steps": 4, "batch": 8, "warmup": 0.0},
    },
}  # fmt: skip


@pytest.mark.usefixtures("forked")
def test_an_encoder_meets_the_pairs_of_both_processes(tmp_path: Path) -> None:
    """The loss of a large batch is not that of two halves: every pair is a negative of all the others."""
    found = []
    for spread in (Spread(2, "ddp"), None):  # in this order: what is forked has not trained yet
        for loss in ("siglip", "clip"):
            encoder = {**CONTRAST["encoder"], "loss": {"name": loss}}
            made = {"name": loss, "stages": {**CONTRAST, "encoder": encoder}}
            try:
                folder = run(made, tmp_path / str(spread is None), spread)
            except RunError:
                pytest.fail(words(tmp_path))
            found.append((losses(folder), runs.read_json(folder / "validation.json")["best"]))
    for two, one in zip(found[:2], found[2:], strict=True):
        assert two[0] == pytest.approx(one[0], abs=1e-5, rel=0)
        assert two[1] == one[1]
    with pytest.raises(RecipeError, match="an encoder is not divided"):
        run({"name": "no", "stages": CONTRAST}, tmp_path, Spread(2, "fsdp2"))


class Hurt(Fork):
    """One that does itself, or all, harm when a step is logged."""

    rank, step = 0, 8
    harm: Any = None

    def act(self, job: Path, given: Mapping[str, str]) -> None:
        if int(given["RANK"]) == self.rank:
            event = runs.Run.event

            def hurting(run: runs.Run, kind: str, **values: Any) -> None:
                event(run, kind, **values)
                if kind == "step" and values["step"] == self.step:
                    type(self).harm(self)

            runs.Run.event = hurting
        super().act(job, given)


def kill(self: Hurt) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop(self: Hurt) -> None:
    os.kill(os.getppid(), signal.SIGTERM)


def hurt(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, Any], root: Path, spread: Spread, **how: Any
) -> pytest.ExceptionInfo[Any]:
    """Run with harm, and come back with the error."""
    monkeypatch.setattr(launch, "popen", type("Now", (Hurt,), how))
    began = time.monotonic()
    with pytest.raises((RunError, Interrupted)) as error:
        run(made, root, spread)
    assert time.monotonic() - began < 60
    monkeypatch.setattr(launch, "popen", Fork)
    return error


def resumed_at(root: Path) -> list[int]:
    folder = root / "tiny" / "taught"
    return [e["resumed_at"] for e in event(folder, "training")]


@pytest.mark.parametrize("rank", [1])
@pytest.mark.parametrize("shard", ["ddp", "fsdp2", *ZERO_SLOWLY])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str, rank: int
) -> None:
    made = document(language, {})
    error = hurt(monkeypatch, made, tmp_path / "hurt", Spread(2, shard), rank=rank, harm=kill)
    assert "ended without a word" in error.value.what
    assert f"process {rank}: -9" in error.value.found
    assert not (tmp_path / "hurt" / "tiny" / "taught").exists()
    folder = run(made, tmp_path / "hurt", Spread(2, shard))
    assert resumed_at(tmp_path / "hurt") == [0, 6]
    assert [e["model"] for e in event(folder, "divided")] == [WRAPPED[shard]]
    unbroken = run(made, tmp_path / "unbroken", Spread(2, shard))
    assert losses(folder) == losses(unbroken)
    ours, theirs = ((f / "model" / "adapter_model.safetensors").read_bytes() for f in (folder, unbroken))
    assert ours == theirs


@pytest.mark.parametrize(
    "shards", [("ddp", "fsdp2"), *[pytest.param(s, marks=slow) for s in (("fsdp2", None), (None, "fsdp2"))]]
)
def test_a_run_goes_on_with_another_number_of_processes(
    language: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    alone: Path,
    shards: tuple[str | None, ...],
) -> None:
    made = document(language, {})
    first, then = (Spread(2, shard) if shard else None for shard in shards)
    if first is not None:
        hurt(monkeypatch, made, tmp_path, first, harm=kill)
    else:
        seen = runs.Run.event

        def stopping(run: runs.Run, kind: str, **values: Any) -> None:
            seen(run, kind, **values)
            if kind == "step" and values["step"] == 8:
                raise KeyboardInterrupt

        monkeypatch.setattr(runs.Run, "event", stopping)
        with pytest.raises(KeyboardInterrupt):
            run(made, tmp_path)
        monkeypatch.setattr(runs.Run, "event", seen)
        monkeypatch.setattr(launch, "popen", Fork)
    folder = run(made, tmp_path, then)
    assert resumed_at(tmp_path) == [0, 6]
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5, rel=0)


def test_a_signal_ends_all_processes_after_the_same_step(
    language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    made = document(language, {})
    error = hurt(monkeypatch, made, tmp_path, Spread(2, "fsdp2"), step=4, harm=stop)
    assert error.type is Interrupted
    assert error.value.exit_code == 75
    found = re.fullmatch(r"stopped after step (\d+) of 10; everything is saved", error.value.what)
    assert found
    assert 5 <= int(found[1]) <= 9
    folder = run(made, tmp_path, Spread(2, "fsdp2"))
    assert resumed_at(tmp_path) == [0, int(found[1])]
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5, rel=0)


@needs_deepspeed
def test_a_checkpoint_of_deepspeed_is_for_such_processes_only(
    language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = document(language, {})
    hurt(monkeypatch, made, tmp_path, Spread(2, "zero2"), harm=kill)
    with pytest.raises(RunError) as error:
        run(made, tmp_path, Spread(2, "ddp"))
    assert (error.value.found, error.value.expected) == ("2 processes of deepspeed", "whole states")
    with pytest.raises(RunError):
        run(made, tmp_path)


@pytest.mark.usefixtures("forked")
def test_the_error_of_one_process_is_the_error_of_the_stage(language: Path, tmp_path: Path) -> None:
    made = document(language, {"batch": 3})
    with pytest.raises(RecipeError) as error:
        run(made, tmp_path, Spread(2, "ddp"))
    assert error.value.where == "train.batch"
    assert error.value.found == "batch 3, accumulate 1, 2 processes"


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(RecipeError, match="at least two"):
        Spread(1)
    with pytest.raises(RecipeError) as error:
        Spread(2, "zero1")
    assert error.value.expected == "ddp, fsdp2, zero2, zero3"


def test_another_launcher_is_refused(language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="another launcher"):
        run(document(language, {}), tmp_path)
    monkeypatch.setenv(launch.SHARD, "ddp")
    launch.refuse_foreign()  # one that this program started


def test_both_floors_know_the_same_presets() -> None:
    assert launch.PRESETS == processes.PRESETS
    assert launch.SHARD == processes.SHARD
    assert {name: processes.preset(name)["kind"] for name in launch.presets()} == {
        "ddp": "ddp", "fsdp2": "fsdp2", "zero2": "deepspeed", "zero3": "deepspeed",
    }  # fmt: skip


@pytest.mark.slow
def test_the_command_starts_and_ends_its_processes(language: Path, tmp_path: Path, alone: Path) -> None:
    """New processes of `sightline run`: SIGKILL to the first takes the others with it, and the next run goes on."""
    place = tmp_path / "small.yaml"
    place.write_text(json.dumps(document(language, {"save_every": 1})), encoding="utf-8")
    words = ["run", str(place), "--runs", str(tmp_path / "runs"), "--processes", "2", "--shard", "fsdp2"]
    command = [sys.executable, "-m", "sightline", *words]
    checkpoints = tmp_path / "runs" / "tiny" / ".taught.work" / "checkpoints"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
        try:
            limit = time.monotonic() + 300
            while not list(runs.numbered(checkpoints)) and time.monotonic() < limit:
                time.sleep(0.05)
            others = members(str(checkpoints))
        finally:
            first.kill()
    assert len(others) == 2
    limit = time.monotonic() + 30
    while set(members(str(checkpoints))) & set(others):
        assert time.monotonic() < limit, "processes outlived the one that started them"
        time.sleep(0.1)
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "runs" / "tiny" / "taught"
    assert event(folder, "training")[-1]["resumed_at"] > 0
    assert losses(folder) == pytest.approx(losses(alone), abs=1e-5, rel=0)


def members(named: str) -> list[int]:
    """Ids of the processes that train in a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "sightline.stages.member" in words and named in words:
            found.append(int(place.name))
    return found
