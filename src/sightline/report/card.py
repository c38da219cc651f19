"""One case of the report: its picture and everything that was asked about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ImageError

KINDS = ("png", "jpeg", "webp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One case of the gallery.

    Args:
        sample: the sample's id.
        patient: its patient.
        picture: the clean image, as the bytes of a PNG, JPEG or WebP file.
        shown: degraded pictures that models saw, kind -> bytes.
        turns: dicts with `question`, `topic`, `answer` (the right one), `answers` {model: text},
            `right` {model: bool} and, optionally, `sample` and `turn` (what names the turn), `probability`
            {model: p(yes)}, `confidence` {model: probability of what it said}, `marks` {model: [(kind, topic), ...]}
            of `mistakes`, and `drop`: by how many nats the log-probability of the right answer fell with the last step.
        errors: wrong answers of the case; cases with more come first.
    """

    sample: str
    patient: str
    picture: bytes
    turns: Sequence[Mapping[str, Any]] = ()
    shown: Mapping[str, bytes] = field(default_factory=dict)
    errors: int = 0

    def __post_init__(self) -> None:
        for name, data in {"clean": self.picture, **self.shown}.items():
            if kind_of(data) is None:
                raise ImageError(
                    "a picture of the report's gallery is of no kind that browsers show",
                    where=f"case {self.sample}, image {name}",
                    found=repr(bytes(data[:8])),
                    expected=f"the bytes of a file of one of these kinds: {', '.join(KINDS)}",
                    remedy="encode the picture before it is given to the report",
                )


def kind_of(data: bytes) -> str | None:
    """What an image file is by its first bytes, or None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def states(turn: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """What a turn is to the filters: wrong at the end, fixed or broken by the last step."""
    right = turn.get("right", {})
    last = right.get(models[-1]) if models else None
    before = right.get(models[-2]) if len(models) > 1 else None
    found = ["errors"] if last is False else []
    if last is True and before is False:
        found.append("fixed")
    if last is False and before is True:
        found.append("broken")
    return found


def rank(turn: Mapping[str, Any], last: str) -> tuple[int, float]:
    """How bad a broken turn is, worst first: by what the right answer lost, else by how sure the wrong one is."""
    if turn.get("drop") is not None:
        return 0, -float(turn["drop"])
    sure = turn.get("confidence", {}).get(last)
    return (2, 0.0) if sure is None else (1, -float(sure))


def in_order(cards: Sequence[Card], models: Sequence[str]) -> list[Card]:
    """Cards with the worst broken turn first, then by errors, then as they came."""

    def worst(card: Card) -> tuple[int, float]:
        broken = [rank(t, models[-1]) for t in card.turns if "broken" in states(t, models)]
        return min(broken, default=(3, 0.0))

    return sorted(cards, key=lambda card: (worst(card), -card.errors))
