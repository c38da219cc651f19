"""The evaluation as a page: scores, curves, provenance and a gallery, handed to `sightline.report`."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from .. import NOTICE, images, runs
from ..metrics.answers import closed, normalise, yes_no
from ..metrics.findings import findings
from ..report import Card, Page, render
from ..runs import Run
from ..types import Prediction, Sample

WRONG_SHOWN, RIGHT_SHOWN = 24, 12
EDGE = 384
Made = Mapping[tuple[str, str], Sequence[Prediction]]


def write_page(
    run: Run, samples: Sequence[Sample], root: Path, made: Made, scores: Mapping[str, Any]
) -> None:
    """Write `report.html` into the stage's work folder."""
    line = ancestry(run)
    parts: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in scores["parts"]:
        parts.setdefault((row["model"], row["image"], row["metric"]), {})[row["part"]] = row["value"]
    audits = _audits(line.values())
    page = Page(
        title=f"Sightline: {run.folder.parent.name}",
        notice=NOTICE,
        recipe=yaml.safe_dump(_sections(run, line), sort_keys=False, width=110),
        command=f"sightline run recipes/{run.folder.parent.name}.yaml",
        rows=scores["rows"],
        parts=parts,
        paired=scores["paired"],
        calibration=scores.get("calibration", {}),
        abstain=scores.get("abstain"),
        curves={n: runs.read_json(p / "curve.json") for n, p in line.items() if (p / "curve.json").is_file()},
        gallery=gallery(samples, root, made),
        stages=[_provenance(name, place) for name, place in line.items()],
        notes=[each["warning"] for each in audits.values() if each["warning"]],
        audit=audits or None,
    )
    render(page, run.work / "report.html")


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


def gallery(samples: Sequence[Sample], root: Path, made: Made) -> list[Card]:
    """Cases with the answers of all models to clean images side by side; wrong ones first, some right ones too.

    Samples that show the same picture are one case.
    """
    clean = {model: _by_sample(each) for (model, image), each in made.items() if image == "clean"}
    if not clean:
        return []
    last = list(clean)[-1]
    cases: dict[str, list[Sample]] = {}
    for sample in samples:
        cases.setdefault(sample.images[0].sha256, []).append(sample)
    wrong = {
        key: sum(not is_right(p) for s in case for p in clean[last][s.id]) for key, case in cases.items()
    }
    ordered = sorted(cases, key=lambda key: (-wrong[key], cases[key][0].id))
    shown = [key for key in ordered if wrong[key]][:WRONG_SHOWN]
    shown += [key for key in ordered if not wrong[key]][:RIGHT_SHOWN]
    return [_card(cases[key], root, clean, wrong[key]) for key in shown]


def _card(
    case: Sequence[Sample], root: Path, clean: Mapping[str, dict[str, list[Prediction]]], wrong: int
) -> Card:
    """One picture with everything asked about it."""
    first = case[0]
    sides = [
        {model: rows[s.id][turn] for model, rows in clean.items()}
        for s in case
        for turn in range(len(next(iter(clean.values()))[s.id]))
    ]
    return Card(
        sample=first.id if len(case) == 1 else f"{first.patient} {first.study}".strip()[:40],
        patient=first.patient[:24],
        image_png=thumbnail(images.picture(root, first.images[0], record=first.id)),
        turns=[_turn(turn, each) for turn, each in enumerate(sides)],
        errors=wrong,
    )


def is_right(prediction: Prediction) -> bool:
    """Whether an answer counts as right in the gallery: same yes/no, same findings in a report, same words."""
    if prediction.topic == "report":
        return findings(prediction.text) == findings(prediction.answer)
    gold = closed(prediction.question, prediction.answer)
    if gold is not None:
        return yes_no(prediction.text) == gold
    return normalise(prediction.text) == normalise(prediction.answer)


def thumbnail(pixels: np.ndarray) -> bytes:
    """Pixels [H, W, 3] in [0, 1] as PNG bytes, at most 384 pixels on the longer edge."""
    picture = Image.fromarray((pixels * 255).round().astype(np.uint8))
    if np.ptp(pixels, axis=2).max() == 0:
        picture = picture.convert("L")
    picture.thumbnail((EDGE, EDGE))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _turn(turn: int, sides: Mapping[str, Prediction]) -> dict[str, Any]:
    """One question with every model's answer."""
    first = next(iter(sides.values()))
    shown: dict[str, Any] = {
        "question": first.question, "topic": first.topic or f"turn {turn + 1}", "answer": first.answer,
        "answers": {m: p.text for m, p in sides.items()}, "right": {m: is_right(p) for m, p in sides.items()},
    }  # fmt: skip
    if all(p.choices for p in sides.values()):
        shown["probability"] = {m: _probability(p) for m, p in sides.items()}
    return shown


def _probability(prediction: Prediction) -> float:
    """p(yes) against no."""
    gap = prediction.choices["yes"] - prediction.choices["no"]
    return float(1 / (1 + np.exp(-gap)))


def _by_sample(made: Sequence[Prediction]) -> dict[str, list[Prediction]]:
    out: dict[str, list[Prediction]] = {}
    for prediction in made:
        out.setdefault(prediction.sample, []).append(prediction)
    return out


def _provenance(name: str, place: Path) -> dict[str, Any]:
    manifest = runs.read_json(place / runs.MANIFEST)
    wanted = ("stage", "content", "seconds", "parents", "machine", "versions")
    return {"name": name, **{key: manifest.get(key) for key in wanted}}


def _audits(places: Iterable[Path]) -> dict[str, Any]:
    """Every leakage audit of these stages, by what it compares: splits, the index and test, pairs and test."""
    files = [place / "audit.json" for place in places if (place / "audit.json").is_file()]
    return {name: each for path in files for name, each in runs.read_json(path).items()}
