"""What a backend must do: take a question with its images, give the answer piece by piece, and stop when told.

A backend knows nothing of HTTP, tokens or logs; the server knows nothing of how an answer is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import SightlineError
from ..types import Message

Sight = Literal["clean", "black"]
Reason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One image of a question.

    Args:
        pixels: [H, W, 3] floats in [0, 1].
        sha256: of the bytes that were sent.
        when: `current` or `prior`.
    """

    pixels: np.ndarray
    sha256: str
    when: str = "current"


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What is asked, whoever answers.

    Args:
        name: of the request; it stands in logs.
        messages: the conversation, a user's turn last; an image is its number among `pictures`.
        pictures: in the order in which they are shown.
        limit: most tokens of the answer.
        temperature: 0 takes the likeliest token.
        seed: decides what is drawn at other temperatures.
        top: how many likelier tokens are told beside each one.
        sight: `black` shows black images of the same size in place of the real ones.
    """

    name: str
    messages: tuple[Message, ...]
    pictures: tuple[Picture, ...] = ()
    limit: int = 256
    temperature: float = 0.0
    seed: int = 0
    top: int = 0
    sight: Sight = "clean"


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer: its text, its log-probability at temperature 1, and the likeliest ones in its place."""

    text: str
    logp: float
    others: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """What was said since the last piece. `text` is whole characters; it may be empty while one is being spelt."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """How an answer ended.

    Args:
        reason: `stop` where the model ended it, `length` where the limit did.
        prompt, answer: tokens of both; images' tokens among the prompt's, the end token not among the answer's.
        logp: mean log-probability of its tokens, the end token included; None where it is not known.
        choices: log-probabilities of yes and of no where the answer begins, if it begins with one of them.
    """

    reason: Reason
    prompt: int
    answer: int
    logp: float | None = None
    choices: Mapping[str, float] = field(default_factory=dict)


class Ticket(Protocol):
    """An answer in the making."""

    def pieces(self) -> AsyncIterator[Piece | End]:
        """Its pieces, and an `End` last.

        Raises:
            Failed: it cannot be made.
        """

    def cancel(self) -> None:
        """Nobody waits for it any more; may be called at any time, and more than once."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What answers.

    Args:
        name: under which it is asked.
        sha256: of the model's files, every saved model of its line; "" where the backend cannot know.
        facts: what else is worth telling, without places of this machine.
    """

    name: str
    sha256: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Whoever answers."""

    identity: Identity

    @property
    def slots(self) -> int:
        """How many answers are made at the same time."""

    async def open(self) -> None:
        """Begin; called once, in the loop that will ask."""

    async def ask(self, question: Question) -> Ticket:
        """Take a question.

        Raises:
            Refused: it cannot be answered as it is asked.
            Failed: the backend is not there.
        """

    def state(self) -> Mapping[str, float]:
        """Figures for `/metrics`, by name."""

    async def close(self) -> None:
        """End; what is still being answered fails."""


class Refused(SightlineError):
    """A request that cannot be served as it is. `what` is shown to whoever asked, so it names no place or address.

    Args:
        status: the HTTP status.
        code: a short name of the reason.
        what: one sentence.
        field: the part of the request that is meant.
        after: seconds after which it may be tried again.
    """

    code = "refused"

    def __init__(self, status: int, code: str, what: str, *, field: str = "", after: int = 0) -> None:
        super().__init__(what)
        self.status, self.reason, self.field, self.after = status, code, field, after


class Failed(SightlineError):
    """An answer that could not be made through no fault of whoever asked."""

    code = "failed"
