"""Starting and stopping: who may reach the server, what it says when it begins, and how it ends when it is told to."""

from __future__ import annotations

import asyncio
import gc
import ipaddress
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import uvicorn
from starlette.types import ASGIApp

from .. import NOTICE
from ..errors import RunError
from .answering import Counter
from .app import gated
from .backend import Backend
from .beside import Beside
from .door import Door
from .gate import LOOPBACK
from .limits import Limits
from .meter import Meter
from .patience import patient
from .sure import Held
from .token import SHORTEST, Guard
from .trail import Trail

HEAD = 65536  # bytes of the head of a request
SWITCH = 0.001  # seconds after which the engine's thread lets others run: `/health` must not wait for it
EVERYWHERE = ("0.0.0.0", "::")  # all addresses of the machine; no name that it is asked by


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a model is served.

    Args:
        host: address to listen at.
        port: 0 takes a free one.
        token: "" lets everybody in who can reach the address; only for loopback.
        hosts: further names that the server may be asked by.
        queue: requests that may wait.
        grace: seconds that answers in the making get when the server is told to stop.
        audit: the audit log's file; None for none.
        log: where the request log goes; None for nowhere.
        limits: of requests.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    hosts: Sequence[str] = ()
    queue: int = 64
    grace: float = 30.0
    audit: Path | None = None
    log: TextIO | None = field(default_factory=lambda: sys.stderr)
    limits: Limits = field(default_factory=Limits)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check(settings: Settings) -> None:
    """Refuse to be reached by others without a token.

    Raises:
        RunError: no token for an address that others can reach, or one that is too short.
    """
    if not settings.token and not is_loopback(settings.host):
        raise RunError(
            "the server would answer whoever reaches it", where="--host", found=f"{settings.host} without a token",
            expected="a token, or an address of this machine only such as 127.0.0.1",
            remedy="put a long random text into a file and give it with --token-file, or set SIGHTLINE_TOKEN",
        )  # fmt: skip
    if settings.token and len(settings.token) < SHORTEST:
        raise RunError(
            "the token is too short", found=f"{len(settings.token)} characters", expected=f"at least {SHORTEST}",
            remedy="python -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one",
        )  # fmt: skip


def build(
    backend: Backend, settings: Settings, *, held: Held | None = None, about: Mapping[str, Any] | None = None,
    trail: Trail | None = None, beside: Beside | None = None,
) -> ASGIApp:  # fmt: skip
    """The application that a server runs; for tests and for servers of one's own too.

    Raises:
        RunError: see `check`.
    """
    check(settings)
    company = beside or Beside()
    slots = sum(model.backend.slots for model in company.models(backend, held).values())
    counter = Counter(
        backend=backend, limits=settings.limits, door=Door(slots, settings.queue), meter=Meter(), held=held,
        trail=trail, beside=company,
    )  # fmt: skip
    own = [] if settings.host in EVERYWHERE else [settings.host.strip("[]")]
    names = [name.lower() for name in (*LOOPBACK, *own, *settings.hosts)]
    guard = Guard(settings.token, settings.limits.tries)
    return gated(counter, guard=guard, hosts=names, log=_logger(settings.log), about_page=about)


def serve(
    backend: Backend, settings: Settings, *, held: Held | None = None, about: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = print, beside: Beside | None = None,
) -> None:  # fmt: skip
    """Serve until a signal says stop; answers in the making are finished first, within the grace.

    Raises:
        RunError: see `check`; or the address is taken, or the audit log was changed.
    """
    check(settings)
    trail = Trail(settings.audit) if settings.audit else None
    app = build(backend, settings, held=held, about=about, trail=trail, beside=beside)
    config = configured(app, settings)
    server = Announced(config, lambda port: say(_greeting(backend, settings, port)))
    sys.setswitchinterval(SWITCH)
    gc.collect()
    gc.freeze()  # a walk through all that a model's libraries hold would stop everybody for as long as it takes
    try:
        with _signals_kept():
            asyncio.run(_run(server, settings))
    finally:
        if trail is not None:
            say(f"audit log: {trail.count + 1} lines, newest hash {trail.close()}")
    say("stopped")


def configured(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn runs an application of ours."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=patient(settings.limits.seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=math.ceil(settings.limits.seconds),
        timeout_graceful_shutdown=int(settings.grace),
        h11_max_incomplete_event_size=HEAD,
    )


async def _run(server: uvicorn.Server, settings: Settings) -> None:
    try:
        await server.serve()
    except SystemExit:  # uvicorn's way to say that it could not begin
        raise RunError(
            "the server could not begin", where=f"{settings.host}:{settings.port}",
            expected="an address of this machine and a free port", remedy="choose another with --port",
        ) from None  # fmt: skip


class Announced(uvicorn.Server):
    """A server that says where it is once it is there.

    Args:
        config: uvicorn's.
        say: called with the port.
    """

    def __init__(self, config: uvicorn.Config, say: Callable[[int], None]) -> None:
        super().__init__(config)
        self.say = say

    async def startup(self, sockets: Any = None) -> None:
        """Begin to listen, then tell the port, which the system may have chosen."""
        await super().startup(sockets)
        if self.started:
            self.say(self.servers[0].sockets[0].getsockname()[1])


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep signals from the command line: uvicorn raises one again when it has stopped, as if it had interrupted."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _greeting(backend: Backend, settings: Settings, port: int) -> str:
    """What is printed when the server listens."""
    host = "localhost" if settings.host in EVERYWHERE else settings.host
    named = f"[{host}]" if ":" in host else host
    names = ", ".join(settings.hosts) or "none, give --allow-host NAME"
    model = backend.identity
    lines = [
        f"{model.name}, sha256 {model.sha256[:16] or 'unknown'}",
        f"page http://{named}:{port}/    API http://{named}:{port}/v1",
        "a token is needed" if settings.token else "no token: only this machine can reach it",
        f"names that other machines may ask it by: {names}" if host != settings.host else "",
        NOTICE,
    ]
    return "\n".join(filter(None, lines))


def _logger(stream: TextIO | None) -> Callable[[Mapping[str, Any]], None]:
    """The request log: one JSON line each."""

    def log(entry: Mapping[str, Any]) -> None:
        if stream is not None:
            stream.write(json.dumps({"time": round(time.time(), 3), **entry}) + "\n")
            stream.flush()

    return log
