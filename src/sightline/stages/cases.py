"""Answers as cases: one picture with all that was asked about it, who was right, and how wrong an error is."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import images
from ..judging import Side
from ..metrics.answers import closed, normalise, yes_no
from ..metrics.findings import findings
from ..report import Card
from ..report.mistakes import REPORTED
from ..types import Prediction, Sample

MOST = 500
BUDGET = 9_000_000
"""Bytes of all pictures together; the page is a third larger than its pictures, and is to stay below 20 MB."""
FORMS = ((512, 82), (384, 78), (320, 70), (224, 60), (160, 50))
"""Longer edge in pixels and WebP quality, the best first; the first that keeps to the budget is taken."""
TINY = 1e-12
Made = Mapping[Side, Sequence[Prediction]]
Clean = Mapping[str, Mapping[str, Sequence[Prediction]]]


def clean_answers(made: Made) -> dict[str, dict[str, list[Prediction]]]:
    """Answers to clean images by model and sample, models in the order of the recipe."""
    found: dict[str, dict[str, list[Prediction]]] = {}
    for (model, image), each in made.items():
        for prediction in each if image == "clean" else ():
            found.setdefault(model, {}).setdefault(prediction.sample, []).append(prediction)
    return found


def gallery(
    samples: Sequence[Sample], root: Path, made: Made, *, keep: Iterable[str] = (), most: int = MOST
) -> tuple[list[Card], int]:
    """Cases with the answers of all models to clean images side by side. Samples with the same picture are one case.

    Args:
        samples: what was asked.
        root: their data root.
        made: all answers.
        keep: samples whose cases must be there.
        most: how many cases at most: those to keep, then those that the last step broke, then those with most errors.

    Returns:
        The cases, in the order of their samples' ids, and how many there are in all.
    """
    clean = clean_answers(made)
    if not clean:
        return [], 0
    cases: dict[str, list[Sample]] = {}
    for sample in samples:
        cases.setdefault(sample.images[0].sha256 or sample.id, []).append(sample)
    kept, models = set(keep), list(clean)
    turns = {key: [t for s in case for t in _turns(s, clean)] for key, case in cases.items()}
    wrong = {key: sum(not t["right"][models[-1]] for t in each) for key, each in turns.items()}
    broken = {key: sum(is_broken(t, models) for t in each) for key, each in turns.items()}

    def order(key: str) -> tuple[bool, int, int, str]:
        wanted = any(s.id in kept for s in cases[key])
        return not wanted, -broken[key], -wrong[key], cases[key][0].id

    chosen = sorted(sorted(cases, key=order)[:most], key=lambda key: cases[key][0].id)
    pictures = thumbnails(root, [cases[key][0] for key in chosen])
    made_cards = [
        _card(cases[key], picture, turns[key], wrong[key])
        for key, picture in zip(chosen, pictures, strict=True)
    ]
    return made_cards, len(cases)


def counts(made: Made) -> dict[str, dict[str, dict[str, int]]]:
    """Model -> topic -> kind -> turns: all clean answers by what they are, see `marks`."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for model, samples in clean_answers(made).items():
        tally: dict[str, Counter[str]] = {}
        for prediction in (p for each in samples.values() for p in each):
            for kind, topic in marks(prediction):
                tally.setdefault(topic, Counter())[kind] += 1
        found[model] = {topic: dict(each) for topic, each in sorted(tally.items())}
    return found


def changes(made: Made) -> dict[str, int]:
    """How many clean answers there are, and how many the last step fixed and broke; empty for one model."""
    clean = clean_answers(made)
    if len(clean) < 2:
        return {}
    before, after = list(clean)[-2:]
    pairs = [
        (is_right(one), is_right(two))
        for sample, each in clean[before].items()
        for one, two in zip(each, clean[after][sample], strict=True)
    ]
    fixed, broke = (pairs.count(pair) for pair in ((False, True), (True, False)))
    return {"turns": len(pairs), "fixed": fixed, "broke": broke}


def marks(prediction: Prediction) -> list[tuple[str, str]]:
    """What an answer is, as (kind, topic).

    Yes/no: `tp`, `fp`, `tn`, `fn`, or `un` for neither yes nor no. Open: `ok` or `no`. A report: the same as yes/no for
    every finding of the lexicon, under topics that begin with `report:`.
    """
    topic = topic_of(prediction)
    if prediction.topic == "report":
        said, true = findings(prediction.text), findings(prediction.answer)
        return [(_kind(said[name] == 1, true[name] == 1), REPORTED + name) for name in true]
    gold = closed(prediction.question, prediction.answer)
    if gold is None:
        return [("ok" if is_right(prediction) else "no", topic)]
    answer = yes_no(prediction.text)
    return [("un" if answer is None else _kind(answer == "yes", gold == "yes"), topic)]


def is_right(prediction: Prediction) -> bool:
    """Whether an answer counts as right in the gallery: same yes/no, same findings in a report, same words."""
    if prediction.topic == "report":
        return findings(prediction.text) == findings(prediction.answer)
    gold = closed(prediction.question, prediction.answer)
    if gold is not None:
        return yes_no(prediction.text) == gold
    return normalise(prediction.text) == normalise(prediction.answer)


def is_broken(turn: Mapping[str, Any], models: Sequence[str]) -> bool:
    """Whether the last step made a right answer wrong."""
    return len(models) > 1 and turn["right"][models[-2]] and not turn["right"][models[-1]]


def topic_of(prediction: Prediction) -> str:
    """What a turn is about, or its number."""
    return prediction.topic or f"turn {prediction.turn + 1}"


def thumbnails(root: Path, samples: Sequence[Sample]) -> list[bytes]:
    """The first picture of each sample as WebP bytes, as large as the budget for all of them allows."""
    made: list[bytes] = []
    for edge, quality in FORMS:
        made, spent = [], 0
        for sample in samples:
            pixels = images.picture(root, sample.images[0], record=sample.id)
            made.append(thumbnail(pixels, edge, quality))
            spent += len(made[-1])
            if spent > BUDGET and edge != FORMS[-1][0]:
                break  # the next form, for all
        else:
            break
    return made


def thumbnail(pixels: np.ndarray, edge: int = FORMS[0][0], quality: int = FORMS[0][1]) -> bytes:
    """Pixels [H, W, 3] in [0, 1] as WebP bytes, of at most so many pixels on the longer edge; grey stays grey."""
    picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
    if np.ptp(pixels, axis=2).max() == 0:
        picture = picture.convert("L")
    picture.thumbnail((edge, edge))
    stream = io.BytesIO()
    picture.save(stream, format="WEBP", quality=quality, method=4)
    return stream.getvalue()


def _card(case: Sequence[Sample], picture: bytes, turns: Sequence[Mapping[str, Any]], wrong: int) -> Card:
    """One picture with everything asked about it."""
    first = case[0]
    return Card(
        sample=first.id if len(case) == 1 else f"{_called(first.patient)} {first.study}".strip()[:40],
        patient=_called(first.patient),
        picture=picture,
        turns=turns,
        errors=wrong,
    )


def _called(patient: str) -> str:
    """A patient's name, short; one that stands for an image's hash by its first digits."""
    return patient[:14] if patient.startswith("image:") else patient[:24]


def _turns(sample: Sample, clean: Clean) -> list[dict[str, Any]]:
    """Every question of a sample with every model's answer."""
    count = len(next(iter(clean.values()))[sample.id])
    return [_turn({model: rows[sample.id][turn] for model, rows in clean.items()}) for turn in range(count)]


def _turn(sides: Mapping[str, Prediction]) -> dict[str, Any]:
    """One question with every model's answer."""
    first = next(iter(sides.values()))
    shown: dict[str, Any] = {
        "sample": first.sample, "turn": first.turn, "question": first.question, "topic": topic_of(first),
        "answer": first.answer, "answers": {m: p.text for m, p in sides.items()},
        "right": {m: is_right(p) for m, p in sides.items()}, "marks": {m: marks(p) for m, p in sides.items()},
    }  # fmt: skip
    sure = {m: confidence(p) for m, p in sides.items()}
    shown["confidence"] = {m: value for m, value in sure.items() if value is not None}
    if all({"yes", "no"} <= set(p.choices) for p in sides.values()):
        shown["probability"] = {m: share_of("yes", p) for m, p in sides.items()}
        gold = closed(first.question, first.answer)
        if gold is not None and len(sides) > 1:
            before, after = list(sides.values())[-2:]
            shown["drop"] = log(max(share_of(gold, before), TINY)) - log(max(share_of(gold, after), TINY))
    return shown


def share_of(choice: str, prediction: Prediction) -> float:
    """The probability of one choice among the choices of a turn."""
    own = prediction.choices[choice]
    return 1 / sum(exp(min(other - own, 700.0)) for other in prediction.choices.values())


def confidence(prediction: Prediction) -> float | None:
    """How sure a model is of what it said: its share among the choices, or the mean probability of its tokens."""
    if prediction.choices:
        return max(share_of(choice, prediction) for choice in prediction.choices)
    return None if prediction.logp is None else exp(prediction.logp)


def _kind(said: bool, true: bool) -> str:
    return ("t" if said == true else "f") + ("p" if said else "n")
