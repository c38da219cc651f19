"""How long a connection may take to say what it wants: uvicorn itself waits for ever for the head of a request."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(seconds: float) -> type[H11Protocol]:
    """A protocol that closes a connection on which no whole head of a request arrives within so many seconds."""

    class Patient(H11Protocol):
        """One connection."""

        timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Begin to wait."""
            super().connection_made(transport)
            self.timer = self.loop.call_later(seconds, self.give_up)

        def data_received(self, data: bytes) -> None:
            """Stop to wait while a request is being answered; wait anew where another one has only begun."""
            super().data_received(data)
            busy = self.cycle is not None and not self.cycle.response_complete
            if busy and self.timer is not None:
                self.timer.cancel()
                self.timer = None
            elif not busy and self.timer is None:
                self.timer = self.loop.call_later(seconds, self.give_up)

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing to wait for any more."""
            super().connection_lost(exc)
            if self.timer is not None:
                self.timer.cancel()

        def give_up(self) -> None:
            """Close the connection."""
            if not self.transport.is_closing():
                self.transport.close()

    return Patient
