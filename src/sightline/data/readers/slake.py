"""SLAKE: questions in English and Chinese about 642 CT, MRI and X-ray images (Liu et al. 2021, arXiv 2102.09542).

Reads `train.json`, `validate.json` (or `validation.json`) and `test.json`, whose names are the official splits, each a
list of `{qid, img_id, img_name, question, answer, q_lang, answer_type, content_type, base_type, location, modality}`.
The images stand in `imgs/xmlab0/source.jpg` and so on; masks and boxes beside them are not read.

    slake-train-zh-9836   user <image> 图中有肝脏吗？   assistant 有   (topic closed)

The official splits part images. Patients are not given: the image stands in. `answer_type` is kept as an attribute: it
calls choices such as "left or right" closed, too. The topic `closed` is for yes and no alone, in both languages.

With `captions` every image has one more sample in each language, whose answer says what the questions about it tell:

    slake-train-en-imgs/xmlab0/source.jpg   user <image> Describe this image.
                                            assistant MRI of the abdomen: liver, spleen.   (topic report)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError
from ...metrics.answers import closed
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, describe, json_records, stand_in

FILES = {"train.json": "train", "validate.json": "valid", "validation.json": "valid", "test.json": "test"}
LANGUAGES = ("en", "zh")
ATTRIBUTES = ("location", "modality", "answer_type", "content_type", "base_type")
REPORT = "report"
TELLING = ("modality", "plane", "organ", "abnormality")  # kinds of questions whose answers describe an image
ASKED = {"en": "Describe this image.", "zh": "请描述这张图像。"}
WRITTEN = {"en": ("{modality} of the {location}", ": ", ", ", "."), "zh": ("{modality}", "：", "、", "。")}
ENDS = " .,;。，；"
KINDS = {"x-ray": "xray", "xray": "xray", "ct": "ct", "mri": "mri"}


@dataclass
class _Image:
    """What the questions about one image tell in one language."""

    sample: Sample
    split: str
    origin: str
    said: dict[str, None] = field(default_factory=dict)


def slake(
    source: Source,
    *,
    language: Literal["en", "zh", "both"] = "both",
    images: str = "imgs",
    captions: bool = False,
) -> Iterator[Read]:
    """One sample a question, and one a picture where `captions` are asked for.

    Args:
        source: its root holds the JSON files and the images.
        language: which questions; rows in the other language are left out, not refused.
        images: folder of the images, below the root.
        captions: also give every image a caption (topic `report`) that an encoder can be tuned on.

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
    told: dict[tuple[str, str, str], _Image] = {}
    for name, split in found.items():
        for line, row in json_records(root / name, source):
            try:
                sample = _sample(row, split, language, images)
            except DataError as error:
                source.reject_error(name, line, _word(row, "qid"), error)
                continue
            if sample is not None:
                _note(told, sample, split, f"{name}:{line}")
                yield sample, split, f"{name}:{line}"
    for each in told.values() if captions else ():
        yield _caption(each), each.split, each.origin


def _note(told: dict[tuple[str, str, str], _Image], sample: Sample, split: str, origin: str) -> None:
    """Keep what a question tells about its image: answers of the picture itself, not of general knowledge."""
    about, answer = sample.attributes, sample.messages[1]
    key = (split, about["language"], sample.images[0].path)
    own = told.setdefault(key, _Image(sample, split, origin))
    open_, seen = answer.topic == "open", about.get("base_type", "vqa") == "vqa"
    if open_ and seen and about.get("content_type", "").lower() in TELLING:
        own.said[answer.text.strip(ENDS)] = None


def _caption(image: _Image) -> Sample:
    """An image with what was told about it."""
    about = image.sample.attributes
    spoken = about["language"]
    opening, colon, comma, end = WRITTEN[spoken]
    modality, place = about.get("modality", "Image"), about.get("location", "body")
    said = [text for text in image.said if text and text.lower() != modality.lower()]
    text = opening.format(modality=modality, location=place.replace("_", " ").lower())
    path = image.sample.images[0].path
    return Sample(
        id=f"slake-{image.split}-{spoken}-{path}",
        patient=image.sample.patient,
        images=image.sample.images,
        messages=(
            Message(role="user", parts=(0, ASKED[spoken])),
            Message(
                role="assistant",
                parts=(text + (colon + comma.join(said) if said else "") + end,),
                topic=REPORT,
            ),
        ),
        attributes={name: about[name] for name in ("language", "location", "modality") if name in about},
    )


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
