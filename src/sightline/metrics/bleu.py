"""Corpus BLEU of reports, from counts per sentence pair, so that a bootstrap never looks at the text again.

Tokens and counts are sacrebleu's own, and so is the formula (exponential smoothing): on the data as they are
the number equals `sacrebleu.corpus_bleu`. Scores from other tokenisers differ by points; name the tokeniser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from ..types import Prediction
from .measure import Measure, Metric, keys, patients, ratio, rows, tally, written
from .tokens import unmark

ORDERS = 4


def bleu(
    predictions: Sequence[Prediction],
    *,
    lowercase: bool = False,
    tokenize: Literal["13a", "none", "char", "intl", "zh"] = "13a",
    marks: Literal["keep", "drop"] = "keep",
    report: str = "report",
) -> list[Measure]:
    """Corpus BLEU of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        lowercase: ignore case.
        tokenize: sacrebleu's tokeniser; `zh` and `char` suit Chinese.
        marks: `drop` takes out the marks of de-identification first (see `tokens`); `keep` scores texts as they are.
        report: the topic of turns that ask for a report.

    Returns:
        `bleu` (n-grams up to 4; parts: the precisions, brevity penalty and length ratio) and `bleu_1` to
        `bleu_3`, all 0-100; nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    texts = [(unmark(p.text), unmark(p.answer)) if marks == "drop" else (p.text, p.answer) for p in turns]
    columns = counts(
        [said for said, _ in texts], [right for _, right in texts], lowercase=lowercase, tokenize=tokenize
    )
    parts = {f"precision_{n}": tally(columns, _precision(n)) for n in range(1, ORDERS + 1)}
    parts["brevity_penalty"] = tally(columns, brevity)
    parts["length_ratio"] = tally(columns, lambda sums: ratio(sums[:, 0], sums[:, 1]))
    return [
        Measure(
            name="bleu" if order == ORDERS else f"bleu_{order}",
            statistic=tally(columns, _formula(order)),
            keys=keys(turns),
            patients=patients(turns),
            parts=parts if order == ORDERS else {},
            unit="0-100",
            doc=f"corpus BLEU with n-grams up to {order}, sacrebleu, tokeniser {tokenize}, marks {marks}",
        )
        for order in (ORDERS, 1, 2, 3)
    ]


def counts(texts: Sequence[str], references: Sequence[str], *, lowercase: bool, tokenize: str) -> np.ndarray:
    """What BLEU needs to know of each pair: [n, 10], (length, reference length, 4 matches, 4 totals)."""
    scorer = BLEU(lowercase=lowercase, tokenize=tokenize, effective_order=True)
    table = np.zeros((len(texts), 2 + 2 * ORDERS))
    for row, text, reference in zip(table, texts, references, strict=True):
        score = scorer.sentence_score(text, [reference])
        row[:] = [score.sys_len, score.ref_len, *score.counts, *score.totals]
    return table


def brevity(sums: np.ndarray) -> np.ndarray:
    """The brevity penalty of summed counts [R, 10]; 0 where nothing was written."""
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.exp(1 - np.divide(sums[:, 1], sums[:, 0]))
    return np.where(sums[:, 0] >= sums[:, 1], 1.0, penalty)


def _precision(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """The plain (unsmoothed) precision of n-grams of one order, 0-100."""
    return lambda sums: 100 * ratio(sums[:, 1 + order], sums[:, 1 + ORDERS + order])


def _formula(order: int) -> Callable[[np.ndarray], np.ndarray]:
    """BLEU of summed counts [R, 10] with n-grams up to an order, 0-100.

    The k-th order without a match gets the precision 100 / (2^k * total), as in mteval-v13a; a corpus too
    short for an order scores 0.
    """

    def formula(sums: np.ndarray) -> np.ndarray:
        matches = sums[:, 2 : 2 + order]  # [R, order]
        totals = sums[:, 2 + ORDERS : 2 + ORDERS + order]  # [R, order]
        missed = matches == 0
        halved = 2.0 ** np.cumsum(missed, axis=1)
        possible = (totals > 0).all(axis=1) & ~missed.all(axis=1)
        precisions = np.where(missed, 1 / halved, matches) / np.where(totals > 0, totals, 1)
        score = 100 * brevity(sums) * np.exp(np.log(precisions).mean(axis=1))
        return np.where(possible, score, 0.0)

    return formula


METRIC = Metric(score=bleu, version=1, paper="Papineni et al. 2002; Post 2018 (sacrebleu), arXiv:1804.08771")
