"""The files of MMed-RAG and RULE that hold images, reports and questions; their preference files are `llava_json`'s.

| file | record | becomes |
|---|---|---|
| `test/report/*.json` | `report` (`caption`, `gpt4_summary`), `image_path`, text or list | asks for the report |
| `training/retriever/**` | the same with `image_root` | asks for the report |
| `test/vqa/*.jsonl` | `question`, `answer`, `image`, `question_id` | one question |
| retrieval output | either, with `reference_reports` (RULE: `reference_report`), `retrieve_k` | has references |

A question's `report` is the truth about its image, no reference: it is not read. Fields that say who the patient is
(`age`, `race`, `language`, ...) become attributes, `glaucoma` a label, `split` and `use` the official split. The
empty-string key of pandas' index is ignored. Layouts of github.com/richard-peng-xia/MMed-RAG and RULE.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ...errors import DataError
from ...types import ImageRef, Message, Sample
from ..matching import matching
from ..source import Read, Reader, RecordError, Source, clean, describe, json_records, split_name, stand_in

MARK = "<image>"
REPORTS = ("report", "caption", "gpt4_summary")
IMAGES = ("image_path", "image", "filename")
PATIENTS = ("subject_id", "patient", "patient_id")
ATTRIBUTES = ("age", "gender", "sex", "race", "ethnicity", "language", "maritalstatus", "site")
LABELS = {"glaucoma": {"yes": 1, "1": 1, "true": 1, "no": 0, "0": 0, "false": 0}}
REPORT = "report"
REMEDY = "set `file` to a JSON file's name or to a pattern such as test/vqa/*.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    text: str
    question: str
    images: str
    roots: Mapping[str, str]
    shown: str
    ids: str
    prompt: str


def mmed_rag(
    source: Source,
    *,
    file: str = "**/*.json*",
    text: str = "",
    question: Literal["question", "text"] = "question",
    images: str = "",
    roots: dict[str, str] | None = None,
    shown: Literal["all", "first"] = "all",
    ids: Literal["keep", "place"] = "keep",
    prompt: str = "Write the report of this image.",
) -> Iterator[Read]:
    """Read every matching file.

    Args:
        source: its root holds the files.
        file: which files below the root, e.g. `test/vqa/iuxray_test.jsonl`.
        text: field that holds the report; "" takes the first of report, caption, gpt4_summary. The authors' retriever
            for Harvard-FairVLMed reads `gpt4_summary`.
        question: `text` takes IU-Xray's questions with the two options behind them.
        images: folder that image paths start from, below the root.
        roots: where folders of the authors' machine are here: `{"/data/mimic": "mimic"}`, below the root. A record's
            `image_root` counts only where it is named here.
        shown: `first` shows one image of a list, as the authors' loader does.
        ids: `keep` the records' ids, or name every record after its `place` (file and number).
        prompt: what is asked where a record holds only a report.

    Yields:
        `(sample, split or None, "file:line")`; the split comes from a record's `split` or `use`, else from the name of
        its file or folder.

    Raises:
        DataError: no file matches.
    """
    options = _Options(
        text=text, question=question, images=images, roots=roots or {}, shown=shown, ids=ids, prompt=prompt
    )
    root = source.folder()
    for path in matching(root, file, remedy=REMEDY, keep=_is_json):
        name = path.relative_to(root).as_posix()
        stem = name[: -len(path.suffix)]
        for index, (line, row) in enumerate(json_records(path, source)):
            place = f"{stem}-{index}"
            try:
                record = _sample(row, place, options)
            except DataError as error:
                source.reject_error(name, line, _name(row) or place, error)
                continue
            yield record, _split(row, stem), f"{name}:{line}"


def _is_json(path: Path) -> bool:
    return path.suffix in (".json", ".jsonl")


def _sample(row: dict[str, Any], place: str, options: _Options) -> Sample:
    if "conversations" in row:
        raise RecordError(
            "the record is a conversation or a pair of two", field="conversations", found=_fields(row),
            remedy="read the file with the reader `llava_json`",
        )  # fmt: skip
    refs = _images(row, options)
    study = _text(row, "study_id")
    named = next((_text(row, key) for key in PATIENTS if _text(row, key)), "")
    return Sample(
        id=place if options.ids == "place" else _name(row) or place,
        patient=named or (f"study:{study}" if study else stand_in(refs[0].path)),
        study=study,
        images=refs,
        messages=_messages(row, len(refs), options),
        labels=_labels(row),
        attributes={key: _text(row, key) for key in ATTRIBUTES if _text(row, key)},
        references=_references(row),
    )


def _messages(row: dict[str, Any], count: int, options: _Options) -> tuple[Message, ...]:
    """The question and its answer, or the report that is asked for."""
    topic, field = "", "answer"
    asked = _text(row, options.question) or _text(row, "question")
    if not asked:
        topic, asked = REPORT, options.prompt
        field = options.text or next((key for key in REPORTS if _text(row, key)), "")
        if not field:
            raise RecordError(
                "the record holds neither a question nor a report", field=REPORT, found=_fields(row),
                remedy="see the layouts that `mmed_rag` reads, or name the report's field with `text`",
            )  # fmt: skip
    answer = _text(row, field)
    if not answer:
        raise RecordError(
            "nothing answers the question" if not topic else "the report is empty",
            field=field, found=describe(row.get(field)), remedy="drop the record",
        )  # fmt: skip
    return (
        Message(role="user", parts=_parts(asked, count)),
        Message(role="assistant", parts=(answer,), topic=topic),
    )


def _parts(asked: str, count: int) -> tuple[str | int, ...]:
    """The question with its images where their one mark stands, else in front."""
    every = tuple(range(count))
    pieces = re.split(rf"\n?{MARK}\n?", asked)
    if len(pieces) - 1 not in (0, 1, count):
        raise RecordError(
            f"unmatched {MARK}: {len(pieces) - 1} mark(s) for {count} image(s)", field="question",
            found=describe(asked), remedy=f"write one {MARK}, or one for each image",
        )  # fmt: skip
    if len(pieces) == 1:
        return (*every, asked)
    places = [every] if len(pieces) == 2 else [(i,) for i in every]
    found: list[str | int] = []
    for piece, place in zip(pieces, [*places, ()], strict=True):
        found += [piece, *place] if piece else [*place]
    return tuple(found)


def _images(row: dict[str, Any], options: _Options) -> tuple[ImageRef, ...]:
    field = next((key for key in IMAGES if row.get(key) not in (None, "", [])), "image_path")
    given = row.get(field) or []
    paths = given if isinstance(given, list) else [given]
    if not paths or any(not isinstance(path, str) or not path for path in paths):
        raise RecordError("the record names no image", field=field, found=describe(row.get(field)))
    root = row.get("image_root")
    if root is not None and not isinstance(root, str):
        raise RecordError("`image_root` is not a text", field="image_root", found=describe(root))
    if options.shown == "first":
        paths = paths[:1]
    return tuple(ImageRef(path=_below(path, root or "", field, options)) for path in paths)


def _below(path: str, root: str, field: str, options: _Options) -> str:
    """A path from the data root: folders of the authors' machine replaced, the image folder put in front."""
    whole = path if path.startswith("/") or not root else f"{root.rstrip('/')}/{path}"
    for start in sorted(options.roots, key=len, reverse=True):
        rest = whole.removeprefix(start.rstrip("/"))
        if rest != whole and rest.startswith("/"):
            return posixpath.join(options.roots[start], rest.lstrip("/"))
    if path.startswith("/"):
        raise RecordError(
            "the image path is absolute: it belongs to another machine", field=field, found=clean(path, 120),
            remedy="map it with the option `roots`, e.g. {'/their/folder': 'folder below the root'}",
        )  # fmt: skip
    return posixpath.join(options.images, path) if options.images else path


def _labels(row: dict[str, Any]) -> dict[str, int]:
    """What is known per finding; a value that no word of the layout means is left out."""
    said = {name: _text(row, name).lower() for name in LABELS}
    return {name: words[said[name]] for name, words in LABELS.items() if said[name] in words}


def _references(row: dict[str, Any]) -> tuple[str, ...]:
    """The reports that were retrieved: MMed-RAG's list, or RULE's text or list."""
    field = "reference_reports" if row.get("reference_reports") else "reference_report"
    given = row.get(field) or []
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or any(not isinstance(text, str) or not text.strip() for text in texts):
        raise RecordError("references are neither a text nor texts", field=field, found=describe(given))
    return tuple(texts)


def _split(row: dict[str, Any], stem: str) -> str | None:
    """The official split: a field's, else the file's, else its folder's."""
    words: Sequence[str] = (_text(row, "split"), _text(row, "use"), *reversed(PurePosixPath(stem).parts))
    return next((split for word in words if (split := split_name(word))), None)


def _name(row: dict[str, Any]) -> str:
    return _text(row, "question_id") or _text(row, "id")


def _text(row: dict[str, Any], field: str) -> str:
    """A text or a number as text; "" where the field is absent or something else."""
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).strip()


def _fields(row: dict[str, Any]) -> str:
    return f"fields {', '.join(sorted(key for key in row if key)[:8])}"


READER = Reader(
    read=mmed_rag,
    official="a record's `split` or `use`, or train, valid or test in the file's or folder's name",
)
