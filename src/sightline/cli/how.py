"""What made the numbers of an evaluation, told from its `result.json`: in three lines, or all of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import RunError

RESULT = "result.json"
HASH = 64


def read(run: Path) -> dict[str, Any]:
    """The result manifest of an evaluation.

    Raises:
        RunError: the folder has none.
    """
    if not (run / RESULT).is_file():
        raise RunError(
            f"no {RESULT} here", where=str(run), expected="the folder of an evaluate stage of this version",
            remedy="run the recipe again: answers are kept, so no model is asked",
        )  # fmt: skip
    found: dict[str, Any] = runs.read_json(run / RESULT)
    return found


def brief(result: Mapping[str, Any]) -> list[str]:
    """Decoding, data and scoring in a line each."""
    how, data, scoring = result["decoding"], result["data"], result["scoring"]
    metrics = ", ".join(f"{name} {each['version']}" for name, each in scoring["metrics"].items())
    return [
        f"decoding  {how['method']}, at most {how['max_new_tokens']} tokens, {how['precision']}",
        f"data      {data['stage']} {data['content'][:16]}, split {data['split']}: {data['samples']} records, "
        f"{data['turns']} turns, {data['patients']} patients",
        f"scoring   {metrics}; seed {scoring['seed']}, {scoring['resamples']} resamples; --how shows all",
    ]


def whole(result: Mapping[str, Any]) -> str:
    """Everything, a block for each part, hashes by their first digits."""
    lines: list[str] = []
    for part, value in result.items():
        if isinstance(value, Mapping):
            lines += ["", part, *_lines(value, 1)]
    return "\n".join(lines[1:])


def _lines(value: Mapping[str, Any], depth: int) -> Iterator[str]:
    """A mapping as indented lines; what is empty is left out."""
    width = max((len(str(key)) for key, each in value.items() if not _deep(each)), default=0)
    for key, each in value.items():
        if each is None or each in ({}, [], ""):
            continue
        if _deep(each):
            yield f"{'  ' * depth}{key}"
            entries = each if isinstance(each, Mapping) else {str(i): one for i, one in enumerate(each, 1)}
            yield from _lines(entries, depth + 1)
        else:
            yield f"{'  ' * depth}{str(key).ljust(width)}  {_plain(each)}"


def _deep(value: Any) -> bool:
    """Whether a value takes lines of its own."""
    return bool(value) and (
        isinstance(value, Mapping) or (isinstance(value, list) and isinstance(value[0], Mapping))
    )


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    text = str(value)
    return text[:16] if len(text) == HASH and not set(text) - set("0123456789abcdef") else text
