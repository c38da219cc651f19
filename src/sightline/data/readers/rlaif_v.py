"""RLAIF-V: two answers to a question about an image, as Parquet shards that hold the images too.

Reads the layout of openbmb/RLAIF-V-Dataset (83,132 pairs, CC BY-NC 4.0; code at RLHF-V/RLAIF-V on GitHub):
`ds_name`, `image` (`bytes` and `path`), `question`, `chosen`, `rejected` and `idx`. The columns `origin_dataset`,
`origin_split` and `image_path` are not read: a preference has no place for them.

    RLAIF-V/17   user <image> What is shown?   chosen A grey square.   rejected A red circle.   why rlaif_v

Shards are read one after another and in small batches, so that memory holds a few pages of one shard. An
image becomes a file of the data set, named after the SHA-256 of its bytes and after what its first bytes say it
is; the `path` beside bytes is not looked at. An `image` whose `bytes` are null is copied from its `path` below
the root. Patients are not given: the image stands in, so that all pairs of one image share a split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError, RecipeError
from ...images.files import resolve
from ...images.formats.raster import JPEG, PNG
from ...types import ImageRef, Message, Preference
from ..source import Read, Reader, RecordError, Source, clean, describe, stand_in
from ..store import DAMAGE

TEXTS = ("question", "chosen", "rejected")
COLUMNS = ("ds_name", "image", *TEXTS, "idx")
SUFFIXES = {PNG: ".png", JPEG: ".jpg"}
WHY = "rlaif_v"
ROWS = 32  # rows of a batch; a few MB of images
BUFFER = 1 << 20  # bytes of a column read ahead
MAX_BYTES = 256 << 20  # largest image file that is copied
Row = Mapping[str, pa.Scalar]


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Where images come from and go to, and what accepted pairs have taken so far."""

    home: Path
    images: Path
    ids: set[str] = field(default_factory=set)
    pictures: set[str] = field(default_factory=set)

    def put(self, content: bytes) -> ImageRef:
        """Write an image unless an accepted pair has it."""
        suffix = next((s for head, s in SUFFIXES.items() if content.startswith(head)), "")
        if not suffix:
            raise RecordError(
                "the image is neither PNG nor JPEG",
                field="image",
                found=f"bytes {content[:8].hex(' ')}",
                remedy="convert the image to PNG, or drop the row",
            )
        digest = hashlib.sha256(content).hexdigest()
        if digest + suffix not in self.pictures:
            (self.images / (digest + suffix)).write_bytes(content)
        return ImageRef(path=digest + suffix, sha256=digest)

    def settle(self, pair: Preference, accepted: bool) -> None:
        """Keep what an accepted pair uses; take away the picture of a refused one, e.g. a damaged picture."""
        name = pair.images[0].path
        if accepted:
            self.ids.add(pair.id)
            self.pictures.add(name)
        elif name not in self.pictures:
            (self.images / name).unlink(missing_ok=True)


def rlaif_v(source: Source, *, file: str = "*.parquet", limit: int = 0) -> Iterator[Read]:
    """Read shards in the order of their names.

    Args:
        source: its root holds the shards, and its `images` takes the pictures.
        file: which files of the root, e.g. `RLAIF-V-Dataset_000.parquet`.
        limit: stop after so many good pairs, for a trial; 0 reads all.

    Yields:
        `(preference, None, "shard:row")`, rows counted from 1 in each shard; texts are stripped.

    Raises:
        DataError: there are no shards.
        RecipeError: the limit is negative.
    """
    paths = _paths(source, file, limit)
    source.images.mkdir(parents=True, exist_ok=True)
    shelf = _Shelf(home=source.folder(), images=source.images)
    for path in paths:
        for number, row in _rows(path, source):
            try:
                pair = _pair(row, shelf)
            except DataError as error:
                source.reject_error(path.name, number, _name(row), error)
                continue
            before = len(source.rejected)
            yield pair, None, f"{path.name}:{number}"
            # Whoever takes the pair decodes its image, and refuses the pair before asking for the next.
            shelf.settle(pair, accepted=len(source.rejected) == before)
            if limit and len(shelf.ids) >= limit:
                return


def _paths(source: Source, pattern: str, limit: int) -> list[Path]:
    """The shards, once the options are seen to be right."""
    if limit < 0:
        raise RecipeError(
            "`limit` is negative", where="limit", found=str(limit), expected="0 for all pairs, or a number"
        )
    if "/" in pattern or ".." in pattern:
        raise DataError("`file` must name files of the data root itself", found=repr(clean(pattern, 120)))
    found = sorted(p for p in source.folder().glob(pattern) if p.is_file())
    if not found:
        raise DataError(
            "no Parquet shards are there",
            where="option file",
            found=repr(clean(pattern, 120)),
            expected="a root that holds *.parquet",
        )
    return found


def _rows(path: Path, source: Source) -> Iterator[tuple[int, Row]]:
    """The rows of one shard with their numbers; what cannot be read is refused as a whole.

    Column chunks are read through a buffer. Reading ahead, the library's default, was seen to hold all of a
    shard: 223 MB for 200 MB in row groups of 100 rows, against 24 MB so.
    """
    number = 0
    try:
        with pq.ParquetFile(
            path, pre_buffer=False, buffer_size=BUFFER, page_checksum_verification=True
        ) as file:
            if not _has_columns(file.schema_arrow, path.name, source):
                return
            for batch in file.iter_batches(batch_size=ROWS, columns=list(COLUMNS)):
                for i in range(batch.num_rows):
                    number += 1
                    yield number, {name: batch.column(name)[i] for name in COLUMNS}
    except DAMAGE as error:
        reason = "the shard is no Parquet file, or it is cut off or damaged"
        if number:
            reason = "the shard is damaged: this row and what follows cannot be read"
        found = f"{type(error).__name__}, {path.stat().st_size} bytes"
        source.reject(path.name, number + 1 if number else 0, "", "", reason, found, "fetch the shard again")


def _has_columns(schema: pa.Schema, name: str, source: Source) -> bool:
    """Whether a shard has every column that is read, once; it is refused if not."""
    missing = ", ".join(c for c in COLUMNS if schema.get_field_index(c) < 0)
    if missing:
        source.reject(
            name, 0, "", missing,
            f"the shard lacks columns, or has them twice: {missing}",
            f"columns {clean(', '.join(schema.names), 200)}",
            "fetch the shard again, or take it away if it is of another data set",
        )  # fmt: skip
    return not missing


def _pair(row: Row, shelf: _Shelf) -> Preference:
    """One row as a preference; its image is written last, when nothing else can be wrong."""
    idx = _name(row)
    if not idx:
        raise RecordError("the row has no idx", field="idx", found=_shown(row["idx"]))
    id = f"{_word(row['ds_name']) or WHY}/{idx}"
    if id in shelf.ids:
        raise RecordError(
            "duplicate idx: an earlier row of this ds_name has it too", field="idx", found=clean(id, 80)
        )
    question, chosen, rejected = (_text(row, name) for name in TEXTS)
    if chosen == rejected:
        raise RecordError(
            "the two answers are equal", field="rejected", found=describe(rejected), remedy="drop the row"
        )
    ref = shelf.put(_content(row["image"], shelf.home))
    return Preference(
        id=id,
        patient=stand_in(ref.path),
        images=(ref,),
        prompt=(Message(role="user", parts=(0, question)),),
        chosen=chosen,
        rejected=rejected,
        why=WHY,
    )


def _content(cell: pa.Scalar, home: Path) -> bytes:
    """The bytes of an image: those of the row or, where they are null, those of the file at `path`."""
    content = _part(cell, "bytes")
    if content is None:
        path = _part(cell, "path")
        if not isinstance(path, str) or not path.strip():
            raise RecordError(
                "the row holds no image: neither bytes nor a path", field="image", found=_shown(cell)
            )
        return _copy(home, path)
    if not isinstance(content, bytes) or not content:
        raise RecordError("the image holds no bytes", field="image", found=_shown(cell))
    return content


def _copy(home: Path, path: str) -> bytes:
    file = resolve(home, path)
    try:
        size = file.stat().st_size
        if size <= MAX_BYTES:
            return file.read_bytes()
    except OSError as error:
        raise RecordError(
            "the image file cannot be read", field="image", found=type(error).__name__
        ) from None
    raise RecordError(
        "the image file is too large", field="image", found=f"{size} bytes",
        remedy=f"give an image of at most {MAX_BYTES} bytes",
    )  # fmt: skip


def _part(cell: pa.Scalar, name: str) -> Any:
    """A field of the image's struct; None where it, or the struct, is not there."""
    if not isinstance(cell, pa.StructScalar) or not cell.is_valid or cell.type.get_field_index(name) < 0:
        return None
    return _value(cell[name])


def _text(row: Row, name: str) -> str:
    text = _word(row[name])
    if not text:
        raise RecordError(
            f"`{name}` is empty or no text", field=name, found=_shown(row[name]), remedy="drop the row"
        )
    return text


def _name(row: Row) -> str:
    """The row's idx, which some writers store as a whole number."""
    value = _value(row["idx"])
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else _word(row["idx"])


def _word(cell: pa.Scalar) -> str:
    """A text, stripped; "" where there is none."""
    value = _value(cell)
    return value.strip() if isinstance(value, str) else ""


def _value(cell: pa.Scalar) -> Any:
    """A cell as a Python value; None for bytes that are no UTF-8 in a text column, which nothing has checked."""
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        return None


def _shown(cell: pa.Scalar) -> str:
    """A cell by its type and size, without its content."""
    value = _value(cell)
    if isinstance(value, str):
        return describe(value)
    if value is None:
        return f"{cell.type}, {'no UTF-8' if cell.is_valid else 'null'}"
    return str(cell.type)


READER = Reader(read=rlaif_v, unpacks=True)
