"""ROUGE-L of reports: how much of the reference's word order a generated report keeps.

Computed by the `rouge_score` package (a port of the original script, without its bootstrap). The authors of
MMed-RAG name that package for their tables; whether they stemmed is not known, so it is an option.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from ..types import Prediction
from .measure import Measure, Metric, average, mean, rows, written
from .tokens import tokens, unmark


class _Cut:
    """A tokeniser as the package wants it."""

    def __init__(self, how: str) -> None:
        self.how = how

    def tokenize(self, text: str) -> list[str]:
        """The tokens of a text."""
        return tokens(text, self.how, "keep")


def rouge(
    predictions: Sequence[Prediction],
    *,
    stemmer: bool = True,
    tokenize: Literal["own", "chinese", "jieba", "blank"] = "own",
    marks: Literal["keep", "drop"] = "keep",
    report: str = "report",
) -> list[Measure]:
    """ROUGE-L F1 of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        stemmer: compare word stems (Porter) instead of words; with the package's own tokeniser only.
        tokenize: `own` is the package's, which sees Latin letters and digits only; the others are those of `tokens`.
        marks: `drop` takes out the marks of de-identification first (see `tokens`); `keep` scores texts as they are.
        report: the topic of turns that ask for a report.

    Returns:
        `rouge_l`, the mean over turns, 0-1, with mean precision and recall as parts; an empty answer scores
        0. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
        MissingExtra: jieba is asked for and not installed.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    plain = unmark if marks == "drop" else str
    own = tokenize == "own"
    scorer = RougeScorer(["rougeL"], use_stemmer=stemmer and own, tokenizer=None if own else _Cut(tokenize))
    scores = np.array([scorer.score(plain(p.answer), plain(p.text))["rougeL"] for p in turns])  # [n, 3]
    return [
        mean(
            "rouge_l",
            turns,
            scores[:, 2],
            parts={"precision": average(scores[:, 0]), "recall": average(scores[:, 1])},
            doc=f"mean F1 of the longest common subsequence, {'stemmed' if stemmer and own else 'not stemmed'}, "
            f"tokens {tokenize}, marks {marks}",
        )
    ]


METRIC = Metric(score=rouge, version=1, paper="Lin 2004, aclanthology.org/W04-1013")
