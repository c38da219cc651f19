"""What a server lets in: tokens, hosts, origins, sizes, images and tricks; and what it says when it does not."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from serving import CHAT, LEAK, QUICK, TOKEN, Parrot, Running, question, refused, running
from sightline import NOTICE
from sightline.errors import RunError
from sightline.serve import server
from sightline.serve.limits import Limits
from sightline.serve.token import Guard


@pytest.fixture(scope="module")
def open_server() -> Iterator[Running]:
    with running(Parrot()) as made:
        yield made


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    with running(Parrot(), token=TOKEN) as made:
        yield made


def test_off_loopback_a_token_is_needed() -> None:
    for host in ("0.0.0.0", "192.168.0.7", "::", "example.org"):
        with pytest.raises(RunError, match="whoever reaches it"):
            server.check(server.Settings(host=host))
        server.check(server.Settings(host=host, token=TOKEN))
    for host in ("127.0.0.1", "127.3.2.1", "::1", "localhost"):
        server.check(server.Settings(host=host))
    with pytest.raises(RunError, match="too short"):
        server.check(server.Settings(token="short"))


def test_every_route_wants_the_token_but_health(guarded: Running) -> None:
    paths = [
        "/",
        "/page/page.js",
        "/page/about.json",
        "/v1/models",
        "/v1/models/x",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/no",
    ]
    with guarded.client() as client:
        for path in paths:
            refused(client.get(path), 401, "token")
        refused(client.post(CHAT, json=question()), 401, "token")
        refused(client.put("/v1/models", json={}), 401, "token")
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/health").headers["sightline-notice"] == NOTICE
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.post(CHAT, json=question(), headers=right).status_code == 200
    assert guarded.backend.asked[0].messages[0].text == "Is there an effusion?"


def test_a_browser_signs_in_and_keeps_a_cookie_that_is_not_the_token(guarded: Running) -> None:
    with guarded.client() as client:
        asked = client.get("/", headers={"accept": "text/html"})
        assert asked.status_code == 401
        assert '<form method="post" action="/login">' in asked.text
        assert (
            client.post("/login", data={"token": "wrong"}, headers={"accept": "text/html"}).status_code == 401
        )
        entered = client.post("/login", data={"token": TOKEN})
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        kept = entered.headers["set-cookie"]
        assert "HttpOnly" in kept
        assert "SameSite=strict" in kept
        assert TOKEN not in kept
        assert client.get("/").status_code == 200
        client.cookies.set("sightline", "0" * 64)
        client.cookies.delete("sightline")
        assert client.get("/").status_code == 401


def test_guessing_is_slowed_down() -> None:
    with running(Parrot(), token=TOKEN) as made, made.client() as client:
        wrong = {"authorization": "Bearer wrong-wrong-wrong"}
        codes = [client.get("/v1/models", headers=wrong).status_code for _ in range(7)]
        assert codes == [401] * 5 + [429] * 2
        late = client.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"})
        refused(late, 429, "too_many_tries")
        assert late.headers["retry-after"] == "60"
        refused(client.post("/login", data={"token": TOKEN}), 429, "too_many_tries")
        assert client.get("/health").status_code == 200


def test_only_known_names_and_no_other_pages(open_server: Running) -> None:
    with open_server.client() as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "", "[::2]", "localhost@evil.example"):
            refused(client.get("/v1/models", headers={"host": host}), 421, "host")
        for host in ("localhost", "localhost:9", "LOCALHOST", "[::1]:8000"):
            assert client.get("/v1/models", headers={"host": host}).status_code == 200
        own = open_server.url.removeprefix("http://")
        strange = (
            "http://[",
            "http://[evil]",
            f"http://x@{own}",
            f"http://{own}.evil",
            f"http://{own}/",
        )  # no reader of URLs may fail
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", *strange):
            refused(client.get("/v1/models", headers={"origin": origin}), 403, "origin")
        asked = client.options(
            CHAT, headers={"origin": open_server.url, "access-control-request-method": "POST"}
        )
        assert [h for h in asked.headers if h.startswith("access-control")] == []
        assert asked.status_code == 405
        kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "")
        for kind in kinds:  # what a page elsewhere may send unasked
            answer = client.post(CHAT, content=json.dumps(question()), headers={"content-type": kind})
            refused(answer, 415, "content_type")


def test_a_server_may_have_further_names() -> None:
    with running(Parrot(), hosts=["Reading-Room"]) as made, made.client() as client:
        assert client.get("/v1/models", headers={"host": "reading-room:8000"}).status_code == 200
        assert client.get("/v1/models", headers={"host": "reading-hall"}).status_code == 421


def test_headers_that_keep_a_page_to_itself(open_server: Running) -> None:
    with open_server.client() as client:
        for path in ("/", "/v1/models", "/nothing"):
            headers = client.get(path).headers
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["cache-control"] == "no-store"
            assert (
                headers["referrer-policy"] == "same-origin"
            )  # with none, a browser hides where a form comes from
            assert re.fullmatch(r"[0-9a-f]{16}", headers["sightline-request"])
            assert "server" not in headers


def test_what_is_too_large_is_not_read(open_server: Running) -> None:
    with open_server.client() as client:
        start = time.process_time()
        answer = client.post(
            CHAT, content=b" " * (20 * 2**20 + 1), headers={"content-type": "application/json"}
        )
        assert time.process_time() - start <= QUICK
        refused(answer, 413, "too_large")

        def endless() -> Iterator[bytes]:
            for _ in range(400):
                yield b" " * 65536

        try:
            status = client.post(
                CHAT, content=endless(), headers={"content-type": "application/json"}
            ).status_code
        except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
            status = 413  # the server had closed the connection while the client was still writing
        assert status == 413


def test_a_stranger_may_send_no_more_than_a_token(guarded: Running) -> None:
    """Whoever signs in is not known yet, so the room for bodies is not theirs to fill."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    with guarded.client() as client:
        refused(client.post("/login", content=b"token=" + b"x" * 4096, headers=form), 413, "too_large")
        fits = client.post("/login", content=b"token=" + b"x" * 4000, headers=form)
        refused(fits, 401, "token")


@pytest.mark.parametrize(
    "cookie",
    ['sightline="' + "\\" * 60_000 + '"', "a=b;" * 15_000, "a" + " " * 60_000 + "!", "sightline=" * 6_000],
    ids=["backslashes", "pairs", "blanks", "names"],
)
def test_a_cookie_that_is_meant_to_hurt(guarded: Running, cookie: str) -> None:
    with guarded.client() as client:
        start = time.process_time()
        refused(client.get("/v1/models", headers={"cookie": cookie}), 401, "token")
        assert time.process_time() - start <= QUICK


def test_a_cookie_beside_others(guarded: Running) -> None:
    own = Guard(TOKEN, 5).cookie
    with guarded.client() as client:
        for cookie in (f"sightline={own}", f"a=b; sightline={own}", f'a="x";sightline={own};b'):
            assert client.get("/v1/models", headers={"cookie": cookie}).status_code == 200
        for cookie in (f"sightline2={own}", f"a=sightline={own}", own, "sightline", "sightline=", "="):
            assert client.get("/v1/models", headers={"cookie": cookie}).status_code == 401


def test_who_gives_a_wrong_token_is_told_so_on_the_form() -> None:
    def shown(answer: httpx.Response) -> tuple[int, bool, bool]:
        assert '<form method="post" action="/login">' in answer.text
        return answer.status_code, "This is not the token." in answer.text, "Too many" in answer.text

    with running(Parrot(), token=TOKEN) as made, made.client(headers={"accept": "text/html"}) as client:
        assert shown(client.get("/")) == (401, False, False)
        for _ in range(5):
            assert shown(client.post("/login", data={"token": "wrong-wrong-wrong"})) == (401, True, False)
        assert shown(client.post("/login", data={"token": TOKEN})) == (429, False, True)
        assert shown(client.get("/")) == (429, False, True)


def test_the_greeting_names_an_address_that_works() -> None:
    settings = server.Settings(host="0.0.0.0", token=TOKEN)
    said = server._greeting(Parrot(), settings, 8000).splitlines()
    assert said[1] == "page http://localhost:8000/    API http://localhost:8000/v1"
    assert said[3] == "names that other machines may ask it by: none, give --allow-host NAME"
    named = server._greeting(Parrot(), server.Settings(host="::", token=TOKEN, hosts=["ward", "ct"]), 1)
    assert "may ask it by: ward, ct\n" in named
    assert "page http://[::1]:8000/" in server._greeting(Parrot(), server.Settings(host="::1"), 8000)
    assert "other machines" not in server._greeting(Parrot(), server.Settings(), 8000)


def test_what_comes_too_slowly_is_given_up() -> None:
    with running(Parrot(), limits=Limits(seconds=0.3)) as made:
        address = made.url.removeprefix("http://").partition(":")
        with socket.create_connection((address[0], int(address[2])), timeout=10) as line:
            line.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            )
            line.sendall(b"content-length: 100\r\n\r\n{")
            said = line.recv(4096)
        assert said.startswith(b"HTTP/1.1 408")
        assert made.door.inside == {}


def test_a_connection_that_never_says_what_it_wants_is_closed() -> None:
    """Nothing at all, half a head, and half a head behind a whole request."""
    whole = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with running(Parrot(), limits=Limits(seconds=0.3)) as made:
        host, _, port = made.url.removeprefix("http://").partition(":")
        for sent, status in ((b"", b""), (whole[:20], b""), (whole + whole[:20], b"HTTP/1.1 200")):
            with socket.create_connection((host, int(port)), timeout=10) as line:
                line.sendall(sent)
                said = b""
                while part := line.recv(4096):
                    said += part
            assert said.startswith(status)
            assert said.count(b"HTTP/1.1") == bool(status)
        with made.client() as client:
            assert client.get("/health").status_code == 200


def test_who_breaks_the_protocol_fills_no_log(open_server: Running, caplog: pytest.LogCaptureFixture) -> None:
    """A refusal that can no longer be said is no fault of ours, and leaves no trace of our files."""
    host, _, port = open_server.url.removeprefix("http://").partition(":")
    for name in ("localhost", "evil.example"):
        with socket.create_connection((host, int(port)), timeout=10) as line:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: {name}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
            line.sendall(head.encode())
            while line.recv(65536):
                pass
    assert "Invalid HTTP request" in caplog.text
    assert "Traceback" not in caplog.text


def test_json_that_is_meant_to_hurt(open_server: Running) -> None:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    bodies: list[tuple[bytes, int]] = [
        (deep, 400), (b"[" * 20_000_000, 400), (b'"\\"' * 6_000_000, 400), (b"[],"* 6_000_000, 400),
        (b'{"messages":[' + b"1," * 9_000_000 + b"1]}", 400),
        (b'{"messages":[' + b"{}," * 3_000 + b"{}]}", 422), (b'{"messages":[' + b"1," * 9_000 + b"1]}", 422),
        (b"{", 400), (b"", 422), (b"\xff\xfe", 400), (b"null", 422), (b"[]", 422), (b"NaN", 422),
        (b'{"model": 1e999}', 422),
        (b'{"model": "\\ud800", "messages": []}', 422), (b"9" * 5000, 400),
    ]  # fmt: skip
    with open_server.client() as client:
        for body, status in bodies:
            start = time.process_time()
            answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
            assert time.process_time() - start <= QUICK, body[:20]
            assert answer.status_code == status, (body[:20], answer.text)
            assert "error" in answer.json()
            assert not LEAK.search(answer.text)


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"model": "other"}, 404, "model"),
        ({"messages": []}, 422, "messages"),
        ({"n": 2}, 422, "n"),
        ({"temperature": -1}, 422, "temperature"),
        ({"temperature": float("inf")}, 422, "temperature"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"tools": []}, 422, ""),
        ({"/etc/passwd": "/srv/x.py"}, 422, ""),
        ({"messages": [{"role": "/etc/passwd", "content": "x"}]}, 422, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "/etc/passwd"}]}]}, 422, None),
        ({"messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "  "}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "x" * 8001}]}, 400, "messages"),
    ],
    ids=str,
)
def test_what_is_not_understood_is_named_and_not_repeated(
    open_server: Running, change: dict[str, Any], status: int, field: str | None
) -> None:
    body = json.dumps(question() | change)
    with open_server.client() as client:
        answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert not LEAK.search(answer.text)
    assert "passwd" not in answer.text
    if field is not None:
        assert answer.json()["error"]["param"] == (field or None)


def test_a_mistake_of_ours_is_told_without_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Parrot()) as made, made.client() as client:

        def broken_state() -> Any:
            raise ValueError("/srv/secret.py at 0x7f0011223344")

        monkeypatch.setattr(made.backend, "state", broken_state)
        answer = client.get("/metrics")
        refused(answer, 500, "fault")
    entry = json.loads(made.log.lines[-1])
    assert (entry["route"], entry["status"], entry["fault"]) == ("/metrics", 500, "ValueError")
    assert "secret" not in "".join(made.log.lines)


def test_the_log_knows_routes_and_counts_and_no_patient(open_server: Running) -> None:
    secret = "Mr Maier from Basel, born 1950"
    with open_server.client() as client:
        client.post(CHAT, json=question(text=secret, user=secret))
        client.get(f"/{secret}")
        client.post(CHAT, json=question(image=secret))
    entries = [json.loads(line) for line in open_server.log.lines[-3:]]
    assert "Maier" not in "".join(open_server.log.lines)
    assert [e["route"] for e in entries] == [CHAT, "unmatched", CHAT]
    assert [e["status"] for e in entries] == [200, 404, 400]
    first = {k: entries[0][k] for k in ("method", "ended", "images", "prompt", "answer", "stream")}
    assert first == {
        "method": "POST",
        "ended": "answered",
        "images": 1,
        "prompt": 7,
        "answer": 4,
        "stream": False,
    }
    assert entries[2]["fault"] == "image_url"
