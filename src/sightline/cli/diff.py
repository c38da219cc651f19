"""`sightline diff`: two finished stages side by side: settings that differ, then scores on the same records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import runs
from ..errors import RunError

COLUMNS = ("model", "image", "metric", "first", "second", "difference", "low", "high", "p", "verdict")
SETTING, FINAL = ("setting", "first", "second"), ("value", "first", "second", "difference")
HASH, WIDTH = 64, 44


def diff(
    first: Annotated[Path, typer.Argument(help="a stage's folder, or that of a recipe with one evaluation")],
    second: Annotated[Path, typer.Argument(help="another one of the same kind")],
    of: Annotated[
        str, typer.Option(metavar="A,B", help="compare model A of the first with B of the second")
    ] = "",
    images: Annotated[str, typer.Option(metavar="A,B", help="kinds of images")] = "clean",
    metrics: Annotated[
        str, typer.Option(metavar="A,B", help="measure both by these, with their defaults")
    ] = "",
    models: Annotated[bool, typer.Option("--models", help="also run metrics that need a model")] = False,
    seed: Annotated[int, typer.Option(help="decides the resamples of the intervals")] = 0,
    resamples: Annotated[int, typer.Option(min=100, help="how many")] = 1000,
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON and nothing else on standard output")
    ] = False,
) -> None:
    """Compare two evaluations of the same records, or the settings and the ends of two stages that train."""
    from ..stages.difference import Wish, difference

    named = tuple(_words(of))
    if named and len(named) != 2:
        raise RunError("--of names two models", found=of, expected="--of FIRST,SECOND")
    wish = Wish(
        of=(named[0], named[1]) if named else None, images=tuple(_words(images)), metrics=tuple(_words(metrics)),
        models=models, seed=seed, resamples=resamples,
    )  # fmt: skip
    found = difference(stage(first), stage(second), wish)
    print(json.dumps(found, indent=1, ensure_ascii=False, default=str) if as_json else text(found))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def stage(folder: Path) -> Path:
    """A stage's folder, or the only evaluation of a recipe's.

    Raises:
        RunError: no finished stage there, or no evaluation, or several.
    """
    from .listing import stages_below

    found = stages_below(folder)
    if found == [folder]:
        return folder
    measured = [p for p in found if runs.read_json(p / runs.MANIFEST).get("stage") == "evaluate"]
    if len(measured) != 1:
        raise RunError(
            "which stage is meant?", where=str(folder), found=", ".join(p.name for p in found),
            expected="a stage's folder, or a recipe's with one evaluation",
        )  # fmt: skip
    return measured[0]


def text(found: Mapping[str, Any]) -> str:
    """What `difference` returns as tables: settings first."""
    from .listing import table

    lines = [f"first:  {found['first']}", f"second: {found['second']}", ""]
    settings = [{key: _cell(value) for key, value in row.items()} for row in found["settings"]]
    lines += [table(SETTING, settings) if settings else "no setting differs", ""]
    if "final" in found:
        ends = found["final"]
        return "\n".join([*lines, table(FINAL, ends) if ends else "neither has a curve of training"])
    if found["rows"]:
        lines += [table(COLUMNS, found["rows"]), ""]
        lines += [
            "difference: second minus first, with its 95 % interval over patients; p: permutation test, after Holm "
            f"over {sum(row['p'] is not None for row in found['rows'])} comparisons"
        ]
    return "\n".join([*lines, *found["notes"]]).rstrip()


def _cell(value: Any) -> str:
    """A setting as a word that fits into a column; a hash by its first digits."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) == HASH and not set(text) - set("0123456789abcdef"):
        return text[:16]
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
