"""Sex named after a comparison with a reference scan, as UMBRELLA asks it: classification, and same or different.

The model is shown a reference whose sex it is told, then a second scan whose sex it names. That one answer is scored
twice: as male or female, and as same or different, which follows from it because the reference is known. A topic that
ends in `_same` or `_different` says which was the case. Where the right answer is itself "same" or "different", the
answers are read for these words instead.

UMBRELLA's stored predictions (Transconnectome/BrainVLM): 75 of 100 classified rightly, 75.6 % of 1000 comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .measure import Measure, Metric, Statistic, average, keys, only, patients, ratio, rows, tally

SEXES = {
    "male": "male",
    "man": "male",
    "boy": "male",
    "female": "female",
    "woman": "female",
    "girl": "female",
}
OTHER = {"male": "female", "female": "male", "same": "different", "different": "same"}
_SEX = r"(?:fe)?male|(?:wo)?man|boy|girl"
_OF_REFERENCE = re.compile(
    rf"\b(?:{_SEX})(?:'s)? (?:reference|baseline)\b|\breference,? (?:an? |the |is |was |scan |of |from )*(?:{_SEX})\b"
)
_NAMED = re.compile(rf"(\bnot (?:an? )?|\bnon-?)?\b({_SEX})\b")
_KIND = re.compile(
    r"(\bnot (?:of )?(?:the |an? )?)?\b(same|different|opposite|differs?)(?=\W+(?:biological )?(?:sex|gender)|\W*$)"
)
_LEADS = re.compile(r"^\W*(?:the )?(same|different|opposite)\b")


def sex(text: str) -> str | None:
    """The sex that an answer names, of the reference apart: "male", "female" or None.

    The first one named counts, a negated one for the other; words about the reference ("unlike the female reference
    scan") do not.
    """
    found = _NAMED.search(_OF_REFERENCE.sub(" ", text.lower().replace("’", "'")))
    if not found:
        return None
    named = SEXES[found.group(2)]
    return OTHER[named] if found.group(1) else named


def same(text: str) -> str | None:
    """Whether an answer says "same" or "different" of two sexes, or None where it says neither."""
    plain = text.lower()
    leads = _LEADS.match(plain)
    if leads:
        return "same" if leads.group(1) == "same" else "different"
    found = _KIND.search(plain)
    if not found:
        return None
    said = "same" if found.group(2) == "same" else "different"
    return OTHER[said] if found.group(1) else said


def comparison(predictions: Sequence[Prediction], *, topic: str = "sex") -> list[Measure]:
    """Scores answers to comparisons. An answer that names nothing is wrong, never skipped.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        topic: what the topic of a scored turn is, or begins with.

    Returns:
        Of answers that name a sex `sex_accuracy`, `sex_balanced_accuracy` (mean recall of male and female) and
        `sex_unparsed`; of those whose comparison is known `comparison_accuracy` and `comparison_balanced_accuracy`
        (mean recall of same and different) and `comparison_unparsed`. None where no turn has such a topic.

    Raises:
        DataError: no predictions, a turn answered twice, or a right answer that says neither.
    """
    turns = [p for p in rows(predictions) if p.topic == topic or p.topic.startswith(f"{topic}_")]
    named: list[tuple[Prediction, str, str | None]] = []
    compared: list[tuple[Prediction, str, str | None]] = []
    for turn in turns:
        told, truth = same(turn.answer), sex(turn.answer)
        kind = next((k for k in ("same", "different") if turn.topic.endswith(f"_{k}")), None)
        if truth is not None:
            said = sex(turn.text)
            named.append((turn, truth, said))
            if kind is not None:
                answer = None if said is None else kind if said == truth else OTHER[kind]
                compared.append((turn, kind, answer))
        elif told is not None:
            compared.append((turn, told, same(turn.text)))
        else:
            raise DataError(
                "a right answer to a comparison names no sex, and neither same nor different",
                where=f"sample {turn.sample}, turn {turn.turn}", expected="male, female, same or different",
                remedy="give such turns another topic",
            )  # fmt: skip
    return [*_measures("sex", named), *_measures("comparison", compared)]


def _measures(name: str, turns: Sequence[tuple[Prediction, str, str | None]]) -> list[Measure]:
    """Accuracy, balanced accuracy where both classes occur, and the share of answers that name nothing."""
    if not turns:
        return []
    asked = [p for p, _, _ in turns]
    gold = np.array([truth for _, truth, _ in turns])
    right = np.array([said == truth for _, truth, said in turns], dtype=float)
    silent = np.array([said is None for _, _, said in turns], dtype=float)
    classes = sorted(set(gold.tolist()))
    recalls: dict[str, Statistic] = {
        word: only(np.flatnonzero(gold == word).tolist(), average(right[gold == word])) for word in classes
    }
    common: dict[str, Any] = {"keys": keys(asked), "patients": patients(asked)}
    made = [
        Measure(
            name=f"{name}_accuracy", statistic=average(right), per_sample=right, parts=dict(recalls),
            doc="share of comparisons answered rightly; parts are recalls", **common,
        ),
        Measure(
            name=f"{name}_unparsed", statistic=average(silent), per_sample=silent, higher_is_better=False,
            doc="share of answers that name neither", **common,
        ),
    ]  # fmt: skip
    if len(classes) == 2:
        columns = np.stack([gold == classes[0], (gold == classes[0]) * right, gold == classes[1]], axis=1)
        columns = np.column_stack([columns, (gold == classes[1]) * right]).astype(float)  # [n, 4]
        shares = right * len(turns) / (2 * np.array([(gold == truth).sum() for truth in gold]))
        made.append(
            Measure(
                name=f"{name}_balanced_accuracy", statistic=tally(columns, _mean_recall), per_sample=shares,
                parts=dict(recalls), doc=f"mean of the recalls of {classes[0]} and {classes[1]}", **common,
            )
        )  # fmt: skip
    return made


def _mean_recall(sums: np.ndarray) -> np.ndarray:
    """Sums [R, 4] of (one class, its right ones, the other class, its right ones) to the mean recall [R]."""
    return (ratio(sums[:, 1], sums[:, 0]) + ratio(sums[:, 3], sums[:, 2])) / 2


METRIC = Metric(score=comparison, version=1, paper="UMBRELLA, github.com/Transconnectome/BrainVLM")
