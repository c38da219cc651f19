"""`sightline serve`: a model behind an address, with an API as OpenAI's clients speak it, and a page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import MissingExtra, RecipeError

if TYPE_CHECKING:
    from ..serve.server import Settings

TOKEN = "SIGHTLINE_TOKEN"
REMOTE = "SIGHTLINE_REMOTE_TOKEN"
WAITING = 4  # requests that may wait for each slot; others are told 429


def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="a stage's folder, such as runs/quickstart/aligned; with --remote its name there"
        ),
    ] = "",
    host: Annotated[
        str, typer.Option(help="address to listen at; any but loopback needs a token")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help=f"file with the token; or set {TOKEN}")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="a further name that the server may be asked by")
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="answers that are made at the same time")] = 16,
    precision: Annotated[
        str, typer.Option(metavar="float32|bfloat16", help="of the language model")
    ] = "float32",
    threshold: Annotated[
        Path | None, typer.Option(help="an evaluation with `abstain`; default: one of the same run")
    ] = None,
    remote: Annotated[
        str,
        typer.Option(
            "--remote", metavar="URL", help=f"ask an OpenAI-compatible server (its token: {REMOTE})"
        ),
    ] = "",
    audit: Annotated[
        Path | None, typer.Option(help="audit log with a hash chain; one that is there goes on")
    ] = None,
) -> None:
    """Serve a model: page at /, API at /v1; stop it with Ctrl-C. For research, not for clinical use."""
    if precision not in ("float32", "bfloat16"):
        raise RecipeError("no such precision", found=precision, expected="float32 or bfloat16")
    if not model:
        raise RecipeError("what is to be served?", expected="sightline serve runs/RECIPE/STAGE")
    try:
        from ..serve import server
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    settings = server.Settings(
        host=host, port=port, token=_token(token_file), hosts=allow_host or (),
        queue=WAITING * slots, audit=audit,
    )  # fmt: skip
    server.check(settings)  # what may not begin is told before a model is opened
    if remote:
        return _remote(model, remote, slots, settings)
    from ..serve.local import Local
    from ..serve.opening import open_stage

    opened = open_stage(Path(model), precision=precision, threshold=threshold)
    server.serve(Local(opened.bundle, opened.identity, slots), settings, held=opened.held, about=opened.about)
    return None


def _remote(model: str, address: str, slots: int, settings: Settings) -> None:
    """Serve what another server answers."""
    from ..serve import server
    from ..serve.remote import Remote

    server.serve(Remote(address, model, os.environ.get(REMOTE, ""), slots), settings)


def _token(path: Path | None) -> str:
    """The token, from a file or the environment: on a command line others could read it."""
    return os.environ.get(TOKEN, "") if path is None else path.read_text(encoding="utf-8").strip()
