"""VQA-RAD: questions about radiology images, yes/no and open (Lau et al. 2018, doi 10.1038/sdata.2018.251).

Reads `trainset.json` and `testset.json`, whose names are the official splits, or the authors' one file
`VQA_RAD Dataset Public.json`, where `phrase_type` starts with `test_` in the test split. The images stand in
`images/`. Patients are not given: the image stands in for the patient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, describe, json_records, stand_in

FILES = {"trainset.json": "train", "testset.json": "test", "VQA_RAD Dataset Public.json": ""}
ATTRIBUTES = {
    "organ": "image_organ", "question_type": "question_type",
    "answer_type": "answer_type", "phrase_type": "phrase_type",
}  # fmt: skip
ORGANS = {"CHEST": "chest", "ABD": "abdomen", "HEAD": "head"}
# What kind of picture each part has: chest X-rays, axial CT of the abdomen, axial CT or MRI of the head (Lau et al.).
MADE: tuple[tuple[str, dict[str, str]], ...] = (
    ("What imaging modality was used?", {"chest": "X-ray", "abdomen": "CT"}),
    ("What type of image is this?", {"chest": "Chest X-ray", "abdomen": "CT"}),
    ("Is this an X-ray?", {"chest": "Yes", "abdomen": "No", "head": "No"}),
    ("Is this a CT scan?", {"chest": "No", "abdomen": "Yes"}),
    ("Is this an MRI?", {"chest": "No", "abdomen": "No"}),
    ("Is this an axial image?", {"chest": "No", "abdomen": "Yes", "head": "Yes"}),
)
Row = tuple[str, int, str, dict[str, Any]]


def vqa_rad(
    source: Source,
    *,
    images: str = "images",
    group: Literal["question", "image"] = "question",
    organ_questions: bool = False,
) -> Iterator[Read]:
    """One sample a question, or one conversation an image (within one official split).

    Args:
        source: its root holds the JSON files and the images.
        images: folder of the images, below the root.
        group: `question`, or `image` for all questions of an image in one conversation.
        organ_questions: also ask of each image which part of the body it shows, and what kind of picture it is,
            as far as the part decides that. Only the image can tell. The truth is the authors' `image_organ`; the
            questions are ours, so keep them out of scores (`where: {source: authors}`).

    Yields:
        `(sample, "train" or "test", "file:line")`. An assistant turn's topic is `closed` where the answer is
        yes or no and `open` otherwise; attributes are organ, question_type, answer_type and phrase_type, and
        `source`: `authors`, or `image_organ` for a question of ours.

    Raises:
        DataError: none of the known files is there.
    """
    gathered: dict[tuple[str, str], list[Row]] = {}
    organs: dict[str, Read] = {}
    for file, line, split, row in _rows(source):
        if organ_questions and (asked := _organ_questions(row, images)):
            for sample in asked:
                organs.setdefault(sample.id, (sample, split, f"{file}:{line}"))
        if group == "image":
            gathered.setdefault((split, str(row.get("image_name"))), []).append((file, line, split, row))
        elif made := _try(source, [(file, line, split, row)], images, group):
            yield made
    for together in gathered.values():
        if made := _try(source, together, images, group):
            yield made
    yield from organs.values()


def _organ_questions(row: dict[str, Any], images: str) -> list[Sample]:
    """Questions that the part of the body answers; none where the row names no image or no known part."""
    name, organ = row.get("image_name"), ORGANS.get(str(row.get("image_organ", "")).strip())
    if not isinstance(name, str) or not name.strip() or organ is None:
        return []
    name = name.strip()
    others = [word for word in ORGANS.values() if word != organ]
    drawn = hashlib.sha256(name.encode()).digest()
    asked = [
        ("Which part of the body is shown?", organ),
        (f"Is this an image of the {organ}?", "Yes"),
        (f"Is this an image of the {others[drawn[0] % len(others)]}?", "No"),
        *((question, answers[organ]) for question, answers in MADE if organ in answers),
    ]
    path = (Path(images) / name).as_posix()
    return [
        Sample(
            id=f"vqa_rad-organ-{Path(name).stem}-{i}",
            patient=stand_in(path),
            images=(ImageRef(path=path),),
            messages=(
                Message(role="user", parts=(0, question)),
                Message(role="assistant", parts=(answer,), topic=_topic(answer)),
            ),
            attributes={"organ": str(row["image_organ"]).strip(), "source": "image_organ"},
        )
        for i, (question, answer) in enumerate(asked)
    ]


def _rows(source: Source) -> Iterator[Row]:
    root = source.folder()
    found = {name: split for name, split in FILES.items() if (root / name).is_file()}
    if not found:
        raise DataError(
            "no VQA-RAD files in the data root",
            where="data root",
            expected=" and ".join(list(FILES)[:2]) + f", or {list(FILES)[2]}",
            remedy="set `root` to the folder that holds them and the folder images/",
        )
    for name, split in found.items():
        for line, row in json_records(root / name, source):
            yield name, line, split or _public_split(row), row


def _public_split(row: dict[str, Any]) -> str:
    return "test" if str(row.get("phrase_type", "")).startswith("test") else "train"


def _try(source: Source, rows: list[Row], images: str, group: str) -> Read | None:
    """One sample of these rows; a row that does not fit is refused, the others still count."""
    turns: list[tuple[str, Message, Message]] = []
    good: list[Row] = []
    for file, line, split, row in rows:
        try:
            turns.append((_image(row), *_turn(row, first=not turns)))
            good.append((file, line, split, row))
        except DataError as error:
            source.reject_error(file, line, _id(row), error)
    if not good:
        return None
    file, line, split, row = good[0]
    name = turns[0][0]
    path = (Path(images) / name).as_posix()
    attributes = {k: _word(row, field) for k, field in ATTRIBUTES.items() if _word(row, field)}
    if group == "image":
        attributes = {k: v for k, v in attributes.items() if k == "organ"}
    attributes["source"] = "authors"
    sample = Sample(
        id=f"vqa_rad-{_id(row)}" if group == "question" else f"vqa_rad-{split}-{Path(name).stem}",
        patient=stand_in(path),
        images=(ImageRef(path=path),),
        messages=tuple(m for _, question, answer in turns for m in (question, answer)),
        attributes=attributes,
    )
    return sample, split, f"{file}:{line}"


def _id(row: dict[str, Any]) -> str:
    return str(row.get("qid", "")).strip()


def _image(row: dict[str, Any]) -> str:
    name = row.get("image_name")
    if not isinstance(name, str) or not name.strip():
        raise RecordError("the question names no image", field="image_name", found=describe(name))
    if not _id(row):
        raise RecordError("the question has no id", field="qid", found=describe(row.get("qid")))
    return name.strip()


def _turn(row: dict[str, Any], *, first: bool) -> tuple[Message, Message]:
    """One question and its answer; the first question of a conversation shows the image."""
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise RecordError("the question is empty or no text", field="question", found=describe(question))
    if isinstance(answer, bool) or not isinstance(answer, (str, int, float)) or not str(answer).strip():
        raise RecordError(
            "the answer is empty, or neither text nor number", field="answer", found=describe(answer)
        )
    text = str(answer).strip()
    parts: tuple[str | int, ...] = (0, question.strip()) if first else (question.strip(),)
    return Message(role="user", parts=parts), Message(role="assistant", parts=(text,), topic=_topic(text))


def _topic(answer: str) -> str:
    return "closed" if answer.lower().rstrip(".") in ("yes", "no") else "open"


def _word(row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    return value.strip() if isinstance(value, str) else ""


READER = Reader(
    read=vqa_rad,
    official="trainset.json and testset.json; most images stand in both, so split by image for honest scores",
)
