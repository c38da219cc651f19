"""Temporal F1: whether a report names the same kinds of change as its reference, after Libra.

A report counts as the set of its words of change: 44 words that BioViL-T chose (Bannur et al. 2023, arXiv
2301.04558, its temporal entity matching) and Libra took over (github.com/X-iZhang/Libra, `temporal_f1.py`). Two
reports without such a word agree fully, so a model that never speaks of change scores what the part `silent` says.
Libra adds entities of Stanza's radiology model that equal a word of the list; as whole words these are found anyway.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ..types import Prediction
from .measure import Measure, Metric, Statistic, average, keys, only, patients, rows, written

WORDS = frozenset(
    (
        *("change", "new"),
        *("constant", "persistence", "persistent", "persisting"),
        *("stability", "stable", "stably", "unaltered", "unchanged"),
        *("bigger", "elevated", "elevation", "enlarged", "enlargement", "enlarging", "expanded", "greater"),
        *("growing", "increase", "increased", "increasing", "larger", "progression", "progressive"),
        *("unfolded", "worse", "worsen", "worsened", "worsening"),
        *(
            "decrease",
            "decreased",
            "decreasing",
            "improved",
            "improvement",
            "improving",
            "reduced",
            "smaller",
        ),
        *("cleared", "removal", "resolution", "resolved", "resolving"),
    )
)
SMALL = 1e-10
_MARKS = re.compile(r"[_-]+")
_OTHER = re.compile(r"[^\w\s.,:;()]")
_WORD = re.compile(r"\w+")


def temporal_f1(predictions: Sequence[Prediction], *, report: str = "report") -> list[Measure]:
    """F1 of the sets of words of change, of report turns or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        report: the topic of turns that ask for a report.

    Returns:
        `temporal_f1`, the mean over turns, 0-1, with the parts `precision`, `recall` and `named` (of references that
        name a change) and `silent` (what answers without such a word would score); and `temporal_f1_named`, the
        mean over references that name a change, where there are any.

    Raises:
        DataError: no predictions, or a turn answered twice.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    true = [words(p.answer) for p in turns]
    scores = np.array(
        [agreement(words(p.text), right) for p, right in zip(turns, true, strict=True)]
    )  # [n, 3]
    named = [i for i, right in enumerate(true) if right]
    silent = np.array([agreement(set(), right)[0] for right in true])
    parts: dict[str, Statistic] = {"silent": average(silent)}
    if named:
        parts |= {
            name: only(named, average(scores[named, at]))
            for at, name in enumerate(("named", "precision", "recall"))
        }
    found = [_measure("temporal_f1", turns, scores[:, 0], "all references", parts)]
    if named:
        chosen = [turns[i] for i in named]
        found.append(
            _measure("temporal_f1_named", chosen, scores[named, 0], "references that name a change", {})
        )
    return found


def _measure(
    name: str, turns: Sequence[Prediction], values: np.ndarray, of: str, parts: Mapping[str, Statistic]
) -> Measure:
    return Measure(
        name=name, statistic=average(values), keys=keys(turns), patients=patients(turns), per_sample=values,
        parts=parts, doc=f"mean F1 of the sets of words of change, {of}",
    )  # fmt: skip


def words(text: str) -> set[str]:
    """The words of change in a text: whole words, hyphens and underscores apart, other signs dropped as in Libra."""
    plain = _OTHER.sub("", _MARKS.sub(" ", text.lower()))
    return set(_WORD.findall(plain)) & WORDS


def agreement(said: set[str], right: set[str]) -> tuple[float, float, float]:
    """F1, precision and recall of two sets of words, with Libra's small number against division by zero.

    Two empty sets give 1; words where the reference has none give the small number.
    """
    if not right:
        value = SMALL if said else 1.0
        return value, value, value
    both = len(said & right) + SMALL
    precision, recall = both / (len(said) + SMALL), both / (len(right) + SMALL)
    return 2 * precision * recall / (precision + recall + SMALL), precision, recall


METRIC = Metric(score=temporal_f1, version=1, paper="Libra, arXiv:2411.19378; BioViL-T, arXiv:2301.04558")
