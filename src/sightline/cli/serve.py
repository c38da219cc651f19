"""`sightline serve`: a model behind an address, with an API as OpenAI's clients speak it, and a page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import MissingExtra, RecipeError
from .options import grouped

if TYPE_CHECKING:
    from ..serve.beside import Beside as Company
    from ..serve.server import Settings
    from ..serve.sources import Source

TOKEN = "SIGHTLINE_TOKEN"
REMOTE = "SIGHTLINE_REMOTE_TOKEN"
VLLM = "SIGHTLINE_VLLM_PYTHON"
WAITING = 4  # requests that may wait for each slot; others are told 429
BACKENDS = ("auto", "transformers", "onnx", "vllm")
LOADS = ("", "4bit", "8bit")
PRECISIONS = ("", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Reach:
    """Who may ask, and where."""

    host: Annotated[str, typer.Option(help="address to listen at; any but loopback needs a token")] = (
        "127.0.0.1"
    )
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one")] = 8000
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help=f"file with the token; or set {TOKEN}")
    ] = None
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="a further name that the server may be asked by")
    ] = None
    audit: Annotated[
        Path | None, typer.Option(help="audit log with a hash chain; one that is there goes on")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How answers are made where a request does not say."""

    slots: Annotated[int, typer.Option(min=1, help="answers that are made at the same time")] = 16
    temperature: Annotated[
        float, typer.Option(min=0.0, max=2.0, help="of requests that name none; 0 takes the likeliest token")
    ] = 0.0
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="of an answer whose request names none")
    ] = 256


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How the model is opened."""

    backend: Annotated[
        str, typer.Option(metavar="auto|transformers|onnx|vllm", help="auto: onnx for an ONNX export")
    ] = "auto"
    precision: Annotated[
        str,
        typer.Option(
            metavar="float32|bfloat16", help="of the language model; default float32, of vllm its own"
        ),
    ] = ""
    load: Annotated[
        str, typer.Option(metavar="4bit|8bit", help="round the language model's layers (bitsandbytes)")
    ] = ""
    adapter: Annotated[
        Path | None, typer.Option(metavar="DIR", help="a PEFT LoRA folder that Sightline did not train")
    ] = None
    threshold: Annotated[
        Path | None, typer.Option(help="an evaluation with `abstain`; default: one of the same run")
    ] = None


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Another program that answers."""

    remote: Annotated[
        str,
        typer.Option(
            "--remote", metavar="URL", help=f"ask an OpenAI-compatible server (its token: {REMOTE})"
        ),
    ] = ""
    vllm_python: Annotated[
        str, typer.Option("--vllm-python", metavar="PATH", help=f"Python that has vLLM; or set {VLLM}")
    ] = ""
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", min=1, help="GPUs that vLLM divides the model over")
    ] = 1
    vllm_arg: Annotated[
        list[str] | None,
        typer.Option("--vllm-arg", metavar="NAME=VALUE", help="a further option of vLLM; may be repeated"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside the model."""

    index: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="a `retrieve` or `index` stage: similar reports beside answers"),
    ] = None
    before: Annotated[
        Path | None, typer.Option(metavar="MODEL", help="a second model, whose answers the page shows beside")
    ] = None


@grouped
def serve(
    *,
    model: Annotated[
        str,
        typer.Argument(help="a stage, an export, or a model's folder; with --remote the model's name there"),
    ] = "",
    reach: Reach,
    manner: Manner,
    weights: Weights,
    elsewhere: Elsewhere,
    beside: Beside,
) -> None:
    """Serve a model: page at /, API at /v1; stop it with Ctrl-C. For research, not for clinical use."""
    _check(model, weights, elsewhere)
    try:
        from ..serve import server
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from None
    from ..serve.limits import Limits

    longest = max(Limits.answer, manner.max_tokens)
    settings = server.Settings(
        host=reach.host, port=reach.port, token=_token(reach.token_file), hosts=reach.allow_host or (),
        queue=WAITING * manner.slots, audit=reach.audit,
        limits=Limits(usual=manner.max_tokens, answer=longest, temperature=manner.temperature),
    )  # fmt: skip
    server.check(settings)  # what may not begin is told before a model is opened
    if elsewhere.remote:
        return _remote(
            model, elsewhere.remote, manner.slots, settings, _beside(beside, None, weights, manner)
        )
    from ..serve import sources

    source = sources.find(Path(model))
    if sources.backend(source, weights.backend) == "vllm":
        company = _beside(beside, source, weights, manner)
        return _vllm(source, manner, weights, elsewhere, settings, company)
    from ..serve.local import Local
    from ..serve.opening import How, open_model

    how = How(
        precision=weights.precision or "float32", load=weights.load, adapter=weights.adapter,
        threshold=weights.threshold,
    )  # fmt: skip
    company = _beside(beside, source, weights, manner)
    opened = open_model(source, how)
    if opened.note:
        print(opened.note)
    answering = Local(opened.bundle, opened.identity, manner.slots)
    server.serve(answering, settings, held=opened.held, about=opened.about, beside=company)
    return None


def _check(model: str, weights: Weights, elsewhere: Elsewhere) -> None:
    """Refuse words that mean nothing, before anything is imported or opened.

    Raises:
        RecipeError: a value that is none, or options that do not go together.
    """
    if not model:
        raise RecipeError("what is to be served?", expected="sightline serve runs/RECIPE/STAGE")
    for what, found, known in (
        ("precision", weights.precision, PRECISIONS),
        ("way to load", weights.load, LOADS),
        ("backend", weights.backend, BACKENDS),
    ):
        if found not in known:
            raise RecipeError(f"no such {what}", found=found, expected=" or ".join(filter(None, known)))
    given = {
        "--load": weights.load, "--adapter": weights.adapter, "--threshold": weights.threshold,
        "--precision": weights.precision, "--backend": weights.backend if weights.backend != "auto" else "",
    }  # fmt: skip
    wrong = [name for name, value in given.items() if value] if elsewhere.remote else []
    if weights.backend != "vllm":
        parallel = "--tensor-parallel" if elsewhere.tensor_parallel > 1 else ""
        wrong += [*filter(None, (parallel, "--vllm-python" if elsewhere.vllm_python else ""))]
        wrong += ["--vllm-arg"] if elsewhere.vllm_arg else []
    if weights.backend == "vllm":
        wrong += [name for name in ("--load", "--threshold") if given[name]]
    if wrong:
        asked = "--remote" if elsewhere.remote else f"--backend {weights.backend}"
        raise RecipeError(
            "these options do not go together", found=f"{asked} with {', '.join(wrong)}",
            remedy="`docs/serving.md` has a table of what each backend takes",
        )  # fmt: skip


def _beside(asked: Beside, source: Source | None, weights: Weights, manner: Manner) -> Company | None:
    """Open what stands beside the model, if anything does."""
    if asked.index is None and asked.before is None:
        return None
    from ..serve.company import open_beside
    from ..serve.opening import How

    how = How(precision=weights.precision or "float32", load=weights.load)
    return open_beside(source, index=asked.index, before=asked.before, how=how, slots=manner.slots)


def _remote(model: str, address: str, slots: int, settings: Settings, company: Company | None) -> None:
    """Serve what another server answers."""
    from ..serve import server
    from ..serve.remote import Remote

    server.serve(Remote(address, model, os.environ.get(REMOTE, ""), slots), settings, beside=company)


def _vllm(
    source: Source, manner: Manner, weights: Weights, elsewhere: Elsewhere, settings: Settings,
    company: Company | None,
) -> None:  # fmt: skip
    """Start vLLM in its own environment, serve what it answers, and stop it with the server."""
    from ..serve import server, vllm

    order = vllm.Order(
        source=source, python=elsewhere.vllm_python or os.environ.get(VLLM, ""), adapter=weights.adapter,
        precision=weights.precision, slots=manner.slots, tensor_parallel=elsewhere.tensor_parallel,
        more=tuple(elsewhere.vllm_arg or ()),
    )  # fmt: skip
    with vllm.started(order) as backend:
        server.serve(backend, settings, beside=company)


def _token(path: Path | None) -> str:
    """The token, from a file or the environment: on a command line others could read it."""
    return os.environ.get(TOKEN, "") if path is None else path.read_text(encoding="utf-8").strip()
