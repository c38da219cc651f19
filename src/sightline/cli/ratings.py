"""Ratings of blinded readers get their names back, and become numbers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from .. import runs, stats
from ..errors import DataError, RunError
from ..metrics.measure import Measure, average
from ..recipe import Evaluate
from ..report import Reading, reading
from ..report.reader import COLUMNS as SAVED
from ..stages import kept
from .listing import table

COLUMNS = ("reader", "question", "value", "low", "high", "p", "n", "patients")
YES_NO = ("yes", "no")
PREFERRED = {"after": 1.0, "tie": 0.5, "before": 0.0}
SURE = {"yes": 1.0, "no": 0.0}
ALLOWED = {
    "better": ("a", "b", "tie"), "correct_a": YES_NO, "correct_b": YES_NO, "harmful_a": YES_NO, "harmful_b": YES_NO,
}  # fmt: skip
EVERYBODY = "all readers"
Rating = Mapping[str, str]


@dataclass(frozen=True)
class Rated:
    """One reader's ratings, by (sample, turn), with A and B replaced by before and after."""

    reader: str
    ratings: Mapping[tuple[str, int], Rating]


def rated(files: Sequence[Path], run: Path, *, resamples: int = 1000) -> dict[str, Any]:
    """Score files of ratings.

    Args:
        files: one for each reader.
        run: the evaluation's folder.
        resamples: of the intervals.

    Returns:
        `before` and `after` (the two models), `asked` (questions of the reading), `rows` (dicts with `COLUMNS`) and
        `agreement` (dicts with `readers`, `question`, `same`, `kappa`, `low`, `high`, `n`).

    Raises:
        DataError: a file is no file of ratings, or belongs to another reading.
        RunError: no evaluation with two models there.
    """
    facts = runs.read_json(run / runs.MANIFEST)
    if facts.get("stage") != "evaluate" or len(facts["section"]["models"]) < 2:
        raise RunError(
            "ratings belong to an evaluation of two models or more", where=str(run), found=str(facts.get("stage")),
            remedy="give a folder such as runs/quickstart/evaluate",
        )  # fmt: skip
    section = Evaluate.model_validate(facts["section"])
    before, after = kept.names_of(section.models, facts["parents"])[-2:]
    made = kept.read(run, (before, after), ("clean",))
    asked = reading(made[before, "clean"], made[after, "clean"], seed=facts["seed"])
    readers = _named([_read(path, asked) for path in files], files)
    patients = {item.key: item.patient for item in asked.items}
    rows = [
        row for each in _with_everybody(readers) for row in _rows(each, patients, facts["seed"], resamples)
    ]
    agreement = [
        row
        for pair in combinations(readers, 2)
        for row in _agreement(*pair, patients, facts["seed"], resamples)
    ]
    return {"before": before, "after": after, "asked": len(asked.items), "rows": rows, "agreement": agreement}


def shown(found: Mapping[str, Any]) -> str:
    """What `rated` returns as tables, with the names in words."""
    lines = [f"before: {found['before']}; after: {found['after']}; {found['asked']} questions were asked", ""]
    lines.append(table(COLUMNS, found["rows"]))
    if found["agreement"]:
        pairs = [{**row, "readers": " and ".join(row["readers"])} for row in found["agreement"]]
        lines += ["", table(("readers", "question", "same", "kappa", "low", "high", "n"), pairs)]
    return "\n".join(lines)


def _read(path: Path, asked: Reading) -> Rated:
    """One file, un-blinded."""
    if not path.is_file():
        raise DataError("no such file of ratings", where=str(path))
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.DictReader(stream)
        if tuple(lines.fieldnames or ()) != SAVED:
            raise DataError(
                "this is no file of ratings", where=str(path), found=", ".join(lines.fieldnames or ()) or "no header",
                expected=", ".join(SAVED), remedy="save it with the button of the blinded reader",
            )  # fmt: skip
        rows = [(number, row) for number, row in enumerate(lines, 2)]
    items = {item.key: item for item in asked.items}
    known: dict[tuple[str, int], Rating] = {}
    for number, row in rows:
        where = f"{path.name}, line {number}"
        _check(row, asked.name, where)
        key = row["sample"], int(row["turn"]) if row["turn"].isdigit() else -1
        if key not in items or key in known:
            raise DataError(
                "a rating is of a question that was not asked, or stands there twice", where=where,
                found=f"sample {row['sample']}, turn {row['turn']}",
            )  # fmt: skip
        known[key] = _unblinded(row, items[key].after_first)
    return Rated(rows[0][1]["reader"] if rows else "", known)


def _check(row: Mapping[str, Any], name: str, where: str) -> None:
    """Whether a line belongs to this reading and holds what the page can save."""
    if row["set"] != name:
        raise DataError(
            "these ratings are of another reading", where=where, found=f"set {row['set']}", expected=f"set {name}",
            remedy="give the evaluation whose page was read; one that ran again with other answers asks anew",
        )  # fmt: skip
    strange = [f"{k} {row[k]}" for k, allowed in ALLOWED.items() if row[k] not in ("", *allowed)]
    if None in row or None in row.values() or strange:
        raise DataError(
            "a rating cannot be read", where=where, found=", ".join(strange) or "another number of fields"
        )


def _unblinded(row: Mapping[str, str], after_first: bool) -> Rating:
    """A rating with `before` and `after` instead of A and B."""
    side = dict(zip("ab", ("after", "before") if after_first else ("before", "after"), strict=True))
    found = {"better": side.get(row["better"], row["better"])}
    for name in ("correct", "harmful"):
        found |= {f"{name}_{side[letter]}": row[f"{name}_{letter}"] for letter in "ab"}
    return {name: value for name, value in found.items() if value}


def _named(readers: Sequence[Rated], files: Sequence[Path]) -> list[Rated]:
    """Readers with names that differ; one without initials is called as its file."""
    names = [each.reader or path.stem for each, path in zip(readers, files, strict=True)]
    return [
        Rated(name if names.count(name) == 1 else f"{name} ({path.stem})", each.ratings)
        for each, name, path in zip(readers, names, files, strict=True)
    ]


def _with_everybody(readers: Sequence[Rated]) -> list[Sequence[Rated]]:
    """Each reader alone; and all together where there are several."""
    return [[each] for each in readers] + ([readers] if len(readers) > 1 else [])


def _rows(
    readers: Sequence[Rated], patients: Mapping[tuple[str, int], str], seed: int, resamples: int
) -> list[dict[str, Any]]:
    """Preference, and what is right and harmful before and after; of several readers the mean for each question."""
    name = readers[0].reader if len(readers) == 1 else EVERYBODY
    wins = [_measure(readers, patients, "better", {s: 1.0}) for s in ("after", "before")]
    rows = []
    if wins[0].keys:
        liked = _measure(readers, patients, "better", PREFERRED)
        score = stats.score(liked, seed=seed, resamples=resamples)
        test = stats.paired(*wins, seed=seed, resamples=resamples)
        rows.append(
            _row(name, "after preferred", score.value, score.interval, test.p, score.n, score.patients)
        )
    for what in ("correct", "harmful"):
        sides = [f"{what}_after", f"{what}_before"]
        found = [_measure(readers, patients, s, SURE, sides) for s in sides]
        if not found[0].keys:
            continue
        for side, measure in zip(sides, found, strict=True):
            score = stats.score(measure, seed=seed, resamples=resamples)
            rows.append(
                _row(name, side.replace("_", " "), score.value, score.interval, None, score.n, score.patients)
            )
        test = stats.paired(*found, seed=seed, resamples=resamples)
        ends = None if test.low is None or test.high is None else (test.low, test.high)
        rows.append(
            _row(name, f"{what}: after minus before", test.difference, ends, test.p, test.n, test.patients)
        )
    return rows


def _measure(
    readers: Sequence[Rated], patients: Mapping[tuple[str, int], str], name: str,
    values: Mapping[str, float], needed: Sequence[str] = (),
) -> Measure:  # fmt: skip
    """The mean over questions of what a word is worth; a question's own is the mean over the readers who said it."""
    given: dict[tuple[str, int], list[float]] = {}
    for reader in readers:
        for key, rating in reader.ratings.items():
            if all(k in rating for k in (needed or [name])):
                given.setdefault(key, []).append(values.get(rating[name], 0.0))
    keys = tuple(sorted(given))
    means = np.array([np.mean(given[key]) for key in keys])
    return Measure(
        name=name, statistic=average(means), keys=keys, patients=tuple(patients[k] for k in keys), per_sample=means
    )  # fmt: skip


def _agreement(
    one: Rated, other: Rated, patients: Mapping[tuple[str, int], str], seed: int, resamples: int
) -> list[dict[str, Any]]:
    """How two readers agree on every question of the form that both answered, of the same items."""
    rows = []
    for name in ("better", "correct_before", "correct_after", "harmful_before", "harmful_after"):
        keys = tuple(
            sorted(k for k, r in one.ratings.items() if name in r and name in other.ratings.get(k, {}))
        )
        if not keys:
            continue
        said = [[reader.ratings[key][name] for key in keys] for reader in (one, other)]
        measure = Measure(
            name=f"kappa_{name}", statistic=stats.cohen(*said), keys=keys, patients=tuple(patients[k] for k in keys)
        )  # fmt: skip
        score = stats.score(measure, seed=seed, resamples=resamples)
        same = float(np.mean([a == b for a, b in zip(*said, strict=True)]))
        low, high = score.interval or (None, None)
        value = None if np.isnan(score.value) else score.value
        rows.append(
            {
                "readers": [one.reader, other.reader], "question": name.replace("_", " "), "same": same,
                "kappa": value, "low": low, "high": high, "n": len(keys),
            }
        )  # fmt: skip
    return rows


def _row(
    reader: str,
    question: str,
    value: float,
    interval: tuple[float, float] | None,
    p: float | None,
    n: int,
    patients: int,
) -> dict[str, Any]:
    low, high = interval or (None, None)
    return dict(zip(COLUMNS, (reader, question, value, low, high, p, n, patients), strict=True))
