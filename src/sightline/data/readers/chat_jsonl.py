"""Chat JSON Lines: what `sightline data export --to chat_jsonl` writes, and plainer files of the same kind.

    {"messages": [{"role": "user", "content": "<image>Is there an effusion?"},
                  {"role": "assistant", "content": "No"}], "images": ["a.png"]}

A message's `content` is a text, in which `<image>` stands for the next image, or a list of parts `{"type": "text",
"text": ...}` and `{"type": "image"}`. A part may say which image it is: `index` (its place in `images`), or `path` or
`image` (its path); one that says nothing is the next. `images` holds paths, or mappings with `path` and whatever else
an image has; without `images`, the paths in the parts count. A line with `chosen` and `rejected` is a preference; its
`prompt` is a list of messages. See `sightline.data.chat_lines` for every key.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ...errors import DataError
from ...types import ROLES, Degrade, ImageRef, Message, Preference, Sample
from ..matching import matching
from ..source import Read, Reader, RecordError, Source, clean, describe, json_records, split_name, stand_in

MARK = "<image>"
Images = tuple[ImageRef, ...]


def chat_jsonl(source: Source, *, file: str = "*.jsonl", images: str = "") -> Iterator[Read]:
    """Read every matching file.

    Args:
        source: its root holds the files.
        file: which files below the root.
        images: folder that image paths start from, below the root.

    Yields:
        `(sample or preference, split or None, "file:line")`; the split is the record's own, or that of the file's name.

    Raises:
        DataError: no file matches.
    """
    root = source.folder()
    for path in matching(root, file, remedy="set `file` to files such as train.jsonl"):
        name = path.relative_to(root).as_posix()
        for line, row in json_records(path, source):
            place = f"{path.stem}-{line}"
            try:
                record = _record(row, place, images)
                split = _split(row) or split_name(path.stem)
            except DataError as error:
                source.reject_error(name, line, clean(_text(row, "id") or place, 80), error)
                continue
            yield record, split, f"{name}:{line}"


def _record(row: dict[str, Any], place: str, folder: str) -> Sample | Preference:
    field = "prompt" if "chosen" in row or "rejected" in row else "messages"
    refs = _images(row.get("images", _named(row, field)), "images", folder)
    turns = _messages(row.get(field), field, refs, folder)
    about: dict[str, Any] = {
        "id": _text(row, "id") or place,
        "patient": _text(row, "patient") or (stand_in(refs[0].path) if refs else f"record:{place}"),
        "images": refs,
    }
    if field == "prompt":
        return Preference(
            **about, prompt=turns, why=_text(row, "why"),
            chosen=_answer(row, "chosen", refs, folder), rejected=_answer(row, "rejected", refs, folder),
            chosen_images=_side(row, "chosen_images", folder),
            rejected_images=_side(row, "rejected_images", folder),
        )  # fmt: skip
    labels = _mapping(row, "labels")
    if any(not isinstance(v, int) or isinstance(v, bool) for v in labels.values()):
        raise RecordError("a label is no whole number", field="labels", found=describe(labels))
    references = row.get("references", [])
    if not isinstance(references, list) or any(not isinstance(text, str) for text in references):
        raise RecordError("references are no texts", field="references", found=describe(references))
    return Sample(
        **about, messages=turns, study=_text(row, "study"), date=_text(row, "date"), labels=labels,
        attributes={k: str(v) for k, v in _mapping(row, "attributes").items()}, references=tuple(references),
    )  # fmt: skip


def _named(row: Mapping[str, Any], field: str) -> list[str]:
    """The paths of image parts, each once, where a record lists no images."""
    turns = row.get(field)
    parts = [
        part
        for turn in (turns if isinstance(turns, list) else [])
        if isinstance(turn, dict) and isinstance(turn.get("content"), list)
        for part in turn["content"]
        if isinstance(part, dict) and part.get("type") == "image"
    ]
    return list(dict.fromkeys(path for part in parts if isinstance(path := _path(part), str)))


def _path(part: Mapping[str, Any]) -> Any:
    return part.get("path", part.get("image"))


def _images(given: Any, field: str, folder: str) -> Images:
    if not isinstance(given, list):
        raise RecordError(f"`{field}` is no list", field=field, found=describe(given))
    known = {f.name for f in fields(ImageRef)}
    refs = []
    for each in given:
        about = {"path": each} if isinstance(each, str) else each
        if not isinstance(about, dict) or not about.get("path") or not about.keys() <= known:
            raise RecordError(
                "an image is neither a path nor a mapping with one", field=field, found=describe(each),
                remedy=f"expected {', '.join(sorted(known))}",
            )  # fmt: skip
        if any(not isinstance(value, str) for value in about.values()):
            raise RecordError("an image is described by something else than texts", field=field)
        refs.append(ImageRef(**{**about, "path": posixpath.join(folder, about["path"])}))
    return tuple(refs)


def _messages(given: Any, field: str, refs: Images, folder: str) -> tuple[Message, ...]:
    """The turns of a conversation."""
    if not isinstance(given, list) or not given:
        raise RecordError(f"`{field}` is no list of messages", field=field, found=describe(given))
    queue = iter(range(len(refs)))
    messages = []
    for turn in given:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise RecordError(
                "a message has no role",
                field=field,
                found=describe(turn),
                remedy=f"expected {', '.join(ROLES)}",
            )
        parts = _parts(turn.get("content"), field, refs, queue, folder)
        messages.append(Message(role=turn["role"], parts=parts, topic=_text(turn, "topic")))
    return tuple(messages)


def _parts(
    content: Any, field: str, refs: Images, queue: Iterator[int], folder: str
) -> tuple[str | int, ...]:
    if isinstance(content, str):
        pieces = [piece for piece in re.split(f"({MARK})", content) if piece]
        content = [{"type": "image"} if p == MARK else {"type": "text", "text": p} for p in pieces]
    if not isinstance(content, list):
        raise RecordError("a message's content is no text and no list", field=field, found=describe(content))
    parts: list[str | int] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif kind == "image":
            parts.append(_place(part, field, refs, queue, folder))
        else:
            raise RecordError(
                "a part is neither text nor image", field=field, found=describe(part),
                remedy='expected {"type": "text", "text": ...} or {"type": "image"}',
            )  # fmt: skip
    return tuple(parts)


def _place(part: Mapping[str, Any], field: str, refs: Images, queue: Iterator[int], folder: str) -> int:
    """Which image a part is."""
    place, path = part.get("index"), _path(part)
    if isinstance(place, int) and not isinstance(place, bool):
        if 0 <= place < len(refs) and (path is None or posixpath.join(folder, str(path)) == refs[place].path):
            return place
        raise RecordError("a part shows an image that is not there", field=field, found=f"image {place}")
    if path is not None:
        named = [i for i, ref in enumerate(refs) if ref.path == posixpath.join(folder, str(path))]
        if not named:
            raise RecordError(
                "a part shows an image that is not in `images`", field=field, found=describe(path)
            )
        return named[0]
    nearest = next(queue, None)
    if nearest is None:
        raise RecordError("more image parts than images", field=field, found=f"{len(refs)} image(s)")
    return nearest


def _answer(row: Mapping[str, Any], side: str, refs: Images, folder: str) -> str:
    """The text of `chosen` or `rejected`: a text, or one message of the assistant."""
    given = row.get(side)
    if isinstance(given, str):
        return given
    turns = _messages(given, side, refs, folder)
    if len(turns) != 1 or turns[0].role != "assistant" or any(isinstance(p, int) for p in turns[0].parts):
        raise RecordError(
            "a side is not one answer of the assistant", field=side, found=f"{len(turns)} message(s)"
        )
    return turns[0].text


def _side(row: Mapping[str, Any], field: str, folder: str) -> Images | Degrade | None:
    given = row.get(field)
    if given is None:
        return None
    if isinstance(given, list):
        return _images(given, field, folder)
    about = given if isinstance(given, dict) else {}
    kind, strength, seed = about.get("kind"), about.get("strength", 1.0), about.get("seed", 0)
    sound = isinstance(kind, str) and isinstance(strength, (int, float)) and isinstance(seed, int)
    if not sound or not about.keys() <= {"kind", "strength", "seed"}:
        raise RecordError(
            "a side shows neither images nor a degradation", field=field, found=describe(given),
            remedy="expected a list of images, or kind, strength and seed",
        )  # fmt: skip
    return Degrade(kind=str(kind), strength=float(strength), seed=seed)


def _mapping(row: Mapping[str, Any], field: str) -> dict[str, Any]:
    given = row.get(field, {})
    if not isinstance(given, dict):
        raise RecordError(f"`{field}` is no mapping", field=field, found=describe(given))
    return given


def _split(row: Mapping[str, Any]) -> str | None:
    word = _text(row, "split")
    found = split_name(word)
    if word and found is None:
        raise RecordError("the split is none of train, valid and test", field="split", found=describe(word))
    return found


def _text(row: Mapping[str, Any], field: str) -> str:
    """A text as it stands, or a number as text; "" where there is neither."""
    value = row.get(field)
    text = "" if isinstance(value, bool) or not isinstance(value, (str, int, float)) else str(value)
    return text if text.strip() else ""


READER = Reader(read=chat_jsonl, official="a record's `split`, or train, valid or test in the file's name")
