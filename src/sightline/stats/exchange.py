"""Are groups of patients alike? What gap chance alone would show, by giving the patients' groups out anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .measured import Measured
from .resamples import CHUNK_BYTES, generator, owners


def exchanged(
    measure: Measured, labels: Sequence[str], *, seed: int = 0, permutations: int = 1000
) -> tuple[float, float] | None:
    """Test whether a measure differs between groups of patients.

    The groups are dealt to the patients anew, in their sizes, and the gap (highest minus lowest value) is computed each
    time. A gap is never below 0, so its interval never reaches 0 either: this says how large it is by chance.

    Args:
        measure: over n rows.
        labels: [n] the group of each row; "" for rows that take no part.
        seed: of the permutations.
        permutations: how many.

    Returns:
        The p-value, the observed gap counting as one of the permutations, and the mean gap of the permutations; None
        where a patient has rows of two groups, or there are not two groups.
    """
    names = sorted(set(labels) - {""})
    count, owner = owners(measure.patients)
    taken = np.array([name != "" for name in labels])
    number = np.array([names.index(name) if name else -1 for name in labels])
    held = np.full(count, -1)
    held[owner[taken]] = number[taken]
    if len(names) < 2 or (held[owner[taken]] != number[taken]).any():
        return None
    dealt = np.flatnonzero(held >= 0)  # patients who take part

    def gaps(given: np.ndarray) -> np.ndarray:
        """The gap for groups of patients [R, patients]."""
        rows = np.where(taken, given[:, owner], -1)  # [R, n]
        each = [measure.statistic((rows == group).astype(float)) for group in range(len(names))]
        return np.max(each, axis=0) - np.min(each, axis=0)

    observed = float(gaps(held[None])[0])
    random = generator(seed, measure.name, "exchange")
    chunk = max(1, CHUNK_BYTES // (8 * len(owner)))
    drawn: list[np.ndarray] = []
    for start in range(0, permutations, chunk):
        given = np.tile(held, (min(chunk, permutations - start), 1))
        given[:, dealt] = random.permuted(given[:, dealt], axis=1)
        drawn.append(gaps(given))
    chance = np.concatenate(drawn)
    chance = chance[~np.isnan(chance)]
    if np.isnan(observed) or not len(chance):
        return None
    return float((1 + (chance >= observed * (1 - 1e-9)).sum()) / (1 + len(chance))), float(chance.mean())
