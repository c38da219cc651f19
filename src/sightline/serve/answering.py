"""From a request to an answer: through the door, to the backend, told piece by piece, and out again for sure."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from .backend import Backend, End, Failed, Piece, Question, Refused, Ticket
from .door import Door
from .gate import about, problem
from .limits import Limits
from .meter import Meter
from .sure import Held, judged
from .trail import Trail
from .wire import Ask, Reply, question

GONE = 499  # as nginx counts those who left before their answer


@dataclass(kw_only=True)
class Counter:
    """Takes requests for answers.

    Args:
        backend: whoever answers.
        limits: of requests.
        door: counts who is inside.
        meter: counts those who left.
        held: the threshold of confidence, if there is one.
        trail: the audit log, if there is one.
    """

    backend: Backend
    limits: Limits
    door: Door
    meter: Meter
    held: Held | None = None
    trail: Trail | None = None
    decoding: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, ask: Ask, request: Request) -> Response:
        """Answer a request, in one piece or as a stream.

        Raises:
            Refused: it cannot be answered, or not now.
        """
        if ask.model != self.backend.identity.name:
            raise Refused(
                404, "model_not_found", "this server answers under another model's name", field="model"
            )
        visit = Visit(self, ask, request.state.name, request.scope["state"])
        self.door.enter(visit.name)
        try:
            await visit.begin()
        except BaseException:
            visit.leave("refused")
            raise
        if ask.stream:
            return Stream(visit)
        return await _unless_gone(visit.whole(), request.receive, visit)


class Visit:
    """One request on its way.

    Args:
        counter: where it was taken.
        ask: what it says.
        name: of the request.
        state: of its scope; `told` in it goes to the request log.
    """

    def __init__(self, counter: Counter, ask: Ask, name: str, state: dict[str, Any]) -> None:
        self.counter, self.ask, self.name, self.state = counter, ask, name, state
        self.ticket: Ticket | None = None
        self.said: list[Piece] = []
        self.end: End | None = None
        self.left = False

    async def begin(self) -> None:
        """Decode the images, one request at a time, and hand the question to the backend."""
        counter = self.counter
        async with counter.decoding:
            asked = await asyncio.to_thread(question, self.ask, self.name, counter.limits)
            self.images = [picture.sha256 for picture in asked.pictures]
            self.ticket = await counter.backend.ask(asked)
        self.question: Question = replace(asked, pictures=())  # pixels are large, and no longer needed
        self.reply = Reply(self.ask, self.question, counter.backend.identity, int(time.time()))

    async def pieces(self) -> AsyncIterator[Piece]:
        """The answer's pieces; `end` is known behind the last one."""
        assert self.ticket is not None, "a visit that began has a ticket"
        async for told in self.ticket.pieces():
            if isinstance(told, End):
                self.end = told
            else:
                self.said.append(told)
                yield told

    async def whole(self) -> Response:
        """The answer in one piece."""
        try:
            async for _ in self.pieces():
                pass
        except Failed as error:
            raise Refused(502, "failed", error.what) from None
        assert self.end is not None, "an answer that did not fail has an end"
        return JSONResponse(self.reply.whole(self.said, self.end, self.own(self.end)))

    def own(self, end: End) -> dict[str, Any]:
        """What Sightline says of an answer: notice, model, how sure it is, and what it was shown."""
        held = (
            self.counter.held if self.question.sight == "clean" and self.question.temperature == 0 else None
        )
        return {
            **about(self.counter.backend.identity), "sure": judged(end, held), "choices": dict(end.choices),
            "image": self.question.sight, "seed": self.question.seed, "temperature": self.question.temperature,
        }  # fmt: skip

    def leave(self, how: str) -> None:
        """Free the place and note what happened; only the first call counts."""
        if self.left:
            return
        self.left = True
        if self.ticket is not None:
            self.ticket.cancel()
        self.counter.door.leave(self.name)
        self.counter.meter.cancelled += how == "cancelled"
        images = len(getattr(self, "images", []))
        tokens = {"prompt": self.end.prompt, "answer": self.end.answer} if self.end else {}
        self.state["told"] = {"ended": how, "images": images, "stream": self.ask.stream, **tokens}
        if self.counter.trail is not None and self.ticket is not None:
            self.counter.trail.add(how, **self._noted(self.counter.trail))

    def _noted(self, trail: Trail) -> dict[str, Any]:
        """A visit as it stands in the audit log: texts and images as salted hashes."""
        last = "".join(p for p in self.question.messages[-1].parts if isinstance(p, str))
        return {
            "request": self.name, "model": self.counter.backend.identity.sha256,
            "images": [trail.salted(sha256) for sha256 in self.images], "shown": self.question.sight,
            "question": trail.salted(last), "answer": trail.salted("".join(p.text for p in self.said)),
            "temperature": self.question.temperature, "seed": self.question.seed, "limit": self.question.limit,
        }  # fmt: skip


class Stream(Response):
    """An answer as server-sent events; whoever leaves is noticed at once, and the place is always freed."""

    media_type = "text/event-stream"

    def __init__(self, visit: Visit) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self.visit = visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer until it ends or nobody listens."""
        await _unless_gone(self._write(send), receive, self.visit)

    async def _write(self, send: Send) -> Response:
        headers = [(k, v) for k, v in self.raw_headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        visit, first = self.visit, True
        try:
            async for piece in visit.pieces():
                if piece.text or piece.tokens or first:
                    await _event(send, visit.reply.chunk(piece, first))
                    first = False
            assert visit.end is not None, "an answer that did not fail has an end"
            for event in visit.reply.last(visit.end, visit.own(visit.end)):
                await _event(send, event)
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})
        except Failed as error:
            body = problem(Refused(502, "failed", error.what), visit.counter.backend.identity)
            await send({"type": "http.response.body", "body": b"data: " + body + b"\n\n", "more_body": False})
        return self


async def _event(send: Send, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})


async def _unless_gone(
    work: Any, receive: Receive, visit: Visit, left: Callable[[Receive], Any] | None = None
) -> Response:
    """Do the work unless whoever asked goes away first; in any case the visit's place is free afterwards."""
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future((left or _left)(receive))
    how = "cancelled"
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return Response(status_code=GONE)
        how = "failed"
        made: Response = doing.result()
        how = "answered" if visit.end is not None else "failed"
        return made
    finally:
        doing.cancel()
        watching.cancel()
        await asyncio.gather(doing, watching, return_exceptions=True)
        visit.leave(how)


async def _left(receive: Receive) -> None:
    """Wait until the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass
