"""What stands in front of every route: host, origin, token, size and time of the request; and headers on every answer.

It is plain ASGI and outermost, so nothing behind it, not even a fault of its own, is seen unfiltered from outside.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import NOTICE, __version__
from .backend import Identity, Refused
from .body import BYTES, FORM, FORMS, JSON, Bodies, check_depth, check_kind
from .door import LONGEST, STOPPING, Door
from .files import HTML, page
from .limits import Limits
from .meter import Meter
from .token import Guard

ANSWERS = "/v1/chat/completions"
VOLUMES = "/v1/volumes"
OPEN = {("GET", "/health"), ("HEAD", "/health"), ("POST", "/login")}
MISTAKE = "the server made a mistake; what kind stands in its log"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
ALWAYS = {
    "content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "same-origin",
    "cache-control": "no-store", "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin", "x-frame-options": "DENY",
}  # fmt: skip
Log = Callable[[Mapping[str, Any]], None]
# Why the form that asks for the token is shown again.
WRONG = {
    "token": {"en": "This is not the token.", "zh": "令牌不正确。", "ko": "토큰이 올바르지 않습니다."},
    "too_many_tries": {
        "en": "Too many wrong tokens. Wait a minute.", "zh": "错误的令牌过多。请等待一分钟。",
        "ko": "잘못된 토큰이 너무 많습니다. 1분 동안 기다리십시오.",
    },
}  # fmt: skip


@dataclass(kw_only=True)
class Gate:
    """The ASGI application that the server runs.

    Args:
        app: what is behind it.
        identity: what answers, for the headers.
        guard: who may ask.
        hosts: names that the server may be asked by, without ports.
        door: counts who is inside.
        limits: of requests.
        meter: counts them.
        log: takes one entry per request: no texts, no addresses, no paths but those of routes.
    """

    app: ASGIApp
    identity: Identity
    guard: Guard
    hosts: Sequence[str]
    door: Door
    limits: Limits
    meter: Meter
    log: Log

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.limits)
        self.always = ALWAYS | {
            "sightline-notice": NOTICE, "sightline-version": __version__,
            "sightline-model": self.identity.sha256 or "unknown",
        }  # fmt: skip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._pass(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        start, name, status, fault = time.monotonic(), secrets.token_hex(8), 0, ""
        scope["state"] = {**scope.get("state", {}), "name": name, "free": lambda: None}

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status, scope["state"]["begun"] = message["status"], True
                known = [(k, v) for k, v in message.get("headers", []) if k.decode() not in self.always]
                own = {**self.always, "sightline-request": name}
                if scope["state"].get("model"):  # one of several models
                    own["sightline-model"] = scope["state"]["model"]
                message = {**message, "headers": known + [(k.encode(), v.encode()) for k, v in own.items()]}
            await send(message)

        try:
            await self.app(scope, _again([await self._checked(scope, receive)], receive), answered)
        except Refused as refused:
            fault = refused.reason
            await self._answer(refused, scope, receive, answered)
        except (
            Exception
        ) as error:  # its text may hold anything, so only its kind is told, and only in the log
            fault = type(error).__name__
            await self._answer(Refused(500, "fault", MISTAKE), scope, receive, answered)
        except asyncio.CancelledError:  # the server waits no longer; this task has nothing more to do
            fault = "stopping"
            await self._answer(Refused(503, fault, STOPPING, after=LONGEST), scope, receive, answered)
        finally:
            scope["state"]["free"]()
            spent = time.monotonic() - start
            route = getattr(scope.get("route"), "path", "unmatched")
            self.meter.note(route, status, spent)
            told = {"request": name, "method": _method(scope), "route": route, "status": status}
            more = {"fault": fault} if fault else {}
            self.log({**told, "seconds": round(spent, 4), **scope["state"].get("told", {}), **more})

    async def _checked(self, scope: Scope, receive: Receive) -> bytes:
        """Check a request by its head, then read its body and check that."""
        headers = _headers(scope)
        host = headers.get("host", "")
        if _bare(host) not in self.hosts:
            raise Refused(421, "host", "this server is not asked by that name")
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host:
            raise Refused(403, "origin", "pages of other addresses may not ask")
        address = scope["client"][0] if scope.get("client") else ""
        if (scope["method"], scope["path"]) not in OPEN:
            self.guard.check(headers, address)
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return b""
        if scope["path"] == ANSWERS:
            self.door.check()
        wanted = {"/login": FORM, VOLUMES: BYTES}.get(scope["path"], JSON)
        check_kind(headers, wanted)
        most = FORMS if wanted == FORM else self.limits.body  # whoever signs in has shown no token yet
        body = await self.bodies.read(headers, receive, most)
        scope["state"]["free"] = self.bodies.freeing(len(body))
        if wanted == JSON:
            check_depth(body, self.limits.depth)
        return body

    async def _answer(self, refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, unless an answer has begun, or whoever asked broke the protocol: then the connection just ends."""
        if not scope["state"].get("begun"):
            with suppress(Exception):  # else the server would write where in our files that was noticed
                await refusal(refused, scope, self.identity)(scope, receive, send)


def _again(body: list[bytes], receive: Receive) -> Receive:
    """A body that was read, given once more and then forgotten; behind it comes the end of the connection."""

    async def again() -> Message:
        return {"type": "http.request", "body": body.pop(), "more_body": False} if body else await receive()

    return again


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by lower-case name.

    Raises:
        Refused: one of those that decide comes twice, so that two readers could understand two things.
    """
    found: dict[str, str] = {}
    for key, value in scope["headers"]:
        name = key.decode("latin-1").lower()
        if name in found and name in ("host", "authorization", "content-length", "content-type", "origin"):
            raise Refused(400, "headers", f"the header {name} comes twice")
        found[name] = value.decode("latin-1")
    return {**found, "host": found.get("host", "").lower()}


def _bare(host: str) -> str:
    """A host without its port and without the brackets of IPv6."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"


def refusal(refused: Refused, scope: Scope, identity: Identity) -> Response:
    """A refusal as a response; a browser that must sign in is shown where."""
    headers = {}
    if refused.after:
        headers["retry-after"] = str(refused.after)
    if refused.status == 401:
        headers["www-authenticate"] = "Bearer"
    if refused.status in (408, 413):
        headers["connection"] = "close"  # what is still being sent is not read
    if refused.reason in ("token", "too_many_tries") and "text/html" in _headers(scope).get("accept", ""):
        return Response(_form(refused, scope["path"] == "/login"), refused.status, headers, HTML)
    return Response(problem(refused, identity), refused.status, headers, "application/json")


def _form(refused: Refused, tried: bool) -> bytes:
    """The form that asks for the token; where one was tried, it says that this one does not do."""
    told = WRONG[refused.reason] if tried or refused.reason != "token" else {}
    lines = "<br>".join(f'<span lang="{language}">{text}</span>' for language, text in told.items())
    return page("sign_in.html").replace(b"<!-- why -->", lines.encode())


def problem(refused: Refused, identity: Identity) -> bytes:
    """A refusal as OpenAI's clients read it."""
    kinds = {401: "authentication_error", 429: "rate_limit_error", 500: "server_error", 503: "server_error"}
    error = {
        "message": refused.what, "type": kinds.get(refused.status, "invalid_request_error"),
        "param": refused.field or None, "code": refused.reason,
    }  # fmt: skip
    return json.dumps({"error": error, "sightline": about(identity)}).encode()


def about(identity: Identity) -> dict[str, str]:
    """What stands on every answer: which model, which program, and what it is not for."""
    return {"notice": NOTICE, "model_sha256": identity.sha256 or "unknown", "version": __version__}
