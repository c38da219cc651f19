"""Another patient's image: a picture as good as the right one, that answers nothing.

Not an operation on pixels. `partners` says whose image each record is shown; the caller reads that one.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from ...errors import DataError, ImageError
from . import Degradation


def swapped(pixels: np.ndarray, rng: np.random.Generator, *, strength: float = 1.0) -> np.ndarray:
    """Always refuses: returning the record's own pixels would pass a clean image off as a swapped one.

    Args:
        pixels: [H, W, 3]; not used.
        rng: not used.
        strength: not used; a swap is all or nothing.

    Raises:
        ImageError: always.
    """
    raise ImageError(
        "'swapped' is not an operation on pixels", found=f"pixels of shape {list(pixels.shape)}",
        expected="the image of another patient", remedy="choose it with swapped.partners and read that image",
    )  # fmt: skip


def partners(records: Sequence[tuple[str, str]], seed: int) -> dict[str, str]:
    """For each record another record, of another patient.

    Patients are put into a hashed order and the records moved on by the size of the largest patient, so each
    image is shown exactly once and never to its own patient. Where one patient holds more than half of the
    records that cannot be; each record then takes one of the others' by its hash.

    Args:
        records: (record id, patient) pairs in any order; exact repetitions are ignored.
        seed: the degradation's seed.

    Returns:
        {record id: id of the record whose image it is shown}, a function of the seed, the set of ids and how
        patients group them, not of order or of what patients are called.

    Raises:
        DataError: one id under two patients, or fewer than two patients.
    """
    groups = _groups(records, seed)
    order = [record for group in groups for record in group]
    step = max(len(group) for group in groups)
    if 2 * step <= len(order):
        return {record: order[(place + step) % len(order)] for place, record in enumerate(order)}
    return {
        record: _other(order, start, start + len(group), _rank(seed, record))
        for group, start in zip(groups, _starts(groups), strict=True)
        for record in group
    }


def _groups(records: Sequence[tuple[str, str]], seed: int) -> list[list[str]]:
    """Record ids by patient, in hashed order."""
    patient_of: dict[str, str] = {}
    for record, patient in records:
        if patient_of.setdefault(record, patient) != patient:
            raise DataError(
                "one record id belongs to two patients", where=f"record {record}, field patient",
                expected="each id once", remedy="give records ids that are unique in the data set",
            )  # fmt: skip
    grouped: dict[str, list[str]] = defaultdict(list)
    for record in sorted(patient_of, key=lambda name: _rank(seed, name)):
        grouped[patient_of[record]].append(record)
    if len(grouped) < 2:
        raise DataError(
            "images cannot be swapped between patients", found=f"{len(grouped)} patient(s)",
            expected="at least two patients", remedy="leave 'swapped' out, or evaluate more patients",
        )  # fmt: skip
    return list(grouped.values())


def _starts(groups: list[list[str]]) -> list[int]:
    """Where each group begins when all are laid end to end."""
    return [0, *accumulate(len(group) for group in groups[:-1])]


def _other(order: list[str], start: int, stop: int, rank: int) -> str:
    """The record at `rank` among all but those from `start` to `stop`."""
    place = rank % (len(order) - (stop - start))
    return order[place if place < start else place + stop - start]


def _rank(seed: int, record: str) -> int:
    """A record's place in the hashed order."""
    words = json.dumps([seed, "swapped", record]).encode("ascii")
    return int.from_bytes(hashlib.sha256(words).digest(), "big")


DEGRADE = Degradation(apply=swapped, same_patient=False, swaps=True, paper="the mismatched-image control")
