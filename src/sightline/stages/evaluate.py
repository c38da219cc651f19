"""evaluate: answers of every model on clean and blind images, scores with intervals, and the report.

Answers are kept beside the stages under all that they depend on, so another metric needs no model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import judging, runs
from ..data import prepare
from ..data.chat import Chat
from ..data.rows import select
from ..errors import RunError
from ..images.degrade import find
from ..images.degrade.swapped import partners
from ..inference import Ledger, ask, in_precision, items, predictions
from ..models import checkpoint
from ..models.family import Bundle
from ..models.features import Features, gridder
from ..recipe import Evaluate
from ..runs import Run
from ..types import Degrade, Prediction, Sample, View, to_plain
from .page import write_page

VERSION = 1
NOISE = "replace"  # what the word `noise` means in `images`
See = Callable[[Sample, int], View]


@dataclass(frozen=True)
class Exam:
    """What is asked, and where answers are kept."""

    section: Evaluate
    samples: list[Sample]
    root: Path
    home: Path
    seed: int


def run(run: Run, section: Evaluate, seed: int) -> None:
    """Ask, score, compare, write the report."""
    data = prepare.load(run.parents[section.data])
    asked = select(data.samples(section.split), section.where)
    if not asked:
        raise RunError(
            "there is nothing to ask", where=f"stage {run.name}",
            found=f"no sample of split '{section.split}' with {section.where or 'any attributes'}",
            expected="at least one sample", remedy="check `where` and `split`; `sightline data show` lists attributes",
        )  # fmt: skip
    exam = Exam(section, asked[: section.limit], data.root, run.folder.parent, seed)
    made: dict[tuple[str, str], list[Prediction]] = {}
    names = []
    for model in section.models:
        name = model if model in run.parents and "/" not in model else Path(model).name
        names.append(name)
        made.update(answers(exam, run, model, name))
    folder = run.work / "predictions"
    folder.mkdir(exist_ok=True)
    for (name, image), each in made.items():
        lines = [json.dumps(to_plain(p), ensure_ascii=False) for p in each]
        (folder / f"{name}-{image}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    measures = judging.measure(made, section.metrics)
    rows, parts = judging.rows(measures, seed, section.resamples)
    paired = judging.comparisons(measures, names, seed, section.resamples)
    runs.write_json(run.work / "scores.json", {"rows": rows, "paired": paired, "parts": parts})
    write_page(run, exam.samples, exam.root, made, {"rows": rows, "paired": paired, "parts": parts})
    run.event("scored", rows=len(rows))


def answers(exam: Exam, run: Run, model: str, name: str) -> dict[tuple[str, str], list[Prediction]]:
    """One model's answers on every kind of image; the model is opened only if some are not known yet."""
    place = None if model == "base" else checkpoint.folder_of(run.parents[model])
    known: dict[str, Any] = base_of(exam, run) if place is None else {"line": checkpoint.fingerprints(place)}
    order = [s.id for s in exam.samples]
    ledgers = {image: Ledger(_file(exam, known, image)) for image in exam.section.images}
    missing = {i: [s for s in exam.samples if s.id not in ledger.known] for i, ledger in ledgers.items()}
    if any(missing.values()):
        bundle = checkpoint.load(place) if place else checkpoint.compose(known["model"], known["seed"])
        look = Features(bundle, exam.root, exam.home / ".features")
        in_precision(bundle, exam.section.generate)
        for image, samples in missing.items():
            if samples:
                print(f"  {name}, {image} images")
                _ask(exam, bundle, look, ledgers[image], image, samples)
                run.event("answered", model=name, image=image, samples=len(samples))
    return {
        (name, image): [replace(p, model=name, image=image) for p in ledger.all(order)]
        for image, ledger in ledgers.items()
    }


def base_of(exam: Exam, run: Run) -> dict[str, Any]:
    """What the base model of the other models is composed from."""
    others = [m for m in exam.section.models if m != "base"]
    if not others:
        raise RunError("`base` alone names no model", remedy="add a trained model whose base is meant")
    return checkpoint.lineage(checkpoint.folder_of(run.parents[others[0]]))[0][1]["base"]


def view_of(image: str, samples: list[Sample], seed: int) -> See:
    """How a sample's image is shown under one kind: as it is, spoiled, or another patient's."""
    if image == "clean":
        return lambda sample, i: View(sample.images[i], sample.id)
    kind = NOISE if image == "noise" else image
    if find(kind).swaps:
        by_id = {s.id: s for s in samples}
        other = partners([(s.id, s.patient) for s in samples], seed)
        return lambda sample, i: _shown(by_id[other[sample.id]], i, sample.id)
    spec = Degrade(kind=kind, seed=seed + 1)
    return lambda sample, i: View(sample.images[i], sample.id, spec)


def _shown(partner: Sample, i: int, record: str) -> View:
    """Another sample's image in this sample's place."""
    return View(partner.images[min(i, len(partner.images) - 1)], record)


def _ask(
    exam: Exam, bundle: Bundle, look: Features, ledger: Ledger, image: str, samples: list[Sample]
) -> None:
    """Answer the samples and note each at once."""
    see = view_of(image, exam.samples, exam.seed)
    todo = items(samples, Chat.of(bundle), see, gridder(bundle, exam.root))
    look.prepare([v for item in todo for v in item.views], what=f"{image} images")
    ask(
        bundle,
        todo,
        look,
        exam.section.generate,
        lambda item, made: ledger.add(item.sample.id, predictions(item, made)),
    )


def _file(exam: Exam, model: dict[str, Any], image: str) -> Path:
    """Where answers are kept: named by the model, the samples, the kind of image and how answers are made."""
    asked = [runs.canonical([s.id, s.patient, [r.sha256 for r in s.images], _texts(s)]) for s in exam.samples]
    settings = exam.section.generate.model_dump(mode="json")
    key = runs.digest(
        runs.canonical(model), image, str(exam.seed), runs.canonical(settings), str(VERSION), *asked
    )
    folder = exam.home / ".answers"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{key[:32]}.jsonl"


def _texts(sample: Sample) -> list[list[Any]]:
    return [[m.role, list(m.parts), m.topic] for m in sample.messages]
