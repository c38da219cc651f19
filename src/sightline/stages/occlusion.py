"""Images with the asked finding covered, and with as large a box elsewhere covered: what is asked, and what is seen.

A box belongs to one question, so each question with a box is asked by itself: as a sample of one turn, whose id is the
sample's and the turn's, and whose answer becomes that turn's again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .. import runs
from ..data.turns import exchanges
from ..errors import RunError
from ..images import regions
from ..images.regions import Box
from ..judging import ELSEWHERE, OCCLUDED
from ..metrics.answers import closed
from ..metrics.chinese import HAN
from ..types import Cover, Message, Prediction, Sample, View
from .answers import See

KIND = "occluded"  # the degradation that covers
MARK = "#"


def single(samples: Iterable[Sample], seed: int) -> list[Sample]:
    """One sample for each yes/no question whose finding has a box, with a place elsewhere for a box of its size.

    Raises:
        RunError: there is none.
    """
    found = []
    for sample in samples:
        for turn, (question, answer, topic) in enumerate(exchanges(sample)):
            asked = closed(question, answer) is not None and not HAN.search(answer)
            if asked and topic and f"{regions.ATTRIBUTE}{topic}" in sample.attributes:
                one = _alone(sample, turn, question, answer, topic)
                if boxes(one, seed)[1] is not None:
                    found.append(one)
    if not found:
        raise RunError(
            f"no question has a box to cover, so that `{OCCLUDED}` cannot be asked", where="images",
            expected=f"attributes such as {regions.ATTRIBUTE}nodule, named after the topics of yes/no questions",
            remedy="set `regions: true` on the reader `phantom`, give your samples such attributes, or leave it out",
        )  # fmt: skip
    return found


def _alone(sample: Sample, turn: int, question: str, answer: str, topic: str) -> Sample:
    """One turn of a conversation with all the images in front of it."""
    system = tuple(m for m in sample.messages if m.role == "system")
    asked = Message(role="user", parts=(*range(len(sample.images)), question))
    return replace(
        sample,
        id=f"{sample.id}{MARK}{turn}",
        messages=(*system, asked, Message(role="assistant", parts=(answer,), topic=topic)),
    )


def boxes(sample: Sample, seed: int) -> tuple[Box, Box | None]:
    """The finding's box of a sample of one turn, and the one elsewhere."""
    topic = sample.messages[-1].topic
    box = regions.read(sample.attributes[f"{regions.ATTRIBUTE}{topic}"], f"sample {sample.id}")
    drawn = int(runs.digest(str(seed), "elsewhere", sample.id)[:32], 16)
    return box, regions.elsewhere(box, np.random.default_rng(drawn))


def covered(image: str, seed: int) -> See:
    """How a sample of one turn is shown: a box of its first current image is covered, other images are as they are."""

    def see(sample: Sample, i: int) -> View:
        view = View(sample.images[i], sample.id)
        if i != next((j for j, ref in enumerate(sample.images) if ref.when == "current"), 0):
            return view
        own, other = boxes(sample, seed)
        box = own if image == OCCLUDED else other
        assert box is not None, "only questions with both boxes are asked"
        return replace(view, degrade=Cover(kind=KIND, box=box))

    return see


def named(image: str, samples: Sequence[Sample], seed: int) -> str:
    """What the answers to covered images depend on beside the samples' words and images: the boxes."""
    places = [runs.canonical(boxes(sample, seed)) for sample in samples]
    return f"{image} {runs.digest(*places)[:32]}"


def joined(made: Iterable[Prediction]) -> list[Prediction]:
    """Answers to samples of one turn as answers to turns of their samples."""
    out = []
    for each in made:
        sample, _, turn = each.sample.rpartition(MARK)
        out.append(replace(each, sample=sample, turn=int(turn)))
    return out


KINDS = (OCCLUDED, ELSEWHERE)
