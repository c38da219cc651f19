"""The files that a reader's option `file` names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ..errors import DataError
from .source import clean

SHOWN = 8  # names of what stands in the root instead


def matching(
    root: Path, *patterns: str, remedy: str, keep: Callable[[Path], bool] = lambda path: True
) -> list[Path]:
    """The files below a data root that match any of some patterns, each once, by name.

    Args:
        root: the data root.
        patterns: as for `Path.glob`, from the root.
        remedy: what to do where nothing matches.
        keep: which of the files count.

    Raises:
        DataError: a pattern leads out of the root, or no file matches.
    """
    told = repr(clean(patterns[0], 120)) if len(patterns) == 1 else ", ".join(patterns)
    if any(each.startswith("/") or ".." in PurePosixPath(each).parts for each in patterns):
        raise DataError(
            "no file matches below the data root: `file` must stay below it", where="option file", found=told,
            remedy="name it from the root",
        )  # fmt: skip
    found = sorted({p for each in patterns for p in root.glob(each) if p.is_file() and keep(p)})
    if not found:
        there = sorted(p.name for p in root.iterdir())[:SHOWN]
        raise DataError(
            "no file matches below the data root", where="option file",
            found=f"{told}; the root holds {', '.join(there) or 'nothing'}", remedy=remedy,
        )  # fmt: skip
    return found
