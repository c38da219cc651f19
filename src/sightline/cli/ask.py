"""`sightline ask`: one image and one question; similar reports are found, and the model answers with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import NOTICE

if TYPE_CHECKING:
    from ..stages.consultation import Reply

LONGEST = 160  # letters of a report on the screen


def ask(
    model: Annotated[
        Path, typer.Argument(help="a trained stage's folder, such as runs/siglip_mllama/taught")
    ],
    image: Annotated[
        list[Path], typer.Option("--image", help="the image; several of one study are several --image")
    ],
    question: Annotated[str, typer.Option("--question", help="what is asked about it")],
    index: Annotated[
        Path | None,
        typer.Option("--index", help="folder of a `retrieve` or an `index` stage; none: no reports"),
    ] = None,
    kind: Annotated[
        str, typer.Option(help="open: in words; closed: yes or no; report: a report is asked for")
    ] = "open",
    k: Annotated[int | None, typer.Option("-k", min=1, help="most reports in the prompt")] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="plain|mmed_rag|rule", help="the words in which reports are shown")
    ] = None,
    longest: Annotated[int, typer.Option("--max-new-tokens", min=1, help="longest answer")] = 128,
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON and nothing else on standard output")
    ] = False,
) -> None:
    """Answer one question about an image, with the most similar reports in the prompt."""
    from ..errors import RecipeError
    from ..inference import in_precision
    from ..models import checkpoint
    from ..settings import Generate
    from ..stages import consultation

    if index is None and (k, prompt) != (None, None):
        raise RecipeError("-k and --prompt say how reports are shown, and --index is missing")
    consultation.asked(image, question, kind)  # what cannot be asked is told before a model is opened
    shelf = None if index is None else consultation.Shelf.open(index, k=k, prompt=prompt)
    place, settings = checkpoint.folder_of(model), Generate(max_new_tokens=longest)
    bundle = checkpoint.load(place)
    in_precision(bundle, settings)
    reply = consultation.consult(bundle, image, question, shelf, kind=kind, generate=settings)
    print(shown(reply, checkpoint.fingerprint(place), as_json=as_json))


def shown(reply: Reply, weights: str, *, as_json: bool) -> str:
    """A reply as JSON, or as text: the answer, what it was given with, and the notice."""
    if as_json:
        told = {**reply.to_dict(), "model": weights, "notice": NOTICE}
        return json.dumps(told, indent=1, ensure_ascii=False)
    lines = [reply.answer or "(nothing)", _sure(reply.choices, reply.logp)]
    used = sum(report.shown for report in reply.reports)
    if reply.reports:
        lines += ["", f"similar reports, {used} of {len(reply.reports)} in the prompt (*):"]
    for report in reply.reports:
        text = " ".join(report.text.split())
        text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
        same = f" (and {report.behind - 1} that say the same)" if report.behind > 1 else ""
        lines.append(f" {'*' if report.shown else ' '} {report.similarity:6.3f}  {report.id}  {text}{same}")
    return "\n".join([*lines, "", NOTICE])


def _sure(choices: Mapping[str, float], logp: float | None) -> str:
    """How sure the model is, in nats."""
    if choices:
        return "log p: " + ", ".join(f"{word} {value:.3f}" for word, value in choices.items())
    return f"mean log p of its words: {logp:.3f}" if logp is not None else "log p is not known"
