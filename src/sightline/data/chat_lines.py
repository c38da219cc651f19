"""Prepared data as chat JSON Lines: one record a line, in the layout that trainers of vision-language models read.

    {"id": "s1", "split": "train", "patient": "p1", "images": [{"path": "a.png", ...}],
     "messages": [{"role": "user", "content": [{"type": "image", "index": 0, "path": "a.png"},
                                               {"type": "text", "text": "Is there an effusion?"}]},
                  {"role": "assistant", "topic": "effusion", "content": [{"type": "text", "text": "No"}]}]}

`index` is the place in `images`, from 0. Paths start from the data root; with `copy_images` that is the folder of the
file. A preference has `prompt` (messages), `chosen` and `rejected` (one message each) and `why`, and, where a side sees
something else, `chosen_images` or `rejected_images`: a list of images, or how the images are spoilt.

Keys that are empty are left out. Nothing is lost: the reader `chat_jsonl` gives equal records back.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError
from ..images.files import hash_file, resolve
from ..types import Degrade, ImageRef, Message, Preference, Sample, to_plain
from .prepare import Prepared
from .split import images

PLAIN = ImageRef(path="-")  # what an image is unless its row says otherwise


def write(made: Prepared, path: Path, splits: Sequence[str] = ()) -> int:
    """Write a prepared data set; equal data give equal bytes.

    Args:
        made: the data set.
        path: the file; its folder is made.
        splits: which, in order; all where empty.

    Returns:
        How many records were written.

    Raises:
        DataError: no such split.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    count = 0
    with part.open("w", encoding="utf-8") as stream:
        for split in splits or made.counts:
            for record in records(made, split):
                stream.write(json.dumps(row(record, split), ensure_ascii=False) + "\n")
                count += 1
    part.rename(path)
    return count


def copy_images(made: Prepared, folder: Path, splits: Sequence[str] = ()) -> int:
    """Copy the images of a data set below a folder, under the paths that its records have.

    Returns:
        How many were copied; what is there already and equal is left.

    Raises:
        DataError: another file has the name of an image.
        ImageError: an image is gone.
    """
    wanted = {
        ref.path: ref for split in splits or made.counts for r in records(made, split) for ref in images(r)
    }
    copied = 0
    for name, ref in wanted.items():
        place = folder / name
        if place.exists():
            if ref.sha256 and hash_file(place) != ref.sha256:
                raise DataError(
                    "another file has the name of an image", where=name, found="other bytes",
                    remedy="write into an empty folder",
                )  # fmt: skip
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(resolve(made.root, name), place)
        copied += 1
    return copied


def records(made: Prepared, split: str) -> Iterable[Sample | Preference]:
    """The records of a split, whatever their kind."""
    return made.samples(split) if made.kind == "samples" else made.preferences(split)


def row(record: Sample | Preference, split: str = "") -> dict[str, Any]:
    """One record as plain values; what is empty is left out."""
    plain: dict[str, Any] = {"id": record.id, "split": split, "patient": record.patient}
    plain["images"] = [_image(ref) for ref in record.images]
    if isinstance(record, Sample):
        plain |= {
            "study": record.study, "date": record.date, "labels": dict(record.labels),
            "attributes": dict(record.attributes), "references": list(record.references),
            "messages": _messages(record.messages, record.images),
        }  # fmt: skip
    else:
        plain |= {
            "chosen_images": _side(record.chosen_images), "rejected_images": _side(record.rejected_images),
            "why": record.why, "prompt": _messages(record.prompt, record.images),
            "chosen": _answer(record.chosen), "rejected": _answer(record.rejected),
        }  # fmt: skip
    return {key: value for key, value in plain.items() if value not in ("", [], {}, None)}


def _messages(messages: Sequence[Message], refs: Sequence[ImageRef]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for message in messages:
        content: list[Mapping[str, Any]] = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image", "index": part, "path": refs[part].path}
            for part in message.parts
        ]
        topic = {"topic": message.topic} if message.topic else {}
        rows.append({"role": message.role, **topic, "content": content})
    return rows


def _answer(text: str) -> list[dict[str, Any]]:
    """One side of a preference: one message."""
    return _messages([Message(role="assistant", parts=(text,))], ())


def _image(ref: ImageRef) -> dict[str, str]:
    """An image by what differs from a plain one."""
    plain: dict[str, str] = to_plain(ref)
    return {key: value for key, value in plain.items() if key == "path" or value != getattr(PLAIN, key)}


def _side(side: tuple[ImageRef, ...] | Degrade | None) -> list[dict[str, str]] | dict[str, Any] | None:
    if isinstance(side, tuple):
        return [_image(ref) for ref in side]
    return None if side is None else dict(to_plain(side))
