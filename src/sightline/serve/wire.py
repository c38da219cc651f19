"""What stands on the wire: requests of `/v1/chat/completions` as OpenAI's clients write them, and what is answered.

Fields that would change an answer and are not known here are refused by name rather than passed over in silence.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..types import Message
from .backend import End, Identity, Picture, Piece, Question, Refused, Token
from .limits import Limits
from .pictures import read

SEEDS = 2**31
COLDEST = 1e-3  # below it the likeliest token is taken: division would leave no numbers
When = Literal["current", "prior"]


class Section(BaseModel):
    """Part of a request: unknown fields are refused, and so are numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Address(Section):
    """Where an image is: in the request itself."""

    url: str = Field(description="data:image/png;base64,... or data:image/jpeg;base64,...")
    detail: Literal["auto", "low", "high"] = Field(default="auto", description="taken, and without effect")


class ImagePart(Section):
    """An image of a user's message."""

    type: Literal["image_url"]
    image_url: Address
    when: When = Field(default="current", description="`prior`: of an earlier study of the same patient")


class TextPart(Section):
    """A text of a message."""

    type: Literal["text"]
    text: str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Turn(Section):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: str | list[Part]
    name: str | None = Field(default=None, description="taken, and without effect")


class StreamOptions(Section):
    """What a stream holds."""

    include_usage: bool = False


class Own(Section):
    """What Sightline offers beyond the protocol."""

    image: Literal["clean", "black"] = Field(
        default="clean", description="`black`: what would be answered if the image could not be seen"
    )
    reports: bool | None = Field(
        default=None, description="whether similar reports are found; by default if the server has any"
    )
    kind: Literal["question", "report"] = Field(
        default="question", description="`report`: asks for a report; matters only to a prompt with reports"
    )


class Ask(Section):
    """A request for an answer."""

    model: str
    messages: list[Turn] = Field(min_length=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(
        default=None, ge=0.0, le=2.0, description="0 takes the likeliest token; unless said, the server's own"
    )
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool = False
    stream_options: StreamOptions | None = None
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    n: Literal[1] = 1
    top_p: float = Field(default=1.0, ge=1.0, le=1.0)
    user: str | None = Field(default=None, description="taken, and without effect; never noted anywhere")
    sightline: Own = Own()


def question(ask: Ask, name: str, limits: Limits) -> Question:
    """A request as a question: its images decoded, its limits checked.

    Args:
        ask: the request.
        name: of the request.
        limits: of the server.

    Raises:
        Refused: roles out of order, too much text, too many images, or an image that cannot be used.
    """
    _check_roles(ask.messages, limits)
    _check_amount(ask.messages, limits)
    pictures: list[Picture] = []
    messages: list[Message] = []
    for turn in ask.messages:
        parts: list[str | int] = []
        for part in [turn.content] if isinstance(turn.content, str) else turn.content:
            if isinstance(part, ImagePart):
                parts.append(len(pictures))
                pictures.append(read(part.image_url.url, part.when, limits))
            else:
                parts.append(part if isinstance(part, str) else part.text)
        messages.append(Message(role=turn.role, parts=tuple(parts)))
    wanted = ask.max_completion_tokens or ask.max_tokens or limits.usual
    seed = secrets.randbelow(SEEDS) if ask.seed is None else ask.seed
    warm = limits.temperature if ask.temperature is None else ask.temperature
    return Question(
        name=name,
        messages=tuple(messages),
        pictures=tuple(pictures),
        limit=min(wanted, limits.answer),
        temperature=warm if warm >= COLDEST else 0.0,
        seed=seed,
        top=ask.top_logprobs if ask.logprobs else 0,
        sight=ask.sightline.image,
    )


def _check_roles(turns: Sequence[Turn], limits: Limits) -> None:
    """A system text perhaps, then user and assistant in turn, and a user last; images in users' turns only."""
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[0] == "system" else roles
    if spoken != [("user", "assistant")[i % 2] for i in range(len(spoken))] or len(spoken) % 2 == 0:
        what = "messages are a system text or none, then user and assistant in turn, and the user's last"
        raise Refused(400, "roles", what, field="messages")
    if len(turns) > limits.messages:
        raise Refused(
            400, "too_many_messages", f"at most {limits.messages} messages are taken", field="messages"
        )
    lists = [t.content for t in turns if t.role != "user" and not isinstance(t.content, str)]
    if any(isinstance(part, ImagePart) for parts in lists for part in parts):
        raise Refused(400, "roles", "images stand in a user's messages only", field="messages")


def _check_amount(turns: Sequence[Turn], limits: Limits) -> None:
    """Refuse too much text and too many images, and a question without a word."""
    parts = [p for t in turns for p in ([t.content] if isinstance(t.content, str) else t.content)]
    texts = [p if isinstance(p, str) else p.text for p in parts if not isinstance(p, ImagePart)]
    if sum(map(len, texts)) > limits.characters:
        what = f"the texts have {sum(map(len, texts))} characters, and at most {limits.characters} are taken"
        raise Refused(400, "too_much_text", what, field="messages")
    if len(parts) - len(texts) > limits.images:
        raise Refused(400, "too_many_images", f"at most {limits.images} images are taken", field="messages")
    last = turns[-1].content
    said = last if isinstance(last, str) else "".join(p.text for p in last if isinstance(p, TextPart))
    if not said.strip():
        raise Refused(400, "empty", "the last message asks nothing", field="messages")


class Reply:
    """Answers as the protocol writes them.

    Args:
        ask: the request.
        question: what was made of it.
        identity: what answers.
        created: seconds since 1970.
    """

    def __init__(self, ask: Ask, question: Question, identity: Identity, created: int) -> None:
        self.ask, self.question = ask, question
        self.head = {
            "id": f"chatcmpl-{question.name}", "created": created, "model": identity.name,
            "system_fingerprint": identity.sha256[:16] or None,
        }  # fmt: skip

    def chunk(self, piece: Piece, first: bool) -> dict[str, Any]:
        """One event of a stream."""
        delta = {"role": "assistant", "content": piece.text} if first else {"content": piece.text}
        logprobs = self._logprobs(piece.tokens) if self.ask.logprobs else None
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": None}
        return {**self.head, "object": "chat.completion.chunk", "choices": [choice]}

    def last(self, end: End, own: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The events that end a stream: why it ended, with what Sightline knows, and the usage where it was asked."""
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": end.reason}
        kind = {"object": "chat.completion.chunk"}
        events = [{**self.head, **kind, "choices": [choice], "sightline": dict(own)}]
        if self.ask.stream_options and self.ask.stream_options.include_usage:
            events.append({**self.head, **kind, "choices": [], "usage": _usage(end)})
        return events

    def whole(self, pieces: Sequence[Piece], end: End, own: Mapping[str, Any]) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": "".join(p.text for p in pieces), "refusal": None}
        tokens = [t for p in pieces for t in p.tokens]
        logprobs = self._logprobs(tokens) if self.ask.logprobs else None
        choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": end.reason}
        return {
            **self.head, "object": "chat.completion", "choices": [choice], "usage": _usage(end),
            "sightline": dict(own),
        }  # fmt: skip

    def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any]:
        content = [
            {**_token(t.text, t.logp), "top_logprobs": [_token(text, p) for text, p in t.others]}
            for t in tokens
        ]
        return {"content": content, "refusal": None}


def _token(text: str, logp: float) -> dict[str, Any]:
    return {"token": text, "logprob": max(logp, -9999.0), "bytes": list(text.encode())}


def _usage(end: End) -> dict[str, int]:
    return {
        "prompt_tokens": end.prompt, "completion_tokens": end.answer, "total_tokens": end.prompt + end.answer
    }  # fmt: skip
