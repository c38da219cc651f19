"""`sightline new`: a recipe of one's own, begun as a copy of one that works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RecipeError

FOLDER = Path("recipes")
SHIPPED = Path(__file__).parents[3] / FOLDER  # of a checkout; an installed package has none
NAME_LINE = re.compile(r"^name:[ \t]*[^\s#]+", re.MULTILINE)


def new(
    name: Annotated[str, typer.Argument(help="the new recipe's name, and its folder's in runs/")],
    source: Annotated[
        str, typer.Option("--from", metavar="RECIPE", help="a shipped recipe's name, or a file")
    ] = "quickstart",
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="the file to write [recipes/NAME.yaml]")
    ] = None,
) -> None:
    """Copy a recipe under a new name, comments kept, and check the copy."""
    place = write(name, source, to or FOLDER / f"{name}.yaml")
    print(f"{place}: sound; change it, then: sightline check {place}")


def write(name: str, source: str, to: Path) -> Path:
    """Write a copy of a recipe, or nothing if the copy would not be sound.

    Args:
        name: its new name.
        source: a recipe's name or file.
        to: the file to write.

    Raises:
        RecipeError: a name that no folder can have, no such source, the file is there already, or the copy has faults.
    """
    from .. import graph, recipe

    if not re.match(graph.NAME, name):
        raise RecipeError(
            f"a recipe cannot be called '{name}'", found=repr(name),
            expected="letters, digits, '_', '-' and '.', no '.' or '-' first", remedy="its name is a folder's, too",
        )  # fmt: skip
    if to.exists():
        raise RecipeError("this file is there already", where=str(to), remedy="name another one with --to")
    origin = find(source)
    text = renamed(origin.read_text(encoding="utf-8"), name, origin, to)
    part = to.with_name(f".{to.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    part.write_text(text, encoding="utf-8")
    try:
        recipe.load(part)
        part.rename(to)
    except RecipeError as error:
        raise RecipeError(error.what, where=str(origin), found=error.found, remedy=error.remedy) from None
    finally:
        part.unlink(missing_ok=True)
    return to


def find(source: str) -> Path:
    """The file of a recipe: as it is given, or by its name here or among the shipped ones.

    Raises:
        RecipeError: there is none.
    """
    tried = [Path(source), FOLDER / f"{source}.yaml", SHIPPED / f"{source}.yaml"]
    for path in tried:
        if path.is_file():
            return path
    from ..plugins import nearest

    known = sorted({p.stem for folder in (FOLDER, SHIPPED) for p in folder.glob("*.yaml")})
    raise RecipeError(
        f"no recipe '{source}'{nearest(source, known)}", found=repr(source), expected=", ".join(known) or "a file",
        remedy="`sightline ls` lists the recipes in ./recipes",
    )  # fmt: skip


def renamed(text: str, name: str, origin: Path, to: Path) -> str:
    """A recipe's text under a new name; its head then shows the command with the new file.

    Args:
        text: of the recipe.
        name: the new one.
        origin: the recipe's own file, as its comments may name it.
        to: the new file.
    """
    found = NAME_LINE.search(text)
    if found is None:
        raise RecipeError(
            "this recipe has no line `name: ...` of its own", where=str(origin), remedy="write it on one line"
        )
    text = text[: found.start()] + f"name: {name}" + text[found.end() :]
    lines = text.split("\n")
    own = (FOLDER / origin.name).as_posix()
    word = re.compile(rf"(?<![\w./-]){re.escape(own)}(?![\w-])")
    return "\n".join(word.sub(to.as_posix(), line) if line.startswith("#") else line for line in lines)
