"""UMBRELLA's conversations about brain volumes: its directory format, version 2 (Transconnectome/BrainVLM).

| file | holds |
|---|---|
| `{train,validation,test}/*.json` | one record each |
| `*.json`, `*.jsonl` | a list of records, or one a line; name them with `file` |

A record names its `task_id`, `task_type` (T1, T2 or T3; T3 is a comparison over several turns), `images` with path and
modality (`sMRI` has three axes, `fMRI` four), `conversations` whose turns are lists of texts and images, and `metadata`
of the two subjects. Image places stay where the turn has them. The folder names the split; `samples/` repeats records
of the others and is left out. The `patient` is the subject that is asked about; the reference subject is an attribute,
and the audit counts the scans that two splits share.

The last answer of a sex comparison gets the topic `sex_same` or `sex_different`, which the metric `comparison` scores.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ... import images as pictures
from ...errors import DataError
from ...metrics.comparison import same, sex
from ...types import ImageRef, Message, Sample
from ..matching import matching
from ..source import Read, Reader, RecordError, Source, clean, describe, json_records, split_name, stand_in

MARK = "<image>"
TASKS = ("T1", "T2", "T3")
AXES = {"sMRI": 3, "T1": 3, "fMRI": 4, "rsfMRI": 4}
REPEATS = "samples"
KINDS = ("same", "different")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    root: Path
    images: str
    paths: str
    roots: Mapping[str, str]
    modality: str
    min_times: int


def umbrella(
    source: Source,
    *,
    file: str = "",
    task: str = "",
    task_type: Literal["", "T1", "T2", "T3"] = "",
    modality: Literal["", "sMRI", "fMRI"] = "",
    images: str = "",
    paths: Literal["keep", "name"] = "keep",
    roots: dict[str, str] | None = None,
    min_times: int = 0,
) -> Iterator[Read]:
    """Read every record of a folder.

    Args:
        source: its root holds the files and, below it, the volumes.
        file: which files below the root, e.g. `train_conversations.jsonl`; "" takes `*.json` and `*/*.json`.
        task: only records whose `task_id` or `task_type` holds this text, e.g. `same_sex_comparison`.
        task_type: only records of this type.
        modality: only records all of whose scans are of this modality.
        images: folder that image paths start from, below the root.
        paths: `keep` them, or take the file's `name` alone: all scans lie in the folder `images`, wherever the
            authors had them.
        roots: where folders of the authors' machine are here: `{"/data/abcd": "abcd"}`, below the root.
        min_times: fewest points of time of an fMRI; shorter ones are refused here instead of when training begins.

    Yields:
        `(sample, split or None, "file:line")`; records that the filters leave out are not counted.

    Raises:
        DataError: no file matches.
    """
    root = source.folder()
    options = _Options(
        root=root, images=images, paths=paths, roots=roots or {}, modality=modality, min_times=min_times
    )
    for path in _files(root, file):
        name = path.relative_to(root).as_posix()
        for line, row in json_records(path, source):
            ident = _text(row, "task_id")
            if task not in ident and task not in _text(row, "task_type"):
                continue
            if task_type and _text(row, "task_type") != task_type:
                continue
            if modality and any(m != modality for m in _modalities(row)):
                continue
            try:
                record = _record(row, ident, options)
            except DataError as error:
                source.reject_error(name, line, ident, error)
                continue
            yield record, _split(row, name), f"{name}:{line}"


def _files(root: Path, pattern: str) -> list[Path]:
    """The files of the pattern; without one those of the folder and of folders in it, but for repeated ones."""
    return matching(
        root, *([pattern] if pattern else ["*.json", "*/*.json"]),
        remedy="give the folder that holds train/, validation/ and test/, or set `file`",
        keep=lambda path: bool(pattern) or path.parent.name != REPEATS,
    )  # fmt: skip


def _record(row: dict[str, Any], ident: str, options: _Options) -> Sample:
    if not ident:
        raise RecordError("the record has no `task_id`", field="task_id", found=describe(row.get("task_id")))
    kind = _text(row, "task_type")
    if kind not in TASKS:
        raise RecordError(
            "unknown task type", field="task_type", found=clean(kind, 20) or "none",
            remedy=f"write one of {', '.join(TASKS)}",
        )  # fmt: skip
    refs, paths = _images(row, options)
    messages = _messages(row, paths)
    about = row.get("metadata") if isinstance(row.get("metadata"), dict) else {}
    known: dict[str, Any] = {k: v for k, v in dict(about or {}).items() if isinstance(v, (str, int, float))}
    subjects = [s for s in row.get("subject_ids") or [] if isinstance(s, str) and s]
    patient = _text(known, "subject_id") or (subjects[-1] if subjects else "")
    told, labels = _judged(messages, known)
    attributes = {
        "task_type": kind, "task": _text(known, "task"), "comparison": _text(known, "comparison_type"),
        "reference": _text(known, "reference_id"), "label": _text(known, "subject_label"),
        "modality": "+".join(dict.fromkeys(ref.kind for ref in refs)),
    }  # fmt: skip
    return Sample(
        id=ident,
        patient=patient or (stand_in(refs[0].path) if refs else f"record:{ident}"),
        images=refs,
        messages=told,
        labels=labels,
        attributes={k: v for k, v in attributes.items() if v},
    )


def _images(row: dict[str, Any], options: _Options) -> tuple[tuple[ImageRef, ...], list[str]]:
    """The volumes of a record, and their paths as its turns name them."""
    refs, paths = [], []
    for i, given in enumerate(_listed(row, "images")):
        path = given.get("path") if isinstance(given, dict) else None
        modality = given.get("modality") if isinstance(given, dict) else None
        if not isinstance(path, str) or not path or not isinstance(modality, str):
            raise RecordError(
                "an image is not a mapping of `path` and `modality`", field="images",
                found=f"entry {i}: {describe(given)}",
            )  # fmt: skip
        if modality not in AXES:
            raise RecordError(
                "volumes of this modality are not read", field="images", found=clean(modality, 20),
                remedy=f"keep records of {', '.join(AXES)}: there is no patch embedding for others",
            )  # fmt: skip
        ref = ImageRef(path=_below(path, options), kind=modality, form="volume")
        _check_axes(ref, options)
        refs.append(ref)
        paths.append(path)
    stated = row.get("modalities")
    if stated is not None and stated != [ref.kind for ref in refs]:
        raise RecordError(
            "`modalities` are not those of the images", field="modalities",
            found=f"{describe(stated)} for {len(refs)} image(s)", remedy="one for each image, in their order",
        )  # fmt: skip
    return tuple(refs), paths


def _check_axes(ref: ImageRef, options: _Options) -> None:
    """Whether a file has the axes of its modality, and enough points of time, by its header."""
    shape = pictures.extent(options.root, ref)
    if len(shape) != AXES[ref.kind]:
        raise RecordError(
            "a volume does not have the axes of its modality", field="images",
            found=f"{clean(ref.path, 80)}: {ref.kind} of shape {list(shape)}",
            remedy="sMRI has three axes, fMRI four: correct `modality` or the path",
        )  # fmt: skip
    if len(shape) == 4 and shape[3] < options.min_times:
        raise RecordError(
            "a scan is too short", field="images",
            found=f"{clean(ref.path, 80)}: {shape[3]} points of time, fewer than min_times = {options.min_times}",
        )  # fmt: skip


def _below(path: str, options: _Options) -> str:
    """A path from the data root: folders of the authors' machine replaced, the image folder put in front."""
    if options.paths == "name":
        return posixpath.join(options.images, posixpath.basename(path))
    for start in sorted(options.roots, key=len, reverse=True):
        rest = path.removeprefix(start.rstrip("/"))
        if rest != path and (not rest or rest.startswith("/")):
            return posixpath.join(options.roots[start], rest.lstrip("/"))
    if path.startswith("/"):
        raise RecordError(
            "the image path is absolute: it belongs to another machine", field="images", found=clean(path, 120),
            remedy="set `paths: name` where all scans lie in one folder (`images`), or map folders with `roots`",
        )  # fmt: skip
    return posixpath.join(options.images, path) if options.images else path


def _messages(row: dict[str, Any], paths: list[str]) -> list[Message]:
    """The turns, each image part with the number of its image; images are named in the order of `images`."""
    turns = _listed(row, "conversations")
    if not turns:
        raise RecordError("the conversation is empty", field="conversations", found="0 turns")
    made, shown = [], 0
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ("user", "assistant", "system"):
            raise RecordError(
                "a turn is not a mapping of `role` and `content`", field="conversations", found=describe(turn),
                remedy="roles are user, assistant and system",
            )  # fmt: skip
        parts: list[str | int] = []
        for part in _parts(turn.get("content")):
            if isinstance(part, str):
                joined = bool(parts) and isinstance(parts[-1], str)
                parts[-1:] = [f"{parts[-1]}\n{part}"] if joined else [*parts[-1:], part]
                continue
            if shown >= len(paths) or (part["path"] and part["path"] != paths[shown]):
                raise RecordError(
                    "the images of the turns are not those of the record", field="conversations",
                    found=f"image {shown + 1} of the turns, {len(paths)} image(s) in `images`",
                    remedy="name the same paths in the same order",
                )  # fmt: skip
            parts.append(shown)
            shown += 1
        made.append(Message(role=turn["role"], parts=tuple(parts)))
    if shown != len(paths):
        raise RecordError(
            "an image of the record is never shown", field="conversations",
            found=f"{shown} place(s) for {len(paths)} image(s)", remedy="show each image once",
        )  # fmt: skip
    return made


def _parts(content: Any) -> list[Any]:
    """Texts, and mappings for images, of one turn; a plain text may hold `<image>` marks."""
    if isinstance(content, str):
        pieces = content.split(MARK)
        marked = [p for piece in pieces for p in (piece.strip("\n"), {"path": ""})][:-1]
        return [p for p in marked if p != ""]
    if not isinstance(content, list):
        raise RecordError(
            "`content` is neither a text nor a list of parts", field="conversations", found=describe(content)
        )
    found: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            found += [part["text"]] if part["text"] else []
        elif kind == "image":
            found.append({"path": str(part.get("image_path") or part.get("path") or "")})
        else:
            raise RecordError(
                "a part of a turn is neither a text nor an image", field="conversations", found=describe(part)
            )
    return found


def _judged(messages: list[Message], known: Mapping[str, Any]) -> tuple[tuple[Message, ...], dict[str, int]]:
    """The turns with the last answer's topic, and what is known of the two subjects.

    Raises:
        RecordError: the answer says another sex, or another comparison, than the metadata.
    """
    label, kind = _text(known, "subject_label").lower(), _text(known, "comparison_type").lower()
    task = _text(known, "task")
    labels = {"male": int(label == "male")} if label in ("male", "female") else {}
    labels |= {"same": int(kind == "same")} if kind in KINDS else {}
    if messages[-1].role != "assistant" or not labels:
        topic = task
    else:
        answer = messages[-1].text
        named, told = sex(answer), same(answer)
        wrong = (named and label and named != label) or (not named and told and kind and told != kind)
        if wrong:
            raise RecordError(
                "the answer contradicts the metadata", field="metadata",
                found=f"the answer says {named or told}, the metadata {label or 'no sex'} and {kind or 'nothing'}",
                remedy="drop the record, or correct it",
            )  # fmt: skip
        topic = (f"sex_{kind}" if kind in KINDS else "sex") if named or told else task
    last = replace(messages[-1], topic=topic) if messages[-1].role == "assistant" else messages[-1]
    return (*messages[:-1], last), labels


def _modalities(row: dict[str, Any]) -> list[str]:
    given = row.get("images")
    return [str(g.get("modality")) for g in given if isinstance(g, dict)] if isinstance(given, list) else []


def _listed(row: dict[str, Any], field: str) -> list[Any]:
    given = row.get(field)
    if not isinstance(given, list):
        raise RecordError(f"`{field}` is not a list", field=field, found=describe(given))
    return given


def _split(row: dict[str, Any], name: str) -> str | None:
    place = PurePosixPath(name)
    folders = [split_name(part) for part in reversed(place.parent.parts)]
    return split_name(_text(row, "split")) or next((f for f in folders if f), None) or split_name(place.stem)


def _text(row: Mapping[str, Any], field: str) -> str:
    """A text or a number as text; "" where the field is absent or something else."""
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return ""
    return str(value).strip()


READER = Reader(read=umbrella, official="the folder (train, validation, test), or a record's `split` field")
