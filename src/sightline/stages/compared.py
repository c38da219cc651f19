"""Numbers that were written against the same numbers computed again: what differs, where, and by how much."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

WORDS = ("test",)  # texts of a row that are results, not names
SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is not as it was.

    Args:
        file: the file, below the stage's folder or by its own name.
        place: the row, line or key in it.
        found: what stands there.
        expected: what it should be.
        by: how that is known.
    """

    file: str
    place: str = ""
    found: str = ""
    expected: str = ""
    by: str = ""

    def text(self) -> str:
        """The fault as one line."""
        where = ", ".join(part for part in (self.file, self.place) if part)
        values = f": found {self.found}" if self.found else ""
        values += f", expected {self.expected}" if self.expected else ""
        return f"{where}{values}" + (f" ({self.by})" if self.by else "")


def compare(
    file: str,
    stored: Mapping[str, Any],
    again: Mapping[str, Any],
    left_out: set[str] | None,
    tolerance: float,
) -> Iterator[Fault]:
    """Every number of a file against the same computed again.

    Args:
        file: its name, for the faults.
        stored: what stands in it; lists of rows are matched by the texts of their rows.
        again: the same, computed again.
        left_out: measures that were not computed again; None where nobody knows which these are.
        tolerance: largest relative difference of two numbers that counts as none.
    """
    for key in dict.fromkeys([*stored, *again]):
        before, now = stored.get(key), again.get(key)
        if (
            isinstance(before, list)
            and isinstance(now, list)
            and all(isinstance(r, dict) for r in before + now)
        ):
            yield from rows(file, key, before, now, left_out, tolerance)
        elif left_out is None or (left_out and key != "calibration"):
            continue  # tables and texts hold what metrics that were not run have to say, too
        else:
            yield from values(file, key, before, now, tolerance)


def rows(
    file: str,
    key: str,
    before: Sequence[Any],
    now: Sequence[Any],
    left_out: set[str] | None,
    tolerance: float,
) -> Iterator[Fault]:
    """Rows by what names them."""
    known = {_title(row): row for row in now}
    written = {_title(row): row for row in before}
    missed = [row for title, row in written.items() if title not in known]
    passed = [row for row in missed if left_out is None or row.get("metric") in left_out]
    corrected = key == "paired" and passed  # p is corrected over all comparisons, those not made again too
    for title, row in written.items():
        place = f"{key}, {', '.join(title)}"
        if title in known:
            for name in dict.fromkeys([*row, *known[title]]):
                if not (corrected and name == "p"):
                    yield from values(
                        file, f"{place}, {name}", row.get(name), known[title].get(name), tolerance
                    )
        elif row not in passed:
            yield Fault(
                file=file,
                place=place,
                found=short(row.get("value", row.get("difference"))),
                expected="no such row",
            )
    for title in known.keys() - written.keys():
        yield Fault(file=file, place=f"{key}, {', '.join(title)}", found="no such row", expected="one")


def _title(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What names a row: its texts."""
    return tuple(f"{k} {v}" for k, v in row.items() if isinstance(v, str) and k not in WORDS)


def values(file: str, place: str, before: Any, now: Any, tolerance: float) -> Iterator[Fault]:
    """Two values, and all that is in them."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from values(
                file, f"{place}, {key}".removeprefix(", "), before.get(key), now.get(key), tolerance
            )
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from values(file, f"{place} [{i}]", one, other, tolerance)
    elif not _equal(before, now, tolerance):
        yield Fault(
            file=file, place=place, found=short(before), expected=short(now), by="as the predictions give it"
        )


def _equal(before: Any, now: Any, tolerance: float) -> bool:
    if before == now:
        return True
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (before, now))
    return numbers and tolerance > 0 and isclose(before, now, rel_tol=tolerance)


def short(value: Any) -> str:
    """A value that fits into a line."""
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
