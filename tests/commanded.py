"""A command of `sightline`, run in this process."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from sightline import cli


def command(monkeypatch: pytest.MonkeyPatch, capsys: Any, *words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of one command line."""
    monkeypatch.setattr(sys, "argv", ["sightline", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err
