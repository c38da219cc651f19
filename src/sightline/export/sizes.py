"""How large the files of an export are."""

from __future__ import annotations

from pathlib import Path

from .. import runs


def sizes(place: Path) -> dict[str, int]:
    """Bytes of every file of a folder, by relative path."""
    return {p.relative_to(place).as_posix(): p.stat().st_size for p in runs.files_below(place)}
