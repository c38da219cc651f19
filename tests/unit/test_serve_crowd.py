"""A crowd before the server: first come, first served; whoever leaves or reads nothing is let go; no body is kept."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from serving import CHAT, QUICK, Parrot, Running, png, question, running, until, url
from sightline.serve import answering
from sightline.serve.backend import Identity, Refused
from sightline.serve.limits import Limits
from sightline.serve.meter import memory

IDENTITY = Identity(name="tiny/taught", sha256="cd" * 32)
MIB = 2**20


@pytest.fixture(scope="module")
def endless(language: Path) -> Any:
    """Makes backends with a real model whose answers end at their limit only."""
    import models  # with torch, which the tests without a model do without
    from sightline.serve.local import Local

    bundle = models.bundle(language)
    bundle.model.eval()

    def make(slots: int) -> Local:
        made = Local(bundle, IDENTITY, slots)
        made.engine.ends = set()
        return made

    return make


def place(server: Running) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return host, int(port)


def sent(server: Running, body: bytes, *, room: int = 0) -> socket.socket:
    """A connection on which a question was sent; `room`: bytes of answer that its system takes unread."""
    line = socket.socket()
    if room:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    line.settimeout(30)
    line.connect(place(server))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    line.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return line


def heavy(size: int) -> str:
    """A small picture in a large file, as a data URL: a chunk that no reader knows stands behind its head."""
    data, plain = b"juNk" + bytes(size), png()
    return url(plain[:33] + struct.pack(">I", size) + data + struct.pack(">I", zlib.crc32(data)) + plain[33:])


def test_first_come_first_served(endless: Any) -> None:
    """Each answer has a length of its own, so the log's order is the order in which they were made."""
    with running(endless(1)) as made:
        engine = made.backend.engine
        lines = []
        for i in range(6):
            lines.append(sent(made, json.dumps(question(max_tokens=200 if i == 0 else 8 - i)).encode()))
            until(lambda: len(engine.waiting) + len(engine.running) == len(lines), 30)
        until(lambda: not made.door.inside, 60)
        for line in lines:
            assert line.recv(12) == b"HTTP/1.1 200"
            line.close()
    assert [json.loads(line)["answer"] for line in made.log.lines] == [200, 7, 6, 5, 4, 3]


def test_each_of_many_leavers_frees_its_row_within_a_second(endless: Any) -> None:
    """In the middle of a stream, before an answer in one piece, and while still waiting; with a real model."""
    with running(endless(2), queue=20) as made:
        engine = made.backend.engine
        for i in range(24):
            kind = ("stream", "whole", "waiting")[i % 3]
            asked = json.dumps(question(stream=kind == "stream", max_tokens=900)).encode()
            others = [sent(made, asked) for _ in range(2)] if kind == "waiting" else []
            count = len(others)
            until(lambda n=count: len(engine.running) == n, 30)
            line = sent(made, asked)
            if kind == "stream":
                assert b"data: {" in line.recv(65536) + line.recv(65536)
            until(lambda n=count: len(engine.running) + len(engine.waiting) == n + 1, 30)
            start = time.process_time()
            for each in (line, *others):
                each.close()
            until(lambda: not made.door.inside and not engine.running and not engine.waiting, 20)
            assert time.process_time() - start <= QUICK
        until(lambda: len(made.log.lines) == 40)
        assert {json.loads(line)["ended"] for line in made.log.lines} == {"cancelled"}
        assert engine.failures == 0


def test_who_closes_the_stream_of_openais_client_is_gone() -> None:
    with running(Parrot(words=("so ",) * 500, pace=0.01)) as made:
        with openai.OpenAI(base_url=f"{made.url}/v1", api_key="none", max_retries=0) as client:
            stream: Any = client.chat.completions.create(**question(), stream=True)
            assert next(stream).choices[0].delta.content == "so "
            assert len(made.door.inside) == 1
            stream.close()
            until(lambda: not made.door.inside)
        assert len(made.backend.cancelled) == 1
    assert json.loads(made.log.lines[0])["ended"] == "cancelled"


def test_a_stream_that_cannot_begin_is_refused_like_any_other_question() -> None:
    backend = Parrot(slots=1)
    with running(backend, queue=0) as made, made.client() as client:
        bad = client.post(CHAT, json=question(image="file:///etc/passwd", stream=True))
        assert (bad.status_code, bad.json()["error"]["code"]) == (400, "image_url")
        assert made.door.inside == {}
        calls: list[int] = []

        def check() -> None:
            calls.append(1)
            if len(calls) == 2:  # the gate let it pass, and then somebody else was quicker
                raise Refused(429, "busy", "all places are taken", after=1)

        made.door.check = check
        late = client.post(CHAT, json=question(stream=True))
        assert (late.status_code, late.json()["error"]["code"]) == (429, "busy")
        assert made.door.inside == {}
        assert client.post(CHAT, json=question(stream=True)).status_code == 200
    until(lambda: len(made.log.lines) == 3)
    ended = [json.loads(line).get("ended") for line in made.log.lines]
    assert ended == ["refused", None, "answered"]


def test_who_leaves_before_the_image_is_read_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image is decoded at a time: who waits for that can go, and what is being decoded is waited for."""
    plain, go, busy = answering.question, threading.Event(), []

    def slow(*args: Any) -> Any:
        busy.append(1)
        assert go.wait(30)
        busy.pop()
        return plain(*args)

    monkeypatch.setattr(answering, "question", slow)
    with running(Parrot(slots=8)) as made:
        body = json.dumps(question()).encode()
        first = sent(made, body)
        until(lambda: busy == [1])
        second, third = sent(made, body), sent(made, body)
        until(lambda: len(made.door.inside) == 3)
        second.close()
        until(lambda: len(made.door.inside) == 2)
        first.close()
        time.sleep(0.1)
        assert busy == [1]  # the third one's image does not stand beside the first one's
        assert len(made.door.inside) == 2
        go.set()
        assert third.recv(12) == b"HTTP/1.1 200"
        third.close()
        until(lambda: not made.door.inside)
        assert len(made.backend.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_who_reads_nothing_is_let_go(stream: bool) -> None:
    """An answer of 32 MiB that nobody takes: the connection is cut, and the place was free long before or is then."""
    backend = Parrot(words=("x" * 65536,) * 512)
    with running(backend, limits=Limits(seconds=0.5)) as made:
        line = sent(made, json.dumps(question(stream=stream, max_tokens=1024)).encode(), room=4096)
        until(lambda: backend.asked)
        until(lambda: not made.door.inside, 20)
        until(lambda: not made.connections, 20)  # cut before anybody reads on
        got = 0
        with contextlib.suppress(ConnectionError), line:  # what was under way, then a reset
            while part := line.recv(2**20):
                got += len(part)
        assert got < 30 * MIB
        with made.client() as client:
            assert client.get("/health").status_code == 200


def test_who_reads_slowly_gets_everything() -> None:
    with running(Parrot(words=("x" * 65536,) * 64), limits=Limits(seconds=1.0)) as made:
        line = sent(made, json.dumps(question(stream=True, max_tokens=1024)).encode(), room=65536)
        said, end = b"", time.monotonic() + 60
        while b"[DONE]" not in said[-200:] and time.monotonic() < end:
            said += line.recv(262_144)
            time.sleep(0.02)
        line.close()
    assert said.count(b"x" * 65536) == 64
    assert json.loads(made.log.lines[0])["ended"] == "answered"


def test_bodies_of_those_who_wait_for_their_answer_are_not_kept() -> None:
    """Twenty questions of 4 MiB each wait for their answer; their texts are gone by then."""
    body = json.dumps(question(image=heavy(3 * MIB))).encode()
    assert len(body) > 4 * MIB
    backend = Parrot(slots=32, hold=True)
    with running(backend) as made:
        lines = [sent(made, body)]
        until(lambda: len(backend.asked) == 1, 30)
        before = memory()
        for _ in range(20):
            lines.append(sent(made, body))
            until(lambda: len(backend.asked) == len(lines), 30)
        assert len(made.door.inside) == 21
        assert memory() - before < 40 * MIB
        backend.hold = False
        for line in lines:
            assert line.recv(12) == b"HTTP/1.1 200"
            line.close()


def test_bodies_that_wait_to_be_decoded_count_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, go, busy = answering.question, threading.Event(), []

    def slow(*args: Any) -> Any:
        busy.append(1)
        assert go.wait(30)
        return plain(*args)

    monkeypatch.setattr(answering, "question", slow)
    asked = question(image=heavy(MIB))
    with running(Parrot(slots=8), limits=Limits(held=4 * MIB)) as made, made.client() as client:
        with ThreadPoolExecutor(2) as pool:
            inside = [pool.submit(httpx.post, made.url + CHAT, json=asked, timeout=30) for _ in range(2)]
            until(lambda: len(made.door.inside) == 2 and busy)
            turned = client.post(CHAT, json=asked)
            assert (turned.status_code, turned.json()["error"]["code"]) == (429, "busy")
            assert turned.headers["retry-after"] == "1"
            go.set()
            assert [each.result().status_code for each in inside] == [200, 200]
        assert client.post(CHAT, json=asked).status_code == 200
        refusals = [client.post(CHAT, json=asked | {"model": "other"}).status_code for _ in range(6)]
        assert refusals == [404] * 6  # what is refused is held no longer either
        assert client.post(CHAT, json=asked).status_code == 200
