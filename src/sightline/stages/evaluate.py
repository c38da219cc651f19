"""evaluate: answers of every model on clean and blind images, scores with intervals, and the report.

Answers are kept beside the stages under all that they depend on, so another metric needs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import runs
from ..data import prepare
from ..data.prepare import Prepared
from ..data.rows import select
from ..errors import RunError
from ..images.degrade import find
from ..images.degrade.swapped import partners
from ..judging import ALONE, OCCLUDED, UNAIDED, Side
from ..models import checkpoint
from ..recipe import Evaluate
from ..runs import Run
from ..types import Degrade, Prediction, Sample, View
from . import attention, kept, occlusion, served, similarity
from .answers import Asked, Desk, Read, See, aided, answer, check_reports, key_of, unaided
from .carried import carry
from .confidence import thresholds
from .kept import HELD
from .page import write_page
from .result import RESULT, Made, result
from .result import model as model_of
from .scores import scored

VERSION = 3  # 2: intervals after decision 0008; 3: result.json
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
    made: dict[Side, list[Prediction]] = {}
    about: dict[str, Any] = {}
    names = kept.names_of(section.models, run.parents)
    for model, name in zip(section.models, names, strict=True):
        given, about[name] = answers(exam, run, model, name)
        made |= given
    made = carry(made, [*exam.samples, *exam.held], section)
    if section.encoder:
        place = run.parents[section.encoder]
        made = similarity.compared(made, exam.samples, data.root, place, desk.home / ".features")
    kept.keep(run.work, made)
    held = {name: made.pop((name, HELD)) for name in names} if exam.held else {}
    scores, defined = scored(
        made, names, section, seed=seed, root=data.root, reports=data.template is not None
    )
    runs.write_json(run.work / "scores.json", scores)
    if section.abstain:
        clean = {name: made[name, "clean"] for name in names}
        scores["abstain"] = thresholds(held, clean, section.abstain, seed, section.resamples)
        runs.write_json(run.work / "abstain.json", scores["abstain"])
    whole = Made(
        section=section, seed=seed, data=data, samples=exam.samples, models=about, defined=defined, folder=run.work
    )  # fmt: skip
    scores["result"] = result(whole)
    runs.write_json(run.work / RESULT, scores["result"])
    write_page(run, exam.samples, desk.root, made, scores)
    run.event("scored", rows=len(scores["rows"]))


def answers(
    exam: Exam, run: Run, model: str, name: str
) -> tuple[dict[Side, list[Prediction]], dict[str, Any]]:
    """One model's answers on every kind of image, and what they were made by.

    The model is opened only if some answers are not known yet.
    """
    there = served.read(run.parents.get(model))
    if there is not None:
        served.check(there, exam.section)
    place = None if model == "base" or there is not None else checkpoint.folder_of(run.parents[model])
    known: dict[str, Any] = {"line": checkpoint.fingerprints(place)} if place else {}
    if place is None:
        known = base_of(exam, run) if there is None else there.known
    sets = [asked(exam, known, image, name) for image in exam.section.images]
    if exam.held:
        clean = asked(replace(exam, samples=list(exam.held)), known, "clean", name)
        sets.append(replace(clean, name=f"{name}, clean images to calibrate on"))

    def open_model() -> Any:
        if there is not None:
            return served.open_model(there)
        return checkpoint.load(place) if place else checkpoint.compose(known["model"], known["seed"])

    def note(one: Asked, count: int) -> None:
        run.event("answered", model=name, image=one.shown, samples=count)

    ledgers = answer(exam.desk, sets, open_model, note)
    made = {
        (name, image): [replace(p, model=name, image=image) for p in ledger.all([s.id for s in one.samples])]
        for image, one, ledger in zip(exam.section.images, sets, ledgers, strict=False)
    }
    if OCCLUDED in exam.section.images:
        alone = asked(exam, known, OCCLUDED, name)
        alone = replace(alone, name=f"{name}, attention", see=_clean)
        found = attention.measured(exam.desk, alone, open_model)
        made[name, OCCLUDED] = attention.given(made[name, OCCLUDED], found)
    made |= {
        (name, kind): occlusion.joined(made[name, kind]) for kind in occlusion.KINDS if (name, kind) in made
    }
    if exam.held:
        clean_ones = ledgers[-1].all([s.id for s in exam.held])
        made[name, HELD] = [replace(p, model=name) for p in clean_ones]
    return made, made_by(exam, run, model, sets)


def made_by(exam: Exam, run: Run, model: str, sets: Sequence[Asked]) -> dict[str, Any]:
    """The hashes of a model, and of each of its sets of answers the key and the versions it was made with."""
    shown = [*exam.section.images, *([HELD] if exam.held else [])]
    told = {
        image: {"key": each.key[:32], "made_with": exam.desk.made_with(each)}
        for image, each in zip(shown, sets, strict=True)
    }
    there = served.read(run.parents.get(model))
    if there is not None:
        return model_of([there.sha256], there.base, Path(there.place) / "chat_template.jinja", told)
    own = model if model != "base" else trained(exam, run)[0]
    line = checkpoint.lineage(checkpoint.folder_of(run.parents[own]))
    first, info = line[0]
    hashes = [] if model == "base" else [checkpoint.fingerprint(place) for place, _ in line]
    template = (first if model == "base" else line[-1][0]) / "chat_template.jinja"
    return model_of(hashes, info["base"], template, told)


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
    samples, shown = exam.samples, image
    if image in occlusion.KINDS:
        samples = occlusion.single(exam.samples, exam.seed)
        shown = occlusion.named(image, samples, exam.seed)
    return Asked(
        name=f"{name}, {image} images",
        shown=image,
        samples=samples,
        see=view_of(image, exam.samples, exam.seed),
        read=read,
        key=key_of(exam.desk, model, samples, read, shown=shown, seed=exam.seed),
    )


def base_of(exam: Exam, run: Run) -> dict[str, Any]:
    """What the base model of the other models is composed from."""
    others = trained(exam, run)
    if not others:
        raise RunError("`base` alone names no model", remedy="add a trained model whose base is meant")
    return checkpoint.lineage(checkpoint.folder_of(run.parents[others[0]]))[0][1]["base"]


def trained(exam: Exam, run: Run) -> list[str]:
    """The models that stages trained."""
    return [m for m in exam.section.models if m != "base" and served.read(run.parents[m]) is None]


def view_of(image: str, samples: list[Sample], seed: int) -> See:
    """How a sample's image is shown under one kind: as it is, spoiled, or another patient's; or prior ones alone so."""
    if image.endswith(ALONE):
        shown = view_of(image.removesuffix(ALONE), samples, seed)
        return lambda sample, i: (shown if sample.images[i].when == "prior" else _clean)(sample, i)
    if image in ("clean", UNAIDED):
        return _clean
    if image in occlusion.KINDS:
        return occlusion.covered(image, seed)
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
