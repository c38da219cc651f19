"""ROUGE-L of reports: how much of the reference's word order a generated report keeps.

Computed by the `rouge_score` package (a port of the original script, without its bootstrap). The authors of
MMed-RAG name that package for their tables; whether they stemmed is not known, so it is an option.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from ..types import Prediction
from .measure import Measure, Metric, average, keys, patients, rows, written


def rouge(
    predictions: Sequence[Prediction], *, stemmer: bool = True, report: str = "report"
) -> list[Measure]:
    """ROUGE-L F1 of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        stemmer: compare word stems (Porter) instead of words.
        report: the topic of turns that ask for a report.

    Returns:
        `rouge_l`, the mean over turns, 0-1, with mean precision and recall as parts; an empty answer scores
        0. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    scorer = RougeScorer(["rougeL"], use_stemmer=stemmer)
    scores = np.array([scorer.score(p.answer, p.text)["rougeL"] for p in turns])  # [n, 3]
    return [
        Measure(
            name="rouge_l",
            statistic=average(scores[:, 2]),
            keys=keys(turns),
            patients=patients(turns),
            per_sample=scores[:, 2],
            parts={"precision": average(scores[:, 0]), "recall": average(scores[:, 1])},
            doc=f"mean F1 of the longest common subsequence, {'stemmed' if stemmer else 'not stemmed'}",
        )
    ]


METRIC = Metric(score=rouge, version=1, paper="Lin 2004, aclanthology.org/W04-1013")
