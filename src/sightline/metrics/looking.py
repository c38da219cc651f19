"""Does an answer rest on the place where the finding is? What covering that place costs, beside covering another.

    looks_at_finding = log p(right answer | another box covered) - log p(right answer | the finding's box covered)

Both boxes have the same size and the same cover, so what a cover as such does to the answer cancels out, and what is
left is the finding. Asked are yes/no questions about findings that are there and whose box is known, each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .answers import closed
from .measure import Measure, average, check_same_turns, mean, only, rows

DOC = "mean log-probability of the right answer with a box elsewhere covered, minus that with the finding's box covered"
MASS = "attention_to_image"  # an attribute: share of the answer's attention that lies on the image


def looking(occluded: Sequence[Prediction], elsewhere: Sequence[Prediction]) -> list[Measure]:
    """How much a model's right answers depend on seeing the finding.

    Args:
        occluded: its answers with the finding's box covered.
        elsewhere: its answers to the same turns with another box covered.

    Returns:
        `looks_at_finding`, in nats: above 0 where the finding is what is looked at; parts are the topics. Nothing where
        no turn has choices.

    Raises:
        DataError: the two sets do not answer the same turns, or a log-probability is not a number.
    """
    turns, drops = dropped(occluded, elsewhere)
    if not turns:
        return []
    topics = sorted({p.topic for p in turns})
    places = {topic: [i for i, p in enumerate(turns) if p.topic == topic] for topic in topics}
    parts = {topic or "all": only(place, average(drops[place])) for topic, place in places.items()}
    return [mean("looks_at_finding", turns, drops, parts=parts, unit="nats", doc=DOC)]


def dropped(
    occluded: Sequence[Prediction], elsewhere: Sequence[Prediction]
) -> tuple[list[Prediction], np.ndarray]:
    """The turns with choices, of the first set, and by how much covering the finding lowers log p(right), [n] nats.

    Raises:
        DataError: as `looking`.
    """
    one, other = ([p for p in rows(each) if _gold(p) is not None] for each in (occluded, elsewhere))
    check_same_turns(one, other, "ask `occluded` and `occluded_elsewhere` in one evaluation")
    drops = [_right(there) - _right(here) for here, there in zip(one, other, strict=True)]
    return one, np.array(drops, dtype=float)


def masses(turns: Sequence[Prediction]) -> np.ndarray | None:
    """The share of attention on the image of each turn, [n]; None where it is not known of all."""
    told = [p.attributes.get(MASS, "") for p in turns]
    return np.array([float(each) for each in told]) if turns and all(told) else None


def _gold(turn: Prediction) -> str | None:
    """The right choice; None where the turn has no choices or the right answer is none of them."""
    answer = closed(turn.question, turn.answer)
    return answer if answer in turn.choices else None


def _right(turn: Prediction) -> float:
    """The log-probability of the right answer, nats.

    Raises:
        DataError: it is not finite.
    """
    found = turn.choices[_gold(turn) or ""]
    if not math.isfinite(found):
        raise DataError(
            "a log-probability is not finite", where=f"sample {turn.sample}, turn {turn.turn}, field choices",
            found=f"{found:g}", expected="finite log-probabilities in nats",
            remedy="compute log-softmax in float32 and check the model for non-finite weights",
        )  # fmt: skip
    return found
