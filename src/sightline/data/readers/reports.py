"""Reports of one's own: a table of texts and image names, or a folder of text files beside images.

    patient,study,date,image,text                          a table (CSV or TSV); several images: `a.png;b.png`
    7,s1,2021-03-04,cxr/7a.png;cxr/7b.png,No effusion.

    7a.txt  7a.png        or  7a.txt  7a_1.png  7a_2.png   a folder: a text belongs to the images that are called so

| column | holds | |
|---|---|---|
| `image` | path below the image folder, several joined by ";" | must be there; may be several columns |
| `text` | the report, or the answer where there is a question | must be there |
| `question` | what is asked | else the option `prompt` |
| `id`, `patient`, `study` | names | the image stands in for an unknown patient |
| `date` | of the study, ISO 8601 | |
| `split` | train, valid or test | else from the file's name |
| `attributes` | none, unless columns are named | one attribute each, for subgroups |

Other names are said with the option `columns`: `{image: [frontal, lateral], text: Findings, attributes: [age, sex]}`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ... import plugins
from ...errors import DataError, RecipeError
from ...images.formats.raster import FORMAT
from ...metrics.answers import closed
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, clean, describe, split_name, stand_in
from ..table import SEPARATORS, Row, table

Columns = Mapping[str, tuple[str, ...]]
COLUMNS = ("id", "image", "text", "question", "patient", "study", "date", "split", "attributes")
NEEDED = ("image", "text")
SEVERAL = ("image", "attributes")
NUMBERED = re.compile(r"^(.*?)[ _-]?[0-9]+$", re.DOTALL)
MAX_TEXT = 1 << 20  # bytes of one text file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    columns: Columns
    images: str
    prompt: str
    topic: str
    kind: str


def reports(
    source: Source,
    *,
    file: str = "",
    columns: dict[str, str | list[str]] | None = None,
    images: str = "",
    prompt: str = "Write the report of this image.",
    topic: str = "report",
    kind: str = "image",
    encoding: str = "utf-8-sig",
) -> Iterator[Read]:
    """One sample a row, or a text file.

    Args:
        source: its root holds the tables or the texts.
        file: which, below the root, e.g. `reports.tsv` or `*.csv`; "" is every table of the root or, without one, every
            text file below it.
        columns: what the columns are called; see above. What is named must be there.
        images: folder that image names start from, below the root; for texts the folder that mirrors theirs.
        prompt: what is asked where no question is given, in any language.
        topic: of answers to `prompt`; answers to questions are `closed` or `open`.
        kind: what the images show (`xray`, `ct`, ...).
        encoding: of tables and texts, e.g. `gb18030`.

    Yields:
        `(sample, split or None, "file:line")`.

    Raises:
        DataError: no such file, a table without its columns, or of another encoding.
        RecipeError: `columns` names what no column is for.
    """
    options = _Options(
        columns=_columns(columns or {}), images=images.strip("/"), prompt=prompt, topic=topic, kind=kind
    )
    paths = _paths(source.folder(), file)
    if all(path.suffix.lower() in SEPARATORS for path in paths):
        for path in paths:
            yield from _rows(source, path, options, columns or {}, encoding)
    else:
        yield from _texts(source, paths, options, encoding)


def _columns(given: Mapping[str, str | list[str]]) -> Columns:
    """The names of all columns.

    Raises:
        RecipeError: an unknown one, or several where one is meant.
    """
    made: dict[str, tuple[str, ...]] = {name: (name,) for name in COLUMNS}
    made["attributes"] = ()
    for name, called in given.items():
        if name not in COLUMNS:
            raise RecipeError(
                f"`columns` knows no '{name}'{plugins.nearest(name, list(COLUMNS))}", where="option columns",
                expected=", ".join(COLUMNS),
            )  # fmt: skip
        names = (called,) if isinstance(called, str) else tuple(called)
        if not names or (len(names) > 1 and name not in SEVERAL):
            raise RecipeError(
                f"`columns` names {len(names)} columns as '{name}'", where="option columns", expected="one"
            )
        made[name] = names
    return made


def _paths(root: Path, pattern: str) -> list[Path]:
    """Tables, or texts.

    Raises:
        DataError: there are none, or both.
    """
    if pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
        raise DataError(
            "`file` must stay below the data root", where="option file", found=repr(clean(pattern, 80))
        )
    every = root.glob(pattern) if pattern else root.iterdir()
    found = sorted(p for p in every if p.is_file() and (pattern or p.suffix.lower() in SEPARATORS))
    if not pattern and not found:
        found = sorted(p for p in root.rglob("*.txt") if p.is_file())
    tables = [p for p in found if p.suffix.lower() in SEPARATORS]
    if not found or (tables and len(tables) < len(found)):
        raise DataError(
            "tables and texts at once" if found else "no reports in the data root", where="option file",
            found=clean(pattern, 80) or "no table, no text file", expected="*.csv or *.tsv, or *.txt",
            remedy="name the table or the texts with `file`",
        )  # fmt: skip
    return found


def _rows(
    source: Source, path: Path, options: _Options, named: Mapping[str, Any], encoding: str
) -> Iterator[Read]:
    """The rows of one table."""
    name, columns = path.relative_to(source.folder()).as_posix(), options.columns
    wanted = [column for key in COLUMNS if key in NEEDED or key in named for column in columns[key]]
    split = split_name(path.stem)
    separator = SEPARATORS[path.suffix.lower()]
    for line, row in table(source, name, wanted, separator=separator, encoding=encoding):
        id = _cell(row, columns, "id") or f"{PurePosixPath(name).with_suffix('').as_posix()}-{line}"
        try:
            sample = _sample(row, id, options)
            told = _split(_cell(row, columns, "split"))
        except DataError as error:
            source.reject_error(name, line, clean(id, 80), error)
            continue
        yield sample, told or split, f"{name}:{line}"


def _cell(row: Row, columns: Columns, key: str) -> str:
    return row.get(columns[key][0], "")


def _split(word: str) -> str | None:
    found = split_name(word)
    if word and found is None:
        raise RecordError(
            "the split is none", field="split", found=describe(word), remedy="expected train, valid or test"
        )
    return found


def _sample(row: Row, id: str, options: _Options) -> Sample:
    """One row of a table."""
    columns = options.columns
    cells = [row[column] for column in columns["image"]]
    names = [name.strip() for cell in cells for name in cell.split(";") if name.strip()]
    return _made(
        id,
        [posixpath.join(options.images, name) for name in names],
        _cell(row, columns, "text"),
        options,
        question=_cell(row, columns, "question"),
        patient=_cell(row, columns, "patient"),
        about={
            "study": _cell(row, columns, "study"),
            "date": _date(_cell(row, columns, "date")),
            "attributes": {name: row[name] for name in columns["attributes"] if row[name]},
        },
    )


def _made(
    id: str,
    paths: Sequence[str],
    text: str,
    options: _Options,
    *,
    question: str = "",
    patient: str = "",
    about: Mapping[str, Any],
) -> Sample:
    """A sample of images and a text.

    Raises:
        RecordError: there is no image, or no text.
    """
    if not paths:
        raise RecordError("the row names no image", field="image", found="0 images")
    if not any(letter.isalnum() for letter in text):
        raise RecordError("the text is empty", field="text", found=describe(text), remedy="drop the row")
    topic = options.topic
    if question:
        topic = "closed" if closed(question, text) else "open"
    places = tuple(range(len(paths)))
    return Sample(
        id=id,
        patient=patient or stand_in(paths[0]),
        images=tuple(ImageRef(path=path, kind=options.kind) for path in paths),
        messages=(
            Message(role="user", parts=(*places, question or options.prompt)),
            Message(role="assistant", parts=(text,), topic=topic),
        ),
        **about,
    )


def _date(text: str) -> str:
    """An ISO date, with its time where it has one.

    Raises:
        RecordError: it is something else, which could not be put in order.
    """
    if not text:
        return ""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise RecordError(
            "the date is not ISO 8601", field="date", found=describe(text), remedy="expected e.g. 2021-03-04"
        ) from None
    return found.date().isoformat() if found.time().isoformat() == "00:00:00" else found.isoformat()


def _texts(source: Source, paths: Sequence[Path], options: _Options, encoding: str) -> Iterator[Read]:
    """Text files with the images that are called like them."""
    root = source.folder()
    keys = {path: path.relative_to(root).with_suffix("").as_posix() for path in paths}
    pictures = _pictures(root / options.images, set(keys.values()))
    for path, key in keys.items():
        name = path.relative_to(root).as_posix()
        shown = [posixpath.join(options.images, image) for image in pictures.pop(key, ())]
        try:
            sample = _made(clean(key), shown, _read(path, encoding), options, about={})
        except DataError as error:
            source.reject_error(clean(name), 1, clean(key, 80), error)
            continue
        yield sample, split_name(PurePosixPath(key).parts[0]), f"{name}:1"
    for images in pictures.values():
        for image in images:
            source.reject(clean(image), 0, "", "text", "no text belongs to this image")


def _pictures(folder: Path, keys: set[str]) -> dict[str, list[str]]:
    """Images by the text that they belong to: the one of their name or, failing that, of their name without number."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in FORMAT.suffixes or not path.is_file():
            continue
        whole = path.relative_to(folder).with_suffix("").as_posix()
        numbered = NUMBERED.match(whole)
        key = numbered[1] if whole not in keys and numbered and numbered[1] in keys else whole
        found.setdefault(key, []).append(path.relative_to(folder).as_posix())
    return found


def _read(path: Path, encoding: str) -> str:
    if path.stat().st_size > MAX_TEXT:
        raise RecordError(
            "the text is too large for a report", field="text", found=f"{path.stat().st_size} bytes"
        )
    try:
        return path.read_text(encoding=encoding).strip()
    except (UnicodeError, LookupError):
        raise RecordError(
            "the text is not of this encoding", field="text", found=encoding,
            remedy="set `encoding`, or save it as UTF-8",
        ) from None  # fmt: skip


READER = Reader(
    read=reports, official="a column named with `split`, or train, valid or test in the file's name"
)
