"""The audit log: what it holds, and that nothing in it can be changed unseen."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from serving import IDENTITY, Parrot, question, running
from sightline.errors import RunError
from sightline.serve.trail import Trail, verify

SECRET = "Mr Maier from Basel"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A log of twelve lines, of two sittings."""
    path = tmp_path / "audit.jsonl"
    for _ in range(2):
        trail = Trail(path)
        for i in range(4):
            trail.add("answered", request=f"r{i}", question=trail.salted(SECRET))
        trail.close()
    return path


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_a_chain_that_nobody_touched(written: Path) -> None:
    found = verify(written)
    assert [line["event"] for line in found] == ["began", *["answered"] * 4, "ended"] * 2
    assert [line["n"] for line in found] == list(range(12))
    assert found[0]["before"] == "0" * 64
    assert all(b["before"] == a["hash"] for a, b in pairwise(found))
    assert found[1]["question"] != found[7]["question"]  # another sitting, another salt
    assert SECRET not in written.read_text(encoding="utf-8")


def changed(text: str, draw: random.Random) -> str:
    """The same with one character exchanged."""
    at = draw.randrange(len(text))
    return text[:at] + chr((ord(text[at]) - 32 + 1 + draw.randrange(93)) % 94 + 32) + text[at + 1 :]


EDITS: dict[str, Callable[[list[str], random.Random], list[str]]] = {
    "changed": lambda all_, r: [*all_[:3], changed(all_[3], r), *all_[4:]],
    "left out": lambda all_, r: [*all_[:5], *all_[6:]],
    "exchanged": lambda all_, r: [*all_[:4], all_[5], all_[4], *all_[6:]],
    "twice": lambda all_, r: [*all_[:4], all_[4], *all_[4:]],
    "cut off": lambda all_, r: all_[: r.randrange(1, 12)],
    "emptied": lambda all_, r: [],
}


@pytest.mark.parametrize("kind", EDITS)
def test_every_change_is_found(written: Path, kind: str) -> None:
    draw, before = random.Random(kind), lines(written)
    for _ in range(20):
        text = "".join(f"{line}\n" for line in EDITS[kind](before, draw))
        written.write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match="audit log"):
            verify(written)
        with pytest.raises(RunError):
            Trail(written)  # and it is not written on


def test_a_line_with_a_new_hash_breaks_the_next_one(written: Path) -> None:
    from sightline import runs

    all_ = [json.loads(line) for line in lines(written)]
    all_[3]["request"] = "forged"
    all_[3]["hash"] = runs.digest(runs.canonical({k: v for k, v in all_[3].items() if k != "hash"}))
    written.write_text("".join(json.dumps(line) + "\n" for line in all_), encoding="utf-8")
    with pytest.raises(RunError) as caught:
        verify(written)
    assert caught.value.where == "audit.jsonl, line 5"


def test_what_a_killed_server_left_is_mended_and_noted(written: Path) -> None:
    with written.open("a", encoding="utf-8") as stream:
        stream.write('{"n": 12, "ti')
    assert len(verify(written)) == 12
    Trail(written).close()
    found = verify(written)
    assert (found[12]["event"], found[12]["torn_bytes"], found[13]["event"]) == ("began", 13, "ended")


def test_one_line_more_than_was_noted_is_no_fault(written: Path) -> None:
    """A server killed between the two files."""
    head = written.with_name("audit.jsonl.head")
    noted = json.loads(head.read_text(encoding="utf-8"))
    assert noted == {"n": 12, "hash": verify(written)[-1]["hash"]}
    head.write_text(json.dumps({"n": 11, "hash": verify(written)[-2]["hash"]}), encoding="utf-8")
    assert len(verify(written)) == 12


def test_from_the_command_line(written: Path) -> None:
    command = [sys.executable, "-m", "sightline.serve.trail", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:32]) == (0, "12 lines, the chain is whole; ne")
    written.write_text("{}\n", encoding="utf-8")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "run: the audit log was changed" in done.stderr


def test_a_server_writes_who_was_asked_what_without_saying_it(tmp_path: Path) -> None:
    trail = Trail(tmp_path / "audit.jsonl")
    with running(Parrot(), trail=trail) as made, made.client() as client:
        client.post("/v1/chat/completions", json=question(text=SECRET, seed=3))
        client.post("/v1/chat/completions", json=question(text=SECRET, image="file:///etc/passwd"))
    trail.close()
    found = verify(tmp_path / "audit.jsonl")
    assert [line["event"] for line in found] == ["began", "answered", "ended"]
    line = found[1]
    assert line["question"] == trail.salted(SECRET)
    assert line["answer"] == trail.salted("Small left effusion.")
    assert line["images"] == [trail.salted(made.backend.asked[0].pictures[0].sha256)]
    assert (line["model"], line["seed"], line["shown"]) == (IDENTITY.sha256, 3, "clean")
    assert SECRET not in (tmp_path / "audit.jsonl").read_text(encoding="utf-8")
