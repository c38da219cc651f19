"""Stage folders: locks, atomic commits, damage that is seen, and keys that change with what they must."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from sightline import runs
from sightline.errors import RunError

HOLD = (
    "import sys, time; from pathlib import Path; from sightline import runs\n"
    "with runs.lock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
)


def make(folder: Path, text: str = "one", parents: Mapping[str, Path] | None = None, seed: int = 0) -> str:
    """One committed stage with a single file; returns its key."""
    section = {"stage": "prepare", "text": text}
    with runs.start(folder, section=section, seed=seed, version=1, parents=parents or {}) as run:
        (run.work / "data.txt").write_text(text)
    return run.key


def state(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_a_stage_is_committed_whole(tmp_path: Path) -> None:
    key = make(tmp_path / "data")
    assert state(tmp_path) == ["data"]
    assert runs.faults(tmp_path / "data") == []
    assert runs.is_done(tmp_path / "data", key)
    assert not runs.is_done(tmp_path / "data", "other")
    manifest = runs.read_json(tmp_path / "data" / runs.MANIFEST)
    assert {"stage", "key", "section", "seed", "parents", "versions", "content", "files"} <= set(manifest)


def cut(folder: Path, seed: int) -> None:
    """A stage that dies while it works."""
    with runs.start(folder, section={"stage": "prepare"}, seed=seed, version=1, parents={}) as run:
        (run.work / "half.txt").write_text("half")
        raise ZeroDivisionError


def test_an_exception_commits_nothing_and_the_same_key_resumes(tmp_path: Path) -> None:
    folder, section = tmp_path / "data", {"stage": "prepare"}
    with pytest.raises(ZeroDivisionError):
        cut(folder, seed=0)
    assert not folder.exists()
    with runs.start(folder, section=section, seed=0, version=1, parents={}) as run:
        assert run.resumed
        assert (run.work / "half.txt").read_text() == "half"
    with pytest.raises(ZeroDivisionError):
        cut(folder, seed=1)
    with runs.start(folder, section=section, seed=2, version=1, parents={}) as run:
        assert not run.resumed
        assert not (run.work / "half.txt").exists()


@pytest.mark.parametrize("step", range(12))
def test_a_commit_cut_at_any_rename_leaves_one_whole_result(
    tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "data", "old")
    count, rename = iter(range(100)), Path.rename

    def dying(self: Path, target: Path) -> Path:
        if next(count) == step:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dying)
        try:
            make(tmp_path / "data", "new")
            finished = True
        except KeyboardInterrupt:
            finished = False
    runs.recover(tmp_path / "data")
    assert runs.faults(tmp_path / "data") == []
    assert (tmp_path / "data" / "data.txt").read_text() in (["new"] if finished else ["old", "new"])
    make(tmp_path / "data", "new")
    assert state(tmp_path) == ["data"]


def test_a_second_run_is_refused_and_a_dead_holder_frees_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(RunError, match="another run is using this stage folder") as caught,
            runs.lock(folder),
        ):
            pass
        assert f"pid {holder.pid} on " in caught.value.found
        assert "--runs" in caught.value.remedy
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    with runs.lock(folder):
        pass


def test_recover_finishes_a_commit_cut_before_its_first_rename(tmp_path: Path) -> None:
    make(tmp_path / "data", "new")
    (tmp_path / "data").rename(tmp_path / ".data.work")
    make_old = tmp_path / "data"
    make_old.mkdir()
    runs.seal(make_old)
    runs.recover(tmp_path / "data")
    assert (tmp_path / "data" / "data.txt").read_text() == "new"
    assert state(tmp_path) == ["data"]


def test_recover_finishes_a_commit_cut_between_its_renames(tmp_path: Path) -> None:
    make(tmp_path / "data", "old")
    (tmp_path / "data").rename(tmp_path / ".data.old")
    make(tmp_path / "data", "new")
    (tmp_path / "data").rename(tmp_path / ".data.work")
    runs.recover(tmp_path / "data")
    assert (tmp_path / "data" / "data.txt").read_text() == "new"
    assert state(tmp_path) == ["data"]


def test_recover_puts_the_old_result_back_where_the_new_one_is_not_whole(tmp_path: Path) -> None:
    make(tmp_path / "data", "old")
    (tmp_path / "data").rename(tmp_path / ".data.old")
    (tmp_path / ".data.work").mkdir()
    runs.recover(tmp_path / "data")
    assert (tmp_path / "data" / "data.txt").read_text() == "old"


def test_recover_after_the_last_rename_only_tidies(tmp_path: Path) -> None:
    make(tmp_path / "data", "new")
    (tmp_path / ".data.old").mkdir()
    runs.recover(tmp_path / "data")
    assert state(tmp_path) == ["data"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: f.write_text("onf"), "data.txt: content changed"),
        (lambda f: f.write_text("on"), "data.txt: 2 bytes, expected 3"),
        (lambda f: f.write_text(""), "data.txt: 0 bytes, expected 3"),
        (lambda f: f.unlink(), "data.txt: missing"),
        (lambda f: (f.unlink(), f.mkdir()), "data.txt: missing"),
        (lambda f: (f.parent / runs.MANIFEST).write_text("{"), "a file of the run is damaged"),
        (lambda f: (f.parent / runs.MANIFEST).write_text("[]"), "manifest.json: not a manifest"),
        (lambda f: (f.parent / runs.MANIFEST).unlink(), "a file of the run is missing"),
    ],
)
def test_every_kind_of_damage_is_found(tmp_path: Path, damage: object, said: str) -> None:
    key = make(tmp_path / "data")
    assert callable(damage)
    damage(tmp_path / "data" / "data.txt")
    assert runs.faults(tmp_path / "data") == [said]
    assert not runs.is_done(tmp_path / "data", key)


def test_the_key_changes_with_all_that_decides_a_result() -> None:
    first = runs.key_of({"a": 1, "b": 2}, 0, 1, {"data": "x"})
    assert runs.key_of({"b": 2, "a": 1}, 0, 1, {"data": "x"}) == first
    others = [
        runs.key_of({"a": 1, "b": 3}, 0, 1, {"data": "x"}),
        runs.key_of({"a": 1, "b": 2}, 1, 1, {"data": "x"}),
        runs.key_of({"a": 1, "b": 2}, 0, 2, {"data": "x"}),
        runs.key_of({"a": 1, "b": 2}, 0, 1, {"data": "y"}),
        runs.key_of({"a": 1, "b": 2}, 0, 1, {"other": "x"}),
    ]
    assert len({first, *others}) == 6


def test_content_is_of_results_and_not_of_time(tmp_path: Path) -> None:
    make(tmp_path / "a" / "data")
    make(tmp_path / "b" / "data")
    make(tmp_path / "c" / "data", "two")
    same = [runs.content(tmp_path / place / "data") for place in "abc"]
    assert same[0] == same[1] != same[2]


def test_a_changed_parent_changes_the_key(tmp_path: Path) -> None:
    make(tmp_path / "data", "one")
    before = make(tmp_path / "taught", parents={"data": tmp_path / "data"})
    make(tmp_path / "data", "two")
    assert make(tmp_path / "taught", parents={"data": tmp_path / "data"}) != before


def test_digest_keeps_borders_apart() -> None:
    assert runs.digest("ab", "c") != runs.digest("a", "bc")


def checkpoint(folder: Path, step: int) -> Path:
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    (made / "weights").write_text(str(step))
    runs.seal(made)
    return made


def test_the_newest_checkpoint_is_by_step_and_not_by_name_or_time(tmp_path: Path) -> None:
    for step in (100, 9, 50):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-tmp").mkdir()
    assert runs.newest_valid(tmp_path) == (tmp_path / "checkpoint-100", [])


def test_a_damaged_checkpoint_is_kept_aside_and_the_one_before_is_taken(tmp_path: Path) -> None:
    checkpoint(tmp_path, 1)
    (checkpoint(tmp_path, 2) / "weights").write_text("3")
    found, notes = runs.newest_valid(tmp_path)
    assert found == tmp_path / "checkpoint-1"
    assert notes == [
        "checkpoint-2 is damaged (weights: content changed); kept as damaged-checkpoint-2-0, "
        "falling back to the one before"
    ]
    assert (tmp_path / "damaged-checkpoint-2-0" / "weights").read_text() == "3"


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    assert runs.newest_valid(tmp_path) == (None, [])


@pytest.mark.parametrize("name", ["manifest.json", "model/adapter_config.json"])
def test_what_a_kill_left_half_written_is_not_sealed(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    clean = runs.seal(tmp_path)["content"]
    torn = (tmp_path / name).with_name(f".{Path(name).name}{runs.PART}")
    torn.write_text('{"half')
    assert runs.seal(tmp_path)["content"] == clean
    assert runs.faults(tmp_path) == []
    assert not torn.exists()


def test_json_is_written_whole_and_refuses_nan(tmp_path: Path) -> None:
    runs.write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert runs.read_json(tmp_path / "a.json") == {"x": 1}


def test_a_manifest_names_no_host(tmp_path: Path) -> None:
    assert set(runs.machine()) == {"python", "system", "cores"}
    assert "sightline" in runs.versions()
