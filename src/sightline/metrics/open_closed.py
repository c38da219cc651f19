"""Open and closed questions as SLAKE's and VQA-RAD's papers count them, by language, content and type of question.

The data sets say themselves which questions are closed (`answer_type`): besides yes/no also choices such as "left or
right", whose answers are compared by their normal form. Open answers are scored by the words of the right answer that
they hold (recall, what LLaVA-Med reports) and by F1, which also counts words too many.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from ..types import Prediction
from .answers import closed, normalise, overlap, tokens, yes_no
from .measure import Measure, Metric, Statistic, average, mean, only, rows

BY = ("language", "content_type", "language+content_type", "question_type")
DIVIDED = "question_type"  # of VQA-RAD: a question may be of several types, with commas between
NAMES = {
    "closed_accuracy": "share of closed questions answered rightly",
    "open_recall": "mean share of the right answer's words that the answer holds, open questions",
    "open_f1": "mean F1 of the bags of normalised tokens, open questions",
    "open_accuracy": "share of open questions answered by the right words and no others",
    "overall_accuracy": "share of all questions answered rightly, open ones by the right words and no others",
}


def open_closed(
    predictions: Sequence[Prediction],
    *,
    by: list[str] | None = None,
    division: Literal["data", "answer"] = "data",
    report: str = "report",
) -> list[Measure]:
    """Scores open and closed questions apart.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        by: attributes that parts are made of, `a+b` for both together; None for language, content type, both
            together, and type of question. Turns without an attribute are in none of its parts.
        division: who says that a question is closed: the attribute `answer_type` where there is one (`data`), or the
            right answer, if it is yes or no.
        report: the topic of turns that ask for a report; they are left out.

    Returns:
        `closed_accuracy`, `open_recall`, `open_f1`, `open_accuracy` and `overall_accuracy`, 0-1. A part is called
        after its attributes' values. What does not apply is absent.

    Raises:
        DataError: no predictions, or a turn answered twice.
    """
    turns = [p for p in rows(predictions) if p.topic != report]
    shut = np.array([_is_closed(p, division) for p in turns], dtype=bool)
    right = np.array([_right(p) for p in turns], dtype=float)
    recall = np.array([covered(p.text, p.answer) for p in turns])
    f1 = np.array([overlap(p.text, p.answer) for p in turns])
    scored = {
        "closed_accuracy": (shut, right), "open_recall": (~shut, recall), "open_f1": (~shut, f1),
        "open_accuracy": (~shut, right), "overall_accuracy": (np.ones(len(turns), dtype=bool), right),
    }  # fmt: skip
    made = []
    for name, (among, values) in scored.items():
        chosen = [turns[i] for i in np.flatnonzero(among)]
        if chosen:
            parts = _parts(chosen, values[among], BY if by is None else by)
            made.append(mean(name, chosen, values[among], parts=parts, doc=NAMES[name]))
    return made


def covered(text: str, reference: str) -> float:
    """The share of the reference's normalised tokens that a text holds, each as often as it holds it, 0-1."""
    said, right = tokens(text), tokens(reference)
    if not right:
        return float(not said)
    return sum(min(said.count(word), right.count(word)) for word in set(right)) / len(right)


def _is_closed(turn: Prediction, division: str) -> bool:
    """Whether a question is closed."""
    told = turn.attributes.get("answer_type", "").lower()
    if division == "data" and told in ("open", "closed"):
        return told == "closed"
    return closed(turn.question, turn.answer) is not None


def _right(turn: Prediction) -> bool:
    """Whether an answer is right: yes and no as they are read, all else by its normal form."""
    gold = closed(turn.question, turn.answer)
    return normalise(turn.text) == normalise(turn.answer) if gold is None else yes_no(turn.text) == gold


def _parts(turns: Sequence[Prediction], values: np.ndarray, by: Sequence[str]) -> Mapping[str, Statistic]:
    """The mean of each group of turns, by the name of its attributes' values."""
    places: dict[str, list[int]] = {}
    for i, turn in enumerate(turns):
        for names in by:
            for group in _groups(turn, names):
                places.setdefault(group, []).append(i)
    return {group: only(place, average(values[place])) for group, place in sorted(places.items())}


def _groups(turn: Prediction, names: str) -> list[str]:
    """The groups of a turn by one attribute, or by several together; none where it lacks one."""
    told = [turn.attributes.get(name, "").strip() for name in names.split("+")]
    if not all(told):
        return []
    if names == DIVIDED:
        return [f"{names} {word.strip()}" for word in told[0].split(",") if word.strip()]
    return [f"{' and '.join(names.split('+'))} {', '.join(told)}"]


METRIC = Metric(
    score=open_closed,
    paper="SLAKE, arXiv:2102.09542; VQA-RAD, doi 10.1038/sdata.2018.251; LLaVA-Med, arXiv:2306.00890 (recall)",
    attributes=("answer_type", "language", "content_type", "question_type"),
)
