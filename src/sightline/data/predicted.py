"""Files of predictions: one `types.Prediction` a line as JSON, checked field by field when they are read."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..types import Prediction, to_plain

_FIELDS = {field.name: field.type for field in fields(Prediction)}  # types by their names
_NEEDED = ("sample", "patient", "turn", "question", "answer", "text")


def write(path: Path, made: Iterable[Prediction]) -> None:
    """Write predictions, one a line, in their order."""
    lines = [json.dumps(to_plain(each), ensure_ascii=False) for each in made]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def predictions(path: Path) -> list[Prediction]:
    """Predictions, one JSON object a line; empty lines are passed over.

    Raises:
        DataError: a line is no prediction.
    """
    made = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            made.append(_prediction(line, f"{path.name}, line {number}"))
    return made


def _prediction(line: str, where: str) -> Prediction:
    """One prediction.

    Raises:
        DataError: the line is no object, lacks a field, has another one, or has a value of another type.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError("the line is not sound JSON", where=where, found=str(error)[:80]) from None
    if not isinstance(row, dict):
        raise DataError("the line is no prediction", where=where, found=type(row).__name__)
    lacking = [name for name in _NEEDED if name not in row]
    strange = [name for name in row if name not in _FIELDS]
    wrong = [name for name, value in row.items() if name in _FIELDS and not _fits(name, value)]
    if lacking or strange or wrong:
        named = {"lacks": lacking, "does not know": strange, "has another type in": wrong}
        raise DataError(
            "the line is no prediction", where=where,
            found="; ".join(f"{what} {', '.join(names)}" for what, names in named.items() if names),
            expected=f"{', '.join(_NEEDED)}, and at will {', '.join(n for n in _FIELDS if n not in _NEEDED)}",
        )  # fmt: skip
    return Prediction(**row)


def _fits(name: str, value: Any) -> bool:
    """Whether a value has the type of its field."""
    if name == "choices":
        numbers = value.values() if isinstance(value, dict) else [None]
        return all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers)
    if name == "attributes":
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if name == "logp":
        return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
    if _FIELDS[name] == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    return _FIELDS[name] != "str" or isinstance(value, str)
