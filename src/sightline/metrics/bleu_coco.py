"""BLEU-1 to BLEU-4 as the captioning papers compute them: pycocoevalcap's formula on Penn Treebank tokens.

It differs from sacrebleu's (`bleu`) in three ways: tokens are lower case without punctuation, nothing is smoothed (an
order without a match makes the score almost 0), and the scale is 0-1. Never compare a number of one with one of the
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..types import Prediction
from .measure import Measure, Metric, keys, patients, ratio, rows, tally, written
from .tokens import pairs

ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9


def bleu_coco(
    predictions: Sequence[Prediction],
    *,
    tokenize: Literal["ptb", "chinese", "jieba", "blank"] = "ptb",
    marks: Literal["drop", "keep"] = "drop",
    report: str = "report",
) -> list[Measure]:
    """Corpus BLEU of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        tokenize: how texts become tokens; `metrics/tokens.py` says what each does.
        marks: whether the marks of de-identification are taken out first.
        report: the topic of turns that ask for a report.

    Returns:
        `bleu_coco` (n-grams up to 4; parts: brevity penalty, length ratio) and `bleu_coco_1` to `bleu_coco_3`, 0-1.
        An empty answer adds no match and its reference's length. Nothing where there is neither a report nor an open
        answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
        MissingExtra: jieba is asked for and not installed.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    columns = np.array([counts(said, right) for said, right in pairs(turns, tokenize, marks)], dtype=float)
    parts = {
        "brevity_penalty": tally(columns, brevity),
        "length_ratio": tally(columns, lambda sums: ratio(sums[:, 0], sums[:, 1])),
    }
    return [
        Measure(
            name="bleu_coco" if order == ORDERS else f"bleu_coco_{order}",
            statistic=tally(columns, _formula(order)),
            keys=keys(turns),
            patients=patients(turns),
            parts=parts if order == ORDERS else {},
            doc=f"corpus BLEU with n-grams up to {order} as in pycocoevalcap, tokens {tokenize}, marks {marks}",
        )
        for order in (ORDERS, 1, 2, 3)
    ]


def counts(said: Sequence[str], right: Sequence[str]) -> list[int]:
    """What BLEU needs to know of one pair: [10], (length, reference length, 4 matches, 4 totals)."""
    matches, totals = [], []
    for order in range(1, ORDERS + 1):
        mine, theirs = grams(said, order), grams(right, order)
        matches.append(sum(min(times, theirs[gram]) for gram, times in mine.items()))
        totals.append(max(0, len(said) - order + 1))
    return [len(said), len(right), *matches, *totals]


def grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    """How often each n-gram of one order occurs."""
    return Counter(zip(*(words[start:] for start in range(order)), strict=False))


def brevity(sums: np.ndarray) -> np.ndarray:
    """The brevity penalty of summed counts [R, 10]."""
    share = (sums[:, 0] + _TINY) / (sums[:, 1] + _SMALL)
    return np.where(share < 1, np.exp(1 - 1 / share), 1.0)


def _formula(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """BLEU of summed counts [R, 10] with n-grams up to an order, 0-1."""

    def formula(sums: np.ndarray) -> np.ndarray:
        matches = sums[:, 2 : 2 + order] + _TINY  # [R, order]
        totals = sums[:, 2 + ORDERS : 2 + ORDERS + order] + _SMALL  # [R, order]
        score = np.prod(matches / totals, axis=1) ** (1 / order) * brevity(sums)
        return np.where(sums[:, 0] > 0, score, 0.0)

    return formula


METRIC = Metric(
    score=bleu_coco,
    version=1,
    paper="Papineni et al. 2002; Chen et al. 2015 (COCO captions), arXiv:1504.00325",
)
