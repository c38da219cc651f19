"""AMBER's files: word lists, annotations, queries and files of answers (github.com/junyangwang0410/AMBER).

`annotations.json` holds a record {id, type, truth, hallu} for each query. The right answer to a query that asks for a
description is spelt as one sentence each for what is there and what is likely to be made up, so that it travels in a
`Sample` and a `Prediction` like any other answer:

    Objects: sky, ship, ship. Absent: plane, bird.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...types import Prediction

GENERATIVE = "generative"
FOLDERS = ("", "data", "query", "data/query")
_SPELT = re.compile(r"^Objects:([^.:]*)\. Absent:([^.:]*)\.$")
_MARKS = re.compile(r"[,.:]")


@dataclass(frozen=True, slots=True)
class Lists:
    """The words that AMBER knows.

    Args:
        associations: an object's name -> words that may stand for it, in the file's order.
        safe: words that are never held against a model.
    """

    associations: Mapping[str, tuple[str, ...]]
    safe: frozenset[str]

    @property
    def vocabulary(self) -> list[str]:
        """Every object and every association, sorted: nouns outside are not looked at."""
        return sorted({*self.associations, *(word for words in self.associations.values() for word in words)})

    def folded(self) -> Lists:
        """The same in lower case, sorted, each association once."""
        merged: dict[str, set[str]] = {}
        for name, words in self.associations.items():
            merged.setdefault(name.casefold(), set()).update(word.casefold() for word in words)
        return Lists(
            {name: tuple(sorted(merged[name])) for name in sorted(merged)},
            frozenset(word.casefold() for word in self.safe),
        )


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is right for one query: `answer` is spelt objects, or `Yes`, or `No`."""

    kind: str
    answer: str


def spell(truth: Sequence[str], hallu: Sequence[str]) -> str:
    """The right answer to a query that asks for a description.

    Raises:
        DataError: a name holds a mark that the spelling uses.
    """
    for word in (*truth, *hallu):
        if _MARKS.search(word) or word != word.strip() or not word:
            raise DataError(
                "an object's name cannot be spelt", found=repr(word[:40]),
                expected="a name without comma, full stop and colon",
            )  # fmt: skip
    return f"Objects: {', '.join(truth)}. Absent: {', '.join(hallu)}."


def spelt(answer: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is there and what is likely to be made up, out of a right answer that `spell` wrote.

    Raises:
        DataError: the answer is something else.
    """
    found = _SPELT.match(answer)
    if found is None:
        raise DataError(
            f"the right answer of a turn on '{GENERATIVE}' does not list objects",
            found=f"a text of {len(answer)} characters",
            expected="Objects: sky, ship. Absent: plane.",
            remedy="read the data with the reader `amber`, or score a list of {id, response}",
        )
    truth, hallu = (tuple(w.strip() for w in part.split(",") if w.strip()) for part in found.groups())
    return truth, hallu


def read_lists(folder: str) -> Lists:
    """The associations and the safe words.

    Args:
        folder: holds `relation.json` and `safe_words.txt`, itself or in `data/`.

    Raises:
        DataError: a file is absent or holds something else.
    """
    path = find(folder, "relation.json")
    found = read_json(path)
    if not isinstance(found, dict) or not all(_is_words(words) for words in found.values()):
        raise DataError("not a mapping of words to words", where=path.name, found=type(found).__name__)
    safe = find(folder, "safe_words.txt").read_text(encoding="utf-8").splitlines()
    return Lists({name: tuple(words) for name, words in found.items()}, frozenset(w for w in safe if w))


def read_annotations(folder: str) -> dict[int, Annotation]:
    """Every annotation by the id of its query.

    Raises:
        DataError: the file is absent, or a record of it is not as AMBER's.
    """
    path, known = find(folder, "annotations.json"), {}
    for place, row in _records(path):
        number, kind = row.get("id"), row.get("type")
        truth: Any = row.get("truth")
        hallu: Any = row.get("hallu")
        if isinstance(number, int) and kind == GENERATIVE and _is_words(truth) and _is_words(hallu):
            known[number] = Annotation(GENERATIVE, spell(truth, hallu))
        elif isinstance(number, int) and isinstance(kind, str) and truth in ("yes", "no"):
            known[number] = Annotation(kind, str(truth).capitalize())
        else:
            raise DataError(
                "the annotation is not one of AMBER's", where=f"{path.name}, record {place}",
                expected="id, type, and truth: yes, no, or with hallu a list of words",
            )  # fmt: skip
    return known


def read_answers(path: Path, data: str) -> list[Prediction]:
    """A list of {id, response}, as AMBER's script takes it, as predictions.

    Answers about one image are one patient. Which image a yes/no query is about stands in the query files; where they
    are absent, each such query is a patient of its own.

    Args:
        path: the JSON file.
        data: AMBER's folder.

    Raises:
        DataError: no folder, an unknown id, an id twice, or a response that is no text.
    """
    if not data:
        raise DataError(
            "a list of {id, response} does not hold the right answers", where=path.name,
            remedy="give AMBER's folder: data=DIR with annotations.json, relation.json and safe_words.txt",
        )  # fmt: skip
    known, shown = read_annotations(data), _shown(data)
    made: dict[int, Prediction] = {}
    for place, row in _records(path):
        number, text = row.get("id"), row.get("response")
        where = f"{path.name}, record {place}, id {number}"
        if not isinstance(number, int) or number not in known:
            raise DataError("no annotation has this id", where=where, expected=f"one of {len(known)} ids")
        if number in made:
            raise DataError("a query is answered twice", where=where, expected="one response for each id")
        if not isinstance(text, str):
            raise DataError("the response is no text", where=where, found=type(text).__name__)
        right = known[number]
        image, question = shown.get(number, ("", ""))
        own = f"AMBER_{number}.jpg" if right.kind == GENERATIVE else f"{ALONE}{number}"
        made[number] = Prediction(
            sample=name(number), patient=image or own, turn=0, topic=right.kind, question=question,
            answer=right.answer, text=text,
        )  # fmt: skip
    return list(made.values())


ALONE = "query-"
"""How the patient of a query begins whose image is not known."""


def name(number: int) -> str:
    """The sample of a query's id."""
    return f"amber-{number:05d}"


def coverage(folder: str, predictions: Sequence[Prediction]) -> list[str]:
    """A sentence on how much of AMBER was answered; none where the folder holds no annotations."""
    if not folder or place_of(folder, "annotations.json") is None:
        return []
    total = Counter(
        GENERATIVE if a.kind == GENERATIVE else "yes/no" for a in read_annotations(folder).values()
    )
    made = Counter(GENERATIVE if p.topic == GENERATIVE else "yes/no" for p in predictions)
    counts = (f"{made[kind]} of {total[kind]} {kind}" for kind in (GENERATIVE, "yes/no") if total[kind])
    return [f"answered: {', '.join(counts)} queries; what was not answered is not counted"]


def find(folder: str, file: str) -> Path:
    """A file of AMBER, whether the folder is the repository, its `data` or a copy of that.

    Raises:
        DataError: it is in none of them.
    """
    path = place_of(folder, file)
    if path is not None:
        return path
    raise DataError(
        f"AMBER's {file} is not in the folder", where=folder or "(no folder given)",
        expected="annotations.json, relation.json and safe_words.txt",
        remedy="give the folder `data` of github.com/junyangwang0410/AMBER as option `data`",
    )  # fmt: skip


def place_of(folder: str, file: str) -> Path | None:
    """Where a file of AMBER is, or None."""
    places = (Path(folder) / inner / file for inner in FOLDERS)
    return next((path for path in places if path.is_file()), None)


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: it is none.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise DataError("the file cannot be read as JSON", where=path.name, found=str(error)[:120]) from None


def queries(folder: str) -> list[Path]:
    """The query files that are there: the one with all, or else those of each task, descriptions first."""
    every = [Path(folder) / inner / "query_all.json" for inner in FOLDERS]
    if whole := [path for path in every if path.is_file()]:
        return whole[:1]
    found = (p for inner in FOLDERS for p in (Path(folder) / inner).glob("query_*.json"))
    parts = sorted(found, key=lambda path: (GENERATIVE not in path.stem, path))
    stems = {path.stem for path in parts}
    return [p for p in parts if "-" not in p.stem or p.stem.partition("-")[0] not in stems]


def _shown(folder: str) -> dict[int, tuple[str, str]]:
    """Image and question of each query that the query files name."""
    rows = (row for path in queries(folder) for _, row in _records(path))
    return {
        int(r["id"]): (str(r["image"]), str(r["query"])) for r in rows if {"id", "image", "query"} <= set(r)
    }


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The records of a JSON list with their numbers from 1."""
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("not a list of records", where=path.name, found=type(rows).__name__)
    yield from enumerate(rows, 1)


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
