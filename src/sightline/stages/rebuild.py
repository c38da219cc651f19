"""A finished evaluation's pages anew, from what it keeps: no model is opened and nothing is scored."""

from __future__ import annotations

from pathlib import Path

from .. import runs
from ..data import prepare
from ..data.rows import select
from ..errors import RunError
from ..recipe import Evaluate
from ..report import Page, model_card, render
from ..runs import Run
from . import kept
from .page import CARD, READER, REPORT, page_of

SCORES = "scores.json"


def rebuild(folder: Path, out: Path) -> list[Path]:
    """Write the report, the blinded reader's own page and the model card of a finished evaluation.

    Args:
        folder: the evaluation; the stages that it rests on stand beside it.
        out: where the files are written; never the evaluation itself, whose manifest would no longer hold.

    Returns:
        The files.

    Raises:
        RunError: no evaluation there, or `out` is the evaluation.
    """
    if out.resolve() == folder.resolve():
        raise RunError(
            "a finished evaluation is not written into",
            where=str(folder),
            remedy="give another folder with --out",
        )
    page = open_page(folder)
    out.mkdir(parents=True, exist_ok=True)
    made = [out / REPORT, out / CARD]
    render(page, made[0])
    made[1].write_text(model_card.markdown(page), encoding="utf-8")
    if page.reading is not None and page.reading.items:
        made.append(out / READER)
        render(page, made[2], blinded=True)
    return made


def open_page(folder: Path) -> Page:
    """All that the pages of a finished evaluation show.

    Raises:
        RunError: no evaluation there.
    """
    if not (folder / SCORES).is_file() or not (folder / runs.MANIFEST).is_file():
        raise RunError(
            "no finished evaluation here", where=str(folder), expected="the folder of an evaluate stage",
            remedy="give a folder such as runs/quickstart/evaluate",
        )  # fmt: skip
    facts = runs.read_json(folder / runs.MANIFEST)
    section = Evaluate.model_validate(facts["section"])
    parents = {name: _beside(folder, name) for name in facts["parents"]}
    data = prepare.load(parents[section.data])
    samples = select(data.samples(section.split), section.where)[: section.limit]
    names = kept.names_of(section.models, parents)
    made = kept.read(folder, names, section.images)
    scores = runs.read_json(folder / SCORES)
    for name in ("abstain", "result"):
        if (folder / f"{name}.json").is_file():
            scores[name] = runs.read_json(folder / f"{name}.json")
    run = Run(
        name=folder.name, folder=folder.resolve(), work=folder, key=facts["key"], parents=parents, facts=facts
    )
    return page_of(run, samples, data.root, made, scores)


def _beside(folder: Path, name: str) -> Path:
    """The folder of a stage that an evaluation read: in the same run, or where its recipe said."""
    own = folder.resolve().parent / name
    return own if "/" not in name else Path(name)
