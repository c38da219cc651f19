"""Servers for tests: a backend that says what it is told, and a real server on a free port in a thread of its own."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import uvicorn
from PIL import Image

from sightline import NOTICE
from sightline.serve import server
from sightline.serve.backend import Backend, End, Failed, Identity, Piece, Question, Token

TOKEN = "a-long-enough-token-for-tests"
WORDS = ("Small", " left", " effusion", ".")
CHAT = "/v1/chat/completions"
IDENTITY = Identity(name="tiny/taught", sha256="ab" * 32, facts={"family": "llava"})

LEAK = re.compile(
    r"0x[0-9a-f]{6,}|Traceback|File \"|/(?:tmp|root|home|usr|etc|proc|work|var)/|\.py\b|\b(?:\d{1,3}\.){3}\d{1,3}\b",
    re.IGNORECASE,
)
QUICK = 1.0  # seconds of computing, client's and server's, in which what is wrong must be refused


class Spoken:
    """An answer that comes word by word, each when `pace` lets it."""

    def __init__(self, backend: Parrot, question: Question) -> None:
        self.backend, self.question, self.gone = backend, question, False

    async def pieces(self) -> AsyncIterator[Piece | End]:
        backend, said = self.backend, 0
        for word in backend.words[: self.question.limit]:
            await asyncio.sleep(backend.pace)
            while backend.hold and not self.gone:
                await asyncio.sleep(0.005)
            if backend.fails:
                raise Failed("the answer could not be made")
            said += 1
            others = (("Large", -1.5),)[: self.question.top]
            yield Piece(word, (Token(word, -0.25, others),))
        reason = "stop" if said == len(backend.words) else "length"
        yield End(reason, 7, said, -0.25, backend.choices)  # type: ignore[arg-type]

    def cancel(self) -> None:
        self.gone = True
        self.backend.cancelled.append(self.question.name)


@dataclass
class Parrot:
    """A backend without a model. It keeps the questions, and how many of them ended early."""

    identity: Identity = IDENTITY
    words: Sequence[str] = WORDS
    slots: int = 2
    pace: float = 0.0
    hold: bool = False
    fails: bool = False
    choices: Mapping[str, float] = field(default_factory=dict)
    asked: list[Question] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    async def open(self) -> None:
        """Nothing to begin."""

    async def ask(self, question: Question) -> Spoken:
        self.asked.append(replace(question, pictures=question.pictures))
        return Spoken(self, question)

    def state(self) -> Mapping[str, float]:
        return {"rows": 0, "asked_total": len(self.asked)}

    async def close(self) -> None:
        """Nothing to end."""


@dataclass
class Log:
    """A stream that keeps what is written to it."""

    lines: list[str] = field(default_factory=list)

    def write(self, text: str) -> int:
        self.lines.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing waits."""


@dataclass
class Running:
    """A server that listens."""

    url: str
    backend: Any
    log: Log
    door: Any
    connections: set[Any]

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **more)


@contextmanager
def running(backend: Backend, **settings: Any) -> Iterator[Running]:
    """A server of this backend, on a free port of loopback."""
    more = {name: settings.pop(name, None) for name in ("held", "about", "trail", "beside")}
    log = Log()
    made = server.Settings(port=0, log=log, **settings)  # type: ignore[arg-type]
    app: Any = server.build(backend, made, **more)
    one = uvicorn.Server(server.configured(app, made))
    thread = threading.Thread(target=one.run, daemon=True)
    thread.start()
    until(lambda: one.started, 30)
    port = one.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(f"http://127.0.0.1:{port}", backend, log, app.door, one.server_state.connections)
    finally:
        one.should_exit = True
        thread.join(20)


def until(true: Any, seconds: float = 5.0) -> float:
    """Wait until something is true; how long it took. Fails after so many seconds."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "it never came true"
        time.sleep(0.005)
    return time.monotonic() - start


def png(width: int = 28, height: int = 28, seed: int = 0) -> bytes:
    """A random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def url(data: bytes, kind: str = "image/png") -> str:
    """A data URL."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def question(text: str = "Is there an effusion?", image: str | None = None, **more: Any) -> dict[str, Any]:
    """A request of the API, with one image unless told otherwise."""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": url(png()) if image is None else image}}
    ]
    parts.append({"type": "text", "text": text})
    return {"model": IDENTITY.name, "messages": [{"role": "user", "content": parts}], **more}


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """A refusal says why, says what the server is not for, and nothing about the machine."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["sightline"]["notice"] == NOTICE
    assert answer.headers["sightline-notice"] == NOTICE
    assert answer.headers["sightline-model"] == IDENTITY.sha256
    assert not LEAK.search(answer.text)
