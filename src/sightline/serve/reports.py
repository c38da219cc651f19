"""Reports of similar images: shown beside an answer, and in its prompt where the model was taught to read them.

They come from an index of a run, which holds reports of the splits `train` and `valid` only. That is looked at again
here, before anything is served: a report of the test split beside an answer would make every later evaluation worth
nothing. Found with pixels in memory, by the code that `retrieve` and `ask` use, so with their numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ..data.prompts import REPORT, with_reports
from ..errors import DataError, ImageError, RunError
from ..metrics.answers import closed
from ..retrieval.found import Found, Similar, listed
from ..settings import Template
from ..types import ImageRef, Message, Sample
from .backend import Question, Refused

Kind = Literal["question", "report"]
HIDDEN = "test"
YES = "Yes, it is."  # an answer that makes a question closed only if it is asked like one


class Finder(Protocol):
    """What finds reports; `retrieval.shelf.Shelf` is one."""

    def find(self, sample: Sample, root: Path, held: Mapping[str, np.ndarray] | None = None) -> Found:
        """Reports for a sample, whose images are `held` in memory."""


def look_up(finder: Finder, question: Question) -> Found:
    """The reports for the images of a question; none for a question without.

    Raises:
        Refused: the encoder cannot read an image.
    """
    held = {str(i): picture.pixels for i, picture in enumerate(question.pictures)}
    try:
        found = finder.find(_sample(question, question.messages), Path(), held)
    except (DataError, ImageError) as error:
        raise Refused(400, "cannot_be_asked", error.what, field="messages") from None
    if any(report.split == HIDDEN for report in found.reports):
        raise RunError("a report of the test split was found", expected="reports of train and valid")
    return found


def shown(found: Found, read: bool) -> list[dict[str, Any]]:
    """What was found, for an answer: `in_prompt` says which reports the model read.

    Args:
        found: the most similar first.
        read: whether the model reads reports at all.
    """
    return [_plain(similar, read) for similar in listed(found)]


def written(question: Question, references: Sequence[str], template: Template, kind: Kind) -> Question:
    """A question as a model reads it that was taught with reports: in the template's words, in its first turn.

    Args:
        question: as it was asked.
        references: reports in the prompt; none is right too, and has words of its own.
        template: that the model was taught with.
        kind: what is asked for, where no answer tells it yet.
    """
    place = next(i for i, message in enumerate(question.messages) if message.role == "user")
    turn = question.messages[place]
    answer = Message(role="assistant", parts=(YES if closed(turn.text, YES) else "?",))
    if kind == "report":
        answer = Message(role="assistant", parts=("?",), topic=REPORT)
    sample = replace(_sample(question, (turn, answer)), references=tuple(references))
    first = with_reports(sample, template).messages[0]
    return replace(question, messages=(*question.messages[:place], first, *question.messages[place + 1 :]))


def _sample(question: Question, messages: tuple[Message, ...]) -> Sample:
    """A question as a sample; its patient is not known, so the first picture stands in, as in `ask`."""
    refs = tuple(
        ImageRef(path=str(i), sha256=picture.sha256, when=picture.when)
        for i, picture in enumerate(question.pictures)
    )
    patient = f"image:{refs[0].sha256}" if refs else question.name
    return Sample(id=question.name, patient=patient, images=refs, messages=messages)


def _plain(similar: Similar, read: bool) -> dict[str, Any]:
    return {
        "id": similar.id, "similarity": round(similar.similarity, 6), "text": similar.text,
        "behind": similar.behind, "in_prompt": read and similar.shown,
    }  # fmt: skip
