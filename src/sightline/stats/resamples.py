"""Patients drawn with replacement, or left out one by one, as multiplicities of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from .measured import Measured

CHUNK_BYTES = 16_000_000


def bootstrap(measure: Measured, *, seed: int = 0, resamples: int = 1000) -> np.ndarray:
    """The measure on each resample, [resamples]; NaN where undefined."""
    chunks = resample(measure.patients, seed=seed, name=measure.name, resamples=resamples)
    return np.concatenate([measure.statistic(weights) for weights in chunks])


def resample(patients: Sequence[str], *, seed: int, name: str, resamples: int) -> Iterator[np.ndarray]:
    """Patients drawn with replacement, as multiplicities of their rows, in chunks of bounded size.

    Args:
        patients: the patient of each of n rows.
        seed: any whole number.
        name: the measure's. The draws depend on seed, name and the set of patients, not on the order of rows.
        resamples: how many.

    Yields:
        [r, n] float whole numbers; the chunks hold `resamples` rows together.
    """
    count, owner = owners(patients)
    chunk = max(1, CHUNK_BYTES // (8 * len(owner)))
    random = generator(seed, name, "bootstrap")
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = random.integers(0, count, size=(size, count))
        drawn += count * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count)
        yield counts.astype(float)[:, owner]


def leave_out(patients: Sequence[str], most: int | None = None) -> Iterator[np.ndarray]:
    """Every patient left out once, in the order of `owners`, in chunks of bounded size.

    Args:
        patients: the patient of each of n rows.
        most: where there are more patients, so many groups of them are left out instead.

    Yields:
        [r, n] zeros for the rows that are left out, ones elsewhere; the chunks hold as many rows together as there are
        patients or groups.
    """
    count, owner = owners(patients)
    if most is not None and count > most:
        count, owner = most, owner % most
    chunk = max(1, CHUNK_BYTES // (8 * len(owner)))
    for start in range(0, count, chunk):
        out = np.arange(start, min(start + chunk, count))
        yield (owner != out[:, None]).astype(float)


def owners(patients: Sequence[str]) -> tuple[int, np.ndarray]:
    """How many patients there are, and the number of each row's patient in sorted order, [n]."""
    known, owner = np.unique(np.asarray(patients, dtype=object).astype(str), return_inverse=True)
    return len(known), owner


def generator(seed: int, name: str, purpose: str) -> np.random.Generator:
    """A random generator that depends on its arguments and on nothing else."""
    digest = hashlib.sha256(f"{seed}\n{name}\n{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
