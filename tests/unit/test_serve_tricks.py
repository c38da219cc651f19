"""Images that are none, and URLs and paths that are tricks: refused at once, and nothing is fetched or opened."""

from __future__ import annotations

import io
import json
import os
import random
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serving import CHAT, IDENTITY, LEAK, QUICK, Parrot, Running, png, question, refused, running, url

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def open_server() -> Iterator[Running]:
    with running(Parrot()) as made:
        yield made


@lru_cache(maxsize=1)
def broken() -> dict[str, tuple[str, str]]:
    """Data URLs that must be refused, and the codes of the refusals."""
    small = png()
    gif, tiff = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (28, 28)).save(gif, "GIF")
    Image.new("RGB", (28, 28)).save(tiff, "TIFF")
    jpeg = io.BytesIO()
    Image.new("RGB", (400, 400), (9, 99, 200)).save(jpeg, "JPEG")
    return {
        "one pixel": (url(png(1, 1)), "image_too_small"),
        "a thread": (url(png(400, 1)), "image_too_small"),
        "50 megapixels": (url(huge(10_000, 5_000)), "image_too_large"),
        "a claim of 4 gigapixels": (url(huge(65_535, 65_535, rows=1)), "image_too_large"),
        "truncated": (url(small[: len(small) // 2]), "image_unreadable"),
        "truncated JPEG": (url(jpeg.getvalue()[:700], "image/jpeg"), "image_unreadable"),
        "a header only": (url(small[:26]), "image_unreadable"),
        "GIF as PNG": (url(gif.getvalue()), "image_type"),
        "TIFF as JPEG": (url(tiff.getvalue(), "image/jpeg"), "image_type"),
        "JPEG as PNG": (url(jpeg.getvalue()), "image_type"),
        "text": (url(b"<script>alert(1)</script>"), "image_type"),
        "PDF": (url(b"%PDF-1.7"), "image_type"),
        "nothing": (url(b""), "image_type"),
        "SVG": (url(b"<svg/>", "image/svg+xml"), "image_url"),
        "GIF": (url(gif.getvalue(), "image/gif"), "image_url"),
        "not base64": ("data:image/png;base64,*** ***", "image_base64"),
        "base64 in the middle of which a line breaks": (url(small)[:60] + "\n" + url(small)[60:], "image_base64"),
        "no base64": ("data:image/png,abc", "image_url"),
        "damaged pixels": (url(small[:60] + bytes(8) + small[68:]), "image_unreadable"),
        "14 MiB cut off": (url(plain_rows(2300, 2200)[: 14 * 2**20]), "image_unreadable"),
        "25 megapixels but for the last line": (url(huge(5_000, 5_000)[:-48]), "image_unreadable"),
        "a text that grows to 256 MiB": (url(with_chunk(b"zTXt", b"a\0\0" + blown(2**28))), "image_unreadable"),
        "a JPEG that claims 4 gigapixels": (url(claiming(jpeg.getvalue()), "image/jpeg"), "image_too_large"),
        "a JPEG of a thousand passes": (url(many_passes(1000), "image/jpeg"), "image_unreadable"),
    }  # fmt: skip


def huge(width: int, height: int, rows: int = 0) -> bytes:
    """A PNG of one colour: few bytes, many pixels."""

    packer = zlib.compressobj(9)
    line = bytes(1 + width)
    data = b"".join(packer.compress(line) for _ in range(rows or height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def plain_rows(width: int, height: int) -> bytes:
    """A PNG of noise that is not compressed: three bytes a pixel."""
    rows = b"".join(b"\0" + random.Random(i).randbytes(3 * width) for i in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")


def with_chunk(name: bytes, data: bytes) -> bytes:
    """A small PNG with one part more behind its head."""
    return png()[:33] + chunk(name, data) + png()[33:]


def blown(size: int) -> bytes:
    """So many zeros, compressed."""
    packer, part = zlib.compressobj(9), bytes(2**20)
    return b"".join(packer.compress(part) for _ in range(size // 2**20)) + packer.flush()


def many_passes(count: int) -> bytes:
    """A JPEG whose last pass, of a few bytes, comes again and again: in a large picture each costs 12 ms."""
    out = io.BytesIO()
    Image.new("L", (400, 400), 99).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


def claiming(jpeg: bytes) -> bytes:
    """A JPEG whose frame says that it has 65,535 lines and columns."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + b"\xff" * 4 + jpeg[at + 4 :]


KINDS = (
    "one pixel", "a thread", "50 megapixels", "a claim of 4 gigapixels", "truncated", "truncated JPEG", "a header only",
    "GIF as PNG", "TIFF as JPEG", "JPEG as PNG", "text", "PDF", "nothing", "SVG", "GIF", "not base64",
    "base64 in the middle of which a line breaks", "no base64", "damaged pixels", "14 MiB cut off",
    "25 megapixels but for the last line", "a text that grows to 256 MiB", "a JPEG that claims 4 gigapixels",
    "a JPEG of a thousand passes",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_images_that_are_none(open_server: Running, kind: str) -> None:
    address, code = broken()[kind]
    asked = len(open_server.backend.asked)
    with open_server.client() as client:
        start = time.process_time()
        answer = client.post(CHAT, json=question(image=address))
        assert time.process_time() - start <= QUICK
    refused(answer, 400, code)
    assert len(open_server.backend.asked) == asked
    assert len(open_server.door.inside) == 0


def test_an_image_of_20_mib_is_not_even_read(open_server: Running) -> None:
    image = url(plain_rows(2648, 2640))
    assert len(image) * 3 // 4 > 20 * 2**20
    body, asked = json.dumps(question(image=image)).encode(), len(open_server.backend.asked)
    with open_server.client() as client:
        start = time.process_time()
        answer = client.post(CHAT, content=body, headers={"content-type": "application/json"})
        assert time.process_time() - start <= QUICK
    refused(answer, 413, "too_large")
    assert len(open_server.backend.asked) == asked


def test_the_kinds_are_all_that_are_made() -> None:
    assert set(KINDS) == set(broken())
    assert {code for _, code in broken().values()} == {
        "image_too_small", "image_too_large", "image_unreadable", "image_type", "image_url", "image_base64"
    }  # fmt: skip


def test_so_many_images_and_no_more(open_server: Running) -> None:
    part = {"type": "image_url", "image_url": {"url": url(png())}}
    with open_server.client() as client:
        for count, status in ((8, 200), (9, 400)):
            content = [*[part] * count, {"type": "text", "text": "Compare."}]
            asked = {"model": IDENTITY.name, "messages": [{"role": "user", "content": content}]}
            assert client.post(CHAT, json=asked).status_code == status
    shown = open_server.backend.asked[-1]
    assert len(shown.pictures) == 8
    assert shown.pictures[0].pixels.shape == (28, 28, 3)


TRICKS = [
    "http://{0}/", "https://{0}/a.png", "HTTP://{0}/", "//{0}/a.png", "ftp://{0}/a", "file:///etc/passwd",
    "file:/etc/passwd", "FILE:///etc/passwd", "/etc/passwd", "../../../etc/passwd",
    "..\\..\\etc\\passwd", "\\\\{0}\\share", "C:\\a.png",
    "data:text/html;base64,PGI+", "data:image/png;base64,http://{0}/", "data:image/png;charset=utf-8;base64,AAAA",
    "data:;base64,AAAA", "data:image/png;base64", " data:image/png;base64,AAAA", "data:image/png;base64;http://{0},AAAA",
    "gopher://{0}/", "dict://{0}/", "jar:http://{0}/!/", "blob:http://{0}/", "about:blank", "javascript:alert(1)",
    "http://127.0.0.1:{1}/", "http://[::1]:{1}/", "http://0:{1}/", "http://2130706433:{1}/", "http://0x7f000001:{1}/",
    "http://127.1:{1}/", "http://[::ffff:127.0.0.1]:{1}/", "http://localhost:{1}/", "http://evil@127.0.0.1:{1}/",
    "http:\\\\127.0.0.1:{1}\\", "http:/127.0.0.1:{1}/", "http:127.0.0.1:{1}", "h\tttp://127.0.0.1:{1}/", "s3://bucket/a",
    "gs://bucket/a", "hf://a/b", "/dev/zero", "/proc/self/environ", "/proc/self/fd/0", "%2e%2e/%2e%2e/etc/passwd",
    "．．/etc/passwd", "~/.ssh/id_rsa", "$HOME/.ssh/id_rsa", "", " ", "\x00", "data:image/png;base64,\x00", "a" * 5000,
    "http://017700000001:{1}/", "http://127.0.0.1.:{1}/", "http://127.0.0.1%00@{0}/", "http://{0}#@example.org/",
    "http://example.org@{0}/", "http://{0}\\@example.org/", "http://①②⑦.⓪.⓪.①:{1}/", "http://[::]:{1}/",
    "http://[fe80::1%25lo]:{1}/", "http://169.254.169.254/latest/meta-data/", "http://metadata.example/",
    "ws://{0}/", "wss://{0}/", "ldap://{0}/", "tftp://{0}/a", "smb://{0}/share", "ssh://{0}/", "unix:/run/a.sock",
    "file://localhost/etc/passwd", "file:///proc/self/cmdline", "file:///dev/zero", "file:%2f%2f/etc/passwd",
    "view-source:file:///etc/passwd", "netdoc:///etc/passwd", "phar://a.png", "expect://id",
    "php://filter/resource=/etc/passwd", "data:image/svg+xml;base64,PHN2Zy8+",
    "data:image/png;base64,@/etc/passwd", "data:image/png;base64,../../etc/passwd", "data:text/plain,http://{0}/",
    "DATA:IMAGE/PNG;BASE64,", "\ufeffdata:image/png;base64,AAAA", "data://image/png;base64,AAAA",
    "\nhttp://{0}/", "http://{0}/\r\nhost: evil", "`id`", "$(id)", "${{jndi:ldap://{0}/a}}", "|id",
]  # fmt: skip
PLACES = (
    "/page/../page.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd",
    "/../../etc/passwd", "/page/sign_in.html", "/page/page.css/../../app.py", "/static/x", "/%00",
    "/page/page.js%00.html", "/..%5c..%5cetc/passwd", "/page/.", "/page/page.JS", "/v1/models/../../etc/passwd",
    "/v1/models/%2fetc%2fpasswd", "/v1/files", "/v1/embeddings",
    "/invocations", "/tokenize", "/pause", "/docs", "/redoc", "/favicon.ico", "/.env", "/metrics/", "/health/",
    "/proc/self/environ", "/page/....//....//etc/passwd", "/page/%252e%252e%252fetc/passwd", "/page/\\etc\\passwd",
    "/v1/models/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/openapi.json/", "/page/index.html%20", "/page/index.html?/../a",
    "//etc/passwd", "/page/../../../../../../etc/passwd", "/page/./../app.py", "/page/page.js/..",
    "/page/page.css;/../app.py",
)  # fmt: skip


REACHES = frozenset((
    "open", "os.listdir", "os.scandir", "glob.glob", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork",
    "subprocess.Popen", "socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
    "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request", "http.client.connect", "ftplib.connect",
))  # fmt: skip
WATCHING: list[list[tuple[str, str]]] = []


@lru_cache(maxsize=1)
def watch() -> None:
    """Let the interpreter tell what any thread but this one opens and reaches; that cannot be taken back."""
    main = threading.main_thread().ident

    def note(event: str, args: tuple[Any, ...]) -> None:
        if WATCHING and event in REACHES and threading.get_ident() != main:
            WATCHING[-1].append((event, str(args[:1])))

    sys.addaudithook(note)


def raw(server: Running, place: str) -> str:
    """What is said to a target that is sent as it stands: httpx takes dots and slashes away from others."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    target = "".join(c if "!" <= c <= "~" else f"%{ord(c):02x}" for c in place)
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(f"GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        said = b""
        while part := line.recv(65536):
            said += part
    return said.decode()


def asked_of(server: Running, tricks: Sequence[str], places: Sequence[str]) -> list[tuple[str, str]]:
    """Send tricks as images and ask for places; what the server opened and reached meanwhile."""
    watch()
    with server.client() as client:
        client.post(CHAT, json=question())  # whatever is imported at the first request
        client.get("/nothing")
        WATCHING.append([])
        try:
            for trick in tricks:
                answer = client.post(CHAT, json=question(image=trick))
                assert (answer.status_code, answer.json()["error"]["type"]) == (
                    400,
                    "invalid_request_error",
                ), trick
                assert not LEAK.search(f"{answer.text}{answer.headers}"), trick
            for place in places:
                found = client.get(place)
                assert (found.status_code, found.json()["error"]["type"]) == (404, "invalid_request_error"), (
                    place
                )
                assert not LEAK.search(f"{found.text}{found.headers}"), place
                said = raw(server, place)
                assert said.startswith("HTTP/1.1 404 "), place
                assert '"type": "invalid_request_error"' in said, place
                assert not LEAK.search(said), place
            return WATCHING[-1]
        finally:
            WATCHING.pop()


def test_no_trick_makes_the_server_fetch_or_open(open_server: Running) -> None:
    """No name is looked up, no connection made, no file opened, nothing of the machine told."""
    assert len(set(TRICKS)) >= 80
    assert len(set(PLACES)) >= 30
    with socket.create_server(("127.0.0.1", 0)) as there:
        there.settimeout(0.2)
        port = there.getsockname()[1]
        tricks = [trick.format(f"127.0.0.1:{port}", port) for trick in TRICKS]
        assert asked_of(open_server, tricks, PLACES) == []
        with pytest.raises(TimeoutError):
            there.accept()


def test_the_watch_sees_what_is_opened_and_reached(open_server: Running) -> None:
    """A control: the anonymous file of a real image, and what a thread of this test does."""
    watch()
    WATCHING.append([])
    try:
        with open_server.client() as client:
            assert client.post(CHAT, json=question()).status_code == 200
        thread = threading.Thread(
            target=lambda: (Path(os.devnull).read_bytes(), socket.getaddrinfo("localhost", 1))
        )
        thread.start()
        thread.join()
    finally:
        seen = WATCHING.pop()
    assert {event for event, _ in seen} == {"open", "socket.getaddrinfo"}
    assert [what for event, what in seen if event == "open" and "proc/self/fd" in what]
