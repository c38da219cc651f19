"""`sightline export`: a trained model as files that other programs open, behind a gate where one is asked for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import grouped

METRICS = "vqa,bleu,rouge"
SEED = 0  # of resamples, and of which samples calibrate


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How weights are held."""

    precision: Annotated[
        str, typer.Option(metavar="float32|bfloat16|float16", help="of weights that are not rounded")
    ] = "float32"
    also: Annotated[
        list[str] | None,
        typer.Option("--round", metavar="PART", help="vision, connector or head: fp8 rounds it, too"),
    ] = None
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="of gptq and awq: samples=128, max_tokens=1024, group=32|64|128"
        ),
    ] = None


@grouped
def export(
    *,
    run: Annotated[str, typer.Argument(help="a trained stage's folder, such as runs/quickstart/aligned")],
    to: Annotated[str, typer.Option("--to", help="merged, onnx, onnx_int8, int8, nf4, fp8, gptq or awq")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="folder to write; must not be there")],
    rounding: Rounding,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a prepared data set, such as runs/quickstart/data")
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(metavar="METRIC=AMOUNT", help="fail where it may have fallen by more; may be repeated"),
    ] = None,
    metrics: Annotated[str, typer.Option(metavar="A,B", help="metrics of the gate's table")] = METRICS,
    limit: Annotated[int | None, typer.Option(min=1, help="ask at most so many samples")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="print export.json and nothing else on standard output")
    ] = False,
) -> None:
    """Write a trained model for other programs: merged for transformers and vLLM, rounded, or as ONNX graphs."""
    import contextlib
    import sys

    section = parse(
        to,
        rounding.precision,
        data,
        gate or [],
        metrics,
        limit,
        rounding.calibrate or [],
        rounding.also or [],
    )
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        told = write(run, out, section)
    print(json.dumps(told, indent=1, ensure_ascii=False) if as_json else f"{out}: {to}; {told['notice']}")


def parse(
    to: str,
    precision: str,
    data: Path | None,
    gate: list[str],
    metrics: str,
    limit: int | None,
    calibrate: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Any:
    """The words of a command line as the section of an `export` stage.

    Raises:
        RecipeError: they do not fit.
        ModelError: no such kind of export.
    """
    from pydantic import ValidationError

    from ..errors import RecipeError
    from ..export.written import find
    from ..recipe import Export
    from .measure import parse as options

    find(to)
    asked: dict[str, Any] = {"stage": "export", "model": "RUN", "to": to, "precision": precision}
    if also:
        asked["round"] = also
    if data is not None:
        asked["data"] = str(data)
    if calibrate:
        asked["calibrate"] = options(calibrate)
    if gate:
        named = [name.strip() for name in metrics.split(",") if name.strip()]
        asked["gate"] = {"allow": options(gate), "metrics": named, "limit": limit}
    elif limit is not None:
        raise RecipeError("--limit is of the gate", remedy="add --data DIR --gate METRIC=AMOUNT")
    try:
        return Export.model_validate(asked)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors()]
        raise RecipeError(
            "this cannot be exported", where="sightline export", found="; ".join(lines),
            remedy="`sightline export --help` lists the kinds; a gate needs --data and --gate, calibration --data",
        ) from None  # fmt: skip


def write(run: str, out: Path, section: Any) -> dict[str, Any]:
    """Write an export so that it stands whole or not at all, and return what it says of itself.

    Raises:
        ModelError: nothing that can be exported, or something stands there already.
        RunError: the gate is not passed.
    """
    import shutil

    from ..data import prepare
    from ..export import opened
    from ..models.checkpoint import folder_of
    from ..stages import export as stage

    place = out.resolve()
    part = place.with_name(f".{place.name}.part")
    held = None if section.data is None else prepare.load(Path(section.data))
    order = stage.Order(
        place=folder_of(Path(run)), kind=section.to, to=part, home=out, precision=section.precision,
        calibration=stage.ground(section, held, SEED), also=section.round or (),
    )  # fmt: skip
    stage.refuse(order)
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        stage.make(order)
        if section.gate is not None and held is not None:
            stage.through(order, held, section.gate, home=Path(section.data).resolve().parent, seed=SEED)
        stage.carry(order)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return opened.report(out)
