"""`sightline data stats`: what is in a prepared data set, as tables that can be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .listing import table

BAR, EIGHTHS = 12, " ▏▎▍▌▋▊▉"
MOST_ROWS, WIDEST = 15, 36


def stats(
    folder: Annotated[Path, typer.Argument(help="a prepared data set, such as runs/quickstart/data")],
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON and nothing else on standard output")
    ] = False,
) -> None:
    """Count a data set: patients, questions, answers and what a constant one scores, images, findings."""
    from ..data import prepare
    from ..data.census import census

    found = census(prepare.load(folder))
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else text(found, folder))


def text(found: Mapping[str, Any], folder: Path) -> str:
    """A census as blocks of text with a title each; what a data set does not have is left out."""
    splits = list(found["splits"])
    blocks = [
        (f"{found['kind']} in {folder}", _sizes(found["splits"])),
        ("how the pairs were made", _counts(found.get("why", {}), splits)),
        ("attributes (of patients: sex, gender, age, race, ethnicity, language; else of records)", _attributes(found)),
        ("lengths in words", _lengths(found["lengths"])),
        ("topics", _topics(found, splits)),
        ("most frequent answers, and what giving one always scores", _commonest(found["commonest"])),
        ("findings: share of the records where it is known", _findings(found["findings"], splits)),
        ("images", _images(found["images"])),
    ]  # fmt: skip
    return "\n\n".join("\n".join([title, *_indented(lines)]) for title, lines in blocks if lines)


def _indented(lines: Sequence[str]) -> Iterator[str]:
    return (f"  {line}".rstrip() for block in lines for line in block.split("\n"))


def bar(share: float | None) -> str:
    """A share as a bar of at most twelve columns and a percentage."""
    if share is None:
        return ""
    eighths = round(share * BAR * 8)
    drawn = "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
    return f"{drawn.ljust(BAR)} {100 * share:5.1f} %"


def _sizes(splits: Mapping[str, Mapping[str, int]]) -> list[str]:
    names = ["records", "patients", "images", "turns"]
    if any(each["unknown_patients"] for each in splits.values()):
        names.insert(2, "unknown_patients")
    rows = [{"": n.replace("_", " "), **{s: each[n] for s, each in splits.items()}} for n in names]
    return [table(("", *splits), rows)]


def _counts(counts: Mapping[str, Mapping[str, int]], splits: Sequence[str]) -> list[str]:
    """Values by split, the first ones."""
    rows = [{"": _cut(name) or "(none)", **each} for name, each in list(counts.items())[:MOST_ROWS]]
    left = len(counts) - len(rows)
    return [table(("", *splits), rows), *([f"... and {left} more"] if left else [])] if rows else []


def _cut(word: str) -> str:
    return word if len(word) <= WIDEST else f"{word[: WIDEST - 3]}..."


def _attributes(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for name, splits in found["attributes"].items():
        for split, values in splits.items():
            if "median" in values:
                told = (
                    f"{values['least']:g} to {values['most']:g}, median {values['median']:g} ({values['n']})"
                )
            else:
                told = ", ".join(f"{value} {count}" for value, count in values.items() if value != "n")
            lines.append({"": name, "split": split, "values": told or "-"})
    return [table(("", "split", "values"), lines)] if lines else []


def _lengths(kinds: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    columns = ("n", "mean", "median", "p95", "most")
    rows = [
        {"": kind, "split": split, **{c: each.get(c) for c in columns}}
        for kind, splits in kinds.items()
        for split, each in splits.items()
    ]
    return [table(("", "split", *columns), rows)]


def _topics(found: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Topics by split, with the commonest answer of the largest split."""
    largest = max(splits, key=lambda s: found["splits"][s]["turns"])
    told = found["commonest"][largest]["topics"]
    rows = []
    for name, counts in list(found["topics"].items())[:MOST_ROWS]:
        common = told.get(name, {"answer": "", "share": None})
        told_by = {f"commonest in {largest}": _cut(common["answer"]), " ": bar(common["share"])}
        rows.append({"": _cut(name) or "(none)", **counts, **told_by})
    left = len(found["topics"]) - len(rows)
    columns = ("", *splits, f"commonest in {largest}", " ")
    return [table(columns, rows), *([f"... and {left} more"] if left else [])] if rows else []


def _commonest(splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = []
    for split, each in splits.items():
        if not each["n"]:
            continue
        rows = [
            {split: _cut(a["answer"]) or "(empty)", "count": a["count"], " ": bar(a["share"])}
            for a in each["answers"][:5]
        ]
        lines.append(table((split, "count", " "), rows))
        shut = each["yes_no"]
        scores = [("one answer to everything", each["of_all"]), ("one for each topic", each["of_topics"])]
        scores += [(f"on the {shut['n']} yes/no questions", shut["share"])] if shut["n"] else []
        lines.append("; ".join(f"{what}: {100 * share:.1f} %" for what, share in scores))
    return lines


def _findings(found: Mapping[str, Mapping[str, Any]], splits: Sequence[str]) -> list[str]:
    rows = [{"": name, **{s: bar(each[s]["share"]) for s in splits}} for name, each in found.items()]
    return [table(("", *splits), rows)] if rows else []


def _images(found: Mapping[str, Any]) -> list[str]:
    width, height = found["width"], found["height"]
    lines = [
        f"{found['different']} different ones; {_listed(found['kinds'])}; files {_listed(found['files'])}"
    ]
    if width["n"]:
        lines.append(
            f"width {width['least']:g} to {width['most']:g} (median {width['median']:g}), "
            f"height {height['least']:g} to {height['most']:g} (median {height['median']:g})"
        )
    if found["sizes"]["commonest"]:
        lines.append(
            f"{found['sizes']['different']} sizes, most often {_listed(found['sizes']['commonest'])}"
        )
    lines += [f"stored as {_listed(found['stored'])}"] if found["stored"] else []
    return [*lines, *([f"{found['unread']} could not be read"] if found["unread"] else [])]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
