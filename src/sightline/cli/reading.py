"""`sightline report` and `sightline ratings`: pages of a finished evaluation, and what their readers said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .. import NOTICE


def report(
    run: Annotated[Path, typer.Argument(help="a finished evaluation, such as runs/quickstart/evaluate")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="where the pages are written")] = Path("report"),
) -> None:
    """Write an evaluation's report anew, with the page for blinded readers and the model card; no model is needed."""
    from ..stages.rebuild import rebuild

    for path in rebuild(run, out):
        print(path)
    print(NOTICE)


def ratings(
    files: Annotated[
        list[Path], typer.Argument(metavar="CSV...", help="what the blinded reader's page saved")
    ],
    run: Annotated[Path, typer.Argument(help="the evaluation that was read")],
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON and nothing else on standard output")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="of the intervals")] = 1000,
) -> None:
    """Un-blind ratings and score them: which model is preferred, right, harmful; do readers agree?"""
    from .ratings import rated, shown

    found = rated(files, run, resamples=resamples)
    print(json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) if as_json else shown(found))
