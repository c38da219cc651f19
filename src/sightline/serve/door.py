"""How many may be inside: so many are answered at once, so many wait, and others are told when to come again."""

from __future__ import annotations

import math
import time
from collections import deque

from .backend import Refused

LONGEST = 60
STOPPING = "the server is stopping"


class Door:
    """Counts requests from the moment their body is read to that of their last byte. One event loop uses it.

    Args:
        slots: answers that are made at the same time.
        queue: requests that may wait for one.
    """

    def __init__(self, slots: int, queue: int) -> None:
        self.slots, self.room = slots, slots + queue
        self.inside: dict[str, float] = {}
        self.turned = 0
        self.closed = False
        self._spent: deque[float] = deque(maxlen=32)

    def check(self) -> None:
        """Whether a request would be let in now: one that would not be is not even read.

        Raises:
            Refused: 429 where all places are taken, 503 where the server is stopping; both with a time to come again.
        """
        if self.closed:
            raise Refused(503, "stopping", STOPPING, after=LONGEST)
        if len(self.inside) >= self.room:
            self.turned += 1
            raise Refused(429, "busy", "all places are taken; come again later", after=self.after())

    def enter(self, name: str) -> None:
        """Let a request in; raises as `check`."""
        self.check()
        self.inside[name] = time.monotonic()

    def leave(self, name: str) -> None:
        """A request is done, however it ended; may be called more than once."""
        start = self.inside.pop(name, None)
        if start is not None:
            self._spent.append(time.monotonic() - start)

    def after(self) -> int:
        """Seconds after which a place should be free."""
        mean = sum(self._spent) / len(self._spent) if self._spent else 1.0
        return max(1, min(LONGEST, math.ceil(mean / max(1, len(self.inside)))))
