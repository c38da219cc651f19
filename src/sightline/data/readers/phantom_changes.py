"""Reader of generated patients with several studies: what changed since the prior one is known exactly.

Every study is a picture of the same anatomy in another pose and exposure. A finding stays where it was; from study to
study it appears, grows, shrinks or resolves. Every study from the second on is shown with its prior:

    p0001-s2-questions   user <current> <prior> Is there a left effusion?
                         assistant Yes                                         (topic effusion_left)
    p0001-s2-changes     user <current> <prior> How has the left effusion changed since the prior study?
                         assistant Worse                                       (topic change_effusion_left)
    p0001-s2-report      user <current> <prior> Describe the findings and what has changed since the prior study.
                         assistant Large left effusion, worse than before. ... (topic report)

The first study of a patient has no prior, and no question about a change. A device stays as it is. It is a reader of
its own, not an option of `phantom`, so that data prepared with `phantom` keep every byte, `dataset.json` included.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import numpy as np
from PIL import Image

from ...errors import RecipeError
from ...images.anatomy import Anatomy, grow
from ...images.phantom import FINDINGS, SEVERITIES, SIDED, draw
from ...types import ImageRef, Sample
from ..source import Read, Reader, Source
from .phantom import NAMES, REPORT_PROMPT, asked, exposure, generator, questions, report

CHANGING = tuple(name for name in FINDINGS if name != "device")
ANSWERS = ("unchanged", "new", "resolved", "worse", "improved")
CHANGE_PROMPT = "Describe the findings and what has changed since the prior study."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patient:
    """A patient: what stays, and the severity of each finding study by study."""

    name: str
    who: Anatomy
    told: Mapping[str, str]
    sides: Mapping[str, str]
    days: tuple[str, ...]
    course: tuple[Mapping[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The options, and the pictures that are written already."""

    seed: int
    studies: int
    prevalence: float
    change: float
    size: int
    findings: tuple[str, ...]
    drawn: dict[str, ImageRef] = field(default_factory=dict)
    exposures: dict[str, str] = field(default_factory=dict)


def phantom_changes(
    source: Source,
    *,
    patients: int = 300,
    studies: int = 3,
    prevalence: float = 0.5,
    change: float = 0.8,
    findings: list[str] | None = None,
    size: int = 224,
) -> Iterator[Read]:
    """Draw patients with several studies each and write their pictures below `source.images`.

    A picture depends on the seed, the patient, the study and what may change, not on how many patients there are.

    Args:
        source: seed, and the folder for the pictures.
        patients: how many.
        studies: of each patient.
        prevalence: chance of each finding in each study.
        change: chance that a finding is drawn anew from one study to the next (it may come out as it was).
        findings: which are there at all and are asked about; None for all but the device, which never changes.
        size: edge of the pictures in pixels.

    Yields:
        Two samples of a first study and three of every later one, without an official split. The attribute `asks` is
        `questions`, `changes` or `report`; `change_NAME` is what the finding did, of studies with a prior.

    Raises:
        RecipeError: an option out of range, or a finding that cannot change.
    """
    plan = _Plan(
        seed=source.seed, studies=studies, prevalence=prevalence, change=change, size=size,
        findings=CHANGING if findings is None else tuple(findings),
    )  # fmt: skip
    _check(plan, patients)
    source.images.mkdir(parents=True, exist_ok=True)
    count = 0
    for number in range(1, patients + 1):
        patient = _patient(plan, number)
        for at in range(studies):
            count += 1
            for sample in _study(source, plan, patient, at):
                yield sample, None, f"phantom_changes:{count}"


def _check(plan: _Plan, patients: int) -> None:
    """Refuse options that make no data set."""
    wrong = [
        f"{name}={value} (expected {rule})"
        for name, value, rule, right in (
            ("patients", patients, "at least 1", patients >= 1),
            ("studies", plan.studies, "at least 2", plan.studies >= 2),
            ("prevalence", plan.prevalence, "from 0 to 1", 0 <= plan.prevalence <= 1),
            ("change", plan.change, "from 0 to 1", 0 <= plan.change <= 1),
            ("size", plan.size, "from 64 to 2048", 64 <= plan.size <= 2048),
            (
                "findings", list(plan.findings), f"some of {', '.join(CHANGING)}",
                bool(plan.findings) and set(plan.findings) <= set(CHANGING),
            ),
        )
        if not right
    ]  # fmt: skip
    if wrong:
        raise RecipeError(
            "the options of the reader 'phantom_changes' are out of range", where="; ".join(wrong),
            remedy="change them in the prepare stage",
        )  # fmt: skip


def _patient(plan: _Plan, number: int) -> _Patient:
    """One patient; the course of each finding is a chain that keeps its prevalence."""
    name = f"p{number:04d}"
    rng = generator(plan.seed, "changes", name)
    who, age = grow(rng), int(rng.integers(20, 90))
    sides = {finding: ("left", "right")[int(rng.integers(2))] for finding in SIDED}
    device = int(rng.random() < plan.prevalence) * int(rng.integers(1, 4))
    day, days = date(2000, 1, 1) + timedelta(days=int(rng.integers(7000))), []
    state, course = np.zeros(len(CHANGING), dtype=int), []
    for at in range(plan.studies):
        fresh = (rng.random(len(CHANGING)) < plan.prevalence) * rng.integers(1, 4, len(CHANGING))
        anew = rng.random(len(CHANGING)) < (plan.change if at else 1.0)
        state = np.where(anew, fresh, state)
        days.append(day.isoformat())
        day += timedelta(days=int(rng.integers(7, 400)))
        seen = {
            name: int(value) * (name in plan.findings) for name, value in zip(CHANGING, state, strict=True)
        }
        course.append({**seen, "device": device})
    return _Patient(
        name=name, who=who, told={"age": str(age), "sex": "F" if who.breast else "M"}, sides=sides,
        days=tuple(days), course=tuple(course),
    )  # fmt: skip


def _picture(source: Source, plan: _Plan, patient: _Patient, at: int) -> ImageRef:
    """The picture of a study, drawn and written once."""
    name = f"{patient.name}-s{at + 1}"
    if name not in plan.drawn:
        rng = generator(plan.seed, "changes", patient.name, f"s{at + 1}")
        course = generator(plan.seed, "changes", patient.name, "course")
        pixels = draw(
            rng, patient.course[at], size=plan.size, anatomy=patient.who, sides=patient.sides, course=course
        )
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, format="PNG", compress_level=3)
        (source.images / f"{name}.png").write_bytes(packed.getvalue())
        sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
        plan.drawn[name] = ImageRef(path=f"{name}.png", sha256=sha256, kind="xray")
        plan.exposures[name] = exposure(pixels)
    return plan.drawn[name]


def _study(source: Source, plan: _Plan, patient: _Patient, at: int) -> list[Sample]:
    """The samples of one study."""
    current, now = _picture(source, plan, patient, at), patient.course[at]
    images = [current]
    if at:
        images.append(replace(_picture(source, plan, patient, at - 1), when="prior"))
    changes = {name: changed(patient.course[at - 1][name], now[name]) for name in plan.findings} if at else {}
    attributes = {f"severity_{k}": SEVERITIES[v] for k, v in now.items()}
    attributes |= {f"side_{k}": v for k, v in patient.sides.items() if now[k]}
    attributes |= {f"change_{k}": v for k, v in changes.items()}
    attributes["exposure"] = plan.exposures[current.path.removesuffix(".png")]
    attributes["prior"] = "own" if at else "none"
    common: dict[str, Any] = {
        "patient": patient.name, "study": f"s{at + 1}", "date": patient.days[at], "images": tuple(images),
        "labels": {k: int(v > 0) for k, v in now.items()},
    }  # fmt: skip
    told = change_report(now, changes, patient.sides) if at else report(now, patient.sides)
    turned = {
        "questions": [each for each in questions(now) if each[0] in (*plan.findings, "device")],
        "changes": change_questions(changes),
        "report": [("report", CHANGE_PROMPT if at else REPORT_PROMPT, told)],
    }
    return [
        Sample(
            id=f"{patient.name}-s{at + 1}-{asks}", messages=asked(turns, len(images)),
            attributes={**patient.told, **attributes, "asks": asks}, **common,
        )
        for asks, turns in turned.items()
        if turns
    ]  # fmt: skip


def changed(before: int, now: int) -> str:
    """What a finding of these severities did: one of `ANSWERS`. What was absent and still is, is unchanged."""
    if before == now:
        return "unchanged"
    if not before or not now:
        return "new" if now else "resolved"
    return "worse" if now > before else "improved"


def change_questions(changes: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Questions about changes as (topic, question, answer); the topic is `change_` and the finding's name."""
    return [
        (f"change_{name}", f"How has the {NAMES[name]} changed since the prior study?", answer.capitalize())
        for name, answer in changes.items()
    ]


def change_report(now: Mapping[str, int], changes: Mapping[str, str], sides: Mapping[str, str]) -> str:
    """A report of a study that has a prior: one short sentence per finding, with what it did.

    Args:
        now: severity per finding.
        changes: what each of them did; a finding left out is told as it is.
        sides: `left` or `right` for nodule and pneumothorax.
    """
    sentences = []
    for name, plain in zip(FINDINGS, report(now, sides).split(". "), strict=True):
        words, what = plain.rstrip("."), changes.get(name, "")
        if what == "resolved":
            words = f"The {NAMES[name]} has resolved"
        elif what == "new":
            words = f"New {words[0].lower()}{words[1:]}"
        elif now[name] and what:
            words += f", {what}" + (" than before" if what == "worse" else "")
        sentences.append(words + ".")
    return " ".join(sentences)


READER = Reader(read=phantom_changes, needs_root=False)
