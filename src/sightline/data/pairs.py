"""Samples to preference pairs: the same image with a wrong answer, or the same answer with a degraded image.

`wrong_finding` keeps the image and turns one answer wrong: a closed question's answer is flipped, an open one's is
another answer to a question of the same topic. `degraded` keeps the answer and spoils the rejected side's image,
so that only looking can tell the sides apart (MMed-RAG, arXiv 2410.13085; mDPO, arXiv 2406.11839).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .. import runs
from ..metrics.chinese import opposite
from ..types import Degrade, Message, Preference, Sample

Flip = Callable[[str], str | None]
Hardest = Mapping[str, int]


def turns(sample: Sample, topics: Sequence[str]) -> list[int]:
    """Positions of the assistant messages that a pair may be made of."""
    found = [i for i, m in enumerate(sample.messages) if m.role == "assistant"]
    return [i for i in found if not topics or sample.messages[i].topic in topics]


def draw(items: Sequence[int], *words: str) -> int:
    """One item, as a function of the words alone."""
    return items[int(runs.digest(*words)[:12], 16) % len(items)]


def flip(answer: str) -> str | None:
    """The opposite of a yes/no answer in the same spelling or in Chinese (是, 有); None for any other answer."""
    words = {"yes": "no", "no": "yes"}
    plain = answer.strip().rstrip(".。")
    if turned := opposite(plain):
        return answer.strip().replace(plain, turned, 1)
    other = words.get(plain.lower())
    if other is None:
        return None
    spelled = other.upper() if plain.isupper() else other.capitalize() if plain[0].isupper() else other
    return answer.strip().replace(plain, spelled, 1)


def wrong(samples: Sequence[Sample], seed: int, topics: Sequence[str], hardest: Hardest) -> list[Preference]:
    """One `wrong_finding` pair per sample, where a wrong answer can be had.

    Args:
        samples: where from.
        seed: decides which turn, and which wrong answer.
        topics: topics to use; all where empty.
        hardest: sample id -> position of the message to use, where a model has been asked.
    """
    pool: dict[str, list[str]] = {}
    for sample in samples:
        for i in turns(sample, topics):
            pool.setdefault(sample.messages[i].topic, []).append(sample.messages[i].text)
    out = []
    for sample in samples:
        usable = [i for i in turns(sample, topics) if sample.messages[i].topic != "report"]
        if not usable:
            continue
        place = hardest.get(sample.id, draw(usable, str(seed), "wrong", sample.id))
        right = sample.messages[place]
        others = sorted({a for a in pool[right.topic] if a != right.text})
        bad = flip(right.text)
        if bad is None and others:
            bad = others[int(runs.digest(str(seed), "answer", sample.id)[:12], 16) % len(others)]
        if bad is not None:
            out.append(_pair(sample, place, "wrong_finding", rejected=bad))
    return out


def degraded(samples: Sequence[Sample], seed: int, topics: Sequence[str], spec: Degrade) -> list[Preference]:
    """One `degraded` pair per sample: equal answers, of which the rejected one saw a spoiled image."""
    out = []
    for sample in samples:
        usable = turns(sample, topics)
        if usable:
            place = draw(usable, str(seed), "degraded", sample.id)
            out.append(_pair(sample, place, "degraded", spoiled=spec))
    return out


def _pair(
    sample: Sample, place: int, why: str, *, rejected: str = "", spoiled: Degrade | None = None
) -> Preference:
    """A pair on one answer of a sample; earlier answers stand in the prompt as they should be."""
    prompt: tuple[Message, ...] = sample.messages[:place]
    chosen = sample.messages[place].text
    return Preference(
        id=f"{sample.id}/{why}",
        patient=sample.patient,
        images=sample.images,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected or chosen,
        rejected_images=spoiled,
        why=why,
    )
