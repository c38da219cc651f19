"""CIDEr-D: do an answer and its reference share the n-grams that few other references have?

As pycocoevalcap computes it: n-grams of 1 to 4 tokens, weighted by how rare they are among the references, cosine
with clipped counts, a Gaussian penalty for a difference in length (counted in bigrams there, and so here), times 10.

The document frequencies belong to the metric: they come from all references of the data, or from a file, and do not
change when patients are resampled. A number from a subset of a corpus is another number, unless both take the
frequencies from one file (`save` writes it).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .bleu_coco import ORDERS, grams
from .measure import Measure, Metric, mean, rows, written
from .tokens import pairs

SIGMA = 6.0
Gram = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Frequencies:
    """In how many of some documents each n-gram occurs."""

    documents: int
    grams: Mapping[Gram, int]


@dataclass(frozen=True, slots=True)
class _Vector:
    """The weights of one text's n-grams, one mapping for each order, with their norms and its number of bigrams."""

    weights: tuple[dict[Gram, float], ...]
    norms: tuple[float, ...]
    length: int


def cider(
    predictions: Sequence[Prediction],
    *,
    frequencies: str = "",
    tokenize: Literal["ptb", "chinese", "jieba", "blank"] = "ptb",
    marks: Literal["drop", "keep"] = "drop",
    report: str = "report",
) -> list[Measure]:
    """Mean CIDEr-D of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        frequencies: a file of document frequencies that `save` wrote; "" counts them in the references.
        tokenize: how texts become tokens; `metrics/tokens.py` says what each does.
        marks: whether the marks of de-identification are taken out first.
        report: the topic of turns that ask for a report.

    Returns:
        `cider`, 0-10; an empty answer scores 0. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, a turn answered twice, or a file that `save` did not write or that was counted with
            another tokeniser.
        MissingExtra: jieba is asked for and not installed.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    texts = pairs(turns, tokenize, marks)
    known = read(Path(frequencies), tokenize, marks) if frequencies else count(right for _, right in texts)
    scores = np.array([similarity(said, right, known) for said, right in texts])
    origin = (
        f"frequencies from {Path(frequencies).name}" if frequencies else "frequencies from the references"
    )
    return [
        mean(
            "cider",
            turns,
            scores,
            parts={"documents": float(known.documents)},
            unit="0-10",
            doc=f"mean CIDEr-D as in pycocoevalcap, {origin}, tokens {tokenize}, marks {marks}",
        )
    ]


def count(documents: Iterable[Sequence[str]]) -> Frequencies:
    """In how many documents each n-gram of 1 to 4 tokens occurs."""
    total, found = 0, Counter[Gram]()
    for words in documents:
        total += 1
        for order in range(1, ORDERS + 1):
            found.update(grams(words, order).keys())
    return Frequencies(total, found)


def save(path: Path, known: Frequencies, *, tokenize: str = "ptb", marks: str = "drop") -> None:
    """Write document frequencies as JSON, with the tokeniser that they were counted with."""
    table = {" ".join(gram): times for gram, times in sorted(known.grams.items())}
    about = {"documents": known.documents, "tokenize": tokenize, "marks": marks, "grams": table}
    path.write_text(json.dumps(about, ensure_ascii=False, indent=0), encoding="utf-8")


def read(path: Path, tokenize: str, marks: str) -> Frequencies:
    """Document frequencies that `save` wrote.

    Raises:
        DataError: no such file, another layout, or another tokeniser.
    """
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        table = {tuple(gram.split(" ")): int(times) for gram, times in about["grams"].items()}
        known, made = Frequencies(int(about["documents"]), table), (about["tokenize"], about["marks"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "the document frequencies cannot be read",
            where=str(path),
            found=f"{type(error).__name__}: {error}",
            expected="JSON with documents, tokenize, marks and grams",
            remedy="write it with sightline.metrics.cider.save",
        ) from None
    if made != (tokenize, marks):
        raise DataError(
            "the document frequencies were counted on other tokens",
            where=str(path),
            found=f"tokenize {made[0]}, marks {made[1]}",
            expected=f"tokenize {tokenize}, marks {marks}",
            remedy="set the options to those of the file, or count again",
        )
    return known


def similarity(said: Sequence[str], right: Sequence[str], known: Frequencies) -> float:
    """CIDEr-D of one pair, 0-10."""
    one, other = _vector(said, known), _vector(right, known)
    penalty = math.exp(-((one.length - other.length) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for mine, theirs, my_norm, their_norm in zip(
        one.weights, other.weights, one.norms, other.norms, strict=True
    ):
        shared = sum(
            min(weight, theirs[gram]) * theirs[gram] for gram, weight in mine.items() if gram in theirs
        )
        scale = my_norm * their_norm
        total += penalty * (shared / scale if scale else shared)
    return 10 * total / ORDERS


def _vector(words: Sequence[str], known: Frequencies) -> _Vector:
    """Counts times log of documents over frequency; an n-gram that no document has counts as if one had it."""
    whole = math.log(known.documents) if known.documents else 0.0
    weights = tuple(
        {
            gram: times * (whole - math.log(max(1, known.grams.get(gram, 0))))
            for gram, times in grams(words, order).items()
        }
        for order in range(1, ORDERS + 1)
    )
    norms = tuple(math.sqrt(sum(weight**2 for weight in each.values())) for each in weights)
    return _Vector(weights, norms, max(0, len(words) - 1))


METRIC = Metric(score=cider, version=1, paper="Vedantam et al. 2015 (CIDEr-D), arXiv:1411.5726")
