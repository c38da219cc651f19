"""The body of a request: read up to a limit and within a time, and judged before anything parses it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from starlette.types import Message, Receive

from .backend import Refused
from .limits import Limits

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
BYTES = "application/octet-stream"
FORMS = 4096  # bytes of a sign-in form
WORDS = 10_000  # strings, brackets and commas of a JSON text; a conversation has a few hundred
# A string, which the end of the text may cut off, a bracket or a comma: each is taken in one go, so the time is linear.
STRUCTURE = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{]|[\]}]|,', re.DOTALL)


class Bodies:
    """Reads bodies, and knows how much of them is held: until their texts are gone. One event loop uses it.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    async def read(self, headers: Mapping[str, str], receive: Receive, most: int) -> bytes:
        """The whole body, of so many bytes at most; it counts as held until what `freeing` makes for it is called.

        Raises:
            Refused: larger than the limit (413), too slow (408), or too much is being received just now (429).
        """
        wanted = self._announced(headers, most)
        parts: list[bytes] = []
        size, whole = 0, False
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message: Message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(400, "cut_off", "the request was cut off")
                    part: bytes = message.get("body", b"")
                    size, self.held = size + len(part), self.held + len(part)
                    self._check(max(size, wanted), most)
                    parts.append(part)
                    if not message.get("more_body", False):
                        whole = True
                        return b"".join(parts)
        except TimeoutError:
            raise Refused(
                408, "too_slow", f"the request did not arrive within {self.limits.seconds:g} s"
            ) from None
        finally:
            if not whole:
                self.held -= size

    def freeing(self, size: int) -> Callable[[], None]:
        """What is called when a body of this size is held no longer; only its first call counts."""
        left = [size]

        def free() -> None:
            if left:
                self.held -= left.pop()

        return free

    def _announced(self, headers: Mapping[str, str], most: int) -> int:
        """The size that the request announces, if it does."""
        text = headers.get("content-length", "0")
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise Refused(400, "length", "the request's length is no number")
        self._check(int(text), most)
        return int(text)

    def _check(self, size: int, most: int) -> None:
        if size > most:
            what = f"the request is larger than {most} bytes"
            raise Refused(413, "too_large", what)
        if self.held > self.limits.held:
            raise Refused(429, "busy", "too much is being received; come again later", after=1)


def check_kind(headers: Mapping[str, str], wanted: str) -> None:
    """Refuse another kind of content: a web page elsewhere can send a form unasked, but not JSON.

    Raises:
        Refused: another kind, or a compressed one.
    """
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != wanted or headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "content_type", f"the body must be plain {wanted}")


def check_depth(body: bytes, depth: int) -> None:
    """Refuse a JSON text that is nested too deeply, or that has more parts than any conversation.

    Raises:
        Refused: it is.
    """
    level = 0
    for count, found in enumerate(STRUCTURE.finditer(body)):
        first: Any = body[found.start()]
        level += (first in b"[{") - (first in b"]}")
        if level > depth or count > WORDS:
            raise Refused(
                400, "too_deep", f"the JSON text is nested deeper than {depth}, or has too many parts"
            )
