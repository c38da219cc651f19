"""Pairs of the best and the worst of several answers to one question, judged sentence by sentence.

The way of RLAIF-V (arXiv 2405.17220): an answer is divided into claims, a model is asked whether each holds, and the
answer's score is made of what it says to them. Here a claim is a sentence, the question is closed, and the score is
the mean over sentences of log p(yes) - log p(no).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean

from ..types import Message, Preference, Sample
from .pairs import turns
from .reliance import Made, Read

ASKED = "Does the image show: {}?"
TIE = 1e-6  # nats

Key = tuple[str, int]
Tried = Mapping[Key, Sequence[str]]
_END = re.compile(r"(?<=[.!?])\s+|\n+")


def claims(text: str) -> list[str]:
    """The sentences of an answer, each without the stop at its end."""
    said = (part.strip().rstrip(".!?").strip() for part in _END.split(text))
    return [part for part in said if part]


def questions(samples: Sequence[Sample], tried: Tried) -> list[Sample]:
    """One yes/no question for each different claim about each sample's images.

    Returns:
        samples named `SAMPLE/NUMBER`, numbers in the order of `claims_of`.
    """
    return [
        Sample(
            id=f"{sample.id}/{number}",
            patient=sample.patient,
            images=sample.images,
            messages=(
                Message(role="user", parts=(*range(len(sample.images)), ASKED.format(claim))),
                Message(role="assistant", parts=("Yes",)),
            ),
        )
        for sample in samples
        for number, claim in enumerate(claims_of(sample, tried))
    ]


def claims_of(sample: Sample, tried: Tried) -> list[str]:
    """The different claims of all answers tried for a sample, in their order."""
    places = range(len(turns(sample, ())))
    said = [answer for turn in places for answer in tried.get((sample.id, turn), ())]
    return list(dict.fromkeys(claim for answer in said for claim in claims(answer)))


def build(samples: Sequence[Sample], tried: Tried, leads: Mapping[str, float], read: Read) -> Made:
    """One pair for each turn whose best and worst answer are told apart.

    Args:
        samples: the samples, as they are.
        tried: (sample, turn) -> the answers that were drawn.
        leads: `SAMPLE/NUMBER` -> log p(yes) - log p(no) of that claim, in nats.
        read: what the model that answered reads of a sample.

    Returns:
        the pairs, with `turns` (compared), `made`, and what was left out: `same` (no two answers differ in score),
        `empty` (no answer says anything).
    """
    out = Made([])
    for sample in samples:
        known = {claim: leads[f"{sample.id}/{n}"] for n, claim in enumerate(claims_of(sample, tried))}
        for number, place in enumerate(turns(sample, ())):
            if (sample.id, number) not in tried:
                continue
            out.counts["turns"] += 1
            said = dict.fromkeys(a for a in tried[sample.id, number] if claims(a))
            scores = {answer: fmean(known[claim] for claim in claims(answer)) for answer in said}
            best, worst = _ends(scores)
            if len(scores) < 2 or scores[best] - scores[worst] <= TIE:
                out.counts["same" if scores else "empty"] += 1
                continue
            pair = Preference(
                id=f"{sample.id}/judged-{number}",
                patient=sample.patient,
                images=sample.images,
                prompt=read(sample).messages[:place],
                chosen=best,
                rejected=worst,
                why="judged",
            )
            out.pairs.append(pair)
    out.counts["made"] = len(out.pairs)
    return out


def _ends(scores: Mapping[str, float]) -> tuple[str, str]:
    """The answers with the highest and the lowest score; of equal ones the first in the alphabet."""
    ordered = sorted(scores, key=lambda answer: (-scores[answer], answer))
    return (ordered[0], ordered[-1]) if ordered else ("", "")
