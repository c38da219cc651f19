"""AMBER: objects that a description makes up or leaves out, and yes/no questions about an image (Wang et al. 2023).

Turns on the topic `generative` are descriptions; their right answer lists the objects that are there and those that
models like to make up (`objects.lists.spell`). All other turns whose right answer is yes or no are questions; their
topic is AMBER's type string.

`exact` repeats the figures of AMBER's script to the last digit that it prints, with its rounding and all that depends
on order and letter case. `corrected` mends that; `CHANGES` names each difference, and its measures carry them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .measure import Measure, Metric, Statistic, keys, patients, ratio, rows, tally
from .objects import corrected as mended
from .objects import exact as official
from .objects import lists, nearness, nouns, questions
from .objects.layout import COLUMNS, lay_nouns
from .objects.questions import SEED, rounded, share

CHANGES = (
    "corrected: descriptions and word lists are read in lower case; the script does not find 'Sky' in 'sky'",
    "corrected: a noun covers the object of its own name, or else the nearest one; the script credits whichever comes "
    "first in its lists, so that Cover depends on their order",
    "corrected: an object named as a likely hallucination is hallucinated although it resembles a true one; a name in "
    "both lists is a true object; equal names in a list are one object",
    "corrected: Cog divides by the nouns of the description, as the paper; the script by the likely hallucinations",
    "corrected: yes and no are read out of free text; the script wants 'Yes' or 'No' to the letter",
    "corrected: nothing is rounded before F1, and no counter starts at 0.001",
)
UNIT = "0-100"
WRONG, KEPT, COVERED, THERE, HIT, LIKELY, SPOILT, ONE, INVENTED = range(len(COLUMNS))
DOCS = {
    "chair": "percentage of the nouns of descriptions that name something that is not there",
    "cover": "percentage of the objects that are there that descriptions name",
    "hal": "percentage of descriptions with at least one hallucinated noun",
    "cog": "hallucinations that people expect, too: percentage of ",
    "accuracy": "percentage of yes/no questions answered rightly",
    "precision": "percentage of the answers no that are right",
    "recall": "percentage of the questions to be denied that are denied",
    "f1": "F1 with no as the positive class, in percent",
    "unparsed": "percentage of yes/no questions answered neither yes nor no",
    "score": "the mean of 100 - CHAIR and F1",
}
LOWER = ("chair", "hal", "cog", "unparsed")


@dataclass(frozen=True, kw_only=True)
class _Way:
    """How it is measured; see `amber`."""

    data: str
    exact: bool
    similarity: str
    model: str
    threshold: float
    nouns: nouns.Way
    nltk_data: str


def amber(
    predictions: Sequence[Prediction],
    *,
    data: str = "",
    mode: Literal["corrected", "exact"] = "corrected",
    similarity: str = "spacy",
    model: str = "en_core_web_lg",
    threshold: float = 0.8,
    nouns: Literal["nltk", "plain"] = "nltk",
    nltk_data: str = "",
) -> list[Measure]:
    """Scores descriptions and answers to yes/no questions.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        data: AMBER's folder with `relation.json` and `safe_words.txt`; needed for descriptions.
        mode: `exact` as AMBER's script, or `corrected`.
        similarity: how alike words are: `spacy` as the script, `trigram`, or `module:function`.
        model: spaCy's model, a package's name or a folder.
        threshold: words that are more alike than this stand for each other.
        nouns: how nouns are found: `nltk` as the script, or `plain`.
        nltk_data: folder of nltk's data; "" looks where nltk does, and in `nltk_data` in or beside `data`.

    Returns:
        `amber_chair`, `amber_cover`, `amber_hal`, `amber_cog`; `amber_accuracy`, `amber_precision`, `amber_recall`,
        `amber_f1` with parts for existence, attribute, state, number, action and relation; `amber_unparsed`
        (`corrected` only) and `amber_score`; 0-100. What there are no answers for is absent.

    Raises:
        DataError: no predictions, a turn answered twice, lists or nltk's data absent, or an object that is not known.
        ModelError: spaCy or its model is absent.
        RecipeError: an unknown similarity.
    """
    way = _Way(
        data=data, exact=mode == "exact", similarity=similarity, model=model, threshold=threshold, nouns=nouns,
        nltk_data=nltk_data,
    )  # fmt: skip
    ordered = rows(predictions)
    described = [p for p in ordered if p.topic == lists.GENERATIVE]
    asked = questions.asked([p for p in ordered if p.topic != lists.GENERATIVE])
    measures = _measures(described, asked, way)
    if not measures:
        return []
    notes = lists.coverage(data, ordered)
    if any(p.patient.startswith(lists.ALONE) for p in ordered):
        notes.append(
            "no query file names the images of yes/no questions: intervals take each question for a patient"
        )
    if described:
        notes += _origin(way)
    if not way.exact and way.data:
        notes += [*CHANGES, *_printed(described, asked, way)]
    return [replace(measure, notes=tuple(notes)) for measure in measures]


def sections(measures: Sequence[Measure]) -> dict[str, dict[str, float]]:
    """The figures in the sections that AMBER's script prints: section -> figure -> value."""
    found: dict[str, dict[str, float]] = {}
    for measure in measures:
        name = measure.name.removeprefix("amber_")
        if name in questions.FIGURES:
            found.setdefault("discriminative", {})[name] = measure.value()
        elif name in ("chair", "cover", "hal", "cog"):
            found.setdefault(lists.GENERATIVE, {})[name] = measure.value()
    named = {m.name.removeprefix("amber_"): m for m in measures}
    for category in questions.CATEGORIES:
        for figure in questions.FIGURES:
            part = named[figure].parts.get(category) if figure in named else None
            if callable(part):
                one = np.ones((1, len(named[figure].keys)))
                found.setdefault(category, {})[figure] = float(part(one)[0])
    return found


def _origin(way: _Way) -> list[str]:
    """Which programs and data decided about the nouns; and whether figures can be compared with published ones."""
    used = f"nouns by {nouns.origin(way.nouns)}; likeness by {nearness.origin(way.similarity, way.model)}"
    if (way.nouns, way.similarity) == ("nltk", "spacy"):
        return [used]
    return [
        f"{used}: not comparable with published figures, which have nltk's nouns and spaCy's word vectors"
    ]


def _printed(
    described: Sequence[Prediction], asked: Sequence[tuple[Prediction, str]], way: _Way
) -> list[str]:
    """What `exact` would print, a line for each section."""
    try:
        measures = _measures(described, asked, replace(way, exact=True))
    except DataError as error:  # lists that differ in letter case only
        return [f"exact would stop: {error.what}: {error.found}"]
    return [
        f"exact would print for {section}: "
        + ", ".join(f"{name} {value:.1f}" for name, value in found.items())
        for section, found in sections(measures).items()
    ]


def _measures(
    described: Sequence[Prediction], asked: Sequence[tuple[Prediction, str]], way: _Way
) -> list[Measure]:
    """Every measure in one mode, without notes."""
    judged = _judge(described, way) if described else None
    counts = questions.table(asked, way.exact) if asked else None
    measures = [] if judged is None else _descriptions(described, judged, way)
    if counts is not None:
        measures += _questions(asked, counts, way)
    if judged is not None and counts is not None:
        measures.append(_score([*described, *(p for p, _ in asked)], judged, counts, way.exact))
    return measures


def _judge(described: Sequence[Prediction], way: _Way) -> np.ndarray:
    """What each description adds, [n, 9]; see `objects.layout.COLUMNS`."""
    known = lists.read_lists(way.data)
    listed = [lists.spelt(p.answer) for p in described]
    if not way.exact:
        known = known.folded()
        folded = [({w.casefold() for w in t}, {w.casefold() for w in h}) for t, h in listed]
        listed = [(tuple(sorted(there)), tuple(sorted(likely - there))) for there, likely in folded]
    _check_known(described, listed, known)
    words = known.vocabulary
    numbers = {word: place for place, word in enumerate(words)}
    find = nouns.finder(way.nouns, words, folders=nouns.beside(way.data, way.nltk_data))
    found = lay_nouns([find(p.text if way.exact else p.text.casefold()) for p in described], numbers)
    alike = nearness.table(way.similarity, words, model=way.model, threshold=way.threshold)
    safe = np.array([word in known.safe for word in words])
    both = ([there for there, _ in listed], [likely for _, likely in listed])
    if way.exact:
        there, likely = (official.expand(each, known, numbers) for each in both)
        return official.judge(found, there, likely, safe, alike > way.threshold)
    trues, lures = (mended.expand(each, known, numbers) for each in both)
    return mended.judge(found, trues, lures, safe, alike, way.threshold)


def _check_known(described: Sequence[Prediction], listed: Sequence[Any], known: lists.Lists) -> None:
    """Refuse an object that the associations do not name: its words would be unknown."""
    for prediction, pair in zip(described, listed, strict=True):
        strange = [word for words in pair for word in words if word not in known.associations]
        if strange:
            raise DataError(
                "an object of a right answer is not in relation.json", where=f"sample {prediction.sample}",
                found=repr(strange[0]), expected="a key of relation.json",
                remedy="score with the word lists of the annotations",
            )  # fmt: skip


def _descriptions(described: Sequence[Prediction], judged: np.ndarray, way: _Way) -> list[Measure]:
    """CHAIR, Cover, Hal and Cog."""

    def percent(above: int, below: int) -> Callable[[np.ndarray], np.ndarray]:
        if way.exact:
            return lambda sums: share(sums[:, above], sums[:, below])
        return lambda sums: 100 * ratio(sums[:, above], sums[:, below])

    def hal(sums: np.ndarray) -> np.ndarray:
        return rounded(100 - (sums[:, ONE] - sums[:, SPOILT]) / (sums[:, ONE] + SEED) * 100)

    figures = {
        "chair": percent(WRONG, KEPT),
        "cover": percent(COVERED, THERE),
        "hal": hal if way.exact else percent(SPOILT, ONE),
        "cog": percent(HIT, LIKELY) if way.exact else percent(INVENTED, KEPT),
    }
    more = {
        "cog": "the likely hallucinations that are named"
        if way.exact
        else "nouns that name a likely hallucination"
    }
    return [
        _measure(
            name, tally(judged, formula), described, doc=DOCS[name] + more.get(name, ""),
            per_sample=100 * judged[:, SPOILT] if name == "hal" and not way.exact else None,
        )
        for name, formula in figures.items()
    ]  # fmt: skip


def _questions(asked: Sequence[tuple[Prediction, str]], counts: np.ndarray, way: _Way) -> list[Measure]:
    """Accuracy, precision, recall and F1, over all questions and for each category."""
    turns = [p for p, _ in asked]
    found = questions.statistics(counts, questions.masks(asked), way.exact)
    measures = [
        _measure(
            figure, found[""][figure], turns,
            parts={name: each[figure] for name, each in found.items() if name},
            per_sample=100 * counts[:, 0] if figure == "accuracy" and not way.exact else None,
        )
        for figure in questions.FIGURES
    ]  # fmt: skip
    if way.exact:
        return measures
    silent = 100 * questions.unread(asked)
    columns = np.stack([silent, np.ones(len(silent))], axis=1)
    mean = tally(columns, lambda sums: ratio(sums[:, 0], sums[:, 1]))
    return [*measures, _measure("unparsed", mean, turns, per_sample=silent)]


def _score(turns: Sequence[Prediction], judged: np.ndarray, counts: np.ndarray, exact: bool) -> Measure:
    """The AMBER score: (100 - CHAIR + F1) / 2; the paper defines it, the script does not print it."""
    width = counts.shape[1]
    table = np.zeros((len(turns), width + 2))
    table[: len(judged), width:] = judged[:, [WRONG, KEPT]]
    table[len(judged) :, :width] = counts
    order = sorted(range(len(turns)), key=lambda i: (turns[i].sample, turns[i].turn))
    f1 = (questions.exact_formulas if exact else questions.plain_formulas)("")["f1"]

    def formula(sums: np.ndarray) -> np.ndarray:
        wrong, kept = sums[:, width], sums[:, width + 1]
        chair = share(wrong, kept) if exact else 100 * ratio(wrong, kept)
        made = (100 - chair + f1(sums[:, :width])) / 2
        return rounded(made) if exact else made

    return _measure("score", tally(table[order], formula), [turns[i] for i in order])


def _measure(
    name: str,
    statistic: Statistic,
    turns: Sequence[Prediction],
    *,
    doc: str = "",
    parts: Mapping[str, Statistic] | None = None,
    per_sample: np.ndarray | None = None,
) -> Measure:
    """A measure of AMBER over turns."""
    return Measure(
        name=f"amber_{name}", statistic=statistic, keys=keys(turns), patients=patients(turns), per_sample=per_sample,
        parts=parts or {}, higher_is_better=name not in LOWER, unit=UNIT, doc=doc or DOCS[name],
    )  # fmt: skip


def answers(path: Path, options: Mapping[str, Any]) -> list[Prediction]:
    """AMBER's own files of answers: a JSON list of {id, response}."""
    return lists.read_answers(path, str(options["data"]))


METRIC = Metric(
    score=amber, version=1, paper="Wang et al. 2023, arXiv:2311.07397", answers=answers, sections=sections
)
