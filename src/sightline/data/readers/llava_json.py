"""LLaVA conversations, and the JSON of MMed-RAG, RULE and Libra that grew from them, as lists or JSON lines.

| record | becomes |
|---|---|
| `conversations` with `image` (or `image_path`), text or list | a sample |
| the same with `rejected_conversations`, `rejected_noised`, `chosen_noised` | a preference |
| `question` or `text`, and `answer`, `reference`, `findings` or `impression` | a sample of one question |
| `report`, `caption` or `gpt4_summary` alone | a sample that asks for the report |

`<image>` marks become image places; the line break beside a mark belongs to the mark. Without a mark one
image stands in front of the first question, as in LLaVA. `rejected_noised: 1` means that the rejected answer
saw a picture replaced by noise; with `chosen_noised: 1` both sides see the same noise. `reference_reports`
(MMed-RAG) and `reference_report` (RULE) become references. A record without an id, which is how released
alignment rows come, is named after its file and its place among the readable records there: `harvard_vqa-12`,
counted from 0. Layouts of LLaVA (haotian-liu/LLaVA), MMed-RAG and RULE (richard-peng-xia) and Libra
(X-iZhang/Libra) on GitHub.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from ...errors import DataError
from ...types import Degrade, ImageRef, Message, Preference, Sample
from ..matching import matching
from ..source import Read, Reader, RecordError, Source, clean, describe, json_records, split_name, stand_in

MARK = "<image>"
REMEDY = "set `file` to the JSON file's name or to a pattern such as data/*.json"
SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
PATIENTS = ("subject_id", "patient", "patient_id")
REPORTS = ("report", "caption", "gpt4_summary")
ANSWERS = ("answer", "reference", "findings", "impression")
ATTRIBUTES = ("age", "gender", "sex", "race", "ethnicity", "language", "site")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    patient: str
    ids: str
    images: str
    image_root: str
    roots: Mapping[str, str]
    prior: bool
    prompt: str


def llava_json(
    source: Source,
    *,
    file: str = "*.json*",
    images: str = "",
    image_root: Literal["keep", "ignore"] = "keep",
    roots: dict[str, str] | None = None,
    patient: str = "",
    ids: Literal["keep", "place"] = "keep",
    prior: bool = False,
    prompt: str = "Write the report of this image.",
) -> Iterator[Read]:
    """Read every matching file.

    Args:
        source: its root holds the files.
        file: which files below the root, e.g. `train.json` or `alignment/*.json`.
        images: folder that image paths start from, below the root.
        image_root: `keep` puts a record's `image_root` in front of its paths, `ignore` does not.
        roots: where folders of the authors' machine are here: `{"/data/mimic": "mimic"}`, below the root.
        patient: field that names the patient; "" tries subject_id, patient, patient_id. Where none is there
            the first image stands in.
        ids: `keep` the records' ids, or name every record after its `place` (file and number), for files
            whose ids are those of images and therefore repeat.
        prior: an image list is [current, prior] and one mark stands for both (Libra).
        prompt: what is asked where a record holds only a report.

    Yields:
        `(sample or preference, split or None, "file:line")`; the split comes from a record's `split`, else
        from the file's name.

    Raises:
        DataError: no file matches.
    """
    options = _Options(
        patient=patient, ids=ids, images=images, image_root=image_root, roots=roots or {}, prior=prior,
        prompt=prompt,
    )  # fmt: skip
    root = source.folder()
    for path in matching(root, file, remedy=REMEDY):
        name = path.relative_to(root).as_posix()
        stem = name[: -len(path.suffix)] if path.suffix else name
        for index, (line, row) in enumerate(json_records(path, source)):
            place = f"{stem}-{index}"
            try:
                record = _record(row, place, options)
                split = _split(row, stem)
            except DataError as error:
                source.reject_error(name, line, _name(row) or place, error)
                continue
            yield record, split, f"{name}:{line}"


def _record(row: dict[str, Any], place: str, options: _Options) -> Sample | Preference:
    refs = _images(row, options)
    about: dict[str, Any] = {
        "id": place if options.ids == "place" else _name(row) or place,
        "patient": _patient(row, refs, options) or f"record:{place}",
    }
    if "rejected_conversations" in row:
        return _preference(row, refs, about, options)
    messages = _messages(row, "conversations", refs, options) if "conversations" in row else None
    return Sample(
        **about,
        images=refs,
        messages=messages or _asked(row, refs, options),
        study=_text(row, "study_id"),
        date=_text(row, "date") or _text(row, "study_date"),
        attributes={k: _text(row, k) for k in ATTRIBUTES if _text(row, k)},
        references=_references(row),
    )


def _preference(
    row: dict[str, Any], refs: tuple[ImageRef, ...], about: Mapping[str, Any], options: _Options
) -> Preference:
    good = _messages(row, "conversations", refs, options)
    bad = _messages(row, "rejected_conversations", refs, options)
    for name, turns in (("conversations", good), ("rejected_conversations", bad)):
        if turns[-1].role != "assistant" or len(turns) < 2:
            raise RecordError("one-sided conversation: no answer at its end", field=name, found=_roles(turns))
    if good[:-1] != bad[:-1]:
        raise RecordError(
            "the two conversations ask different questions",
            field="rejected_conversations",
            remedy="make all turns but the last equal",
        )
    noise = Degrade(kind="replace")
    noised = {side: _flag(row, f"{side}_noised") for side in ("chosen", "rejected")}
    # The original turns both pictures into the same noise as soon as the chosen side is marked.
    both = noised["chosen"]
    if good[-1].text == bad[-1].text and (both or not noised["rejected"]):
        raise RecordError(
            "the two answers are equal and so are their images",
            field="rejected_conversations",
            found=describe(good[-1].text),
            remedy="drop the record, or mark its rejected side with rejected_noised: 1",
        )
    default = "degraded" if noised["rejected"] and not both else "answers"
    return Preference(
        **about,
        images=refs,
        prompt=good[:-1],
        chosen=good[-1].text,
        rejected=bad[-1].text,
        chosen_images=noise if both else None,
        rejected_images=noise if both or noised["rejected"] else None,
        why=_text(row, "why") or default,
    )


def _messages(
    row: dict[str, Any], field: str, refs: Sequence[ImageRef], options: _Options
) -> tuple[Message, ...]:
    """The turns of one conversation, `<image>` marks numbered through it."""
    turns = row.get(field)
    if not isinstance(turns, list):
        raise RecordError(f"`{field}` is not a list of turns", field=field, found=describe(turns))
    if not turns:
        raise RecordError("the conversation is empty", field=field, found="0 turns", remedy="drop the record")
    said = [_turn(turn, field) for turn in turns]
    marks = sum(text.count(MARK) for _, text in said)
    shown = _places(marks, len(refs), options.prior, field)
    asked = next((i for i, (role, _) in enumerate(said) if role == "user"), None)
    if not marks and shown and asked is None:
        raise RecordError("one-sided conversation: nobody asks", field=field, found=_spoken(said))
    messages, queue = [], iter(shown)
    for i, (role, text) in enumerate(said):
        front = MARK * len(shown) if not marks and i == asked else ""
        messages.append(Message(role=role, parts=_parts(front + text, queue)))
    return tuple(messages)


def _turn(turn: Any, field: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise RecordError("a turn is not a mapping of `from` and `value`", field=field, found=describe(turn))
    speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    if not isinstance(speaker, str) or speaker.lower() not in SPEAKERS:
        raise RecordError(
            f"unknown role {str(speaker)[:30]!r}", field=field, found=repr(speaker)[:40],
            remedy=f"name the speaker one of {', '.join(SPEAKERS)}",
        )  # fmt: skip
    if not isinstance(text, str):
        raise RecordError("a turn's `value` is not a text", field=field, found=describe(text))
    return SPEAKERS[speaker.lower()], text


def _places(marks: int, count: int, prior: bool, field: str) -> list[tuple[int, ...]]:
    """Which images each mark stands for; without marks, all images stand at the first question."""
    every = tuple(range(count))
    if prior and count and marks <= 1:
        return [every]
    if marks == count:
        return [(i,) for i in every]
    if not marks and count == 1:
        return [(0,)]
    raise RecordError(
        f"unmatched {MARK}: {marks} mark(s) for {count} image(s)",
        field=field,
        found=f"{marks} mark(s), {count} image(s)",
        remedy=f"write one {MARK} for each image; set `prior: true` if one stands for [current, prior]",
    )


def _parts(text: str, queue: Iterator[tuple[int, ...]]) -> tuple[str | int, ...]:
    found: list[str | int] = []
    for piece in re.split(rf"(\n?{MARK}\n?)", text):
        if MARK in piece:
            found.extend(next(queue))
        elif piece:
            found.append(piece)
    return tuple(found)


def _asked(row: dict[str, Any], refs: Sequence[ImageRef], options: _Options) -> tuple[Message, ...]:
    """The conversation of a record that holds a question and its answer, or a report alone."""
    question, field = _text(row, "question") or _text(row, "text"), "answer"
    answer = next((_text(row, k) for k in ANSWERS if _text(row, k)), "")
    topic = ""
    if not question:
        field, topic = next((k for k in REPORTS if _text(row, k)), ""), "report"
        if not field:
            raise RecordError(
                "the record holds no conversation, no question and no report",
                field="conversations",
                found=f"fields {', '.join(sorted(k for k in row if k)[:8])}",
                remedy="see the layouts that `llava_json` reads",
            )
        answer, question = _text(row, field), options.prompt
    if not answer:
        raise RecordError(
            "one-sided conversation: a question without an answer", field=field, found="no answer"
        )
    question = question if MARK in question else MARK * len(refs) + question
    places = _places(question.count(MARK), len(refs), options.prior, "question")
    return (
        Message(role="user", parts=_parts(question, iter(places))),
        Message(role="assistant", parts=(answer,), topic=topic),
    )


def _images(row: dict[str, Any], options: _Options) -> tuple[ImageRef, ...]:
    field = next((k for k in ("image", "image_path", "images") if row.get(k) not in (None, "", [])), "image")
    given = row.get(field) or []
    paths = given if isinstance(given, list) else [given]
    if any(not isinstance(p, str) or not p for p in paths):
        raise RecordError(
            f"`{field}` is neither a path nor a list of paths", field=field, found=describe(given)
        )
    base = row.get("image_root") if options.image_root == "keep" else None
    if base is not None and not isinstance(base, str):
        raise RecordError("`image_root` is not a text", field="image_root", found=describe(base))
    refs = []
    for i, path in enumerate(paths):
        joined = base and not path.startswith("/") and "://" not in path
        found = _below(f"{base.rstrip('/')}/{path}" if base and joined else path, options)
        refs.append(ImageRef(path=found, when="prior" if options.prior and i else "current"))
    return tuple(refs)


def _below(path: str, options: _Options) -> str:
    """A path from the data root: folders of the authors' machine replaced, the image folder put in front."""
    for start in sorted(options.roots, key=len, reverse=True):
        rest = path.removeprefix(start.rstrip("/"))
        if rest != path and (not rest or rest.startswith("/")):
            return posixpath.join(options.roots[start], rest.lstrip("/"))
    if path.startswith("/"):
        raise RecordError(
            "the image path is absolute: it belongs to another machine",
            field="image",
            found=clean(path, 120),
            remedy="map it with the option `roots`, e.g. {'/their/folder': 'folder below the root'}, "
            "or set `image_root: ignore`",
        )
    return posixpath.join(options.images, path) if options.images and "://" not in path else path


def _patient(row: dict[str, Any], refs: Sequence[ImageRef], options: _Options) -> str:
    if options.patient:
        found = _text(row, options.patient)
        if not found:
            raise RecordError(
                "the record names no patient", field=options.patient, found=describe(row.get(options.patient))
            )
        return found
    named = next((_text(row, k) for k in PATIENTS if _text(row, k)), "")
    return named or (stand_in(refs[0].path) if refs else "")


def _references(row: dict[str, Any]) -> tuple[str, ...]:
    given = row.get("reference_reports") or row.get("reference_report") or []
    given = [given] if isinstance(given, str) else given
    if not isinstance(given, list) or any(not isinstance(g, str) for g in given):
        raise RecordError(
            "references are neither a text nor texts", field="reference_reports", found=describe(given)
        )
    return tuple(given)


def _flag(row: dict[str, Any], field: str) -> bool:
    value = row.get(field, 0)
    if value not in (0, 1, True, False, None):
        raise RecordError(f"`{field}` is neither 0 nor 1", field=field, found=describe(value))
    return bool(value)


def _split(row: dict[str, Any], stem: str) -> str | None:
    return split_name(_text(row, "split")) or split_name(PurePosixPath(stem).name)


def _name(row: dict[str, Any]) -> str:
    return _text(row, "id") or _text(row, "question_id")


def _text(row: dict[str, Any], field: str) -> str:
    """A text or a number as text; "" where the field is absent or something else."""
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).strip()


def _roles(turns: Sequence[Message]) -> str:
    return ", ".join(t.role for t in turns[:6])


def _spoken(said: Sequence[tuple[str, str]]) -> str:
    return ", ".join(role for role, _ in said[:6])


READER = Reader(
    read=llava_json, official="a record's `split` field, or train, valid or test in the file's name"
)
