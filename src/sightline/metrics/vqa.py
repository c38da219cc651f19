"""Questions answered and findings reported: the headline numbers of a medical vision-language model.

Every number stands beside what the best constant answer would score, because a constant "yes" reaches 86 %
accuracy on published medical question sets. Topics are scored apart and then averaged, so that a frequent
finding does not hide a rare one. An answer that is neither yes nor no is wrong, never skipped.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .answers import closed, normalise, overlap, yes_no
from .findings import LEXICON, findings
from .measure import (
    Measure,
    Metric,
    Statistic,
    average,
    keys,
    mean_of,
    only,
    patients,
    ratio,
    rows,
    tally,
)

Turn = tuple[Prediction, str]
_UNNAMED = "all"


def vqa(predictions: Sequence[Prediction], *, report: str = "report") -> list[Measure]:
    """Scores answers to questions, and the findings named in reports.

    Yes/no turns are those whose right answer says yes or no; open turns are the others; report turns have
    their own topic. A measure that does not apply (no open turn, no report, no choices) is absent.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        report: the topic of turns that ask for a report.

    Returns:
        `balanced_accuracy`, `vqa_f1`, `accuracy`, `unparsed`, `auc`, `margin`, `exact_match`, `token_f1`,
        `finding_f1`, and the baselines `majority_balanced_accuracy`, `majority_accuracy`,
        `majority_exact_match`.

    Raises:
        DataError: no predictions, a turn answered twice, or a log-probability that is not a number.
    """
    ordered = rows(predictions)
    answered = [(p, closed(p.question, p.answer)) for p in ordered if p.topic != report]
    shut = [(p, gold) for p, gold in answered if gold is not None]
    open_turns = [p for p, gold in answered if gold is None]
    reports = [p for p in ordered if p.topic == report]
    measures: list[Measure] = []
    if shut:
        measures += _yes_no_measures(shut) + _majority(shut) + _choice_measures(shut)
    if answered:
        measures += _exact_measures([(p, gold or "") for p, gold in answered])
    if open_turns:
        values = np.array([overlap(p.text, p.answer) for p in open_turns])
        doc = "mean F1 of the bags of normalised tokens, open questions"
        measures.append(_averaged("token_f1", open_turns, values, doc=doc))
    return measures + (_finding_measures(reports) if reports else [])


def by_topic(turns: Sequence[Prediction]) -> dict[str, list[int]]:
    """Row numbers of each topic, by name; turns without a topic form one topic called `all`."""
    places: dict[str, list[int]] = {}
    for place, turn in enumerate(turns):
        places.setdefault(turn.topic or _UNNAMED, []).append(place)
    return dict(sorted(places.items()))


def _averaged(
    name: str,
    turns: Sequence[Prediction],
    values: np.ndarray,
    *,
    doc: str,
    higher: bool = True,
    unit: str = "0-1",
) -> Measure:
    """A measure that is the plain mean of one value per turn, with the mean of each topic as its parts."""
    parts = {topic: only(place, average(values[place])) for topic, place in by_topic(turns).items()}
    return Measure(
        name=name, statistic=average(values), keys=keys(turns), patients=patients(turns), per_sample=values,
        parts=parts, higher_is_better=higher, unit=unit, doc=doc,
    )  # fmt: skip


def _yes_no_measures(shut: Sequence[Turn]) -> list[Measure]:
    """Accuracy, share of unparsed answers, balanced accuracy and F1 of yes/no turns."""
    turns = [p for p, _ in shut]
    gold = np.array([answer == "yes" for _, answer in shut])
    said = [yes_no(p.text) for p in turns]
    right = np.array([answer == truth for answer, (_, truth) in zip(said, shut, strict=True)], dtype=float)
    silent = np.array([answer is None for answer in said], dtype=float)
    measures = [
        _averaged("accuracy", turns, right, doc="share of yes/no turns answered rightly"),
        _averaged(
            "unparsed", turns, silent, doc="share of yes/no turns answered neither yes nor no", higher=False
        ),
    ]
    doc = "mean over topics of the mean recall of yes and of no"
    measures += _balanced("balanced_accuracy", turns, gold, right, doc)
    yes = np.array([answer == "yes" for answer in said])
    return measures + _positive_f1(turns, gold, yes)


def _both_classes(turns: Sequence[Prediction], gold: np.ndarray) -> tuple[list[int], tuple[str, ...]]:
    """The rows of topics that have right answers of both kinds, and the names of the other topics."""
    topics = by_topic(turns)
    kept = {name for name, place in topics.items() if 0 < gold[place].sum() < len(place)}
    place = sorted(i for name in kept for i in topics[name])
    return place, tuple(name for name in topics if name not in kept)


def _balanced(
    name: str, turns: Sequence[Prediction], gold: np.ndarray, right: np.ndarray, doc: str
) -> list[Measure]:
    """Balanced accuracy, or nothing where no topic has both classes.

    The value of a row is its correctness over how often its class occurs in its topic, scaled so that the
    mean of the rows is the measure; classes are fixed by the right answers, so such values can be exchanged
    between two models in a permutation test.
    """
    place, left_out = _both_classes(turns, gold)
    if not place:
        return []
    turns, gold, right = [turns[i] for i in place], gold[place], right[place]
    columns = np.stack([gold, gold * right, ~gold, ~gold * right], axis=1).astype(float)  # [n, 4]
    topics = by_topic(turns)
    parts = {topic: only(p, tally(columns[p], _mean_recall)) for topic, p in topics.items()}
    shares = np.zeros(len(turns))
    for p in topics.values():
        size = np.where(gold[p], gold[p].sum(), (~gold[p]).sum())  # [rows of the topic]
        shares[p] = right[p] * len(turns) / (2 * len(topics) * size)
    return [
        Measure(
            name=name, statistic=mean_of(list(parts.values())), keys=keys(turns), patients=patients(turns),
            per_sample=shares, parts=parts, doc=doc, left_out=left_out,
        )
    ]  # fmt: skip


def _mean_recall(sums: np.ndarray) -> np.ndarray:
    """Sums [R, 4] of (yes, yes and right, no, no and right) to the mean of the two recalls."""
    return (ratio(sums[:, 1], sums[:, 0]) + ratio(sums[:, 3], sums[:, 2])) / 2


def _f1(sums: np.ndarray) -> np.ndarray:
    """Sums [R, 3] of (positive, said positive, both) to F1; undefined without a positive."""
    f1 = ratio(2 * sums[:, 2], sums[:, 0] + sums[:, 1])
    return np.where(sums[:, 0] > 0, f1, np.nan)


def _positive_f1(turns: Sequence[Prediction], gold: np.ndarray, yes: np.ndarray) -> list[Measure]:
    """F1 of the answer yes, or nothing where no right answer is yes."""
    topics = by_topic(turns)
    kept = {name: place for name, place in topics.items() if gold[place].any()}
    if not kept:
        return []
    columns = np.stack([gold, yes, gold & yes], axis=1).astype(float)  # [n, 3]
    parts = {name: only(place, tally(columns[place], _f1)) for name, place in kept.items()}
    return [
        Measure(
            name="vqa_f1", statistic=mean_of(list(parts.values())), keys=keys(turns),
            patients=patients(turns), parts=parts,
            doc="mean over topics of F1 with yes as the positive class",
            left_out=tuple(name for name in topics if name not in kept),
        )
    ]  # fmt: skip


def _majority(shut: Sequence[Turn]) -> list[Measure]:
    """What the best constant answer per topic would score, decided once on the right answers (ties: no)."""
    turns = [p for p, _ in shut]
    gold = np.array([answer == "yes" for _, answer in shut])
    right = np.zeros(len(turns))
    for place in by_topic(turns).values():
        right[place] = gold[place] == (gold[place].mean() > 0.5)
    doc = "the best constant answer per topic: "
    return [
        _averaged("majority_accuracy", turns, right, doc=doc + "accuracy"),
        *_balanced("majority_balanced_accuracy", turns, gold, right, doc + "balanced accuracy, always 0.5"),
    ]


def _choice_measures(shut: Sequence[Turn]) -> list[Measure]:
    """AUC and margin of the log-probabilities of yes and no, for the turns that have them."""
    chosen = [(p, answer) for p, answer in shut if "yes" in p.choices and "no" in p.choices]
    if not chosen:
        return []
    turns = [p for p, _ in chosen]
    gold = np.array([answer == "yes" for _, answer in chosen])
    lead = np.array([_lead(p) for p in turns])
    doc = "mean of log p(right) - log p(wrong) over yes/no turns"
    measures = [_averaged("margin", turns, np.where(gold, lead, -lead), doc=doc, unit="nats")]
    place, left_out = _both_classes(turns, gold)
    if place:
        turns, gold, lead = [turns[i] for i in place], gold[place], lead[place]
        parts = {name: only(p, auc(gold[p], lead[p])) for name, p in by_topic(turns).items()}
        doc = "mean over topics of the area under the ROC curve of log p(yes) - log p(no)"
        measures.append(
            Measure(
                name="auc", statistic=mean_of(list(parts.values())), keys=keys(turns),
                patients=patients(turns), parts=parts, doc=doc, left_out=left_out,
            )
        )  # fmt: skip
    return measures


def _lead(prediction: Prediction) -> float:
    """How far yes leads no: log p(yes) - log p(no), nats.

    Raises:
        DataError: it is not finite; an average over it would be meaningless.
    """
    lead = prediction.choices["yes"] - prediction.choices["no"]
    if not math.isfinite(lead):
        raise DataError(
            "a log-probability is not finite",
            where=f"sample {prediction.sample}, turn {prediction.turn}, field choices",
            found=f"yes={prediction.choices['yes']}, no={prediction.choices['no']}",
            expected="finite log-probabilities in nats",
            remedy="compute log-softmax in float32 and check the model for non-finite weights",
        )
    return lead


def auc(gold: np.ndarray, lead: np.ndarray) -> Statistic:
    """The exact weighted area under the ROC curve; a tie counts one half.

    Rows are sorted once; each resample then costs two running sums.

    Args:
        gold: [n] bool, whether the row is positive.
        lead: [n] score of the positive class.
    """
    order = np.argsort(lead, kind="stable")
    starts = np.flatnonzero(np.diff(lead[order], prepend=-np.inf))  # first row of each group of ties
    positive = gold[order].astype(float)

    def area(weights: np.ndarray) -> np.ndarray:
        weights = weights[:, order]
        above = np.add.reduceat(weights * positive, starts, axis=1)  # [R, groups]
        below = np.add.reduceat(weights * (1 - positive), starts, axis=1)  # [R, groups]
        beaten = np.cumsum(below, axis=1) - below / 2
        return ratio((above * beaten).sum(axis=1), above.sum(axis=1) * below.sum(axis=1))

    return area


def _exact_measures(answered: Sequence[Turn]) -> list[Measure]:
    """Exact match of normalised text, and what the best constant text per topic and question type scores."""
    turns = [p for p, _ in answered]
    gold = [normalise(p.answer) for p in turns]
    right = np.array([normalise(p.text) == truth for p, truth in zip(turns, gold, strict=True)], dtype=float)
    kinds = [(p.topic, bool(answer)) for p, answer in answered]
    counts: dict[tuple[str, bool], Counter[str]] = {}
    for kind, truth in zip(kinds, gold, strict=True):
        counts.setdefault(kind, Counter())[truth] += 1
    best = {kind: min(count, key=lambda word: (-count[word], word)) for kind, count in counts.items()}
    constant = np.array([best[kind] == truth for kind, truth in zip(kinds, gold, strict=True)], dtype=float)
    doc = "exact match of normalised text, all questions"
    return [
        _averaged("exact_match", turns, right, doc=doc),
        _averaged("majority_exact_match", turns, constant, doc="the best constant answer per topic: " + doc),
    ]


def _finding_measures(reports: Sequence[Prediction]) -> list[Measure]:
    """Mean over findings of the F1 of presence; findings that no reference has are left out and named."""
    said, true = [findings(p.text) for p in reports], [findings(p.answer) for p in reports]
    parts: dict[str, Statistic] = {}
    for name in LEXICON:
        gold = np.array([_present(found, name) for found in true])
        named = np.array([_present(found, name) for found in said])
        if gold.any():
            columns = np.stack([gold, named, gold & named], axis=1).astype(float)  # [n, 3]
            parts[name] = tally(columns, _f1)
    if not parts:
        return []
    doc = "mean over findings of F1 of presence in the generated against the reference report"
    return [
        Measure(
            name="finding_f1", statistic=mean_of(list(parts.values())), keys=keys(reports),
            patients=patients(reports), parts=parts, doc=doc,
            left_out=tuple(name for name in LEXICON if name not in parts),
        )
    ]  # fmt: skip


def _present(found: Mapping[str, int | None], name: str) -> bool:
    """Whether a report affirms a finding; what it does not mention counts as absent."""
    return found[name] == 1


METRIC = Metric(score=vqa, version=2, paper="MMed-RAG, arXiv:2410.13085 (accuracy, F1, AUC)")
