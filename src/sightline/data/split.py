"""Who goes to which split: patients and pictures stay whole, whatever the order of the records.

Records that share a patient or the bytes of an image are one group (a connected component), and a group is
never divided. Groups are put in the order of a hash of (seed, group) and the row is cut where the shares
fall, so that adding a few patients moves only a few others.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Literal

from ..errors import DataError, RecipeError
from ..types import ImageRef, Preference, Sample

Record = Sample | Preference
By = Literal["patient", "image", "official"]
BYS = ("patient", "image", "official")


def split(
    records: Iterable[Record],
    shares: Mapping[str, float],
    by: str,
    seed: int,
    official: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """Assign every record to a split.

    Args:
        records: their images must carry `sha256`.
        shares: split name to share; they sum to 1. Not used where `by` is `official`.
        by: `patient` keeps patients and equal pictures together, `image` equal pictures only, `official`
            keeps the names that the data's authors gave, leaks included.
        seed: changes the order of the groups.
        official: record id to the authors' split.

    Returns:
        Record id to split name.

    Raises:
        RecipeError: unknown `by`, or shares that do not sum to 1.
        DataError: no official split is known, or there are fewer groups than splits.
    """
    if by not in BYS:
        raise RecipeError(f"no way to split 'by: {by}'", where="split.by", expected=", ".join(BYS))
    records = list(records)
    if by == "official":
        return _official(records, official or {})
    wanted = _check_shares(shares)
    groups = group(records, by)
    if len(groups) < len(wanted):
        raise DataError(
            f"{len(wanted)} splits cannot be made of {len(groups)} group(s) of records",
            where="split",
            found=f"{len(records)} record(s) that share a patient or an image",
            expected="at least as many groups as splits",
            remedy="ask for fewer splits, give more patients, or check the field that names the patient",
        )
    ordered = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    cuts = _cut([len(groups[key]) for key in ordered], list(wanted.values()))
    return {
        id: name
        for name, (first, last) in zip(wanted, cuts, strict=True)
        for key in ordered[first:last]
        for id in groups[key]
    }


def group(records: Iterable[Record], by: str = "patient") -> dict[str, list[str]]:
    """Connected components of records that share a patient (unless `by` is `image`) or an image's bytes.

    Returns:
        The component's smallest member name (a patient, a hash or a record) to its record ids.
    """
    parent: dict[str, str] = {}
    first: dict[str, str] = {}
    for record in records:
        names = members(record, by)
        roots = [_root(parent, name) for name in names]
        lowest = min(roots)
        for root in roots:
            parent[root] = lowest
        first[record.id] = names[0]
    found: dict[str, list[str]] = {}
    for id, name in first.items():
        found.setdefault(_root(parent, name), []).append(id)
    return found


def members(record: Record, by: str = "patient") -> list[str]:
    """What ties a record to others: its patient and the hashes of all images that it may show."""
    names = [f"patient {record.patient}"] if by == "patient" else []
    names += sorted({f"image {ref.sha256}" for ref in images(record) if ref.sha256})
    return names or [f"record {record.id}"]


def images(record: Record) -> tuple[ImageRef, ...]:
    """All images that a record may show, those of a preference's two sides included."""
    found = record.images
    if isinstance(record, Preference):
        for side in (record.chosen_images, record.rejected_images):
            found += side if isinstance(side, tuple) else ()
    return found


def _root(parent: dict[str, str], name: str) -> str:
    """The smallest known name of a component; the way there is shortened."""
    parent.setdefault(name, name)
    while parent[name] != name:
        parent[name] = parent[parent[name]]
        name = parent[name]
    return name


def _cut(sizes: Sequence[int], shares: Sequence[float]) -> list[tuple[int, int]]:
    """Cut a row of groups where the cumulative sizes come nearest to the shares; no piece is empty."""
    sums = list(accumulate(sizes, initial=0))
    edges, share = [0], 0.0
    for i, part in enumerate(shares[:-1], start=1):
        share += part
        target = share * sums[-1]
        at = bisect_left(sums, target)
        if at and target - sums[at - 1] < sums[min(at, len(sizes))] - target:
            at -= 1
        edges.append(min(max(at, edges[-1] + 1), len(sizes) - (len(shares) - i)))
    edges.append(len(sizes))
    return list(pairwise(edges))


def _check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    if not shares or any(not 0 <= s <= 1 for s in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        raise RecipeError(
            "the shares of the splits do not sum to 1",
            where="split",
            found=", ".join(f"{k}: {v}" for k, v in shares.items()) or "no shares",
            expected="shares between 0 and 1 that sum to 1, e.g. train: 0.7, valid: 0.1, test: 0.2",
        )
    return {name: share for name, share in shares.items() if share > 0}


def _official(records: Sequence[Record], official: Mapping[str, str | None]) -> dict[str, str]:
    found = {r.id: name for r in records if (name := official.get(r.id))}
    if len(found) < len(records):
        raise DataError(
            f"{len(records) - len(found)} of {len(records)} records have no official split",
            where="split.by: official",
            expected="a reader and files that name a split for every record",
            remedy="use split.by: patient, or split.by: image where patients are unknown",
        )
    return found
