"""The evaluation as pages: scores, curves, provenance, cases and the model card, handed to `sightline.report`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import NOTICE, runs
from ..report import Page, model_card, reading, render
from ..runs import Run
from ..types import Sample
from . import searched
from .about import about
from .cases import Made, changes, clean_answers, counts, gallery
from .copies import copies_of, pictured

REPORT, READER, CARD = "report.html", "reader.html", "model_card.md"


def write_page(
    run: Run, samples: Sequence[Sample], root: Path, made: Made, scores: Mapping[str, Any]
) -> None:
    """Write `report.html` and `model_card.md` into the stage's work folder."""
    page = page_of(run, samples, root, made, scores)
    render(page, run.work / REPORT)
    (run.work / CARD).write_text(model_card.markdown(page), encoding="utf-8")


def page_of(run: Run, samples: Sequence[Sample], root: Path, made: Made, scores: Mapping[str, Any]) -> Page:
    """All that the pages show.

    Args:
        run: the evaluation; its parents must stand where they stood.
        samples: what was asked.
        root: their data root.
        made: the answers of each (model, image).
        scores: the content of `scores.json`, with `abstain` where a threshold was made.
    """
    line = ancestry(run)
    parts: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in scores["parts"]:
        parts.setdefault((row["model"], row["image"], row["metric"]), {})[row["part"]] = row["value"]
    audits = _audits(line.values())
    copies = [each for _, each in copies_of(line)]
    clean = clean_answers(made)
    asked = [[p for each in clean[model].values() for p in each] for model in list(clean)[-2:]]
    blinded = reading(*asked, seed=run.facts["seed"]) if len(asked) == 2 else None
    cards, cases = gallery(samples, root, made, keep=[i.sample for i in blinded.items] if blinded else [])
    return Page(
        title=f"Sightline: {run.folder.parent.name}",
        notice=NOTICE,
        recipe=yaml.safe_dump(_sections(run, line), sort_keys=False, width=110),
        command=f"sightline run recipes/{run.folder.parent.name}.yaml",
        rows=scores["rows"],
        parts=parts,
        paired=scores["paired"],
        calibration=scores.get("calibration", {}),
        abstain=scores.get("abstain"),
        counts=counts(made),
        changes=changes(made),
        groups=scores.get("subgroups", {}),
        tables=scores.get("tables", {}),
        looked=[each["told"] for each in scores.get("attention", {}).values()],
        curves=_curves(line) | searched.validations(line),
        encoders=searched.encoders(line),
        calibrated=searched.calibrated(line),
        gallery=cards,
        cases=cases,
        reading=blinded,
        about=about(run, line, samples),
        stages=[_provenance(name, place) for name, place in line.items()],
        notes=[each["warning"] for each in [*audits.values(), *copies] if each["warning"]],
        audit=audits or None,
        made=scores.get("result"),
        near=[pair for place, each in copies_of(line) for pair in pictured(place, each)],
    )


def _curves(line: Mapping[str, Path]) -> dict[str, Any]:
    """What was logged at each step of the stages that trained."""
    return {n: runs.read_json(p / "curve.json") for n, p in line.items() if (p / "curve.json").is_file()}


def ancestry(run: Run) -> dict[str, Path]:
    """Every stage that this one rests on, in the order of the chain."""
    found: dict[str, Path] = {}

    def visit(name: str, place: Path) -> None:
        for parent in runs.read_json(place / runs.MANIFEST).get("parents", {}):
            beside = place.parent / parent
            if parent not in found and (beside / runs.MANIFEST).is_file():
                visit(parent, beside)
        found.setdefault(name, place)

    for name, place in run.parents.items():
        visit(Path(name).name, place)
    return found


def _sections(run: Run, line: Mapping[str, Path]) -> dict[str, Any]:
    """The resolved recipe: every stage of the line with its section."""
    stages = {name: runs.read_json(place / runs.MANIFEST)["section"] for name, place in line.items()}
    return {
        "name": run.folder.parent.name,
        "seed": run.facts["seed"],
        "stages": {**stages, run.name: run.facts["section"]},
    }


def _provenance(name: str, place: Path) -> dict[str, Any]:
    manifest = runs.read_json(place / runs.MANIFEST)
    wanted = ("stage", "content", "seconds", "parents", "machine", "versions")
    return {"name": name, **{key: manifest.get(key) for key in wanted}}


def _audits(places: Iterable[Path]) -> dict[str, Any]:
    """Every leakage audit of these stages, by what it compares: splits, the index and test, pairs and test."""
    files = [place / "audit.json" for place in places if (place / "audit.json").is_file()]
    return {name: each for path in files for name, each in runs.read_json(path).items()}
