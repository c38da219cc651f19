"""`sightline convert`: a released checkpoint of LLaVA, LLaVA-Med or Libra to a folder that opens today."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FOLDER = Annotated[Path, typer.Argument(help="folder of the release, with config.json")]


def convert(
    folder: FOLDER,
    to: Annotated[Path, typer.Option("--to", help="folder to write; must not be there")],
    base: Annotated[
        Path | None, typer.Option(help="what an adapter, a connector or a delta stands on")
    ] = None,
    vision: Annotated[Path | None, typer.Option(help="folder of the vision tower")] = None,
    connector: Annotated[
        Path | None, typer.Option(help="file of a connector, such as mm_projector.bin")
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="folder of another tokenizer")] = None,
    template: Annotated[str | None, typer.Option(help="conversation format, such as libra_v1")] = None,
    delta: Annotated[
        bool, typer.Option("--delta", help="the release holds differences from the base")
    ] = False,
) -> None:
    """Convert a released checkpoint to safetensors in today's layout; nothing is fetched, no pickle is run."""
    from ..models.released.convert import MODEL
    from ..models.released.convert import convert as made

    told = made(
        folder,
        to,
        base=base,
        vision=vision,
        connector=connector,
        tokenizer=tokenizer,
        template=template,
        delta=delta,
    )
    counts = ", ".join(f"{name} {count}" for name, count in told["tensors"].items() if count)
    print(f"{to}: connector {told['connector']}; tensors: {counts}")
    print(f"a recipe opens it with the `model` section in {to / MODEL}")
