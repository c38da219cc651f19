"""What a reader is given and what it gives: its source, its refusals, and JSON read with limits.

A reader is a generator `def name(source, *, options...)` that yields `(record, official split or None,
origin)`; `origin` is `file:line`, so that every later refusal can name the place. A record that cannot be
built is refused with `Source.reject` and the reader goes on: one bad row never ends a run, unless the source
is strict.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..types import Preference, Sample

Record = Sample | Preference
Read = tuple[Record, str | None, str]
STAND_IN = "image:"
MAX_FILE = 2 << 30
MAX_LINE = 64 << 20
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Reader:
    """A registered reader.

    Args:
        read: the generator function; its keyword-only arguments are the recipe's options.
        needs_root: False for a reader that makes its own pictures (they go below `Source.images`).
        official: what is known about the official splits of this layout; "" if it has none.
        unpacks: True for a reader that needs a root and writes its pictures below `Source.images` all the same.
        later: options that came later; while they are not used, data sets do not name them and keep their bytes.
    """

    read: Callable[..., Iterator[Read]]
    needs_root: bool = True
    official: str = ""
    unpacks: bool = False
    later: tuple[str, ...] = ()


class RecordError(DataError):
    """Why one record cannot be used, and the field at fault."""

    def __init__(self, reason: str, *, field: str, found: str = "", remedy: str = "") -> None:
        super().__init__(reason, where=f"field {field}", found=found, remedy=remedy)
        self.field = field


@dataclass
class Source:
    """What a reader may use.

    Args:
        root: folder of the raw files; None for a reader that generates.
        seed: the recipe's seed, the only source of chance.
        images: where a generating reader writes pictures; their paths are then relative to this folder.
        rejected: the refused records so far, each `{file, line, id, field, reason, found, remedy}`.
        strict: raise at the first refusal.
    """

    root: Path | None
    seed: int
    images: Path
    rejected: list[dict[str, str | int]] = field(default_factory=list)
    strict: bool = False

    def reject(
        self, file: str, line: int, id: str, field: str, reason: str, found: str = "", remedy: str = ""
    ) -> None:
        """Refuse one record. `found` describes the value; free text of a patient does not belong in it.

        Raises:
            DataError: at once, where the source is strict.
        """
        row: dict[str, str | int] = {
            "file": file, "line": line, "id": id, "field": field,
            "reason": reason, "found": found, "remedy": remedy,
        }  # fmt: skip
        self.rejected.append({k: clean(v) if isinstance(v, str) else v for k, v in row.items()})
        if self.strict:
            place = f"{file}, line {line}" if line else file
            known = [place] + ([f"record {id}"] if id else []) + ([f"field {field}"] if field else [])
            raise DataError(reason, where=", ".join(known), found=found, remedy=remedy)

    def reject_error(self, file: str, line: int, id: str, error: DataError) -> None:
        """Refuse one record for an error that its making or checking raised."""
        place = error.field if isinstance(error, RecordError) else _field(error.where)
        remedy = error.remedy or (f"expected {error.expected}" if error.expected else "")
        self.reject(file, line, id, place, error.what, error.found, remedy)

    def folder(self) -> Path:
        """The root, for a reader that needs one.

        Raises:
            DataError: none was given, or it is no folder.
        """
        if self.root is None or not self.root.is_dir():
            raise DataError(
                "the data root is not a folder",
                found="no root" if self.root is None else str(self.root),
                remedy="set the stage's `root` to the folder that holds the raw files",
            )
        return self.root


def _field(where: str) -> str:
    """`record 7, field messages` -> `messages`."""
    found = re.search(r"field ([^\s,]+)", where)
    return found.group(1) if found else ""


def clean(text: str, limit: int = 300) -> str:
    """Text that can be written: shortened, lone surrogates and control characters replaced."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def describe(value: Any) -> str:
    """A value by type and size, without its content, which may be a patient's text."""
    if isinstance(value, str):
        return f"a text of {len(value)} characters"
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'mapping'} of {len(value)} entries"
    return f"{value!r} ({type(value).__name__})"


def stand_in(path: str) -> str:
    """The patient of a record whose patient is unknown: its image. `prepare` puts the image's hash here."""
    return STAND_IN + path


def split_name(word: str) -> str | None:
    """An official split named in a field or in a file's name: `train`, `valid` or `test`."""
    found = re.search(r"(?:^|[^a-z])(train|val|valid|validation|test)(?:ing|set)?(?:$|[^a-z])", word.lower())
    if not found:
        return None
    return "valid" if found.group(1).startswith("val") else found.group(1)


class _UnsoundError(ValueError):
    """JSON that the standard parser would let pass: NaN, an infinite number, a key given twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [k for k, _ in pairs]
        twice = next(k for k in keys if keys.count(k) > 1)
        raise _UnsoundError(f"the key '{clean(twice, 40)}' stands twice in one record")
    return made


def _constant(word: str) -> float:
    raise _UnsoundError(f"{word} is no JSON number")


def _float(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise _UnsoundError(f"the number {clean(word, 20)} is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.S)
_SPACE = re.compile(r"[ \t\r\n]*")


def json_records(
    path: Path, source: Source, *, max_bytes: int = MAX_FILE
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a JSON list, a JSON-lines file or a file with one object, each with its line number.

    Lines end at a line feed only (U+2028 is text). What is unsound is refused on its own and the rest is
    kept; of a list that was cut off, every complete record before the cut is kept.

    Args:
        path: the file.
        source: takes the refusals.
        max_bytes: a longer JSON list is not read; JSON lines have no such limit, only one a line.

    Yields:
        `(line, record)`, lines counted from 1.

    Raises:
        DataError: the file is not a regular file, cannot be read, or is too large a list.
    """
    name = _name(path, source)
    if not path.is_file() or not os.access(path, os.R_OK):
        raise DataError("no such file, or one that cannot be read", where=name)
    with path.open("rb") as stream:
        first = stream.readline(MAX_LINE + 1)
        if _is_lines(path, first):
            stream.seek(0)
            yield from _lines(stream, name, source)
            return
    if path.stat().st_size > max_bytes:
        raise DataError(
            "the JSON list is too large to be read at once",
            where=name,
            found=f"{path.stat().st_size} bytes",
            expected=f"at most {max_bytes}",
            remedy="write it as JSON lines (one record a line, .jsonl); these are read line by line",
        )
    yield from _list(path.read_bytes().decode("utf-8-sig", "surrogateescape"), name, source)


def _name(path: Path, source: Source) -> str:
    """The file's name below the root, which messages show instead of a path of this machine."""
    if source.root is not None and path.is_relative_to(source.root):
        return path.relative_to(source.root).as_posix()
    return path.name


def _is_lines(path: Path, first: bytes) -> bool:
    """Whether a file holds one record a line; a `.json` file of one object spread over lines does not."""
    head = first.removeprefix(b"\xef\xbb\xbf").strip()
    if head.startswith(b"["):
        return False
    if path.suffix.lower() != ".json":
        return True
    try:
        json.loads(head)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(stream: Any, name: str, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """One record a line."""
    number, seen = 0, False
    while raw := stream.readline(MAX_LINE + 1):
        number += 1
        if len(raw) > MAX_LINE:
            source.reject(name, number, "", "", "the line is too long", f"more than {MAX_LINE} bytes")
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE)
            continue
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape").strip(" \t\r\n")
        if not text:
            continue
        seen = True
        record, end = _decode(text, 0, number, name, source)
        if record is None or end is None:
            continue
        if text[end:].strip():
            source.reject(name, number, "", "", "the line goes on after its record", "", "one record a line")
        else:
            yield number, record
    if not seen:
        source.reject(name, 1, "", "", "the file is empty", "0 records", "fetch the file again")


def _list(text: str, name: str, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of one JSON list, parsed one by one, or the one object that the file holds."""
    place = _Place(text)
    at = place.skip(0)
    if text[at : at + 1] != "[":
        yield from _single(text, at, place.line(at), name, source)
        return
    at = place.skip(at + 1)
    while at < len(text) and text[at] != "]":
        line = place.line(at)
        record, end = _decode(text, at, line, name, source)
        if record is not None:
            yield line, record
        if end is None:
            return
        at = place.skip(end)
        if at < len(text) and text[at] == ",":
            at = place.skip(at + 1)
        elif at < len(text) and text[at] != "]":
            _stop(name, place.line(at), source, "the list is not sound JSON: a comma is missing")
            return
    if at >= len(text):
        _stop(name, place.line(len(text)), source, "the file is cut off: the list is not closed")
    elif text[at + 1 :].strip(" \t\r\n"):
        _stop(name, place.line(at), source, "the file goes on after the end of its list")


def _single(text: str, at: int, line: int, name: str, source: Source) -> Iterator[tuple[int, dict[str, Any]]]:
    """The one object of a file that is no list."""
    if at == len(text):
        source.reject(name, 1, "", "", "the file is empty", "0 records", "fetch the file again")
        return
    record, end = _decode(text, at, line, name, source)
    if end is not None and text[end:].strip(" \t\r\n"):
        _stop(name, line + text.count("\n", at, end), source, "the file goes on after the end of its object")
    if record is not None:
        yield line, record


def _stop(name: str, line: int, source: Source, reason: str) -> None:
    source.reject(
        name, line, "", "", reason, "", "the records before this line were kept; fetch or repair the file"
    )


class _Place:
    """Counts lines forward, so that a file of n lines costs n and not n squared."""

    def __init__(self, text: str) -> None:
        self.text, self._at, self._line = text, 0, 1

    def line(self, at: int) -> int:
        self._line += self.text.count("\n", self._at, at)
        self._at = max(at, self._at)
        return self._line

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        assert found is not None
        return found.end()


def _decode(
    text: str, at: int, line: int, name: str, source: Source
) -> tuple[dict[str, Any] | None, int | None]:
    """One value from `at`: the record or None, and where it ends or None where the file is cut off."""
    reason = found = ""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        close = _close(text, at)
        if close is None:
            _stop(name, line, source, "the file is cut off in the middle of a record")
            return None, None
        reason, found = _why(error, line, text, at)
        source.reject(name, line, "", "", reason, found, "repair this record")
        return None, close
    if not isinstance(value, dict):
        reason, found = "a record is not a JSON object", describe(value)
    elif not _is_text(text[at:end], value):
        reason = "the record holds bytes that are not UTF-8"
    elif _depth(text[at:end]) > MAX_DEPTH:
        reason, found = "the record is nested too deeply", f"more than {MAX_DEPTH} levels"
    if reason:
        source.reject(name, line, "", "", reason, found, "repair this record")
        return None, end
    return value, end


def _why(error: Exception, line: int, text: str, at: int) -> tuple[str, str]:
    if isinstance(error, RecursionError):
        return "the record is nested too deeply", f"more than {MAX_DEPTH} levels"
    if isinstance(error, json.JSONDecodeError):
        here = line + text.count("\n", at, error.pos)
        return "the record is not sound JSON", f"{error.msg} (line {here})"
    return "the record is not sound JSON", str(error)


def _close(text: str, at: int) -> int | None:
    """Where the value that starts at `at` ends, by its brackets alone; None where it never closes."""
    if text[at] not in '{["':
        ends = [e for e in (text.find(",", at), text.find("]", at)) if e >= 0]
        return min(ends) if ends else len(text)
    depth = 0
    for token in _TOKEN.finditer(text, at):
        mark = token.group()
        if mark == '"':
            return None
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark, 0)
        if depth < 0:
            return token.start()
        if depth == 0:
            return token.end()
    return None


def _depth(raw: str) -> int:
    """How deep brackets nest; counted exactly only where a record has enough of them to matter."""
    if raw.count("[") + raw.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for token in _TOKEN.finditer(raw):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token.group(), 0)
        deepest = max(depth, deepest)
    return deepest


def _is_text(raw: str, value: Mapping[str, Any]) -> bool:
    """Whether all strings can be written as UTF-8 (a lone surrogate, raw or escaped, cannot)."""
    try:
        raw.encode("utf-8")
        if "\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
