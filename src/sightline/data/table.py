"""Tables of text (CSV, TSV), read row by row: what is unsound is refused with its line, the rest is kept."""

from __future__ import annotations

import codecs
import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from ..errors import DataError
from .source import Source, clean

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
Row = dict[str, str]


def table(
    source: Source,
    name: str,
    columns: Iterable[str] = (),
    *,
    separator: str = ",",
    encoding: str = "utf-8-sig",
) -> Iterator[tuple[int, Row]]:
    """The rows of a table, their cells stripped, each with the line on which it begins.

    Args:
        source: its root holds the file; takes the refusals.
        name: the file's path below the root.
        columns: columns that must be there.
        separator: what stands between cells.
        encoding: of the file; a mark of byte order is left out.

    Yields:
        `(line, {column: cell})`, lines counted from 1.

    Raises:
        DataError: no such file, a column is missing or stands twice, or the file is of another encoding.
    """
    path = source.folder() / name
    if not path.is_file():
        raise DataError(
            "no such file", where=name, remedy="put the table into the data root, or name it rightly"
        )
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise _misread(name, encoding) from None
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as stream:
        rows = csv.DictReader(stream, delimiter=separator, strict=True)
        try:
            heads = _heads(rows)
        except UnicodeError:
            raise _misread(name, encoding) from None
        _check_heads(heads, columns, name)
        while True:
            line, fault = rows.reader.line_num + 1, ""  # of the reader: the other stops counting at a fault
            try:
                row = next(rows)
                fault = _fault(row, encoding)
            except StopIteration:
                return
            except csv.Error as error:
                fault = f"the row is not sound CSV: {error}"
            except UnicodeError:
                raise _misread(name, encoding) from None
            if fault:
                source.reject(name, line, "", "", fault, "", "repair this row")
            else:
                yield line, {key: value.strip() for key, value in row.items()}


def _misread(name: str, encoding: str) -> DataError:
    return DataError(
        "the table cannot be read in this encoding", where=name, found=encoding,
        expected="utf-8, or another encoding that Python knows, such as gb18030 or utf-16",
        remedy="name the encoding that it has, or save it as UTF-8",
    )  # fmt: skip


def _heads(rows: csv.DictReader[str]) -> list[str]:
    try:
        return list(rows.fieldnames or ())
    except csv.Error:
        return []


def _check_heads(heads: list[str], columns: Iterable[str], name: str) -> None:
    missing = [column for column in columns if column not in heads]
    if missing:
        raise DataError(
            "the table lacks columns", where=name, found=f"no {', '.join(missing)}",
            expected=f"columns that its first line names: {clean(', '.join(heads), 200) or 'it names none'}",
        )  # fmt: skip
    twice = [head for head, count in Counter(heads).items() if count > 1]
    if twice:
        raise DataError(
            "the table has a column twice",
            where=name,
            found=clean(", ".join(twice), 200),
            remedy="rename one of them",
        )


def _fault(row: Mapping[str, str], encoding: str) -> str:
    """Why a row cannot be read, if so."""
    cells = list(row.values())
    if None in row or None in cells:  # what `csv` makes of cells without a column, and the reverse
        return "the row has more or fewer cells than the table"
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        return f"the row holds bytes that are not {'UTF-8' if encoding.startswith('utf-8') else encoding}"
    return ""
