"""Answers to yes/no questions as AMBER counts them: **no is the positive class**.

Recall is the share of questions to be denied that are denied, precision the share of denials that are right.

`exact` follows the script: an answer is `Yes` or `No` to the letter or wrong; precision and recall are rounded to
0.1 before F1 is made of them; every denominator starts at 0.001. `corrected` reads free text with the project's
parser, rounds nothing and starts at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...types import Prediction
from ..answers import closed, yes_no
from ..measure import Statistic, ratio, tally

SEED = 0.001  # what metrics.txt of AMBER starts its counters at
TOPICS = {
    "discriminative-hallucination": "existence", "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number", "discriminative-attribute-action": "action",
    "discriminative-relation": "relation", "relation": "relation",
}  # fmt: skip
CATEGORIES = {
    "existence": ("existence",), "attribute": ("state", "number", "action"), "state": ("state",), "number": ("number",),
    "action": ("action",), "relation": ("relation",),
}  # fmt: skip
FIGURES = ("accuracy", "precision", "recall", "f1")
_SMALL, _SMALL_EXISTENCE = 0.0001, 0.001  # what the script adds to the denominator of F1

Formula = Callable[[np.ndarray], np.ndarray]


def asked(predictions: Sequence[Prediction]) -> list[tuple[Prediction, str]]:
    """The turns whose right answer is yes or no, each with it."""
    found = ((p, closed(p.question, p.answer)) for p in predictions)
    return [(p, gold) for p, gold in found if gold is not None]


def table(turns: Sequence[tuple[Prediction, str]], exact: bool) -> np.ndarray:
    """What each answer adds: right, 1, rightly denied, to be denied, denied; [n, 5]."""
    said = [{"Yes": "yes", "No": "no"}.get(p.text) if exact else yes_no(p.text) for p, _ in turns]
    rows = [
        [answer == gold, 1, answer == gold == "no", gold == "no", answer == "no"]
        for answer, (_, gold) in zip(said, turns, strict=True)
    ]
    return np.array(rows, dtype=float)


def unread(turns: Sequence[tuple[Prediction, str]]) -> np.ndarray:
    """Whether each answer says neither yes nor no, [n]."""
    return np.array([yes_no(p.text) is None for p, _ in turns], dtype=float)


def masks(turns: Sequence[tuple[Prediction, str]]) -> dict[str, np.ndarray]:
    """Which answers belong to each category that has any, [n] each."""
    kinds = [TOPICS.get(p.topic, "") for p, _ in turns]
    found = {name: np.array([kind in parts for kind in kinds]) for name, parts in CATEGORIES.items()}
    return {name: mask for name, mask in found.items() if mask.any()}


def statistics(
    counts: np.ndarray, kept: dict[str, np.ndarray], exact: bool
) -> dict[str, dict[str, Statistic]]:
    """Every figure of all answers (under "") and of each category, 0-100.

    Args:
        counts: [n, 5] of `table`.
        kept: category -> [n] whether an answer belongs to it.
        exact: as the script computes them.
    """
    chosen = {"": np.ones(len(counts), dtype=bool)} | kept
    formulas = exact_formulas if exact else plain_formulas
    return {
        name: {figure: tally(counts * mask[:, None], formula) for figure, formula in formulas(name).items()}
        for name, mask in chosen.items()
    }


def plain_formulas(category: str) -> dict[str, Formula]:
    """Sums [R, 5] to values [R], 0-100; undefined where there is nothing to divide by."""
    del category
    return {
        "accuracy": lambda sums: 100 * ratio(sums[:, 0], sums[:, 1]),
        "precision": lambda sums: 100 * ratio(sums[:, 2], sums[:, 4]),
        "recall": lambda sums: 100 * ratio(sums[:, 2], sums[:, 3]),
        "f1": lambda sums: 200 * ratio(sums[:, 2], sums[:, 3] + sums[:, 4]),
    }


def exact_formulas(category: str) -> dict[str, Formula]:
    """The same as the script computes them: attributes start their three counters each, existence adds more to F1."""
    seed = SEED * len(CATEGORIES.get(category, ("",)))
    small = _SMALL_EXISTENCE if category == "existence" else _SMALL

    def f1(sums: np.ndarray) -> np.ndarray:
        p, r = share(sums[:, 2], sums[:, 4], seed) / 100, share(sums[:, 2], sums[:, 3], seed) / 100
        return rounded(2 * p * r / (p + r + small) * 100)

    return {
        "accuracy": lambda sums: share(sums[:, 0], sums[:, 1], seed),
        "precision": lambda sums: share(sums[:, 2], sums[:, 4], seed),
        "recall": lambda sums: share(sums[:, 2], sums[:, 3], seed),
        "f1": f1,
    }


def share(above: np.ndarray, below: np.ndarray, seed: float = SEED) -> np.ndarray:
    """A percentage as the script prints it."""
    return rounded(above / (below + seed) * 100)


def rounded(values: np.ndarray) -> np.ndarray:
    """One decimal, by Python's rule: numpy's own rounding takes 0.25 and 0.35 another way."""
    return np.array([round(float(value), 1) for value in values])
