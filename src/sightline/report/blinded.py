"""Two models' answers as A and B, so that a person can judge them without knowing whose they are.

Which answer is A is decided by a digest of (seed, sample, turn), so a file of ratings can be un-blinded from the run
alone, and the page that is read need not say it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError
from ..metrics.answers import normalise
from ..runs import digest
from ..types import Prediction

MOST = 100
Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question with both answers.

    Args:
        sample, turn: what names the question.
        patient: whose image it is about.
        question, answer: the question and the right answer.
        before, after: what the two models said.
        after_first: whether the model after is A.
    """

    sample: str
    turn: int
    patient: str
    question: str
    answer: str
    before: str
    after: str
    after_first: bool

    @property
    def key(self) -> Key:
        """What names the question."""
        return self.sample, self.turn

    @property
    def texts(self) -> tuple[str, str]:
        """Answer A and answer B."""
        return (self.after, self.before) if self.after_first else (self.before, self.after)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a reader is asked, in the order of asking.

    Args:
        name: a digest of questions, answers and order; ratings carry it, so they cannot be scored with another run.
        items: the questions to which the two answers differ, or `MOST` of them that a digest chose.
        differ: how many there are.
        turns: how many questions both models answered.
    """

    name: str
    items: tuple[Item, ...]
    differ: int
    turns: int


def reading(
    before: Sequence[Prediction], after: Sequence[Prediction], *, seed: int, most: int = MOST
) -> Reading:
    """Choose, shuffle and blind.

    Questions to which both say the same are not asked: there is nothing to prefer. The choice among the others does not
    look at what is right, so the share of preferred answers is that of all questions where the models differ.

    Args:
        before: answers of one model.
        after: answers of another to the same questions.
        seed: of the run.
        most: how many questions are asked at most.

    Raises:
        DataError: the two models were not asked the same.
    """
    other = {(p.sample, p.turn): p for p in after}
    if set(other) != {(p.sample, p.turn) for p in before}:
        raise DataError(
            "two models that a reader is to compare were not asked the same",
            found=f"{len(before)} and {len(after)} answers",
            expected="answers of both to every question",
            remedy="evaluate both models on the same split in one stage",
        )
    items = []
    for one in before:
        two = other[one.sample, one.turn]
        if normalise(one.text) != normalise(two.text):
            coin = digest(str(seed), "blinded", one.sample, str(one.turn))
            items.append(
                Item(
                    sample=one.sample, turn=one.turn, patient=one.patient, question=one.question, answer=one.answer,
                    before=one.text, after=two.text, after_first=int(coin[-1], 16) % 2 == 1,
                )
            )  # fmt: skip
    items.sort(key=lambda item: digest(str(seed), "order", item.sample, str(item.turn)))
    chosen = tuple(items[:most])
    told = [part for i in chosen for part in (i.sample, str(i.turn), i.before, i.after)]
    name = digest(str(seed), *told)[:12]
    return Reading(name=name, items=chosen, differ=len(items), turns=len(before))
