"""Rank correlation (Spearman 1904) under any multiplicities of rows."""

from __future__ import annotations

import numpy as np

from .measured import Statistic


def correlation(one: np.ndarray, other: np.ndarray) -> Statistic:
    """Spearman's rank correlation of two values per row; equal values share the middle of their ranks.

    Args:
        one: [n].
        other: [n].

    Returns:
        Multiplicities [R, n] to values [R] from -1 to 1; NaN where a side does not vary.
    """
    orders = [_groups(np.asarray(values, dtype=float)) for values in (one, other)]

    def spearman(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1, keepdims=True)
        first, second = (_ranks(weights, *order) - total / 2 for order in orders)  # [R, n] each, mean 0
        both = (weights * first * second).sum(axis=1)
        apart = (weights * first**2).sum(axis=1) * (weights * second**2).sum(axis=1)
        return np.divide(both, np.sqrt(apart), out=np.full(len(both), np.nan), where=apart > 0)

    return spearman


def _groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order of rows by value, where each group of equal values begins in it, and the group of each row."""
    order = np.argsort(values, kind="stable")
    fresh = np.diff(values[order], prepend=np.nan) != 0
    group = np.empty(len(values), dtype=np.intp)
    group[order] = np.cumsum(fresh) - 1
    return order, np.flatnonzero(fresh), group


def _ranks(weights: np.ndarray, order: np.ndarray, starts: np.ndarray, group: np.ndarray) -> np.ndarray:
    """How much of the weight stands below each row, half of that of equal values among it, [R, n]."""
    mass = np.add.reduceat(weights[:, order], starts, axis=1)  # [R, groups]
    middle: np.ndarray = np.cumsum(mass, axis=1) - mass / 2
    return middle[:, group]
