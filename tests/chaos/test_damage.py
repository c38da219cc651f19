"""Damaged checkpoints: found by their sums, set aside under another name, told, and never trained from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import FileOperation, Hold
from harness import Lab, Trial

from sightline import runs

FILES = (
    "adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth",
    "trainer_state.json", "manifest.json",
)  # fmt: skip


def flip(path: Path) -> None:
    """Change one bit of one byte in the middle; in a manifest, of a recorded sum."""
    data = bytearray(path.read_bytes())
    place = data.rindex(b'"sha256": "') + 20 if path.name == "manifest.json" else len(data) // 2
    data[place] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero(path: Path) -> None:
    """The tail reads as zeros, as after a power cut between a file's size and its content."""
    size = path.stat().st_size
    os.truncate(path, size // 2)
    os.truncate(path, size)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "flip": flip, "truncate": truncate, "remove": Path.unlink, "zero": zero
}  # fmt: skip


def broken(lab: Lab, stage: str) -> Trial:
    """A run killed in step 8, which leaves checkpoints 3 and 6."""
    trial = lab.trial(stage)
    running = trial.start(Hold(8, trial.root / "holding"))
    try:
        while not (trial.root / "holding").exists():
            assert running.process.is_alive(), running.output.read_text()[-2000:]
            running.process.join(0.01)
    finally:
        running.kill()
    assert trial.held() == [3, 6]
    return trial


def check_fallback(lab: Lab, trial: Trial, resumed_at: int, aside: list[str]) -> None:
    found = trial.start()
    ended = found.wait()
    assert ended.code == 0, ended.text[-3000:]
    assert trial.result() == lab.unbroken(trial.stage)[0]
    told = [e["note"] for e in trial.events("checkpoint_damaged")]
    for name in aside:
        assert f"{name} is damaged" in ended.text
        assert f"kept as damaged-{name}-" in ended.text
        assert any(note.startswith(f"{name} is damaged") for note in told)
    assert trial.events("training")[-1]["resumed_at"] == resumed_at


@pytest.mark.slow
def test_the_checkpoint_holds_the_files_that_are_damaged_here(lab: Lab) -> None:
    trial = broken(lab, "aligned")
    assert sorted(p.name for p in (trial.checkpoints / "checkpoint-6").iterdir()) == sorted(FILES)


def test_resume_falls_back_and_says_so(lab: Lab) -> None:
    trial = broken(lab, "aligned")
    flip(trial.checkpoints / "checkpoint-6" / "optimizer.pt")
    check_fallback(lab, trial, 3, ["checkpoint-6"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["taught", "aligned"])
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_every_file_every_damage(lab: Lab, name: str, damage: str, stage: str) -> None:
    trial = broken(lab, stage)
    DAMAGES[damage](trial.checkpoints / "checkpoint-6" / name)
    check_fallback(lab, trial, 3, ["checkpoint-6"])


@pytest.mark.slow
def test_the_damaged_one_is_kept_for_a_person_to_look_at(lab: Lab) -> None:
    trial = broken(lab, "aligned")
    flip(trial.checkpoints / "checkpoint-6" / "optimizer.pt")
    spoiled = (trial.checkpoints / "checkpoint-6" / "optimizer.pt").read_bytes()
    running = trial.start(Hold(5, trial.root / "again"))
    try:
        while not (trial.root / "again").exists():
            assert running.process.is_alive(), running.output.read_text()[-2000:]
            running.process.join(0.01)
        aside = trial.checkpoints / "damaged-checkpoint-6-0"
        assert (aside / "optimizer.pt").read_bytes() == spoiled
    finally:
        running.kill()


def test_without_a_good_checkpoint_training_starts_again_and_says_so(lab: Lab) -> None:
    trial = broken(lab, "aligned")
    flip(trial.checkpoints / "checkpoint-6" / "rng_state.pth")
    (trial.checkpoints / "checkpoint-3" / "manifest.json").unlink()
    check_fallback(lab, trial, 0, ["checkpoint-6", "checkpoint-3"])
    assert "no checkpoint is left; training starts from the beginning" in (
        trial.root / "output.txt"
    ).read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_empty_checkpoint_folder_blocks_nothing(lab: Lab) -> None:
    trial = broken(lab, "aligned")
    (trial.checkpoints / "checkpoint-9").mkdir()
    check_fallback(lab, trial, 6, ["checkpoint-9"])


@pytest.mark.slow
def test_checkpoints_are_ordered_by_step_and_never_by_the_clock(lab: Lab) -> None:
    trial = broken(lab, "aligned")
    for path in (trial.checkpoints / "checkpoint-3").rglob("*"):
        os.utime(path, (4e9, 4e9))
    os.utime(trial.checkpoints / "checkpoint-3", (4e9, 4e9))
    ended = trial.run(FileOperation(".aligned.work/model", at=1))
    assert ended.code == -9
    assert trial.events("training")[-1]["resumed_at"] == 6
    assert trial.held() == [9, 10]


def test_a_manifest_that_lost_its_list_of_files_is_damage(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    runs.seal(tmp_path)
    assert runs.faults(tmp_path) == []
    whole = (tmp_path / "manifest.json").read_text()
    for old, new in (
        ('"files"', '"fires"'),
        ('"bytes"', '"bites"'),
        ('"content": "', '"content": "0'),
        ("a.bin", "b.bin"),
    ):
        (tmp_path / "manifest.json").write_text(whole.replace(old, new))
        assert runs.faults(tmp_path), old
