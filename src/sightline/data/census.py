"""What is in a data set, counted: who, what is asked and answered, how long, which images, how often each finding.

`commonest` is what always giving one answer would score, the first number that a model has to beat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from .. import images
from ..errors import ImageError
from ..metrics.answers import closed, normalise, tokens
from ..types import Preference, Sample
from .prepare import Prepared
from .printed import distinct
from .source import STAND_IN
from .split import images as shown
from .turns import exchanges

PERSONAL = (
    "sex",
    "gender",
    "age",
    "race",
    "ethnicity",
    "language",
)  # attributes of a patient: counted once each
ORDER = ("train", "valid", "test")
MOST_VALUES = 12
COMMONEST = 10
Turn = tuple[str, str, str]
Splits = Mapping[str, Sequence[Sample | Preference]]


def census(data: Prepared) -> dict[str, Any]:
    """Count a prepared data set.

    Returns:
        `kind`, `splits` (records, patients, images, turns), `attributes` (of patients where they are personal, else of
        records; numbers as a range), `lengths` of questions and answers in words, `topics`, `commonest` answers and
        what giving them scores, `images` (kinds, sizes as shown, channels and bits), `findings` (positive, known), and
        `why` (of preferences); each by split but the images.
    """
    order = sorted(data.counts, key=lambda split: ORDER.index(split) if split in ORDER else len(ORDER))
    splits = {split: list(data.records(split)) for split in order}
    turns = {split: [t for r in records for t in _turns(r)] for split, records in splits.items()}
    found = {
        "kind": data.kind,
        "splits": {split: _sizes(records, turns[split]) for split, records in splits.items()},
        "attributes": attributes(splits),
        "lengths": {
            name: {split: lengths(t[place] for t in each) for split, each in turns.items()}
            for place, name in enumerate(("questions", "answers"))
        },
        "topics": _by_value({split: [t[2] for t in each] for split, each in turns.items()}),
        "commonest": {split: commonest(each) for split, each in turns.items()},
        "images": pictures(data, splits),
        "findings": findings(splits),
    }
    if data.kind == "preferences":
        why = {s: [r.why for r in records if isinstance(r, Preference)] for s, records in splits.items()}
        found["why"] = _by_value(why)
    return found


def _turns(record: Sample | Preference) -> list[Turn]:
    """(question, answer, topic) of every turn; of a preference the last question with both its answers."""
    if isinstance(record, Sample):
        return exchanges(record)
    asked = next((m.text for m in reversed(record.prompt) if m.role == "user"), "")
    return [(asked, record.chosen, "chosen"), (asked, record.rejected, "rejected")]


def _sizes(records: Sequence[Sample | Preference], turns: Sequence[Turn]) -> dict[str, int]:
    people = {r.patient for r in records}
    return {
        "records": len(records),
        "patients": len(people),
        "unknown_patients": sum(p.startswith(STAND_IN) for p in people),
        "images": len({ref.sha256 or ref.path for r in records for ref in shown(r)}),
        "turns": len(turns),
    }


def attributes(splits: Splits) -> dict[str, dict[str, Any]]:
    """Attributes by name and split: how many have each value, or the range of numbers; free text is left out."""
    samples = {s: [r for r in records if isinstance(r, Sample)] for s, records in splits.items()}
    names = sorted({name for records in samples.values() for r in records for name in r.attributes})
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        values = {
            split: list({r.patient: r.attributes[name] for r in records if name in r.attributes}.values())
            if name in PERSONAL
            else [r.attributes[name] for r in records if name in r.attributes]
            for split, records in samples.items()
        }
        whole = [value for each in values.values() for value in each]
        if len(set(whole)) <= MOST_VALUES:
            found[name] = {split: dict(Counter(each).most_common()) for split, each in values.items()}
        elif all(map(_is_number, whole)):
            found[name] = {split: spread(map(float, each)) for split, each in values.items()}
    return found


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def spread(numbers: Iterable[float]) -> dict[str, float | int]:
    """How many numbers there are, the smallest, the middle one and the largest."""
    known = sorted(numbers)
    if not known:
        return {"n": 0}
    return {"n": len(known), "least": known[0], "median": median(known), "most": known[-1]}


def lengths(texts: Iterable[str]) -> dict[str, float | int]:
    """Lengths in words (of Chinese: characters): how many texts, mean, median, 95th percentile and the longest."""
    counts = sorted(len(tokens(text)) for text in texts)
    if not counts:
        return {"n": 0}
    high = counts[min(len(counts) - 1, int(0.95 * len(counts)))]
    return {
        "n": len(counts), "mean": round(fmean(counts), 2), "median": median(counts), "p95": high, "most": counts[-1],
    }  # fmt: skip


def commonest(turns: Sequence[Turn]) -> dict[str, Any]:
    """The most frequent answers, and what always giving one scores: over all, by topic, and on yes/no questions.

    `of_topics` gives every topic its own commonest answer. Two answers are one if their normal forms are equal.
    """
    said = [(normalise(answer), topic) for _, answer, topic in turns]
    if not said:
        return {"n": 0, "answers": [], "topics": {}}
    by_topic: dict[str, Counter[str]] = {}
    for answer, topic in said:
        by_topic.setdefault(topic, Counter())[answer] += 1
    shut = Counter(gold for question, answer, _ in turns if (gold := closed(question, answer)) is not None)
    top = Counter(answer for answer, _ in said).most_common(COMMONEST)
    return {
        "n": len(said),
        "distinct": len({answer for answer, _ in said}),
        "answers": [{"answer": text, "count": count, "share": _share(count, len(said))} for text, count in top],
        "of_all": _share(top[0][1], len(said)),
        "of_topics": _share(sum(c.most_common(1)[0][1] for c in by_topic.values()), len(said)),
        "yes_no": {"n": shut.total(), "yes": shut["yes"], "share": _share(max(shut.values(), default=0), shut.total())},
        "topics": {
            topic: {"n": c.total(), "answer": first, "share": _share(count, c.total())}
            for topic, c in sorted(by_topic.items())
            for first, count in c.most_common(1)
        },
    }  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _by_value(values: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
    """How often each value occurs, by value and split, the commonest first."""
    whole = Counter(value for each in values.values() for value in each)
    counts = {split: Counter(each) for split, each in values.items()}
    return {value: {split: counts[split][value] for split in values} for value, _ in whole.most_common()}


def pictures(data: Prepared, splits: Splits) -> dict[str, Any]:
    """Kinds and sizes of the different images; headers are read, nothing is decoded."""
    refs = dict(distinct(ref for records in splits.values() for r in records for ref in shown(r)))
    sizes: list[tuple[int, ...]] = []
    stored: Counter[str] = Counter()
    unread = 0
    for ref in refs.values():
        try:
            if ref.form == "volume":
                sizes.append(images.extent(data.root, ref))
                continue
            width, height, channels, bits = images.header(data.root, ref)
        except ImageError:
            unread += 1
            continue
        sizes.append((width, height))
        stored[f"{channels} channel(s) of {bits} bits"] += 1
    common = Counter("x".join(map(str, size)) for size in sizes)
    return {
        "different": len(refs),
        "kinds": dict(Counter(f"{ref.kind}, {ref.when}" for ref in refs.values()).most_common()),
        "files": dict(Counter(ref.path.rpartition(".")[2].lower() for ref in refs.values()).most_common()),
        "sizes": {"different": len(common), "commonest": dict(common.most_common(5))},
        "width": spread(size[0] for size in sizes if len(size) == 2),
        "height": spread(size[1] for size in sizes if len(size) == 2),
        "stored": dict(stored.most_common()),
        "unread": unread,
    }


def findings(splits: Splits) -> dict[str, dict[str, dict[str, Any]]]:
    """By finding and split: in how many records it is known, present, and the share; above 1 is a grade."""
    counted: dict[str, dict[str, list[int]]] = {}
    for split, records in splits.items():
        for record in records:
            for name, value in record.labels.items() if isinstance(record, Sample) else ():
                counted.setdefault(name, {}).setdefault(split, []).append(value)
    return {
        name: {split: _present(each.get(split, [])) for split in splits}
        for name, each in sorted(counted.items())
    }


def _present(values: Sequence[int]) -> dict[str, Any]:
    """How many labels are known and say that the finding is there, and their share."""
    present = sum(value > 0 for value in values)
    return {"known": len(values), "present": present, "share": _share(present, len(values))}
