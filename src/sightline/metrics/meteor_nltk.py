"""METEOR as nltk computes it: the formula of 2005 without paraphrases, which Python evaluations of reports use.

Hugging Face `evaluate` (Libra) and many scripts call `nltk.translate.meteor_score`. Its weights (alpha 0.9, beta 3,
gamma 0.5) are not those of METEOR 1.5, function words count as much as others, and the data set's number is the mean
of the segments; so it must not stand in a column with `meteor`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np

from ..errors import SightlineError
from ..types import Prediction
from .measure import Measure, Metric, mean, rows, written
from .tokens import tokens, unmark


def meteor_nltk(
    predictions: Sequence[Prediction],
    *,
    synonyms: bool = True,
    wordnet: str = "",
    tokenize: Literal["treebank", "ptb", "blank"] = "treebank",
    marks: Literal["drop", "keep"] = "drop",
    report: str = "report",
) -> list[Measure]:
    """Mean METEOR after nltk of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        synonyms: match by WordNet too, as nltk does unless told otherwise; without it no data are needed.
        wordnet: a folder of nltk data that holds `corpora/wordnet`; "" looks where nltk looks.
        tokenize: `treebank` is nltk's `word_tokenize` on the whole text as one line; the others are those of
            `metrics/tokens.py`.
        marks: whether the marks of de-identification are taken out first.
        report: the topic of turns that ask for a report.

    Returns:
        `meteor_nltk`, 0-1; an empty answer scores 0. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
        SightlineError: WordNet is not here.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    from nltk.translate.meteor_score import single_meteor_score

    words = _wordnet(wordnet) if synonyms else _NoWordnet()
    cut = _cutter(tokenize, marks)
    scores = np.array([float(single_meteor_score(cut(p.answer), cut(p.text), wordnet=words)) for p in turns])
    how = "exact, stem, synonym" if synonyms else "exact, stem"
    return [
        mean(
            "meteor_nltk",
            turns,
            scores,
            doc=f"mean of nltk's METEOR ({how}), tokens {tokenize}, marks {marks}",
        )
    ]


class _NoWordnet:
    """A WordNet in which no word has a synonym."""

    def synsets(self, *_: Any, **__: Any) -> list[Any]:
        return []


def _cutter(tokenize: str, marks: str) -> Callable[[str], list[str]]:
    """What makes tokens of a text."""
    if tokenize != "treebank":
        return lambda text: tokens(text, tokenize, marks)
    from nltk.tokenize import word_tokenize

    def cut(text: str) -> list[str]:
        return list(word_tokenize(unmark(text) if marks == "drop" else text, preserve_line=True))

    return cut


@lru_cache(maxsize=4)
def _wordnet(data: str) -> Any:
    """WordNet, from a folder of nltk data or from where nltk looks.

    Raises:
        SightlineError: it is not there.
    """
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    if data and data not in nltk.data.path:
        nltk.data.path.append(data)  # nltk refuses to read from folders that are not on its list
    for place in ("corpora/wordnet", "corpora/wordnet.zip/wordnet/"):
        try:
            return WordNetCorpusReader(nltk.data.find(place, paths=[data] if data else None), None)
        except LookupError:
            continue
    raise SightlineError(
        "WordNet is not here, and nltk's METEOR matches synonyms by it",
        where=data or "nltk's own folders",
        found="no corpora/wordnet",
        expected="nltk's data package 'wordnet'",
        remedy="set the option wordnet to a folder that holds corpora/wordnet, or synonyms to false",
    )


METRIC = Metric(
    score=meteor_nltk, version=1, paper="Banerjee and Lavie 2005, aclanthology.org/W05-0909; nltk.translate"
)
