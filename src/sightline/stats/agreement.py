"""Agreement of two readers beyond chance: Cohen's kappa (Cohen 1960, doi 10.1177/001316446002000104)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .measured import Statistic


def cohen(one: Sequence[str], other: Sequence[str]) -> Statistic:
    """Cohen's kappa as a statistic over the rows that both readers rated.

    Args:
        one: [n] what the first reader said of each row.
        other: [n] what the second said.

    Returns:
        Multiplicities [R, n] to kappas [R]: 1 is full agreement, 0 what chance would give; NaN where both always say
        the same one word, for then there is no disagreement that chance could bring.
    """
    words = sorted({*one, *other})
    place = {word: i for i, word in enumerate(words)}
    first, second = (np.eye(len(words))[[place[w] for w in side]] for side in (one, other))  # [n, words]
    same = (first * second).sum(axis=1)  # [n]

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)  # [R]
        by_chance = ((weights @ first) * (weights @ second)).sum(axis=1)
        seen, expected = (
            weights @ same,
            np.divide(by_chance, total, out=np.zeros_like(total), where=total > 0),
        )
        return np.divide(
            seen - expected, total - expected, out=np.full(total.shape, np.nan), where=total - expected > 1e-9
        )

    return statistic
