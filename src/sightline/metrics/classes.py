"""Grades and lesion classes: which of several named classes an answer says, against which is right.

Seed 1's tasks: Kellgren and Lawrence's grades of the knee (topic `grade`, ordered) and skin lesions (`diagnosis`).
Classes are those that right answers name. Averages over classes weigh a rare class as much as a frequent one; the
quadratically weighted kappa (Cohen 1968) of ordered classes counts an error by the square of how many grades it is off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import Prediction
from .answers import normalise
from .chinese import HAN
from .measure import Measure, Metric, Statistic, average, keys, mean_of, patients, ratio, rows, tally

TOPICS = ("grade", "diagnosis")
ORDER = "grade"  # an attribute whose numbers say in which order classes stand
UNREAD = "no class named"
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The turns of one topic.

    Args:
        turns: in order.
        names: classes in their normal form, in their order where there is one.
        told: the classes as right answers write them.
        gold: [n] numbers of right classes.
        said: [n] numbers of classes that answers name; -1 for none.
        ordered: whether the order of the classes means something.
    """

    turns: Sequence[Prediction]
    names: Sequence[str]
    told: Sequence[str]
    gold: np.ndarray
    said: np.ndarray
    ordered: bool


def classes(
    predictions: Sequence[Prediction],
    *,
    topic: str = "",
    order: list[str] | None = None,
) -> list[Measure]:
    """Scores answers that name a class. One that names none, or several, is wrong, never skipped.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        topic: of the turns that are scored; "" for `grade` and `diagnosis`, whichever there are.
        order: the classes from the lowest to the highest; without it, the attribute `grade` says it, where it is given.

    Returns:
        For each topic `TOPIC_accuracy` (with the table `confusion`), `TOPIC_balanced_accuracy` (mean recall; parts are
        recalls), `TOPIC_macro_f1` (parts are F1 of classes), of ordered classes `TOPIC_kappa`, from -1 to 1,
        `TOPIC_unread`, and `majority_TOPIC_accuracy`. Nothing where there is no such turn.

    Raises:
        DataError: no predictions, or a turn answered twice.
    """
    ordered = rows(predictions)
    measures: list[Measure] = []
    for name in [topic] if topic else TOPICS:
        turns = [p for p in ordered if p.topic == name]
        if turns:
            measures += _measures(name, _read(turns, order))
    return measures


def named(text: str, names: Sequence[str]) -> int | None:
    """The number of the one class that a text names, or None where it names none or several.

    Args:
        text: an answer.
        names: classes in their normal form. Of two that hold each other the longer one counts where it is named.
    """
    plain = normalise(text)
    if plain in names:
        return names.index(plain)
    rest, found = f" {plain} ", []
    for place in sorted(range(len(names)), key=lambda i: -len(names[i])):
        word = names[place] if HAN.search(names[place]) else f" {names[place]} "
        if names[place] and word in rest:
            found.append(place)
            rest = rest.replace(word, "  ")
    return found[0] if len(found) == 1 else None


def _read(turns: Sequence[Prediction], order: Sequence[str] | None) -> _Asked:
    """Right classes, named classes and their order."""
    told = {normalise(p.answer): p.answer.strip().rstrip(".") for p in turns}
    grades = _grades(turns, order)
    names = sorted(set(told) | set(grades), key=lambda name: (grades.get(name, len(grades)), name))
    said = [named(p.text, names) for p in turns]
    if grades:
        numbers = {str(grade): names.index(name) for name, grade in grades.items()}
        said = [
            _graded(p.text, numbers) if found is None else found for p, found in zip(turns, said, strict=True)
        ]
    return _Asked(
        turns=turns, names=names, told=[told.get(name, name) for name in names],
        gold=np.array([names.index(normalise(p.answer)) for p in turns]),
        said=np.array([-1 if found is None else found for found in said]),
        ordered=len(names) > 1 and set(names) <= set(grades),
    )  # fmt: skip


def _grades(turns: Sequence[Prediction], order: Sequence[str] | None) -> dict[str, int]:
    """The place of each class in the order, by its normal form; empty where no order is known."""
    if order is not None:
        return {normalise(name): place for place, name in enumerate(order)}
    found: dict[str, int] = {}
    for turn in turns:
        grade = turn.attributes.get(ORDER, "")
        if not grade.isdecimal() or found.setdefault(normalise(turn.answer), int(grade)) != int(grade):
            return {}
    return found if len(set(found.values())) == len(found) else {}


def _graded(text: str, numbers: Mapping[str, int]) -> int | None:
    """The class of the one grade that a text gives as a number ("grade 3", "KL 3")."""
    said = set(_NUMBER.findall(text))
    return numbers.get(said.pop()) if len(said) == 1 else None


def _measures(name: str, asked: _Asked) -> list[Measure]:
    """All measures of one topic."""
    count, gold, said = len(asked.names), asked.gold, asked.said
    cells = np.zeros(
        (len(gold), count * (count + 1))
    )  # one column for each right class and answer, silence last
    cells[np.arange(len(gold)), gold * (count + 1) + np.where(said < 0, count, said)] = 1.0

    def over(formula: Callable[[np.ndarray], np.ndarray]) -> Statistic:
        """A statistic of the confusion matrix [R, right, named]."""
        return tally(cells, lambda sums: formula(sums.reshape(-1, count, count + 1)))

    common: dict[str, Any] = {"keys": keys(asked.turns), "patients": patients(asked.turns)}
    there = [place for place in range(count) if (gold == place).any()]
    recalls = {asked.told[k]: over(_recall(k)) for k in there}
    f1 = {asked.told[k]: over(_f1(k)) for k in there}
    right, silent = (gold == said).astype(float), (said < 0).astype(float)
    best = (gold == np.bincount(gold, minlength=count).argmax()).astype(float)
    table = {
        "rows": list(asked.told), "columns": [*asked.told, UNREAD],
        "counts": cells.sum(axis=0).reshape(count, count + 1).astype(int).tolist(),
    }  # fmt: skip
    made = [
        Measure(
            name=f"{name}_accuracy", statistic=average(right), per_sample=right, tables={"confusion": table},
            doc="share of turns whose right class is named", **common,
        ),
        Measure(
            name=f"{name}_balanced_accuracy", statistic=mean_of(list(recalls.values())), parts=recalls,
            doc="mean over classes of the share of its turns that are answered rightly", **common,
        ),
        Measure(
            name=f"{name}_macro_f1", statistic=mean_of(list(f1.values())), parts=f1,
            doc="mean over classes of F1", **common,
        ),
    ]  # fmt: skip
    if asked.ordered:
        doc = "agreement beyond chance, errors weighed by the square of the grades between; from -1 to 1"
        made.append(Measure(name=f"{name}_kappa", statistic=over(kappa), doc=doc, **common))
    return [
        *made,
        Measure(
            name=f"{name}_unread", statistic=average(silent), per_sample=silent, higher_is_better=False,
            doc="share of answers that name no class, or several", **common,
        ),
        Measure(
            name=f"majority_{name}_accuracy", statistic=average(best), per_sample=best,
            doc="the most frequent class, always: accuracy", **common,
        ),
    ]  # fmt: skip


def _recall(place: int) -> Callable[[np.ndarray], np.ndarray]:
    """Recall of one class, [R]; undefined where it is never right."""
    return lambda table: ratio(table[:, place, place], table[:, place].sum(axis=1))


def _f1(place: int) -> Callable[[np.ndarray], np.ndarray]:
    """F1 of one class, [R]; undefined where it is never right."""

    def f1(table: np.ndarray) -> np.ndarray:
        right, said = table[:, place].sum(axis=1), table[:, :, place].sum(axis=1)
        return np.where(right > 0, ratio(2 * table[:, place, place], right + said), np.nan)

    return f1


def kappa(table: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights.

    Args:
        table: [R, K, K + 1] counts of right classes by named ones; the last column is of answers that name none, which
            count as the class that is farthest from the right one.

    Returns:
        [R]; NaN where right answers and answers are all of one class.
    """
    count = table.shape[1]
    grades = np.arange(count)
    squares = (grades[:, None] - grades[None]) ** 2.0  # [K, K]
    whole = table[:, :, :count].copy()
    whole[:, grades, squares.argmax(axis=1)] += table[:, :, count]
    total = whole.sum(axis=(1, 2))
    chance = whole.sum(axis=2)[:, :, None] * whole.sum(axis=1)[:, None]  # [R, K, K], times the total
    return 1 - ratio((whole * squares).sum(axis=(1, 2)) * total, (chance * squares).sum(axis=(1, 2)))


METRIC = Metric(
    score=classes,
    paper="Cohen 1968, doi 10.1037/h0026256 (weighted kappa); the tasks are seed 1's",
    attributes=(ORDER,),
)
