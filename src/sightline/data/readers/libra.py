"""Libra's training lists and evaluation lines: a current image, the prior one if there is any, one mark for both.

| file | record |
|---|---|
| training, a JSON list | `id`, `image`, `conversations` of `from` (human, gpt) and `value` |
| evaluation, JSON lines | `question_id`, `image`, `text`, and `findings`, `impression` or `reference` |

`image` is `[current, prior]`, `[current]` or the current one alone. A prior that is empty, or the current image once
more (Libra's dummy), is a missing prior: it is left out here, and the connector says what stands in for it. Libra's
loader takes the first two of more images; here such a record is refused. An evaluation line without an answer to
compare with is refused too. MIMIC-CXR's paths (`files/p10/p10000032/s50414267/x.jpg`) name patient and study. Layouts
of X-iZhang/Libra on GitHub; `llava_json` with `prior: true` reads the same files as one of many layouts.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from ...errors import DataError
from ...metrics.answers import normalise
from ...types import ImageRef, Message, Sample
from ..matching import matching
from ..source import Read, Reader, RecordError, Source, describe, json_records, split_name, stand_in

MARK = "<image>"
REMEDY = "set `file` to the JSON file's name or to a pattern below the root"
SPEAKERS = {"human": "user", "gpt": "assistant"}
ANSWERS = ("findings", "impression", "reference")
PATIENTS = ("subject_id", "patient", "patient_id")
DATES = ("study_date", "StudyDate", "date")
MIMIC = re.compile(r"(?:^|/)(p\d{8})/(s\d{8})(?:/|$)")
EVALUATES = re.compile(r"(?:^|[^a-z])eval(?:$|[^a-z])")
REPORTS = re.compile(r"\b(?:descri(?:be|ption)|report)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    images: str
    priors: str
    ids: str
    patient: str
    topic: str


def libra(
    source: Source,
    *,
    file: str = "*.json*",
    images: str = "",
    priors: Literal["show", "drop"] = "show",
    ids: Literal["keep", "place"] = "keep",
    patient: str = "",
    topic: Literal["auto", "report", "question"] = "auto",
) -> Iterator[Read]:
    """Read every matching file.

    Args:
        source: its root holds the files.
        file: which files below the root, e.g. `libra_findings_section_train.json`.
        images: folder that image paths start from, below the root.
        priors: `drop` leaves out all priors, to learn or to measure without them.
        ids: `keep` the records' ids, or name every record after its `place` (file and number).
        patient: field that names the patient; "" tries subject_id, patient, patient_id, then MIMIC-CXR's path. Where
            nothing names one, the current image stands in.
        topic: what an answer is about. `auto`: `report` where the record says findings or impression or the question
            asks for a description or a report, else `closed` where the answer is yes or no, else `open`. `question`
            never says `report`.

    Yields:
        `(sample, split or None, "file:line")`; the split comes from a record's `split`, else from the file's name,
        where `eval` is the test split. The attribute `prior` is `own` or `none`.

    Raises:
        DataError: no file matches.
    """
    options = _Options(images=images, priors=priors, ids=ids, patient=patient, topic=topic)
    root = source.folder()
    for path in matching(root, file, remedy=REMEDY):
        name = path.relative_to(root).as_posix()
        stem = name[: -len(path.suffix)] if path.suffix else name
        for index, (line, row) in enumerate(json_records(path, source)):
            place = f"{stem}-{index}"
            try:
                sample = _sample(row, place, options)
            except DataError as error:
                source.reject_error(name, line, _name(row) or place, error)
                continue
            yield sample, _split(row, PurePosixPath(stem).name), f"{name}:{line}"


def _sample(row: dict[str, Any], place: str, options: _Options) -> Sample:
    """One record.

    Raises:
        RecordError: it is neither a conversation nor a question with its answer, or its images are not one or two.
    """
    refs = _images(row, options)
    known = MIMIC.search(refs[0].path)
    messages = _talk(row, refs, options) if "conversations" in row else _asked(row, refs, options)
    return Sample(
        id=place if options.ids == "place" else _name(row) or place,
        patient=_patient(row, options, known.group(1) if known else "") or stand_in(refs[0].path),
        study=_text(row, "study_id") or (known.group(2) if known else ""),
        date=next((_text(row, key) for key in DATES if _text(row, key)), ""),
        images=refs,
        messages=messages,
        attributes={"prior": "own" if len(refs) > 1 else "none"},
    )


def _images(row: dict[str, Any], options: _Options) -> tuple[ImageRef, ...]:
    """The current image and, where there is one that is another image, the prior."""
    given = row.get("image")
    paths = given if isinstance(given, list) else [given]
    paths = [*paths[:1], *(p for p in paths[1:] if p not in (None, "", paths[0]))]
    if not paths or any(not isinstance(p, str) or not p for p in paths):
        raise RecordError("the record names no current image", field="image", found=describe(given))
    if len(paths) > 2:
        raise RecordError(
            "the record has more than two images", field="image", found=f"{len(paths)} images",
            remedy="give [current, prior] or [current]",
        )  # fmt: skip
    shown = paths if options.priors == "show" else paths[:1]
    return tuple(
        ImageRef(path=posixpath.join(options.images, path), kind="xray", when=when)
        for path, when in zip(shown, ("current", "prior"), strict=False)
    )


def _talk(row: dict[str, Any], refs: tuple[ImageRef, ...], options: _Options) -> tuple[Message, ...]:
    """A training record's turns; its one mark becomes the places of all its images."""
    turns = row["conversations"]
    if not isinstance(turns, list) or not turns:
        raise RecordError(
            "`conversations` is not a list of turns", field="conversations", found=describe(turns)
        )
    said = [_turn(turn) for turn in turns]
    marks = sum(text.count(MARK) for _, text in said)
    if marks > 1 or said[0][0] != "user":
        raise RecordError(
            f"a conversation begins with the human and has one {MARK} for all its images",
            field="conversations", found=f"{marks} mark(s), the {said[0][0]} speaks first",
        )  # fmt: skip
    messages: list[Message] = []
    for at, (role, text) in enumerate(said):
        shown = MARK in text or (not marks and at == 0)
        plain = text.replace(MARK, "").strip()
        places = tuple(range(len(refs))) if shown else ()
        topic = _topic(messages[-1].text, plain, "", options) if role == "assistant" else ""
        messages.append(Message(role=role, parts=(*places, *([plain] if plain else [])), topic=topic))
    return tuple(messages)


def _turn(turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
        raise RecordError(
            "a turn is not a mapping of `from` and a text `value`",
            field="conversations",
            found=describe(turn),
        )
    speaker = str(turn.get("from"))
    if speaker not in SPEAKERS:
        raise RecordError(
            "unknown speaker", field="conversations", found=repr(speaker[:30]),
            remedy=f"name the speaker {' or '.join(SPEAKERS)}",
        )  # fmt: skip
    return SPEAKERS[speaker], turn["value"]


def _asked(row: dict[str, Any], refs: tuple[ImageRef, ...], options: _Options) -> tuple[Message, ...]:
    """The one question and the answer of an evaluation line."""
    question = _text(row, "text").replace(MARK, "").strip()
    if not question:
        raise RecordError(
            "the record holds neither `conversations` nor a question", field="text",
            found=f"fields {', '.join(sorted(row)[:8])}", remedy="see the layouts that `libra` reads",
        )  # fmt: skip
    field = next((key for key in ANSWERS if _text(row, key)), "")
    if not field:
        raise RecordError(
            "the question has no answer to compare with", field=ANSWERS[0], found="no answer",
            remedy=f"give {', '.join(ANSWERS[:-1])} or {ANSWERS[-1]}",
        )  # fmt: skip
    answer = _text(row, field)
    return (
        Message(role="user", parts=(*range(len(refs)), question)),
        Message(role="assistant", parts=(answer,), topic=_topic(question, answer, field, options)),
    )


def _topic(question: str, answer: str, field: str, options: _Options) -> str:
    """What an answer is about; `field` is where an evaluation line holds it."""
    if options.topic == "report":
        return "report"
    asks = field in ANSWERS[:2] or (field != "reference" and bool(REPORTS.search(question)))
    if asks and options.topic == "auto":
        return "report"
    return "closed" if normalise(answer) in ("yes", "no") else "open"


def _patient(row: dict[str, Any], options: _Options, known: str) -> str:
    if not options.patient:
        return next((_text(row, key) for key in PATIENTS if _text(row, key)), known)
    found = _text(row, options.patient)
    if not found:
        raise RecordError(
            "the record names no patient", field=options.patient, found=describe(row.get(options.patient))
        )
    return found


def _split(row: dict[str, Any], stem: str) -> str | None:
    """The official split: of the record, else of the file's name."""
    return (
        split_name(_text(row, "split"))
        or split_name(stem)
        or ("test" if EVALUATES.search(stem.lower()) else None)
    )


def _name(row: dict[str, Any]) -> str:
    return _text(row, "id") or _text(row, "question_id")


def _text(row: dict[str, Any], field: str) -> str:
    """A text or a number as text; "" where the field is absent or something else."""
    value = row.get(field)
    return "" if isinstance(value, bool) or not isinstance(value, (str, int, float)) else str(value).strip()


READER = Reader(
    read=libra, official="a record's `split` field, or train, valid, test or eval in the file's name"
)
