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
from .beside import Beside, Model
from .door import Door
from .gate import about, problem
from .limits import Limits
from .meter import Meter
from .reports import look_up, shown, written
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
        beside: another model, and reports of similar images, if there are any.

    Raises:
        RecipeError: two models have one name.
    """

    backend: Backend
    limits: Limits
    door: Door
    meter: Meter
    held: Held | None = None
    trail: Trail | None = None
    beside: Beside = field(default_factory=Beside)
    decoding: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.models = self.beside.models(self.backend, self.held)

    def asked(self, name: str) -> Model:
        """The model of this name.

        Raises:
            Refused: none is called so.
        """
        if name not in self.models:
            raise Refused(
                404, "model_not_found", "this server answers under another model's name", field="model"
            )
        return self.models[name]

    async def answer(self, ask: Ask, request: Request) -> Response:
        """What answers a request when it is called, in one piece or as a stream.

        Nothing is decoded here, so that whatever was made of the body on its way ends with the caller.

        Raises:
            Refused: it cannot be answered.
        """
        model = self.asked(ask.model)
        if ask.sightline.reports and self.beside.finder is None:
            raise Refused(400, "no_reports", "this server has no reports to show", field="sightline.reports")
        request.scope["state"]["model"] = model.backend.identity.sha256 or "unknown"
        visit = Visit(self, model, ask, request.state.name, request.scope["state"])
        return Stream(visit) if ask.stream else Whole(visit)


class Visit:
    """One request on its way.

    Args:
        counter: where it was taken.
        model: which answers.
        ask: what it says.
        name: of the request.
        state: of its scope; `told` in it goes to the request log.
    """

    def __init__(self, counter: Counter, model: Model, ask: Ask, name: str, state: dict[str, Any]) -> None:
        self.counter, self.model, self.ask, self.name, self.state = counter, model, ask, name, state
        self.reports: list[dict[str, Any]] | None = None
        self.ticket: Ticket | None = None
        self.said: list[Piece] = []
        self.end: End | None = None
        self.left = False

    async def begin(self) -> None:
        """Decode the images, one request at a time, and hand the question to the backend.

        Raises:
            Refused: it cannot be answered.
        """
        try:
            async with self.counter.decoding:
                await _to_its_end(self._begin())
        except Failed as error:  # the backend is not there
            raise Refused(502, "failed", error.what) from None
        self.state["free"]()  # of the body, nothing is held any more

    async def _begin(self) -> None:
        asked = await asyncio.to_thread(question, self.ask, self.name, self.counter.limits)
        self.ask = self.ask.model_copy(update={"messages": []})  # images as text are large
        self.images = [picture.sha256 for picture in asked.pictures]
        self.question: Question = replace(asked, pictures=())  # pixels are larger still
        self.reply = Reply(self.ask, self.question, self.model.backend.identity, int(time.time()))
        self.ticket = await self.model.backend.ask(await asyncio.to_thread(self._read, asked))

    def _read(self, asked: Question) -> Question:
        """The question as the model reads it: with the reports that were found, where it was taught so."""
        finder, template, own = self.counter.beside.finder, self.model.template, self.ask.sightline
        if finder is None:
            return asked
        references: tuple[str, ...] = ()
        if own.reports is not False:
            found = look_up(finder, asked)
            self.reports, references = shown(found, template is not None), found.texts
        return asked if template is None else written(asked, references, template, own.kind)

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
        """The answer in one piece.

        Raises:
            Refused: it cannot be answered, or not now.
        """
        await self.begin()
        try:
            async for _ in self.pieces():
                pass
        except Failed as error:
            raise Refused(502, "failed", error.what) from None
        assert self.end is not None, "an answer that did not fail has an end"
        return JSONResponse(self.reply.whole(self.said, self.end, self.own(self.end)))

    def own(self, end: End) -> dict[str, Any]:
        """What Sightline says of an answer: notice, model, how sure it is, and what it was shown."""
        asked = self.question
        aided = self.model.template is None or self.reports is not None  # as it was when it was calibrated
        held = self.model.held if asked.sight == "clean" and asked.temperature == 0 and aided else None
        found = {} if self.reports is None else {"reports": self.reports}
        return {
            **about(self.model.backend.identity), "sure": judged(end, held), "choices": dict(end.choices),
            "image": self.question.sight, "seed": self.question.seed, "temperature": self.question.temperature,
            **found,
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
            "request": self.name, "model": self.model.backend.identity.sha256,
            "images": [trail.salted(sha256) for sha256 in self.images], "shown": self.question.sight,
            "question": trail.salted(last), "answer": trail.salted("".join(p.text for p in self.said)),
            "temperature": self.question.temperature, "seed": self.question.seed, "limit": self.question.limit,
            **({"reports": [trail.salted(each["text"]) for each in self.reports]} if self.reports else {}),
        }  # fmt: skip


class Whole(Response):
    """An answer in one piece."""

    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit = visit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait for the answer and send it, unless nobody waits any more."""
        made = await _unless_gone(self.visit.whole(), receive, self.visit)
        await made(scope, receive, send)


class Stream(Response):
    """An answer as server-sent events; whoever leaves is noticed at once, and the place is always freed."""

    media_type = "text/event-stream"

    def __init__(self, visit: Visit) -> None:
        super().__init__()
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self.visit, self.begun, self.last = visit, False, b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer until it ends or nobody listens."""
        made = await _unless_gone(self._write(send), receive, self.visit)
        if not self.begun:
            await made(scope, receive, send)
        elif self.last:  # whoever reads it finds the place free that they had
            await send({"type": "http.response.body", "body": self.last, "more_body": False})

    async def _write(self, send: Send) -> Response:
        await self.visit.begin()
        headers, self.begun = [(k, v) for k, v in self.raw_headers], True
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
            self.last = b"data: [DONE]\n\n"
        except Failed as error:
            body = problem(Refused(502, "failed", error.what), visit.model.backend.identity)
            self.last = b"data: " + body + b"\n\n"
        return self


async def _event(send: Send, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})


async def _unless_gone(
    work: Any, receive: Receive, visit: Visit, left: Callable[[Receive], Any] | None = None
) -> Response:
    """Do the work unless whoever asked goes away first; in any case the visit's place is free afterwards.

    Raises:
        Refused: all places are taken, or what the work raises.
    """
    try:
        visit.counter.door.enter(visit.name)
    except Refused:
        work.close()
        raise
    doing = asyncio.ensure_future(work)
    watching = asyncio.ensure_future((left or _left)(receive))
    how = "cancelled"
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return Response(status_code=GONE)
        how = "refused" if visit.ticket is None else "failed"
        made: Response = doing.result()
        how = "answered" if visit.end is not None else "failed"
        return made
    finally:
        doing.cancel()
        watching.cancel()
        try:
            await asyncio.gather(doing, watching, return_exceptions=True)
        finally:  # a server that stops cancels what it has cancelled
            visit.leave(how)


async def _to_its_end(work: Any) -> None:
    """Wait for work that is cancelled by nobody: a thread that decodes goes on, and the next must wait for it."""
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.gather(doing, return_exceptions=True)
        raise


async def _left(receive: Receive) -> None:
    """Wait until the connection is closed."""
    while (await receive())["type"] != "http.disconnect":
        pass
