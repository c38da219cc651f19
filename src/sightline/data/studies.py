"""Studies of IU X-Ray as its three distributions tell them: R2Gen's JSON, Kaggle's tables, Open-i's XML.

The reader `iu_xray` makes samples of them and says what the layouts are. XML is read without document types, entities
and anything from elsewhere (defusedxml); an archive is never unpacked.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from ..errors import DataError
from .source import RecordError, Source, clean, describe, json_records, split_name
from .table import table

ANNOTATION = "annotation.json"
REPORTS, PROJECTIONS = "indiana_reports.csv", "indiana_projections.csv"
FOLDER, ARCHIVE = "ecgen-radiology", "NLMCXR_reports.tgz"
SECTIONS, VIEWS = ("findings", "impression"), ("frontal", "lateral")
MAX_XML = 1 << 20  # bytes of one report; the longest real one has 8967
NUMBER = re.compile(r"(?:CXR)?([0-9]{1,9})(?:_|$)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One report with its images.

    Args:
        id: the layout's own name of it.
        number: the digits behind CXR: the patient.
        sections: text of `findings` and of `impression`; "" where there is none.
        views: (path below the image folder, `frontal`, `lateral` or ""), in the order of the files.
        known: whether the projections are stated, not guessed by place.
        problems: MeSH terms joined by ";", or "".
        split: the official one, if any.
        file, line: where it stands.
    """

    id: str
    number: str
    sections: Mapping[str, str]
    views: tuple[tuple[str, str], ...]
    known: bool
    problems: str
    split: str | None
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Layout:
    """One distribution.

    Args:
        read: its studies; what is no study is refused at the source.
        signs: files or folders in the root, of which one tells that this is the layout.
    """

    read: Callable[[Source], Iterator[Study]]
    signs: tuple[str, ...]


def r2gen(source: Source) -> Iterator[Study]:
    """The lists of `annotation.json`, named after their splits.

    Raises:
        DataError: the file holds no such lists.
    """
    for _, splits in json_records(source.folder() / ANNOTATION, source):
        if not any(isinstance(rows, list) for rows in splits.values()):
            raise DataError(
                "annotation.json has no lists of records", where=ANNOTATION, found=describe(splits),
                expected="train, val and test, each a list",
            )  # fmt: skip
        for name, rows in splits.items():
            file = f"{ANNOTATION}/{clean(name, 40)}"
            for line, row in enumerate(rows if isinstance(rows, list) else [rows], start=1):
                try:
                    yield _annotated(row, split_name(name), file, line)
                except RecordError as error:
                    id = row.get("id", "") if isinstance(row, dict) else ""
                    source.reject_error(file, line, str(id)[:80], error)


def _annotated(row: Any, split: str | None, file: str, line: int) -> Study:
    """One record; its report is R2Gen's, which is the findings section."""
    if not isinstance(row, dict):
        raise RecordError("a record is not a JSON object", field="", found=describe(row))
    id, report, paths = str(row.get("id", "")).strip(), row.get("report"), row.get("image_path")
    if not isinstance(report, str):
        raise RecordError("the report is no text", field="report", found=describe(report))
    if not isinstance(paths, list) or not paths or any(not isinstance(p, str) or not p for p in paths):
        raise RecordError("the record names no images", field="image_path", found=describe(paths))
    number = _number(id, paths[0])
    return Study(
        id=id or f"CXR{number}", number=number, sections={"findings": report.strip(), "impression": ""},
        views=_by_place(paths), known=False, problems="", split=split, file=file, line=line,
    )  # fmt: skip


def kaggle(source: Source) -> Iterator[Study]:
    """The rows of the table of reports, with their images from the table of projections.

    Raises:
        DataError: a table or one of its columns is missing.
    """
    views: dict[str, list[tuple[str, str]]] = {}
    places: dict[str, int] = {}
    for line, row in table(source, PROJECTIONS, ("uid", "filename", "projection")):
        projection, uid = row["projection"].lower(), row["uid"]
        if projection in VIEWS and row["filename"]:
            views.setdefault(uid, []).append((row["filename"], projection))
            places.setdefault(uid, line)
        else:
            source.reject(
                PROJECTIONS, line, uid, "projection", "the row names no image, or neither of two projections",
                describe(row["projection"]), "expected a filename, and Frontal or Lateral",
            )  # fmt: skip
    for line, row in table(source, REPORTS, ("uid", "Problems", *SECTIONS)):
        places.pop(row["uid"], None)
        try:
            number = _number(row["uid"])
        except RecordError as error:
            source.reject_error(REPORTS, line, row["uid"], error)
            continue
        yield Study(
            id=f"CXR{number}", number=number, sections={name: row[name] for name in SECTIONS},
            views=tuple(views.get(row["uid"], ())), known=True, problems=row["Problems"], split=None,
            file=REPORTS, line=line,
        )  # fmt: skip
    for uid, line in places.items():
        source.reject(PROJECTIONS, line, uid, "uid", "no report belongs to this image")


def openi(source: Source) -> Iterator[Study]:
    """The XML files, in the order of their numbers whether they stand in the folder or in the archive."""
    for name, data in sorted(_files(source), key=lambda file: (len(file[0]), file[0])):
        try:
            yield _told(_parsed(data), name)
        except RecordError as error:
            source.reject_error(name, 1, PurePosixPath(name).stem, error)


def _files(source: Source) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files."""
    root = source.folder()
    if (root / FOLDER).is_dir():
        for path in sorted((root / FOLDER).glob("*.xml")):
            name = f"{FOLDER}/{path.name}"
            if path.is_file() and _fits(source, name, path.stat().st_size):
                yield name, path.read_bytes()
        return
    try:
        with tarfile.open(root / ARCHIVE, "r|gz") as archive:
            for member in archive:
                name = f"{FOLDER}/{PurePosixPath(member.name).name}"
                if member.isfile() and name.endswith(".xml") and _fits(source, name, member.size):
                    held = archive.extractfile(member)
                    assert held is not None
                    yield name, held.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        source.reject(
            ARCHIVE, 0, "", "", "the archive is cut off or damaged", type(error).__name__,
            "the reports before the damage were kept; fetch it again",
        )  # fmt: skip


def _fits(source: Source, name: str, size: int) -> bool:
    if size > MAX_XML:
        found, most = f"{size} bytes", f"expected at most {MAX_XML}"
        source.reject(name, 1, "", "", "the file is too large for a report", found, most)
    return size <= MAX_XML


def _parsed(data: bytes) -> Element:
    """A file as a tree, without document type and entities."""
    try:
        made: Element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise RecordError(
            "the XML declares a document type or entities", field="xml", found=type(error).__name__,
            remedy="fetch the file again: the real ones declare none",
        ) from None  # fmt: skip
    except (ParseError, LookupError, ValueError) as error:
        raise RecordError(
            "the XML is not sound", field="xml", found=str(error), remedy="fetch the file again"
        ) from None
    return made


def _told(root: Element, file: str) -> Study:
    """One file as a study; its images in the order of their names."""
    sections = dict.fromkeys(SECTIONS, "")
    for part in root.iter("AbstractText"):
        label = part.get("Label", "").lower()
        if label in sections:
            sections[label] = " ".join(f"{sections[label]} {''.join(part.itertext())}".split())
    uid = root.find("uId")
    number = _number("" if uid is None else uid.get("id", ""))
    names = sorted({name for image in root.iter("parentImage") if (name := image.get("id", ""))})
    terms = [(term.text or "").split("/")[0].strip() for term in root.iterfind("MeSH/major")]
    return Study(
        id=f"CXR{number}", number=number, sections=sections, views=_by_place(f"{name}.png" for name in names),
        known=False, problems=";".join(dict.fromkeys(filter(None, terms))), split=None, file=file, line=1,
    )  # fmt: skip


def _by_place(paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """The first image as frontal, the second as lateral."""
    return tuple((path, VIEWS[i] if i < len(VIEWS) else "") for i, path in enumerate(paths))


def _number(*names: str) -> str:
    """The digits behind CXR in the first of some names that has them."""
    for name in names:
        if found := NUMBER.match(name):
            return str(int(found.group(1)))
    raise RecordError(
        "no CXR number: the patient is unknown", field="id", found=describe(names[0]),
        remedy="give an id such as CXR1_IM-0001, or CXR1",
    )  # fmt: skip


LAYOUTS: Mapping[str, Layout] = {
    "r2gen": Layout(r2gen, (ANNOTATION,)),
    "kaggle": Layout(kaggle, (REPORTS, PROJECTIONS)),
    "openi": Layout(openi, (FOLDER, ARCHIVE)),
}
