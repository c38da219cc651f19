"""Ports of this machine."""

from __future__ import annotations

import socket


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])
