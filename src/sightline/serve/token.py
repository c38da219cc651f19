"""Who may ask: a token in a header for programs, a cookie for the page, and patience with nobody who guesses."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import defaultdict, deque
from collections.abc import Mapping

from .backend import Refused

COOKIE = "sightline"
MINUTE = 60.0
SHORTEST = 16
ADDRESSES = 4096  # that wrong tokens are remembered of


class Guard:
    """Checks tokens. One event loop uses it.

    Args:
        token: what must be shown; "" lets everybody in.
        tries: wrong tokens of one address in a minute before it must wait.
    """

    def __init__(self, token: str, tries: int) -> None:
        self.token, self.tries = token.encode(), tries
        self._wrong: dict[str, deque[float]] = defaultdict(deque)

    @property
    def cookie(self) -> str:
        """What the page keeps in place of the token."""
        return hmac.new(self.token, b"a browser that showed the token", hashlib.sha256).hexdigest()

    def check(self, headers: Mapping[str, str], address: str) -> None:
        """Let whoever shows the token or the cookie in.

        Raises:
            Refused: 401 without either, 429 after too many wrong ones.
        """
        if not self.token:
            return
        if hmac.compare_digest(_cookie(headers).encode(), self.cookie.encode()):
            return
        kind, _, shown = headers.get("authorization", "").partition(" ")
        self.compare(shown.strip() if kind.lower() == "bearer" else "", address)

    def compare(self, shown: str, address: str) -> None:
        """Compare a token with the right one.

        Raises:
            Refused: it is another one, or this address has guessed too often.
        """
        self._check_tries(address)
        if hmac.compare_digest(shown.encode("utf-8", "replace"), self.token):
            self._wrong.pop(address, None)
            return
        if shown:
            if len(self._wrong) >= ADDRESSES:
                self._wrong.clear()
            self._wrong[address].append(time.monotonic())
        raise Refused(401, "token", "a token is needed, as `Authorization: Bearer TOKEN`")

    def _check_tries(self, address: str) -> None:
        """Refuse an address that has guessed too often."""
        wrong = self._wrong.get(address)
        while wrong and time.monotonic() - wrong[0] > MINUTE:
            wrong.popleft()
        if wrong and len(wrong) >= self.tries:
            raise Refused(429, "too_many_tries", "too many wrong tokens; come again later", after=int(MINUTE))


def _cookie(headers: Mapping[str, str]) -> str:
    """The cookie's value; "" for none. The standard library's reader takes seconds for a long hostile text."""
    pairs = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
    return next((value for name, _, value in pairs if name == COOKIE), "")
