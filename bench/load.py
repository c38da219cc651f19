"""How a server stands many people at once: 64 of them for two minutes, each asking again as soon as it is answered.

    python bench/load.py [--clients 64] [--seconds 120] [--slots 16] [--queue 32] [--threads 1] [--out FOLDER]

Clients, the server (`bench/serve.py --only all`, the tiny model) and a bare one that knows nothing but `/health` are
three processes. The server has fewer places than there are clients, so some are always turned away. `/health` is asked
20 times a second on new connections, in turn with the bare server: what that one takes is the machine's own delay.
Memory is read every second. Then 100 people leave in the middle of an answer, half of a stream, half before an answer
in one piece, and the time until their places are free is taken.

Nothing is imported here but the standard library, so that the clients take little from the cores that they share.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import platform
import random
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

RESULTS = Path(__file__).parent / "results"
EVERY = 0.05  # seconds between two looks at /health
PATIENCE = 600.0
TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
GAUGE = re.compile(rb"^sightline_(\w+) (\S+)$", re.MULTILINE)


@dataclass
class Got:
    """What came back: status, headers, body, and seconds to its first part and to its end."""

    status: int
    headers: dict[str, str]
    body: bytes
    first: float
    spent: float

    def __post_init__(self) -> None:
        self.tokens = sum(int(found) for found in TOKENS.findall(self.body))  # as its usage says


class Line:
    """One connection: opened when it is needed, kept as long as the server keeps it.

    Args:
        url: of the server.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self.host, self.port = place.hostname or "127.0.0.1", place.port or 80
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes) -> Got:
        """Send a request and read the whole answer."""
        start = time.perf_counter()
        status, headers = await self.begin(request)
        if "chunked" in headers.get("transfer-encoding", ""):
            parts = [part async for part in self.parts()]
            first, body = (parts[0][0] if parts else time.perf_counter()), b"".join(p for _, p in parts)
        else:
            assert self.reader is not None, "an answer has begun"
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            first = time.perf_counter()
        if headers.get("connection") == "close":
            self.close()
        return Got(status, headers, body, first - start, time.perf_counter() - start)

    async def begin(self, request: bytes) -> tuple[int, dict[str, str]]:
        """Send a request and read the head of the answer."""
        if self.reader is None or self.writer is None or self.reader.at_eof():
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=2**22)
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = [line.partition(":") for line in head[1:] if line]
        return int(head[0].split()[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def parts(self) -> Any:
        """The parts of a chunked body as they come, each with its time."""
        assert self.reader is not None, "an answer has begun"
        while size := int(await self.reader.readline(), 16):
            part = await self.reader.readexactly(size + 2)
            yield time.perf_counter(), part[:-2]
        await self.reader.readline()

    def close(self) -> None:
        """Hang up."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


def get(path: str) -> bytes:
    """A request without a body."""
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


def post(body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    """A request with a JSON body."""
    text = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(text)}\r\n\r\n".encode() + text


def question(number: int, tokens: int, *, model: str = "bench", stream: bool = False) -> dict[str, Any]:
    """One of many questions, with an image of its own."""
    address = f"data:image/png;base64,{base64.b64encode(picture(number)).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": f"What is seen at {number}?"},
    ]
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": tokens,
        "temperature": 0,
        **more,
    }


def picture(number: int, side: int = 28) -> bytes:
    """A PNG of noise."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    draw = random.Random(number)
    rows = b"".join(b"\0" + draw.randbytes(3 * side) for _ in range(side))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@dataclass
class Book:
    """What was seen."""

    answers: list[Got] = field(default_factory=list)
    broken: Counter[str] = field(default_factory=Counter)
    impolite: int = 0  # refusals for want of a place that do not say when to come again
    health: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def note(self, got: Got) -> None:
        """An answer came."""
        self.impolite += got.status == 429 and not got.headers.get("retry-after", "").isdigit()
        got.body = b"" if got.status < 500 else got.body[:200]
        self.answers.append(got)


async def person(number: int, url: str, tokens: int, over: asyncio.Event, book: list[Book]) -> None:
    """Ask until it is over; half of all want a stream. Who is turned away comes again after a second at most."""
    line = Line(url)
    asks = [post(question(number * 4 + k, tokens, stream=bool(number % 2))) for k in range(4)]
    count = 0
    while not over.is_set():
        count += 1
        try:
            got = await line.ask(asks[count % 4])
        except (OSError, EOFError, ValueError, asyncio.IncompleteReadError) as error:
            book[-1].broken[type(error).__name__] += 1
            line.close()
            continue
        book[-1].note(got)
        if got.status != 200:
            wait = min(1.0, float(got.headers.get("retry-after", 1)))
            await asyncio.sleep(wait * (0.5 + (number % 8) / 16))
    line.close()


async def watch(url: str, bare: str, over: asyncio.Event, book: list[Book]) -> None:
    """Ask both for their health, in turn, each time on a new connection."""
    while not over.is_set():
        for place, seen in ((url, "health"), (bare, "bare")):
            line = Line(place)
            start = time.perf_counter()
            try:
                got = await line.ask(get("/health"))
                spent = time.perf_counter() - start
                getattr(book[-1], seen).append(spent if got.status == 200 else PATIENCE)
            except (OSError, EOFError, ValueError):
                book[-1].broken[seen] += 1
            line.close()
            await asyncio.sleep(EVERY / 2)


async def gauges(line: Line) -> dict[str, float]:
    """The server's own figures."""
    got = await line.ask(get("/metrics"))
    return {name.decode(): float(value) for name, value in GAUGE.findall(got.body)}


async def weigh(url: str, over: asyncio.Event, book: list[Book]) -> None:
    """Read the server's memory every second."""
    line = Line(url)
    while not over.is_set():
        book[-1].memory.append((await gauges(line))["memory_bytes"] / 2**20)
        await asyncio.sleep(1)
    line.close()


async def crowd(url: str, bare: str, asked: argparse.Namespace) -> Book:
    """All of them at once: first to warm up, then for the book."""
    over, books = asyncio.Event(), [Book()]
    people = [person(i, url, asked.tokens, over, books) for i in range(asked.clients)]
    tasks = [asyncio.ensure_future(work) for work in (*people, watch(url, bare, over, books))]
    await asyncio.sleep(asked.warm)
    books.append(Book())
    tasks.append(asyncio.ensure_future(weigh(url, over, books)))
    await asyncio.sleep(asked.seconds)
    made = books[-1]
    books.append(Book())
    over.set()
    await asyncio.gather(*tasks)
    return made


async def leave(url: str, count: int) -> list[float]:
    """So many people who leave in the middle, one after the other; seconds until nothing of each is left inside."""
    spent = []
    looks = Line(url)
    for number in range(count):
        line = Line(url)
        if number % 2:
            _, headers = await line.begin(post(question(number, 1024, stream=True)))
            assert headers["content-type"].startswith("text/event-stream")
            await anext(line.parts())
        else:
            asking = asyncio.ensure_future(line.begin(post(question(number, 1024))))
            while not (await gauges(looks))["rows"]:
                await asyncio.sleep(0.005)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        line.close()
        start = time.perf_counter()
        while True:
            now = await gauges(looks)
            if not (now["inside"] or now["rows"] or now["waiting"]):
                break
            assert time.perf_counter() - start < 60, "a place is never freed"
        spent.append(time.perf_counter() - start)
    looks.close()
    return spent


async def be_bare() -> None:
    """A server that knows nothing but its health."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n" + b'{"status":"ok"}')
            await writer.drain()
        except (OSError, EOFError):
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def address(said: Iterable[str]) -> str:
    """Where a server is, as it says itself."""
    found = (line.split()[1] for line in said if line.startswith("page http"))
    return next(found, "").rstrip("/") or sys.exit("the server does not begin")


def start(asked: argparse.Namespace) -> tuple[list[subprocess.Popen[str]], str, str]:
    """The server and the bare one, with their addresses."""
    own = Path(__file__)
    served = [
        sys.executable, str(own.with_name("serve.py")), "--only", "all", "--slots", str(asked.slots),
        "--queue", str(asked.queue), "--threads", str(asked.threads),
    ]  # fmt: skip
    made = [
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        for line in (served, [sys.executable, str(own), "--bare"])
    ]
    outs = [process.stdout for process in made]
    assert outs[0] is not None
    assert outs[1] is not None
    return made, address(outs[0]), outs[1].readline().strip()


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile, as the value at that place of the sorted ones."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def figures(book: Book, left: Sequence[float], asked: argparse.Namespace) -> dict[str, Any]:
    """What a run came to. Times in seconds, memory in MiB."""
    right = [got for got in book.answers if got.status == 200]
    fifth = max(1, len(book.memory) // 5)
    before, after = (sorted(part)[len(part) // 2] for part in (book.memory[:fifth], book.memory[-fifth:]))
    statuses = Counter(str(got.status) for got in book.answers)
    return {
        "clients": asked.clients, "seconds": asked.seconds, "places": asked.slots + asked.queue, "slots": asked.slots,
        "tokens_each": asked.tokens, "statuses": dict(sorted(statuses.items())), "broken": dict(book.broken),
        "refusals_without_retry_after": book.impolite,
        "requests_per_second": len(right) / asked.seconds,
        "tokens_per_second": sum(got.tokens for got in right) / asked.seconds,
        "answer_p50": quantile([g.spent for g in right], 0.5), "answer_p99": quantile([g.spent for g in right], 0.99),
        "refusal_p99": quantile([g.spent for g in book.answers if g.status == 429] or [0.0], 0.99),
        "health_looks": len(book.health), "health_p50": quantile(book.health, 0.5),
        "health_p99": quantile(book.health, 0.99), "health_max": max(book.health),
        "bare_p50": quantile(book.bare, 0.5), "bare_p99": quantile(book.bare, 0.99), "bare_max": max(book.bare),
        "memory_before": before, "memory_after": after, "memory_drift": after / before - 1,
        "leavers": len(left), "freed_p50": quantile(left, 0.5), "freed_max": max(left),
    }  # fmt: skip


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--warm", type=float, default=20)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--leavers", type=int, default=100)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--bare", action="store_true", help="be the bare server")
    asked = parser.parse_args()
    if asked.bare:
        asyncio.run(be_bare())
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with it
    processes, url, bare = start(asked)
    try:
        book = asyncio.run(crowd(url, bare, asked))
        left = asyncio.run(leave(url, asked.leavers))
    finally:
        for process in processes:
            process.terminate()
            process.communicate()
    made = figures(book, left, asked)
    for name, value in made.items():
        print(f"{name:30} {value if not isinstance(value, float) else f'{value:.4g}'}")
    asked.out.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "threads": asked.threads, "python": platform.python_version()}
    text = json.dumps({**made, "machine": machine}, indent=1) + "\n"
    (asked.out / "load-tiny-cpu.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
