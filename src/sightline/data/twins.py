"""Near duplicates in a data set: images that were resized, re-saved or cropped, and texts that differ in a few words.

Equal files are one image here; `audit` counts those. An image that stands in two splits in two versions leaks like one
that stands there twice. Within a split, two versions under two patients mean that patients are not told apart. Texts
that repeat are no leak by themselves, since normal reports resemble each other: they are counted without a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..images import prints
from ..settings import Near
from ..types import ImageRef, Preference, Sample, to_plain
from . import wording
from .printed import Prints
from .split import images

Records = Mapping[str, Iterable[Sample | Preference]]
FILE = "near.json"
EXAMPLES = 5
KEPT = 200
DISTANCE = 12  # bits; a crop of 3 % from every edge moves 8 to 14 of 64, and two patients may be 8 apart
MANY, CLOSER = (
    20_000,
    8,
)  # of more images only those whose hashes are closer are looked at: crops of 1 % are still found
DETAILS = 100  # images whose crops are held at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """Two images, or two texts, that are nearly the same.

    Args:
        splits: where they stand; twice the same within a split.
        records: a record of each.
        paths: their image files; "" for texts.
        one_patient: whether a patient has both.
        alike: how much so, at most 1.
    """

    splits: tuple[str, str]
    records: tuple[str, str]
    paths: tuple[str, str] = ("", "")
    one_patient: bool
    alike: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """What was found.

    Args:
        least: smallest similarities of images and of texts.
        images, texts: how many different ones were compared.
        unread: images that could not be read.
        pairs_of_images, pairs_of_texts: near duplicates, across splits first, the most alike first.
        equal_texts: by two splits, how many texts stand in both word for word.
    """

    least: Mapping[str, float]
    images: int
    texts: int
    unread: int
    pairs_of_images: Sequence[Twins]
    pairs_of_texts: Sequence[Twins]
    equal_texts: Mapping[str, int] = field(default_factory=dict)

    @property
    def warning(self) -> str:
        """One sentence where images are nearly the same across splits or patients, otherwise ""."""
        across = [t for t in self.pairs_of_images if t.splits[0] != t.splits[1]]
        if across:
            first, second = across[0].splits
            same = sum(t.splits == across[0].splits for t in across)
            return (
                f"{same} pair(s) of images are nearly the same in {first} and {second}: resized, re-saved or cropped "
                "copies leak like equal ones. Look at them, and give both one patient or leave one out"
            )
        strange = sum(not t.one_patient for t in self.pairs_of_images)
        if strange:
            return (
                f"{strange} pair(s) of images are nearly the same under two patients: they may fall on two sides of "
                "another split"
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """The findings for JSON: counts by splits, and at most 200 pairs of each kind."""
        return {
            "least": dict(self.least),
            "images": {"compared": self.images, "unread": self.unread, **_counts(self.pairs_of_images)},
            "texts": {
                "compared": self.texts,
                "equal": dict(self.equal_texts),
                **_counts(self.pairs_of_texts),
            },
            "warning": self.warning,
        }

    def text(self) -> str:
        """The findings for a reader."""
        least = f"images from {self.least['images']:g}, texts from {self.least['texts']:g}"
        unread = f", {self.unread} could not be read" if self.unread else ""
        lines = [f"near duplicates ({least})", f"  {self.images} images compared{unread}"]
        lines += _lines(self.pairs_of_images, "images")
        lines += [f"  {self.texts} texts of {wording.LEAST_WORDS} words and more compared"]
        lines += [
            f"  {where}: {count} texts word for word in both" for where, count in self.equal_texts.items()
        ]
        lines += _lines(self.pairs_of_texts, "texts")
        return "\n".join([*lines, *([f"  warning: {self.warning}"] if self.warning else [])])


def twins(records: Records, root: Path, near: Near, folder: Path | None = None) -> Alike:
    """Find near duplicates across and within splits.

    Args:
        records: by split; their images carry `sha256`.
        root: the data root.
        near: from which similarity on things are nearly the same.
        folder: where prints are kept; None: nowhere.
    """
    kept = {split: list(each) for split, each in records.items()}
    held = _Held.of_images(kept)
    store = Prints(folder)
    refused = store.of(root, held.refs)
    shown = [sha for sha in held.refs if sha in store.known]
    found = [
        held.twins(shown[i], shown[j], alike)
        for i, j, alike in pairs([store.known[s] for s in shown], near.images)
    ]
    said = _Held.of_texts(kept)
    texts = list(said.places)
    near_texts = [said.twins(texts[i], texts[j], alike) for i, j, alike in wording.near(texts, near.texts)]
    return Alike(
        least={"images": near.images, "texts": near.texts},
        images=len(shown),
        texts=len(texts),
        unread=len(refused),
        pairs_of_images=_ordered(found),
        pairs_of_texts=_ordered(near_texts),
        equal_texts=_equal(said, list(kept)),
    )


def pairs(known: Sequence[prints.Print], least: float) -> list[tuple[int, int, float]]:
    """Pairs of images (i < j) that are nearly the same: proposed by their hashes, decided by their details."""
    distance = DISTANCE if len(known) <= MANY else CLOSER
    proposed = prints.near(np.array([p.bits for p in known], dtype=np.uint64), distance)
    found: list[tuple[int, int, float]] = []
    details: dict[int, np.ndarray] = {}
    for i, j in proposed.tolist():
        for k in (i, j):
            if k not in details:
                details[k] = prints.details(known[k].thumb)
        alike = prints.alike(details[i], details[j])
        if alike >= least:
            found.append((i, j, alike))
        while len(details) > DETAILS:
            details.pop(next(iter(details)))
    return found


class _Held:
    """Which records hold a thing, and in which splits.

    Args:
        places: thing -> split -> its records and their patients, in order.
        refs: of images, hash -> an image with these bytes.
    """

    def __init__(self) -> None:
        self.places: dict[str, dict[str, list[tuple[str, str]]]] = {}
        self.refs: dict[str, ImageRef] = {}

    @classmethod
    def of_images(cls, kept: Records) -> _Held:
        """Images by their bytes."""
        made = cls()
        for split, records in kept.items():
            for record in records:
                for ref in (r for r in images(record) if r.sha256):
                    made.refs.setdefault(ref.sha256, ref)
                    made._add(ref.sha256, split, record)
        return made

    @classmethod
    def of_texts(cls, kept: Records) -> _Held:
        """Answers of eight words and more by their normal form."""
        made = cls()
        for split, records in kept.items():
            for record in records:
                for text in _answers(record):
                    words = wording.tokens(text)
                    if len(words) >= wording.LEAST_WORDS:
                        made._add(" ".join(words), split, record)
        return made

    def _add(self, thing: str, split: str, record: Sample | Preference) -> None:
        self.places.setdefault(thing, {}).setdefault(split, []).append((record.id, record.patient))

    def twins(self, first: str, second: str, alike: float) -> Twins:
        """Two things, in two splits if there are two such splits."""
        one, other = self.places[first], self.places[second]
        splits = next(((a, b) for a in one for b in other if a != b), None) or (
            next(iter(one)),
            next(iter(other)),
        )
        people = [{patient for held in place.values() for _, patient in held} for place in (one, other)]
        paths = tuple(self.refs[t].path if t in self.refs else "" for t in (first, second))
        return Twins(
            splits=splits, records=(one[splits[0]][0][0], other[splits[1]][0][0]), paths=(paths[0], paths[1]),
            one_patient=bool(people[0] & people[1]), alike=round(alike, 4),
        )  # fmt: skip


def _answers(record: Sample | Preference) -> list[str]:
    if isinstance(record, Preference):
        return [record.chosen]
    return [m.text for m in record.messages if m.role == "assistant"]


def _equal(said: _Held, splits: Sequence[str]) -> dict[str, int]:
    """How many texts stand word for word in two splits."""
    counts = {
        f"{a} and {b}": sum(a in held and b in held for held in said.places.values())
        for a, b in combinations(splits, 2)
    }
    return {where: count for where, count in counts.items() if count}


def _ordered(found: Iterable[Twins]) -> list[Twins]:
    """Across splits first, under two patients before one, the most alike first."""
    return sorted(
        found, key=lambda t: (t.splits[0] == t.splits[1], t.one_patient, -t.alike, t.splits, t.records)
    )


def _title(each: Twins) -> str:
    first, second = each.splits
    where = f"{first} and {second}" if first != second else f"within {first}"
    return f"{where}, {'one patient' if each.one_patient else 'two patients'}"


def _groups(found: Sequence[Twins]) -> dict[str, list[Twins]]:
    """Pairs by splits and patients."""
    groups: dict[str, list[Twins]] = {}
    for each in found:
        groups.setdefault(_title(each), []).append(each)
    return groups


def _counts(found: Sequence[Twins]) -> dict[str, Any]:
    counts = {title: len(each) for title, each in _groups(found).items()}
    return {"near": counts, "pairs": [to_plain(each) for each in found[:KEPT]]}


def _lines(found: Sequence[Twins], what: str) -> list[str]:
    """A line for each group, with the examples that are most alike."""
    lines = []
    for title, each in _groups(found).items():
        lines.append(f"  {title}: {len(each)} pair(s) of {what} that are nearly the same")
        for one in each[:EXAMPLES]:
            paths = f" ({one.paths[0]}, {one.paths[1]})" if any(one.paths) else ""
            lines.append(f"    {one.alike:.2f}  {one.records[0]} and {one.records[1]}{paths}")
    return lines
