"""How long a connection may take to say what it wants and to take what it is told: uvicorn itself waits for ever."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[H11Protocol]:
    """A protocol that ends a connection on which nothing goes on for so many seconds. See `Patient`."""
    return type("Patient", (Patient,), {"seconds": seconds})


class Patient(H11Protocol):
    """One connection.

    A whole head of a request must arrive within `seconds`, and an answer that waits for whoever reads it must be taken
    within them. Such an answer's connection is cut: to close it would be to wait for the reader.
    """

    seconds = 10.0
    unsaid: asyncio.TimerHandle | None = None
    unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self.unsaid = self.loop.call_later(self.seconds, self.give_up)

    def data_received(self, data: bytes) -> None:
        """Stop to wait while a request is being answered; wait anew where another one has only begun."""
        super().data_received(data)
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and self.unsaid is not None:
            self.unsaid.cancel()
            self.unsaid = None
        elif not busy and self.unsaid is None:
            self.unsaid = self.loop.call_later(self.seconds, self.give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing to wait for any more."""
        super().connection_lost(exc)
        for timer in (self.unsaid, self.unread):
            if timer is not None:
                timer.cancel()

    def pause_writing(self) -> None:
        """Nothing more is taken just now."""
        super().pause_writing()
        if self.unread is None:
            self.unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Somebody reads on."""
        super().resume_writing()
        if self.unread is not None:
            self.unread.cancel()
            self.unread = None

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked any more; what was said last has had its time."""
        super().timeout_keep_alive_handler()
        self.transport.abort()

    def give_up(self) -> None:
        """Close the connection."""
        if not self.transport.is_closing():
            self.transport.close()
