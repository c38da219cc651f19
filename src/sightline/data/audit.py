"""The audit of leaks: which pictures and which patients stand in more than one split.

Pictures are compared by the SHA-256 of their files, so that a copy under another name is found. (The official
splits of VQA-RAD, Lau et al. 2018, doi:10.1038/sdata.2018.251, share most of their pictures.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

from ..types import Preference, Sample, to_plain
from .source import STAND_IN
from .split import images

EXAMPLES = 5
INDEXED = ("patients", "images", "texts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What one split holds; `unknown` counts the patients that an image stands in for."""

    records: int
    patients: int
    images: int
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """What two splits have in common.

    Args:
        first, second: the splits.
        images: pictures (by their bytes) in both.
        patients: patients in both.
        records: records of either split that show such a picture or belong to such a patient.
        examples: ids of such records, first split then second, at most five of each.
    """

    first: str
    second: str
    images: int
    patients: int
    records: int
    examples: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Counts per split and overlaps per pair of splits."""

    name: str
    splits: Mapping[str, Count]
    overlaps: tuple[Overlap, ...]

    @property
    def leaks(self) -> bool:
        """Whether any picture or patient stands in two splits."""
        return any(o.images or o.patients for o in self.overlaps)

    @property
    def warning(self) -> str:
        """One sentence where the splits leak, otherwise ""."""
        if not self.leaks:
            return ""
        worst = max(self.overlaps, key=lambda o: (o.images, o.patients))
        shared = f"{worst.images} images" if worst.images else f"{worst.patients} patients"
        cure = "split.by: image" if worst.images else "split.by: patient"
        return (
            f"the {self.name} splits leak: {shared} stand in both {worst.first} and {worst.second}, so scores"
            f" partly measure memory. Use `{cure}` to make splits that share none."
        )

    def to_dict(self) -> dict[str, Any]:
        """The audit for JSON."""
        plain: dict[str, Any] = to_plain(self)
        return {**plain, "leaks": self.leaks, "warning": self.warning}

    def text(self) -> str:
        """The audit for a reader: one line for each split and each pair of splits."""
        lines = [f"{self.name} splits"]
        for name, count in self.splits.items():
            note = f" ({count.unknown} unknown: the image stands in)" if count.unknown else ""
            lines.append(
                f"  {name}: {count.records} records, {count.patients} patients{note}, {count.images} images"
            )
        for o in self.overlaps:
            lines.append(
                f"  {o.first} and {o.second}: {o.images} images in both, {o.patients} patients in both,"
                f" {o.records} records touched"
            )
            if o.records:
                ids = [*o.examples[0][:2], *o.examples[1][:2]]
                lines.append(f"    for example {', '.join(ids)}")
        if self.warning:
            lines.append(f"  warning: {self.warning}")
        return "\n".join(lines)


def audit(records_by_split: Mapping[str, Iterable[Sample | Preference]], *, name: str = "own") -> Audit:
    """Compare splits.

    Args:
        records_by_split: split name to its records; their images carry `sha256`.
        name: what the splits are called in the text (`own`, `official`).
    """
    kept = {split: list(records) for split, records in records_by_split.items()}
    pictures = {split: _pictures(records) for split, records in kept.items()}
    patients = {split: {r.patient for r in records} for split, records in kept.items()}
    counts = {
        split: Count(
            records=len(records),
            patients=len(patients[split]),
            images=len(pictures[split]),
            unknown=sum(p.startswith(STAND_IN) for p in patients[split]),
        )
        for split, records in kept.items()
    }
    overlaps = []
    for first, second in combinations(kept, 2):
        both, people = pictures[first] & pictures[second], patients[first] & patients[second]
        touched = [
            [r.id for r in kept[split] if r.patient in people or _pictures([r]) & both]
            for split in (first, second)
        ]
        overlaps.append(
            Overlap(
                first=first,
                second=second,
                images=len(both),
                patients=len(people),
                records=len(touched[0]) + len(touched[1]),
                examples=(tuple(touched[0][:EXAMPLES]), tuple(touched[1][:EXAMPLES])),
            )
        )
    return Audit(name=name, splits=counts, overlaps=tuple(overlaps))


def answers(records: Iterable[Sample | Preference]) -> dict[str, Any]:
    """Per topic (or per `why` of a preference): how many answers, how long, how often the commonest.

    `majority` is the accuracy of a model that always gives the commonest answer. The texts stay out.
    """
    texts: dict[str, list[str]] = {}
    for record in records:
        if isinstance(record, Preference):
            texts.setdefault(f"{record.why} chosen", []).append(record.chosen)
            texts.setdefault(f"{record.why} rejected", []).append(record.rejected)
            continue
        for message in record.messages:
            if message.role == "assistant":
                texts.setdefault(message.topic, []).append(message.text)
    found: dict[str, Any] = {}
    for topic, said in sorted(texts.items()):
        counts = Counter(a.strip().lower().rstrip(".") for a in said)
        found[topic.strip()] = {
            "count": len(said),
            "distinct": len(counts),
            "mean_words": round(fmean(len(a.split()) for a in said), 2),
            "majority": round(counts.most_common(1)[0][1] / len(said), 4),
        }
    return found


def against(
    indexed: Mapping[str, AbstractSet[str]], tested: Iterable[Mapping[str, AbstractSet[str]]]
) -> dict[str, Any]:
    """What an index of reports and the test samples that will ask it share.

    Args:
        indexed: `patients`, `images` (their hashes) and `texts` (normalised reports) of the index.
        tested: the same of each test sample; "" is nothing.

    Returns:
        How many different patients, images and texts stand in both, how many test samples are touched by each, and a
        warning where patients or images do. Equal texts alone are no leak: normal reports repeat.
    """
    shared: dict[str, set[str]] = {name: set() for name in INDEXED}
    touched = dict.fromkeys(INDEXED, 0)
    total = 0
    for sample in tested:
        total += 1
        for name in INDEXED:
            both = (sample[name] & indexed[name]) - {""}
            shared[name] |= both
            touched[name] += bool(both)
    counts = {name: {"in_both": len(shared[name]), "test_samples": touched[name]} for name in INDEXED}
    leaks = bool(shared["patients"] or shared["images"])
    warning = (
        f"the index holds {len(shared['patients'])} patients and {len(shared['images'])} images of the test split;"
        " their own reports are not shown to them, but the encoder may have seen them"
    )
    return {**counts, "samples": total, "leaks": leaks, "warning": warning if leaks else ""}


def _pictures(records: Iterable[Sample | Preference]) -> set[str]:
    return {ref.sha256 or ref.path for record in records for ref in images(record)}


def across(
    first: Iterable[Sample | Preference],
    second: Iterable[Sample | Preference],
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Audit:
    """What two data sets share, pairs and the test samples that will measure what they taught, say.

    Patients are compared by their ids, so the two sets must name them alike; pictures by their bytes.
    """
    return audit(dict(zip(names, (first, second), strict=True)), name=" and ".join(names))
