"""The audit log: one JSON line per event, each with the hash of the one before, so that nothing can be changed unseen.

    {"n": 0, "time": ..., "event": "began", "salt": ..., "before": "000...", "hash": ...}
    {"n": 1, "time": ..., "event": "answered", "request": ..., "images": [...], ..., "before": ..., "hash": ...}

A line's hash covers all of the line but itself. Beside the log, `NAME.head` holds the number and hash of the newest
line: lines that were cut off at the end are missed there. Someone who may write both files can forge both; so the
newest hash is also printed when the server stops, to be kept elsewhere. Questions, answers and images stand in it as
salted hashes only: who holds the text can prove that it was said, who holds the log cannot read it. The salt stands in
it, so a guess can be compared too: what has few possible values, such as yes or no, is not hidden.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import RunError

NOTHING = "0" * 64
OWN = ("n", "time", "event", "before", "hash")


class Trail:
    """An open audit log.

    Args:
        path: the file; one that is there is verified and continued.

    Raises:
        RunError: the file is not what its chain says.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        known = verify(path) if path.exists() else []
        torn = _mend(path) if path.exists() else 0
        self.count, self.newest = len(known), known[-1]["hash"] if known else NOTHING
        self.salt = secrets.token_hex(16)
        self._stream = path.open("a", encoding="utf-8")
        self.add("began", salt=self.salt, **({"torn_bytes": torn} if torn else {}))

    def add(self, event: str, **values: Any) -> None:
        """Append an event."""
        assert not set(values) & set(OWN), "an event's values have names of their own"
        line = {
            "n": self.count,
            "time": round(time.time(), 3),
            "event": event,
            **values,
            "before": self.newest,
        }
        line["hash"] = _hash(line)
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()
        self.count, self.newest = self.count + 1, line["hash"]
        _write_head(self.path, self.count, self.newest)

    def salted(self, text: str) -> str:
        """A text as it stands in the log."""
        return hashlib.sha256(f"{self.salt}:{text}".encode()).hexdigest()

    def close(self) -> str:
        """End the log; its newest hash, to be kept elsewhere."""
        if not self._stream.closed:
            self.add("ended")
            os.fsync(self._stream.fileno())
            self._stream.close()
        return self.newest


def verify(path: Path) -> list[dict[str, Any]]:
    """Every line of an audit log, if each is what the chain says.

    A last line that was never finished, as a killed server leaves it, is passed over.

    Raises:
        RunError: no such file, or a line that was changed, moved, put in or taken out; `where` names the first one.
    """
    lines: list[dict[str, Any]] = []
    before = NOTHING
    for number, text in enumerate(_whole(path)):
        where = f"{path.name}, line {number + 1}"
        try:
            line = json.loads(text)
            right = line["n"] == number and line["before"] == before and line["hash"] == _hash(line)
        except (ValueError, TypeError, KeyError):
            right = False
        if not right:
            raise RunError(
                "the audit log was changed", where=where, expected="the hash of the line before, and its own",
                remedy="keep this file as it is, and find out who may write to it",
            )  # fmt: skip
        lines.append(line)
        before = line["hash"]
    _check_head(path, lines)
    return lines


def _check_head(path: Path, lines: list[dict[str, Any]]) -> None:
    """The newest line that was noted must be there; a killed server may have written one more."""
    head = _head_of(path)
    noted: dict[str, Any] = runs.read_json(head) if head.is_file() else {"n": 0, "hash": NOTHING}
    at = int(noted["n"])
    there = [NOTHING, *(line["hash"] for line in lines)]
    if (lines and not head.is_file()) or not 0 <= at < len(there) or there[at] != noted["hash"]:
        raise RunError(
            "lines are missing at the end of the audit log", where=path.name, found=f"{len(lines)} line(s)",
            expected=f"{at} line(s), as {head.name} says", remedy="keep both files as they are, and find out why",
        )  # fmt: skip


def _whole(path: Path) -> Iterator[str]:
    """The lines that were finished."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError("the audit log cannot be read", where=path.name, found=type(error).__name__) from None
    yield from data[: data.rfind(b"\n") + 1].decode("utf-8", "replace").split("\n")[:-1]


def _mend(path: Path) -> int:
    """Take off a last line that was never finished; how many bytes it had."""
    data = path.read_bytes()
    end = data.rfind(b"\n") + 1
    if end < len(data):
        os.truncate(path, end)
    return len(data) - end


def _hash(line: Mapping[str, Any]) -> str:
    return runs.digest(runs.canonical({name: value for name, value in line.items() if name != "hash"}))


def _head_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")


def _write_head(path: Path, count: int, newest: str) -> None:
    """Note how far the log is; a reader sees the old note or the new one."""
    part = path.with_name(f".{path.name}.head.part")
    part.write_text(json.dumps({"n": count, "hash": newest}) + "\n", encoding="utf-8")
    part.rename(_head_of(path))


def main() -> None:
    """`python -m sightline.serve.trail FILE`: say that an audit log is whole, or what is wrong with it."""
    try:
        lines = verify(Path(sys.argv[1]))
    except RunError as error:
        sys.exit(error.block())
    print(f"{len(lines)} lines, the chain is whole; newest hash {lines[-1]['hash'] if lines else NOTHING}")


if __name__ == "__main__":
    main()
