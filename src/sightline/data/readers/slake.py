"""SLAKE: questions in English and Chinese about 642 CT, MRI and X-ray images (Liu et al. 2021, arXiv 2102.09542).

Reads `train.json`, `validate.json` (or `validation.json`) and `test.json`, whose names are the official splits, each a
list of `{qid, img_id, img_name, question, answer, q_lang, answer_type, content_type, base_type, location, modality}`.
The images stand in `imgs/xmlab0/source.jpg` and so on; masks and boxes beside them are not read.

    slake-train-zh-9836   user <image> 图中有肝脏吗？   assistant 有   (topic closed)

The official splits part images. Patients are not given: the image stands in. `answer_type` is kept as an attribute: it
calls choices such as "left or right" closed, too. The topic `closed` is for yes and no alone, in both languages.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError
from ...metrics.answers import closed
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, describe, json_records, stand_in

FILES = {"train.json": "train", "validate.json": "valid", "validation.json": "valid", "test.json": "test"}
LANGUAGES = ("en", "zh")
ATTRIBUTES = ("location", "modality", "answer_type", "content_type", "base_type")
KINDS = {"x-ray": "xray", "xray": "xray", "ct": "ct", "mri": "mri"}


def slake(
    source: Source, *, language: Literal["en", "zh", "both"] = "both", images: str = "imgs"
) -> Iterator[Read]:
    """One sample a question.

    Args:
        source: its root holds the JSON files and the images.
        language: which questions; rows in the other language are left out, not refused.
        images: folder of the images, below the root.

    Yields:
        `(sample, "train", "valid" or "test", "file:line")`. Attributes: `language`, `location`, `modality`,
        `answer_type` (as the file has it), `content_type`, `base_type`.

    Raises:
        DataError: none of the files is there.
    """
    root = source.folder()
    found = {name: split for name, split in FILES.items() if (root / name).is_file()}
    if not found:
        raise DataError(
            "no SLAKE files in the data root", where="data root",
            expected="train.json, validate.json and test.json",
            remedy="set `root` to the folder that holds them and the folder imgs/",
        )  # fmt: skip
    for name, split in found.items():
        for line, row in json_records(root / name, source):
            try:
                sample = _sample(row, split, language, images)
            except DataError as error:
                source.reject_error(name, line, _word(row, "qid"), error)
                continue
            if sample is not None:
                yield sample, split, f"{name}:{line}"


def _sample(row: dict[str, Any], split: str, language: str, images: str) -> Sample | None:
    """One question, or None where it is in another language."""
    spoken = _word(row, "q_lang").lower()
    if spoken not in LANGUAGES:
        raise RecordError(
            "the question is in no known language", field="q_lang", found=describe(row.get("q_lang")),
            remedy="expected en or zh",
        )  # fmt: skip
    if language not in ("both", spoken):
        return None
    number, image = _word(row, "qid"), row.get("img_name")
    if not number:
        raise RecordError("the question has no id", field="qid", found=describe(row.get("qid")))
    if not isinstance(image, str) or not image.strip():
        raise RecordError("the question names no image", field="img_name", found=describe(image))
    question, answer = _text(row, "question"), _text(row, "answer")
    path = (Path(images) / image.strip()).as_posix()
    attributes = {"language": spoken} | {k: _word(row, k) for k in ATTRIBUTES if _word(row, k)}
    return Sample(
        id=f"slake-{split}-{spoken}-{number}",
        patient=stand_in(path),
        images=(ImageRef(path=path, kind=KINDS.get(_word(row, "modality").lower(), "image")),),
        messages=(
            Message(role="user", parts=(0, question)),
            Message(
                role="assistant", parts=(answer,), topic="closed" if closed(question, answer) else "open"
            ),
        ),
        attributes=attributes,
    )


def _text(row: dict[str, Any], field: str) -> str:
    """A text or a number that is there.

    Raises:
        RecordError: it is not.
    """
    text = _word(row, field)
    if not text:
        raise RecordError(f"the {field} is empty or no text", field=field, found=describe(row.get(field)))
    return text


def _word(row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    return "" if isinstance(value, bool) or not isinstance(value, (str, int, float)) else str(value).strip()


READER = Reader(read=slake, official="train.json, validate.json and test.json; they share no image")
