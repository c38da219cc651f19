"""evaluate: answers of every model on clean and blind images, scores with intervals, and the report.

Answers are kept beside the stages under all that they depend on, so another metric needs no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import judging, runs
from ..data import prepare
from ..data.prepare import Prepared
from ..data.rows import select
from ..errors import RunError
from ..images.degrade import find
from ..images.degrade.swapped import partners
from ..judging import UNAIDED
from ..models import checkpoint
from ..models.family import Bundle
from ..recipe import Evaluate
from ..runs import Run
from ..types import Degrade, Prediction, Sample, View, to_plain
from .answers import Asked, Desk, Read, See, aided, answer, check_reports, key_of, unaided
from .confidence import calibrated, thresholds
from .page import write_page

VERSION = 2  # 2: intervals after decision 0008
HELD = "held"  # the clean images of the split that a threshold is calibrated on
ALONE = "_prior"  # a kind with this behind it: only images of earlier studies are shown so
NOISE = "replace"  # what the word `noise` means in `images`


@dataclass(frozen=True)
class Exam:
    """What is asked, how a sample is read with and without retrieved reports, and where answers are kept."""

    section: Evaluate
    samples: list[Sample]
    desk: Desk
    seed: int
    aided: Read
    unaided: Read
    held: Sequence[Sample] = ()


def run(run: Run, section: Evaluate, seed: int) -> None:
    """Ask, score, compare, write the report."""
    data = prepare.load(run.parents[section.data])
    if UNAIDED in section.images:
        check_reports(data, f"'{UNAIDED}' in `images`", f"stage {run.name}")
    asked = select(data.samples(section.split), section.where)
    if not asked:
        raise RunError(
            "there is nothing to ask", where=f"stage {run.name}",
            found=f"no sample of split '{section.split}' with {section.where or 'any attributes'}",
            expected="at least one sample", remedy="check `where` and `split`; `sightline data show` lists attributes",
        )  # fmt: skip
    desk = Desk(root=data.root, home=run.folder.parent, generate=section.generate)
    exam = Exam(
        section, asked[: section.limit], desk, seed, aided(data), unaided(data), held_out(data, section)
    )
    made: dict[tuple[str, str], list[Prediction]] = {}
    names = []
    for model in section.models:
        name = model if model in run.parents and "/" not in model else Path(model).name
        names.append(name)
        made.update(answers(exam, run, model, name))
    held = {name: made.pop((name, HELD)) for name in names} if exam.held else {}
    folder = run.work / "predictions"
    folder.mkdir(exist_ok=True)
    for (name, image), each in made.items():
        lines = [json.dumps(to_plain(p), ensure_ascii=False) for p in each]
        (folder / f"{name}-{image}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    measures = judging.measure(made, section.metrics, data.root)
    for side, named in (judging.measure_reliance(made) if data.template is not None else {}).items():
        measures[side] |= named
    rows, parts = judging.rows(measures, seed, section.resamples)
    paired = judging.comparisons(measures, names, seed, section.resamples)
    scores: dict[str, Any] = {"rows": rows, "paired": paired, "parts": parts}
    if told := judging.notes(measures):
        scores["notes"] = told
    sure = {name: calibrated(made[name, "clean"], seed, section.resamples) for name in names}
    if any(sure.values()):
        scores["calibration"] = {name: each for name, each in sure.items() if each}
    runs.write_json(run.work / "scores.json", scores)
    if section.abstain:
        clean = {name: made[name, "clean"] for name in names}
        scores["abstain"] = thresholds(held, clean, section.abstain, seed, section.resamples)
        runs.write_json(run.work / "abstain.json", scores["abstain"])
    write_page(run, exam.samples, desk.root, made, scores)
    run.event("scored", rows=len(rows))


def answers(exam: Exam, run: Run, model: str, name: str) -> dict[tuple[str, str], list[Prediction]]:
    """One model's answers on every kind of image; the model is opened only if some are not known yet."""
    place = None if model == "base" else checkpoint.folder_of(run.parents[model])
    known: dict[str, Any] = base_of(exam, run) if place is None else {"line": checkpoint.fingerprints(place)}
    order = [s.id for s in exam.samples]
    sets = [asked(exam, known, image, name) for image in exam.section.images]
    if exam.held:
        clean = asked(replace(exam, samples=list(exam.held)), known, "clean", name)
        sets.append(replace(clean, name=f"{name}, clean images to calibrate on"))

    def open_model() -> Bundle:
        return checkpoint.load(place) if place else checkpoint.compose(known["model"], known["seed"])

    def note(one: Asked, count: int) -> None:
        run.event("answered", model=name, image=one.shown, samples=count)

    ledgers = answer(exam.desk, sets, open_model, note)
    made = {
        (name, image): [replace(p, model=name, image=image) for p in ledger.all(order)]
        for image, ledger in zip(exam.section.images, ledgers, strict=False)
    }
    if exam.held:
        made[name, HELD] = ledgers[-1].all([s.id for s in exam.held])
    return made


def held_out(data: Prepared, section: Evaluate) -> list[Sample]:
    """The samples that a threshold of confidence is calibrated on; none where none is wanted.

    Raises:
        RunError: their split is empty.
    """
    if section.abstain is None:
        return []
    split = section.abstain.split
    samples = select(data.samples(split), section.where)[: section.limit] if split in data.counts else []
    if not samples:
        raise RunError(
            "there is nobody to calibrate `abstain` on", where=f"data set '{data.folder.name}'",
            found=f"no sample of split '{split}'", expected="at least one sample",
            remedy="give the split a share, or leave `abstain` out",
        )  # fmt: skip
    return samples


def asked(exam: Exam, model: dict[str, Any], image: str, name: str) -> Asked:
    """One kind of image as a set of answers; every kind but `unaided` is asked with the reports there are."""
    read = exam.unaided if image == UNAIDED else exam.aided
    return Asked(
        name=f"{name}, {image} images",
        shown=image,
        samples=exam.samples,
        see=view_of(image, exam.samples, exam.seed),
        read=read,
        key=key_of(exam.desk, model, exam.samples, read, shown=image, seed=exam.seed),
    )


def base_of(exam: Exam, run: Run) -> dict[str, Any]:
    """What the base model of the other models is composed from."""
    others = [m for m in exam.section.models if m != "base"]
    if not others:
        raise RunError("`base` alone names no model", remedy="add a trained model whose base is meant")
    return checkpoint.lineage(checkpoint.folder_of(run.parents[others[0]]))[0][1]["base"]


def view_of(image: str, samples: list[Sample], seed: int) -> See:
    """How a sample's image is shown under one kind: as it is, spoiled, or another patient's; or prior ones alone so."""
    if image.endswith(ALONE):
        shown = view_of(image.removesuffix(ALONE), samples, seed)
        return lambda sample, i: (shown if sample.images[i].when == "prior" else _clean)(sample, i)
    if image in ("clean", UNAIDED):
        return _clean
    kind = NOISE if image == "noise" else image
    if find(kind).swaps:
        by_id = {s.id: s for s in samples}
        other = partners([(s.id, s.patient) for s in samples], seed)
        return lambda sample, i: _shown(by_id[other[sample.id]], sample, i)
    spec = Degrade(kind=kind, seed=seed + 1)
    return lambda sample, i: View(sample.images[i], sample.id, spec)


def _clean(sample: Sample, i: int) -> View:
    """An image as it is."""
    return View(sample.images[i], sample.id)


def _shown(partner: Sample, sample: Sample, i: int) -> View:
    """Another sample's image in this sample's place, of the same study, current or prior, where it has one."""
    when = sample.images[i].when
    own = [j for j, ref in enumerate(sample.images) if ref.when == when].index(i)
    there = [ref for ref in partner.images if ref.when == when] or list(partner.images)
    return View(replace(there[min(own, len(there) - 1)], when=when), sample.id)
