"""Images that are none, and URLs and paths that are tricks: refused at once, and nothing is fetched or opened."""

from __future__ import annotations

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from serving import CHAT, IDENTITY, LEAK, QUICK, Parrot, Running, png, question, refused, running, url


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
    }  # fmt: skip


def huge(width: int, height: int, rows: int = 0) -> bytes:
    """A PNG of one colour: few bytes, many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    line = bytes(1 + width)
    data = b"".join(packer.compress(line) for _ in range(rows or height)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


KINDS = (
    "one pixel", "a thread", "50 megapixels", "a claim of 4 gigapixels", "truncated", "truncated JPEG", "a header only",
    "GIF as PNG", "TIFF as JPEG", "JPEG as PNG", "text", "PDF", "nothing", "SVG", "GIF", "not base64",
    "base64 in the middle of which a line breaks", "no base64", "damaged pixels",
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
]  # fmt: skip
PLACES = (
    "/page/../page.py", "/page/%2e%2e/app.py", "/page/..%2fapp.py", "/page//etc/passwd", "/page/%2fetc%2fpasswd",
    "/../../etc/passwd", "/page/sign_in.html", "/page/page.css/../../app.py", "/static/x", "/%00",
    "/page/page.js%00.html", "/..%5c..%5cetc/passwd", "/page/.", "/page/page.JS", "/v1/models/../../etc/passwd",
    "/v1/models/%2fetc%2fpasswd", "/v1/files", "/v1/embeddings",
    "/invocations", "/tokenize", "/pause", "/docs", "/redoc", "/favicon.ico", "/.env", "/metrics/",
)  # fmt: skip


def test_no_trick_makes_the_server_fetch_or_open(
    open_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 of them: no name is looked up, no connection made, no file of theirs opened, nothing of the machine told."""
    assert len(TRICKS) + len(PLACES) >= 80
    reached: list[Any] = []
    watch = socket.create_server(("127.0.0.1", 0))
    watch.settimeout(0.2)
    port = watch.getsockname()[1]
    opened: list[str] = []
    plain_open = Path.open

    def noted(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(str(self))
        return plain_open(self, *args, **kwargs)

    with open_server.client() as client:
        client.get("/health")
        monkeypatch.setattr(Path, "open", noted)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: reached.append(a))
        for trick in TRICKS:
            answer = client.post(CHAT, json=question(image=trick.format(f"127.0.0.1:{port}", port)))
            assert 400 <= answer.status_code < 500, trick
            assert not LEAK.search(answer.text), trick
        for place in PLACES:
            found = client.get(place)
            assert found.status_code in (404, 307, 405), place
            assert not LEAK.search(found.text), place
    assert reached == []
    assert opened == []
    with pytest.raises(TimeoutError):
        watch.accept()
    watch.close()
