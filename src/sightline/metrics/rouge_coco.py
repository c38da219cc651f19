"""ROUGE-L as the captioning papers compute it: recall weighs more, on Penn Treebank tokens.

pycocoevalcap's F has beta = 1.2 and compares words as they are, where `rouge_score` (`rouge`) has beta = 1 and may
stem; a number of one is not a number of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..types import Prediction
from .measure import Measure, Metric, average, mean, rows, written
from .tokens import pairs

BETA = 1.2


def rouge_coco(
    predictions: Sequence[Prediction],
    *,
    tokenize: Literal["ptb", "chinese", "jieba", "blank"] = "ptb",
    marks: Literal["drop", "keep"] = "drop",
    report: str = "report",
) -> list[Measure]:
    """Mean ROUGE-L of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        tokenize: how texts become tokens; `metrics/tokens.py` says what each does.
        marks: whether the marks of de-identification are taken out first.
        report: the topic of turns that ask for a report.

    Returns:
        `rouge_l_coco`, 0-1, with mean precision and recall as parts; an empty answer scores 0, unless its reference
        is empty too. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
        MissingExtra: jieba is asked for and not installed.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    scores = np.array([rouge_l(said, right) for said, right in pairs(turns, tokenize, marks)])  # [n, 3]
    return [
        mean(
            "rouge_l_coco",
            turns,
            scores[:, 0],
            parts={"precision": average(scores[:, 1]), "recall": average(scores[:, 2])},
            doc=f"mean F (beta 1.2) of the longest common subsequence as in pycocoevalcap, tokens {tokenize}, "
            f"marks {marks}",
        )
    ]


def rouge_l(said: Sequence[str], right: Sequence[str]) -> tuple[float, float, float]:
    """F, precision and recall of one pair; pycocoevalcap takes an empty text for one empty token."""
    said, right = said or [""], right or [""]
    common = longest(said, right)
    precision, recall = common / len(said), common / len(right)
    if not common:
        return 0.0, 0.0, 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision), precision, recall


def longest(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest common subsequence.

    One bit of a whole number for each token of the first text (Hyyro 2004, "Bit-parallel LCS-length computation
    revisited"), so that long reports cost one addition a word.
    """
    where: dict[str, int] = {}
    for place, word in enumerate(one):
        where[word] = where.get(word, 0) | 1 << place
    full = (1 << len(one)) - 1
    free = full
    for word in other:
        met = free & where.get(word, 0)
        free = (free + met | free - met) & full
    return len(one) - free.bit_count()


METRIC = Metric(
    score=rouge_coco, version=1, paper="Lin 2004; Chen et al. 2015 (COCO captions), arXiv:1504.00325"
)
