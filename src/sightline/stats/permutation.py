"""Permutation tests by sign flips: patient by patient, two sides are exchanged."""

from __future__ import annotations

import numpy as np

from .resamples import CHUNK_BYTES

ROUNDING = 1e-12


def flip(sums: np.ndarray, random: np.random.Generator, permutations: int) -> float:
    """Two-sided p-value of exchanging the sides per patient.

    Patients without a difference change nothing under exchange and are left out. Where there are no more than
    `permutations` distinct arrangements, all are counted and the p-value is exact; else as many are drawn, and the
    observed one counts as one of them.

    Args:
        sums: [patients] what each contributes to the difference.
        random: where drawn arrangements come from.
        permutations: most arrangements to look at.
    """
    sums = sums[np.abs(sums) > ROUNDING]
    if not len(sums):
        return 1.0
    observed = abs(sums.sum()) * (1 - 1e-9)
    # The mirror image of an arrangement is as extreme, so the first sign may stay.
    if len(sums) <= 60 and 2 ** (len(sums) - 1) <= permutations:
        every = np.arange(2 ** (len(sums) - 1))[:, None] >> np.arange(len(sums) - 1) & 1
        totals = sums[0] + (2.0 * every - 1) @ sums[1:]  # [arrangements]
        return float((np.abs(totals) >= observed).mean())
    chunk = max(1, CHUNK_BYTES // (8 * len(sums)))
    extreme = 0
    for start in range(0, permutations, chunk):
        size = min(chunk, permutations - start)
        raw = np.frombuffer(random.bytes(-(-size * len(sums) // 8)), dtype=np.uint8)
        flips = np.unpackbits(raw, count=size * len(sums)).reshape(size, len(sums))
        extreme += int((np.abs(sums.sum() - 2 * (flips.astype(float) @ sums)) >= observed).sum())
    return (1 + extreme) / (1 + permutations)
