"""The backend that asks another server: vLLM, or any that speaks the same API. Its address is the operator's choice.

Images go out as new PNGs of what was decoded here, so nothing that a file carried beside its pixels leaves this server;
what the other server says in its errors does not come back.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import numpy as np
from PIL import Image

from ..errors import ModelError
from .backend import End, Failed, Identity, Picture, Piece, Question, Reason, Refused, Token

TOP = 20  # how many likely first tokens are asked for, to know yes from no
WAIT = httpx.Timeout(600.0, connect=5.0)
NOTHING, TOO_MUCH = "did not answer", "refused the question; it may be too long for the model"
WORDS = {"yes": ("yes",), "no": ("no",)}


class Remote:
    """Asks another server.

    Args:
        address: of its API, such as `http://127.0.0.1:9000/v1`.
        model: its name there.
        token: that it wants; "" for none.
        slots: how many questions it is asked at the same time.

    Raises:
        ModelError: the address is none.
    """

    def __init__(self, address: str, model: str, token: str, slots: int) -> None:
        if not address.startswith(("http://", "https://")):
            raise ModelError(
                "the other server's address is no URL", found=address, expected="http://HOST:PORT/v1"
            )
        self.model, self.more = model, dict[str, Any]()
        self.identity = Identity(name=model, facts={"backend": "remote"})
        self.slots = slots
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.address, self.headers = address.rstrip("/"), headers
        self.asked = self.failures = 0

    async def open(self) -> None:
        """Open connections; proxies of the environment are passed by, and no redirect is followed."""
        self.client = httpx.AsyncClient(
            base_url=self.address, headers=self.headers, timeout=WAIT, trust_env=False, follow_redirects=False
        )  # fmt: skip
        self.free = asyncio.Semaphore(self.slots)

    async def ask(self, question: Question) -> Errand:
        """Write the question down; it is sent when its pieces are asked for.

        Raises:
            Refused: the other server knows nothing of earlier images.
        """
        if any(picture.when == "prior" for picture in question.pictures):
            raise Refused(400, "prior", "this backend takes current images only", field="messages")
        self.asked += 1
        body = await asyncio.to_thread(_body, question, self.model)
        return Errand(self, {**body, **self.more}, question.top)

    def state(self) -> Mapping[str, float]:
        """Questions that were sent, and those that failed."""
        return {"remote_asked_total": self.asked, "remote_failures_total": self.failures}

    async def close(self) -> None:
        """Close the connections."""
        await self.client.aclose()


class Errand:
    """One question to the other server.

    Args:
        remote: where it is asked.
        body: what is sent.
        top: how many likely tokens are told beside each one; more are asked for, to know yes from no.
    """

    def __init__(self, remote: Remote, body: Mapping[str, Any], top: int) -> None:
        self.remote, self.body, self.top = remote, body, top

    async def pieces(self) -> AsyncIterator[Piece | End]:
        """The answer as it comes; leaving the loop closes the connection, and so tells the other server."""
        try:
            async with (
                self.remote.free,
                self.remote.client.stream("POST", "/chat/completions", json=dict(self.body)) as answer,
            ):
                if answer.status_code != 200:
                    refused = answer.status_code == 400
                    self.remote.failures += not refused
                    raise Failed(f"the other server {TOO_MUCH if refused else NOTHING}")
                async for told in _read(answer, self.top):
                    yield told
        except (httpx.HTTPError, ValueError, KeyError, TypeError, IndexError):
            self.remote.failures += 1
            raise Failed("the other server could not be asked") from None

    def cancel(self) -> None:
        """Nothing to do: whoever waited has left the loop above."""


async def _read(answer: httpx.Response, top: int) -> AsyncIterator[Piece | End]:
    """Events to pieces with so many likely tokens beside each; the usage and the reason come last."""
    reason: Reason = "stop"
    usage: Mapping[str, Any] = {}
    sums, count = 0.0, 0
    choices: dict[str, float] = {}
    async for line in answer.aiter_lines():
        name, _, data = line.partition(":")
        if name != "data" or data.strip() == "[DONE]":
            continue
        event = json.loads(data)
        usage = event.get("usage") or usage
        for choice in event["choices"]:
            reason = "length" if choice.get("finish_reason") == "length" else reason
            content = (choice.get("logprobs") or {}).get("content") or []
            tokens = tuple(_token(t, top) for t in content)
            if tokens and not count:
                choices = _choices(content[0])
            sums, count = sums + sum(t.logp for t in tokens), count + len(tokens)
            text = choice.get("delta", {}).get("content") or ""
            if text or tokens:
                yield Piece(text, tokens)
    mean = sums / count if count else None
    yield End(reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", count), mean, choices)


def _token(told: Mapping[str, Any], top: int) -> Token:
    others = tuple((t["token"], float(t["logprob"])) for t in told.get("top_logprobs") or [])
    return Token(told["token"], float(told["logprob"]), others[:top])


def _choices(first: Mapping[str, Any]) -> dict[str, float]:
    """Log-probabilities of yes and no, where the answer begins with one and both are among its likeliest."""
    found: dict[str, list[float]] = {word: [] for word in WORDS}
    known = {t["token"]: float(t["logprob"]) for t in [*(first.get("top_logprobs") or []), first]}
    for token, logp in known.items():
        for word, forms in WORDS.items():
            if token.strip().lower() in forms:
                found[word].append(logp)
    if first["token"].strip().lower() not in WORDS or not all(found.values()):
        return {}
    return {word: float(np.logaddexp.reduce(logps)) for word, logps in found.items()}


def _body(question: Question, model: str) -> dict[str, Any]:
    """A question as the other server reads it."""
    messages = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else _image(question.pictures[part], question)
                for part in message.parts
            ],
        }
        for message in question.messages
    ]
    return {
        "model": model, "messages": messages, "max_tokens": question.limit, "temperature": question.temperature,
        "seed": question.seed, "logprobs": True, "top_logprobs": TOP, "stream": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip


def _image(picture: Picture, question: Question) -> dict[str, Any]:
    """An image as a part of a message; a black one of its size where it is not to be seen."""
    values = np.round(picture.pixels * 255).astype(np.uint8)
    if question.sight == "black":
        values = np.zeros_like(values)
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": address}}
