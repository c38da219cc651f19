"""Reader of generated chest pictures: nothing is read, every truth is known.

Each study gives two samples over one picture: six closed questions in a fixed order, and the report. They stand
apart so that a report is written from the picture, not copied from earlier answers.

    p0001-s1-questions   user <image> Is there a left effusion?   assistant Yes   (topic effusion_left)
                         user Is there a right effusion?          assistant No    ...
    p0001-s1-report      user <image> Describe the findings.      assistant Small left effusion. No right
                                                                  effusion. No cardiomegaly. ... (topic report)

Findings are independent of each other and of the patient, so that language alone answers nothing. With `subgroups`,
patients belong to groups, of which some may be harder; with `regions`, attributes say where each finding is.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from PIL import Image

from ...errors import RecipeError
from ...images.anatomy import Anatomy, grow
from ...images.phantom import FINDINGS, SEVERITIES, SIDED, boxes, draw
from ...images.regions import ATTRIBUTE, written
from ...types import ImageRef, Message, Sample
from ..groups import Group, check, group_of
from ..source import Read, Reader, Source

REPORT_PROMPT = "Describe the findings."
NAMES = {
    "effusion_left": "left effusion",
    "effusion_right": "right effusion",
    "cardiomegaly": "cardiomegaly",
    "nodule": "nodule",
    "pneumothorax": "pneumothorax",
    "device": "device",
}
ASKED = {name: f"a {NAMES[name]}" for name in FINDINGS} | {"cardiomegaly": NAMES["cardiomegaly"]}
MORE_STUDIES = 0.3


def report(findings: Mapping[str, int], sides: Mapping[str, str] | None = None) -> str:
    """The report of a picture: one short sentence per finding, in the order of `FINDINGS`.

    Args:
        findings: severity per finding, 0 (absent) to 3 (large).
        sides: `left` or `right` for nodule and pneumothorax; a side left out is not mentioned.
    """
    known = sides or {}
    sentences = []
    for name in FINDINGS:
        severity, words = findings.get(name, 0), NAMES[name]
        if severity == 0:
            words = f"No {words}"
        elif name.startswith("effusion"):
            words = f"{SEVERITIES[severity]} {words}"
        elif name == "device":
            words = "device in place"
        elif name in known:
            words = f"{known[name]} {words}"
        sentences.append(words[0].upper() + words[1:] + ".")
    return " ".join(sentences)


def questions(findings: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """The closed questions of a picture as (topic, question, answer), in the order of `FINDINGS`."""
    return [(name, f"Is there {ASKED[name]}?", "Yes" if findings.get(name, 0) else "No") for name in FINDINGS]


def generator(*words: object) -> np.random.Generator:
    """A random source that is a function of its words alone."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What all studies of a patient have in common."""

    who: Anatomy
    told: Mapping[str, str]
    prevalence: float
    size: int
    regions: bool
    group: Group


def phantom(
    source: Source,
    *,
    patients: int = 900,
    studies: int = 2,
    prevalence: float = 0.4,
    size: int = 224,
    subgroups: dict[str, dict[str, dict[str, float]]] | None = None,
    regions: bool = False,
) -> Iterator[Read]:
    """Draw patients and write their pictures below `source.images`.

    A picture depends on the seed, the patient and the study only: asking for more patients changes none.

    Args:
        source: seed, and the folder for the pictures.
        patients: how many.
        studies: most studies of one patient; three patients in ten have another one after each.
        prevalence: chance of each finding in each study.
        size: edge of the pictures in pixels.
        subgroups: groups of patients by attribute; see `data.groups`.
        regions: give every finding that is seen an attribute `box_NAME`; see `images.regions`.

    Yields:
        Two samples per study, without an official split.

    Raises:
        RecipeError: an option out of range.
    """
    _check(patients, studies, prevalence, size)
    check(subgroups or {})
    source.images.mkdir(parents=True, exist_ok=True)
    count = 0
    for number in range(1, patients + 1):
        patient = f"p{number:04d}"
        rng = generator(source.seed, patient)
        who = grow(rng)
        age, day = int(rng.integers(20, 90)), date(2000, 1, 1) + timedelta(days=int(rng.integers(7000)))
        for study in range(1, studies + 1):
            count += 1
            told = {"age": str(age), "sex": "F" if who.breast else "M"}
            plan = _Plan(
                who=who, told=told, prevalence=prevalence, size=size, regions=regions,
                group=group_of(subgroups or {}, _sources(source.seed, patient, subgroups or {})),
            )  # fmt: skip
            for sample in _study(source, plan, patient, f"s{study}", day.isoformat()):
                yield sample, None, f"phantom:{count}"
            if rng.random() >= MORE_STUDIES:
                break
            day += timedelta(days=int(rng.integers(20, 400)))


def _check(patients: int, studies: int, prevalence: float, size: int) -> None:
    """Refuse options that make no data set."""
    wrong = [
        f"{name}={value} (expected {rule})"
        for name, value, rule, right in (
            ("patients", patients, "at least 1", patients >= 1),
            ("studies", studies, "at least 1", studies >= 1),
            ("prevalence", prevalence, "from 0 to 1", 0 <= prevalence <= 1),
            ("size", size, "from 64 to 2048", 64 <= size <= 2048),
        )
        if not right
    ]
    if wrong:
        raise RecipeError(
            "the options of the reader 'phantom' are out of range",
            where="; ".join(wrong),
            remedy="change them in the prepare stage",
        )


def _sources(seed: int, patient: str, attributes: Mapping[str, Any]) -> dict[str, np.random.Generator]:
    """A random source for each attribute that a patient's group is drawn for."""
    return {name: generator(seed, patient, "group", name) for name in attributes}


def _study(source: Source, plan: _Plan, patient: str, study: str, day: str) -> list[Sample]:
    """Draw one study, write its picture, and tell both samples."""
    group = plan.group
    chance = plan.prevalence if group.prevalence is None else group.prevalence
    rng = generator(source.seed, patient, study)
    present, degree = rng.random(len(FINDINGS)) < chance, rng.integers(1, 4, len(FINDINGS))
    findings = {name: int(p * d) for name, p, d in zip(FINDINGS, present, degree, strict=True)}
    sides = {name: ("left", "right")[int(rng.integers(2))] for name in SIDED}
    drawn: dict[str, Any] = {"size": plan.size, "anatomy": plan.who, "sides": sides}
    places = boxes(rng, findings, **drawn) if plan.regions else {}
    pixels = group.shown(draw(rng, findings, **drawn), generator(source.seed, patient, study, "noise"))
    name = f"{patient}-{study}"
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format="PNG", compress_level=3)
    (source.images / f"{name}.png").write_bytes(packed.getvalue())
    attributes = {f"severity_{k}": SEVERITIES[v] for k, v in findings.items()}
    attributes |= {f"side_{k}": v for k, v in sides.items() if findings[k]}
    attributes |= {f"{ATTRIBUTE}{k}": written(v) for k, v in places.items()}
    ref = ImageRef(path=f"{name}.png", sha256=hashlib.sha256(packed.getvalue()).hexdigest(), kind="xray")
    common: dict[str, Any] = {
        "patient": patient,
        "study": study,
        "date": day,
        "images": (ref,),
        "labels": {k: int(v > 0) for k, v in findings.items()},
        "attributes": {**plan.told, **group.attributes, **attributes, "exposure": exposure(pixels)},
    }
    return [
        Sample(id=f"{name}-questions", messages=asked(questions(findings)), **common),
        Sample(id=f"{name}-report", messages=_reported(findings, sides), **common),
    ]


def asked(turned: Sequence[tuple[str, str, str]], images: int = 1) -> tuple[Message, ...]:
    """Questions as (topic, question, answer), in one conversation that begins with the images."""
    turns: list[Message] = []
    for topic, question, answer in turned:
        shown: tuple[str | int, ...] = (question,) if turns else (*range(images), question)
        turns.append(Message(role="user", parts=shown))
        turns.append(Message(role="assistant", parts=(answer,), topic=topic))
    return tuple(turns)


def _reported(findings: Mapping[str, int], sides: Mapping[str, str]) -> tuple[Message, ...]:
    """The picture's report."""
    answer = Message(role="assistant", parts=(report(findings, sides),), topic="report")
    return Message(role="user", parts=(0, REPORT_PROMPT)), answer


def exposure(pixels: np.ndarray) -> str:
    """How bright a picture came out, for subgroup analysis."""
    mean = float(pixels.mean())
    return "dark" if mean < 110 else "bright" if mean > 145 else "middle"


READER = Reader(read=phantom, needs_root=False, later=("subgroups", "regions"))
