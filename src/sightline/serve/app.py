"""The routes: what can be asked of a server, and what it says. `gate` stands in front of all of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from .. import NOTICE, __version__
from . import meter
from .answering import Counter
from .backend import Identity, Refused
from .files import HTML, TYPES, UTF8, page
from .gate import ANSWERS, MISTAKE, VOLUMES, Gate, Log, about, refusal
from .token import COOKIE, Guard
from .volumes import BODY, PLACES, Room, Voxels, shrunk
from .wire import Ask


def gated(
    counter: Counter,
    *,
    guard: Guard,
    hosts: Sequence[str],
    log: Log,
    about_page: Mapping[str, Any] | None = None,
) -> Gate:
    """The whole application.

    Args:
        counter: takes requests for answers.
        guard: who may ask.
        hosts: names that the server may be asked by.
        log: takes one entry per request.
        about_page: what the page is told beside the model: suggested questions, and the text that asks for a report.
    """
    app = _app(counter, guard, about_page or {})
    return Gate(
        app=app, identity=counter.backend.identity, guard=guard, hosts=hosts, door=counter.door,
        limits=counter.limits, meter=counter.meter, log=log,
    )  # fmt: skip


class Forgetful(APIRoute):
    """A route whose request, which keeps the body that was read of it, ends before the answer is waited for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with a request of its own."""
        plain = super().get_route_handler()

        async def handle(request: Request) -> Response:
            return await plain(Request(request.scope, request.receive))

        return handle


def _app(counter: Counter, guard: Guard, about_page: Mapping[str, Any]) -> ASGIApp:
    """The routes behind the gate."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        backends = [model.backend for model in counter.models.values()]
        for backend in backends:
            await backend.open()
        yield
        counter.door.closed = True
        for backend in backends:
            await backend.close()

    app = FastAPI(
        title="Sightline", version=__version__, description=NOTICE, lifespan=life, docs_url=None, redoc_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    app.router.route_class = Forgetful
    _add_api(app, counter)
    _add_volumes(app, counter)
    _add_state(app, counter)
    _add_page(app, counter, guard, about_page)
    _add_refusals(app, counter)
    return app


def _add_api(app: FastAPI, counter: Counter) -> None:
    """What OpenAI's clients ask for."""
    started = int(time.time())

    @app.post(ANSWERS, responses=_responses(400, 404, 408, 413, 415, 422, 429, 502, 503))
    async def chat(ask: Ask, request: Request) -> Any:
        """Answer a conversation about images, in one piece or as server-sent events."""
        return await counter.answer(ask, request)

    def card(identity: Identity) -> dict[str, Any]:
        return {
            "id": identity.name, "object": "model", "created": started, "owned_by": "sightline",
            "sightline": {**about(identity), **identity.facts},
        }  # fmt: skip

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """What is served: the model, and the one that it is compared with."""
        cards = [card(model.backend.identity) for model in counter.models.values()]
        return {"object": "list", "data": cards}

    @app.get("/v1/models/{name:path}", responses=_responses(404))
    async def model(name: str) -> dict[str, Any]:
        """One of them by its name."""
        return card(counter.asked(name).backend.identity)


def _add_volumes(app: FastAPI, counter: Counter) -> None:
    """What shows slices of a volume, of which one is then sent as an image."""
    limits, room = counter.limits, Room(PLACES)

    @app.post(
        VOLUMES, response_class=Voxels, status_code=200, openapi_extra=BODY,
        responses=_responses(400, 408, 413, 415, 429),
    )  # fmt: skip
    async def volume(request: Request) -> Response:
        """The voxels of a NIfTI file as bytes, turned so that a page can draw slices; nothing of it is kept."""
        data = await request.body()
        with room.taken() as leave:
            async with counter.decoding:
                made = await asyncio.to_thread(shrunk, data, limits)
            return Voxels(made, leave)


def _add_state(app: FastAPI, counter: Counter) -> None:
    """What an operator asks for."""

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether the server takes requests; needs no token and says nothing else."""
        closed = counter.door.closed
        return JSONResponse({"status": "stopping" if closed else "ok"}, status_code=503 if closed else 200)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Figures for Prometheus."""
        door = counter.door
        gauges = {"inside": len(door.inside), "room": door.room, "turned_away_total": door.turned}
        states = dict(counter.backend.state())
        if counter.beside.before is not None:
            states |= {f"before_{k}": v for k, v in counter.beside.before.backend.state().items()}
        return PlainTextResponse(counter.meter.text(gauges | states), media_type=meter.TYPE)


def _add_page(app: FastAPI, counter: Counter, guard: Guard, more: Mapping[str, Any]) -> None:
    """The page, its files, and the way in."""
    identity, limits = counter.backend.identity, counter.limits
    held = None if counter.held is None else {"promise": counter.held.promise, "of": counter.held.of}

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        """The page."""
        return Response(page("index.html"), media_type=HTML)

    @app.get("/page/about.json", include_in_schema=False)
    async def about_json() -> dict[str, Any]:
        """What the page must know of the model and of the limits."""
        bounds = {
            "pixels": limits.pixels,
            "bytes": limits.body * 3 // 4 - 4096,
            "volume": limits.body,
            "characters": limits.characters,
        }
        own = {"model": identity.name, "held": held, "limits": bounds, **counter.beside.told()}
        return {**about(identity), **own, **more}

    @app.get("/page/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        """A file of the page, of a fixed list."""
        if name not in TYPES:
            raise Refused(404, "not_found", "there is nothing here")
        return Response(page(name), media_type=f"{TYPES[name]}{UTF8}")

    @app.post("/login", include_in_schema=False)
    async def login(request: Request) -> Response:
        """Take the token from the sign-in form, and give the browser a cookie for it."""
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        if guard.token:
            guard.compare(fields.get("token", [""])[0], request.client.host if request.client else "")
        answer = RedirectResponse("/", status_code=303)
        secure = request.url.scheme == "https"
        if guard.token:
            answer.set_cookie(COOKIE, guard.cookie, httponly=True, samesite="strict", secure=secure)
        return answer


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Refusals that a route may answer with, for its description."""
    return {status: {"description": "refused; `error.code` says why"} for status in statuses}


def _add_refusals(app: FastAPI, counter: Counter) -> None:
    """Everything that goes wrong behind the gate, in our words; the log gets its kind."""

    def written(refused: Refused, request: Request) -> Response:
        request.scope["state"].setdefault("told", {})["fault"] = refused.reason
        return refusal(refused, request.scope, counter.backend.identity)

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused), "registered for these"
        return written(error, request)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "registered for these"
        whats = {
            404: "there is nothing here",
            405: "this route is not asked like that",
            400: "the body is no JSON",
        }
        what = whats.get(error.status_code, "this cannot be done")
        return written(Refused(error.status_code, "http", what), request)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError), "registered for these"
        return written(_field(error.errors()[0]), request)

    async def mistake(request: Request, error: Exception) -> Response:
        del error  # its text may hold anything; the gate notes its kind
        return written(Refused(500, "fault", MISTAKE), request)

    app.add_exception_handler(Refused, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, mistake)


def _field(first: Mapping[str, Any]) -> Refused:
    """Which field of a request is not as it should be, and why, without repeating what it held."""
    if first["type"] == "json_invalid":
        return Refused(400, "json", "the body is no JSON")
    whats = {"extra_forbidden": "unknown field", "union_tag_invalid": "unknown type of part"}
    place = [str(p) for p in first["loc"] if isinstance(p, int) or p in _names()]
    return Refused(422, first["type"], whats.get(first["type"], first["msg"]), field=".".join(place))


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """All field names of a request; others came from whoever asked, and are not repeated."""
    found: set[str] = set()

    def walk(tree: Any) -> None:
        if isinstance(tree, dict):
            found.update(tree.get("properties", {}))
            for value in tree.values():
                walk(value)
        elif isinstance(tree, list):
            for value in tree:
                walk(value)

    walk(json.loads(json.dumps(Ask.model_json_schema())))
    return frozenset(found)
