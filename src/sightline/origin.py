"""Which code a number comes from: files of this package, found by their imports, and the libraries that they use.

Everything is read from the source; nothing is imported. Imports inside functions count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path

from .plugins import ROOT
from .runs import hash_file

PACKAGE = "sightline"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a number comes from.

    Args:
        files: path below the package (of a file outside it: its name) -> SHA-256.
        libraries: top-level names of other packages that these files import.
    """

    files: dict[str, str]
    libraries: tuple[str, ...]


def origin(starts: Sequence[Path], within: Sequence[str]) -> Origin:
    """Follow the imports of files.

    Args:
        starts: source files, of this package or outside it.
        within: folders and modules right below the package that are followed; others are taken for granted.
    """
    found: dict[Path, None] = {}
    libraries: set[str] = set()
    todo = [path.resolve() for path in starts]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found[path] = None
        own, outside = _imports(path)
        libraries |= outside
        todo += [p for p in own if p.relative_to(ROOT).parts[0].removesuffix(".py") in within]
    files = {_shown(path): hash_file(path) for path in found}
    return Origin(dict(sorted(files.items())), tuple(sorted(libraries)))


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that hold these top-level names, by package; those not installed are left out."""
    held = _distributions()
    names = sorted({name for library in libraries for name in held.get(library, ())})
    return {name: metadata.version(name) for name in names}


@lru_cache(maxsize=1)
def _distributions() -> dict[str, tuple[str, ...]]:
    """Top-level name -> the installed packages that hold it, in lower case."""
    found = metadata.packages_distributions()
    return {name: tuple(each.lower() for each in held) for name, held in found.items()}


def _shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _imports(path: Path) -> tuple[list[Path], set[str]]:
    """Files of this package that a file imports, and the top-level names of others."""
    own: list[Path] = []
    outside: set[str] = set()
    for words, names in _named(path):
        if words[0] == PACKAGE:
            own += _files(words[1:], names)
        elif words[0] not in sys.stdlib_module_names:
            outside.add(words[0])
    return own, outside


def _named(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """The modules that a file names, as absolute words, each with the names taken from it."""
    home = [PACKAGE, *path.relative_to(ROOT).parts[:-1]] if path.is_relative_to(ROOT) else []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split("."), []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            words = node.module.split(".") if node.module else []
            above = home[: len(home) - node.level + 1] if node.level else []
            if [*above, *words]:
                yield [*above, *words], [alias.name for alias in node.names]


def _files(words: Sequence[str], names: Sequence[str]) -> list[Path]:
    """The files of a module and of those of its names that are modules themselves."""
    tried = [words, *([*words, name] for name in names)]
    paths = [
        candidate
        for each in tried
        if each
        for candidate in (ROOT.joinpath(*each).with_suffix(".py"), ROOT.joinpath(*each) / "__init__.py")
    ]
    return [path for path in paths if path.is_file()]
