"""Who waits, who is turned away, who leaves: places are always freed, and a server that must stop finishes first."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from serving import Parrot, Running, question, running, until

CHAT = "/v1/chat/completions"


def begun(server: Running, *, stream: bool) -> socket.socket:
    """A connection on which a request was sent, and from which nothing is read."""
    body = json.dumps(question(stream=stream)).encode()
    host, _, port = server.url.removeprefix("http://").partition(":")
    line = socket.create_connection((host, int(port)), timeout=10)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    line.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    return line


def test_who_finds_no_place_is_told_when_to_come_again() -> None:
    backend = Parrot(slots=1, hold=True)
    with running(backend, queue=2) as made, ThreadPoolExecutor(8) as pool:
        with made.client() as client:
            inside = [pool.submit(client.post, CHAT, json=question()) for _ in range(3)]
            until(lambda: len(made.door.inside) == 3)
            turned = client.post(CHAT, json=question())
            assert turned.status_code == 429
            assert turned.json()["error"] | {"message": ""} == {
                "message": "", "type": "rate_limit_error", "param": None, "code": "busy"
            }  # fmt: skip
            assert 1 <= int(turned.headers["retry-after"]) <= 60
            assert client.get("/health").status_code == 200
            backend.hold = False
            assert [each.result().status_code for each in inside] == [200, 200, 200]
            assert client.post(CHAT, json=question()).status_code == 200
        assert made.door.turned == 1
        assert made.door.inside == {}


def test_whoever_leaves_frees_a_place() -> None:
    """100 of them, half in the middle of a stream, half before an answer in one piece."""
    backend = Parrot(slots=100, hold=True)
    with running(backend, queue=0) as made:
        lines = [begun(made, stream=bool(i % 2)) for i in range(100)]
        until(lambda: len(backend.asked) == 100, 30)
        assert len(made.door.inside) == 100
        for line in lines:
            line.close()
        until(lambda: not made.door.inside, 5)
        assert len(backend.cancelled) == 100
        assert all(
            not line.startswith("{") or json.loads(line)["ended"] == "cancelled" for line in made.log.lines
        )
        backend.hold = False
        with made.client() as client:
            assert client.post(CHAT, json=question()).status_code == 200
            assert "sightline_cancelled_total 100\n" in client.get("/metrics").text


def test_health_answers_while_all_places_are_taken() -> None:
    backend = Parrot(slots=4, pace=0.05)
    with running(backend, queue=60) as made, ThreadPoolExecutor(16) as pool, made.client() as client:
        work = [pool.submit(client.post, CHAT, json=question()) for _ in range(16)]
        for _ in range(10):
            assert client.get("/health").status_code == 200
        assert [w.result().status_code for w in work] == [200] * 16


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from serving import Parrot
from sightline.serve import server
from pathlib import Path
settings = server.Settings(port=0, audit=Path({audit!r}), log=None, grace={grace})
server.serve({backend}, settings, say=lambda text: print(text, flush=True))
"""


def start(
    folder: Path, backend: str = "Parrot(pace=0.3)", grace: float = 30.0
) -> tuple[subprocess.Popen[str], str]:
    """A server in a process of its own, and its address."""
    tests, audit = str(Path(__file__).parents[1]), str(folder / "audit.jsonl")
    code = SERVER.format(tests=tests, audit=audit, backend=backend, grace=grace)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(4)]
    assert said[0].startswith("tiny/taught, sha256 abababababababab")
    assert said[2:] == [
        "no token: only this machine can reach it\n",
        "For research only. Not a medical device, not for clinical use.\n",
    ]
    return process, said[1].split()[1].rstrip("/")


def test_a_server_that_is_told_to_stop_finishes_what_it_began(tmp_path: Path) -> None:
    process, url = start(tmp_path)
    answers: list[httpx.Response] = []
    asking = threading.Thread(
        target=lambda: answers.append(httpx.post(url + CHAT, json=question(), timeout=60))
    )
    asking.start()
    until(lambda: "sightline_inside 1\n" in httpx.get(f"{url}/metrics").text, 30)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    asking.join()
    assert answers[0].status_code == 200
    assert answers[0].json()["choices"][0]["message"]["content"] == "Small left effusion."
    assert (process.returncode, err) == (0, "")
    assert out.endswith("stopped\n")
    from sightline.serve import trail

    lines = trail.verify(tmp_path / "audit.jsonl")
    assert [line["event"] for line in lines] == ["began", "answered", "ended"]
    assert f"3 lines, newest hash {lines[-1]['hash']}" in out


def test_a_stream_is_finished_and_new_ones_find_nobody(tmp_path: Path) -> None:
    process, url = start(tmp_path, "Parrot(words=['so '] * 12, pace=0.1)")
    with httpx.stream("POST", url + CHAT, json=question(stream=True), timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("data: {")
        process.send_signal(signal.SIGTERM)
        until(lambda: not listens(url), 10)
        said = [line for line in lines if line]
    assert said[-1] == "data: [DONE]"
    assert sum('"content":"so "' in line for line in said) == 11
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err, out.endswith("stopped\n")) == (0, "", True)


def listens(url: str) -> bool:
    """Whether anybody takes connections there."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as line:
        line.settimeout(5)
        return line.connect_ex((host, int(port))) == 0


def test_after_the_grace_what_is_left_is_told_that_the_server_stops(tmp_path: Path) -> None:
    """An answer that never comes: in one piece it is refused, a stream is cut off, and the server ends."""
    process, url = start(tmp_path, "Parrot(hold=True)", 1.0)
    with ThreadPoolExecutor(1) as pool, socket.socket() as line:
        whole = pool.submit(httpx.post, url + CHAT, json=question(), timeout=60)
        host, _, port = url.removeprefix("http://").partition(":")
        line.connect((host, int(port)))
        body = json.dumps(question(stream=True)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        line.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: "sightline_asked_total 2\n" in httpx.get(f"{url}/metrics").text, 30)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        answer = whole.result()
        said = b""
        while part := line.recv(65536):
            said += part
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "stopping")
    assert answer.headers["retry-after"] == "60"
    assert said.startswith(b"HTTP/1.1 200")
    assert b"[DONE]" not in said
    assert (process.returncode, out.endswith("stopped\n")) == (0, True)
    from sightline.serve import trail

    events = [line["event"] for line in trail.verify(tmp_path / "audit.jsonl")]
    assert events == ["began", "cancelled", "cancelled", "ended"]


def test_a_server_that_is_killed_leaves_a_log_that_holds_and_starts_again(tmp_path: Path) -> None:
    for _ in range(2):
        process, url = start(tmp_path)
        httpx.post(url + CHAT, json=question(), timeout=60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    from sightline.serve import trail

    assert [line["event"] for line in trail.verify(tmp_path / "audit.jsonl")] == ["began", "answered"] * 2
    assert os.listdir(tmp_path) == ["audit.jsonl", "audit.jsonl.head"] or len(os.listdir(tmp_path)) <= 3
