"""Reports and their embeddings on disk: Arrow files for what is read, FAISS files for what is searched.

    store/store.json              what there is, and every file's size and SHA-256
          reports-00000.arrow     reports, those of one card beside each other
          vectors-00000.faiss     one vector a card

Reports that are equal once normalised are one **card**: one vector, however many stand behind it. Cards that say
nearly the same are one **group**, of which a search shows one. Files come in shards of a bounded size; they are
written one after another and read through the memory map, so neither making nor searching a store needs the memory to
hold its vectors and texts. What is held are a few whole numbers a report, ids of patients and hashes of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .. import runs
from ..errors import DataError, RunError
from ..types import ImageRef
from . import vectors
from .collapse import groups
from .lookup import Lookup
from .report import Report, normalise
from .vectors import Vectors

FORMAT = 1
ABOUT = "store.json"
SHARD = 262_144  # cards in a file
ROWS = 16_384
SPLITS = ("train", "valid")  # a report of another split is refused

_WORDS = ("id", "patient", "study", "date", "split", "domain", "text")
_IMAGE = pa.struct([(name, pa.string()) for name in ("path", "sha256", "kind", "when", "form")])
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _WORDS),
        ("images", pa.list_(_IMAGE)),
        ("labels", pa.map_(pa.string(), pa.int64())),
        ("attributes", pa.map_(pa.string(), pa.string())),
        ("card", pa.int64()),
        ("group", pa.int64()),
        ("rank", pa.int64()),
    ]
)

Embed = Callable[[Sequence[Report]], np.ndarray]


def write(
    folder: Path,
    reports: Sequence[Report],
    embed: Embed,
    *,
    collapse: float = 1.0,
    approximate_above: int = 1_000_000,
    shard: int = SHARD,
) -> dict[str, Any]:
    """Write a store; equal reports with equal embeddings give equal bytes, in whatever order they come.

    Args:
        folder: where; made here.
        reports: in any order.
        embed: reports to unit vectors [n, width]; asked for one report of each card, a shard at a time.
        collapse: least likeness of words at which cards are one group; 1 keeps them apart.
        approximate_above: number of cards from which on search is approximate.
        shard: cards in one file.

    Returns:
        What `store.json` says.

    Raises:
        DataError: no report, an id twice, a report of the test split, or embeddings that are none.
    """
    ordered = _checked(reports)
    cards: dict[str, list[int]] = {}
    for place, report in enumerate(ordered):
        cards.setdefault(normalise(report.text), []).append(place)
    members, group = list(cards.values()), groups(list(cards), collapse)
    approximate, width, files = len(members) >= approximate_above, 0, []
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(members), shard)):
        part = range(start, min(start + shard, len(members)))
        made = vectors.unit(embed([ordered[members[card][0]] for card in part]), "reports")  # [cards, width]
        width = made.shape[1]
        names = (f"reports-{number:05d}.arrow", f"vectors-{number:05d}.faiss")
        _write_table(folder / names[0], [_row(ordered, p, c, group[c]) for c in part for p in members[c]])
        vectors.write(folder / names[1], made, approximate=approximate)
        files += [_entry(folder / name) for name in names]
    about = {
        "format": FORMAT, "reports": len(ordered), "cards": len(members), "groups": len(set(group)),
        "width": width, "search": "approximate" if approximate else "exact", "collapse": collapse, "files": files,
    }  # fmt: skip
    runs.write_json(folder / ABOUT, about)
    return about


@dataclass(frozen=True)
class Store:
    """An opened store. A row is a report; a card is one or more rows; both are numbered from 0.

    Args:
        about: what `store.json` says.
        table: all reports, memory-mapped.
        shards: the vectors, memory-mapped.
        offsets: [shards + 1] first card of each shard.
        starts: [cards + 1] first row of each card.
        group: [cards] its group.
        rank: [rows] place of the report's id among all ids.
        patients: rows by patient.
        pictures: rows by the hash of an image.
        grouped: [cards] cards by group.
        group_starts: [cards + 1] where each group begins in `grouped`.
    """

    about: dict[str, Any]
    table: pa.Table
    shards: tuple[Vectors, ...]
    offsets: np.ndarray
    starts: np.ndarray
    group: np.ndarray
    rank: np.ndarray
    patients: Lookup
    pictures: Lookup
    grouped: np.ndarray
    group_starts: np.ndarray
    masks: dict[tuple[tuple[str, ...], str], np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path, *, check: bool = True) -> Store:
        """Open a store that `write` made.

        Args:
            folder: where it is.
            check: compare every file's SHA-256, which reads all of it once.

        Raises:
            RunError: there is none, a file is missing or damaged, or it is of another version.
        """
        about = runs.read_json(folder / ABOUT)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise RunError("this is no store of reports of this version", where=str(folder / ABOUT))
        for entry in about["files"] if check else ():
            _verify(folder / entry["path"], entry)
        paths = [folder / entry["path"] for entry in about["files"]]
        table = pa.concat_tables([_read_table(p) for p in paths if p.suffix == ".arrow"])
        shards = tuple(vectors.read(p) for p in paths if p.suffix == ".faiss")
        card = table["card"].to_numpy()  # [rows], rising
        starts = np.searchsorted(card, np.arange(about["cards"] + 1))
        group = table["group"].to_numpy()[starts[:-1]]  # [cards]
        grouped = np.argsort(group, kind="stable")
        images = table["images"].combine_chunks()
        return cls(
            about=about, table=table, shards=shards, starts=starts, group=group, rank=table["rank"].to_numpy(),
            offsets=np.cumsum([0, *map(len, shards)]),
            patients=Lookup.of(table["patient"].combine_chunks(), np.arange(len(card))),
            pictures=Lookup.of(pc.struct_field(pc.list_flatten(images), 1), pc.list_parent_indices(images).to_numpy()),
            grouped=grouped, group_starts=np.searchsorted(group[grouped], np.arange(len(group) + 1)),
        )  # fmt: skip

    def __len__(self) -> int:
        return int(self.about["reports"])

    def mask(self, splits: Sequence[str], domain: str) -> np.ndarray:
        """Which rows [rows] belong to one of some splits and to a domain; empty names mean any."""
        key = (tuple(splits), domain)
        if key not in self.masks:
            may = np.ones(len(self), dtype=bool)
            if splits:
                may &= pc.is_in(self.table["split"], value_set=pa.array(splits)).to_numpy()
            if domain:
                may &= pc.equal(self.table["domain"], domain).to_numpy()
            self.masks[key] = may
        return self.masks[key]

    def rows(self, cards: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of some cards, and for each the place of its card among those given."""
        counts = self.starts[cards + 1] - self.starts[cards]
        before = np.cumsum(counts) - counts
        owner = np.repeat(np.arange(len(cards)), counts)
        return np.arange(len(owner)) + (self.starts[cards] - before)[owner], owner

    def of_group(self, group: int) -> np.ndarray:
        """The cards of a group."""
        return self.grouped[self.group_starts[group] : self.group_starts[group + 1]]

    def at(self, cards: np.ndarray) -> np.ndarray:
        """The vectors of some cards, float32 [n, width]."""
        made = np.empty((len(cards), self.about["width"]), dtype=np.float32)
        shard = np.searchsorted(self.offsets, cards, side="right") - 1
        for number in np.unique(shard):
            own = shard == number
            made[own] = self.shards[number].at(cards[own] - self.offsets[number])
        return made

    def reports(self, rows: Sequence[int]) -> list[Report]:
        """The reports of some rows, in their order."""
        return [_report(row) for row in self.table.take(pa.array(rows, pa.int64())).to_pylist()]


def _checked(reports: Sequence[Report]) -> list[Report]:
    """The reports by id, if they may stand in one store."""
    ordered = sorted(reports, key=lambda r: r.id)
    if not ordered:
        raise DataError("there is no report to store", remedy="check `split`, `topic` and `where`")
    foreign = sorted({r.split for r in ordered} - set(SPLITS))
    if foreign:
        raise DataError(
            "reports of another split than train and valid are never stored",
            found=", ".join(foreign), expected=" or ".join(SPLITS),
            remedy="retrieval from test reports would measure memory",
        )  # fmt: skip
    twice = next((a.id for a, b in pairwise(ordered) if a.id == b.id), None)
    if twice is not None:
        raise DataError("two reports have the same id", found=twice, expected="one report per id")
    return ordered


def _row(ordered: Sequence[Report], place: int, card: int, group: int) -> dict[str, Any]:
    report = ordered[place]
    fields = ("path", "sha256", "kind", "when", "form")
    return {
        **{name: getattr(report, name) for name in _WORDS},
        "images": [{name: getattr(image, name) for name in fields} for image in report.images],
        "labels": list(report.labels.items()), "attributes": list(report.attributes.items()),
        "card": card, "group": group, "rank": place,
    }  # fmt: skip


def _report(row: dict[str, Any]) -> Report:
    return Report(
        **{name: row[name] for name in _WORDS}, images=tuple(ImageRef(**image) for image in row["images"]),
        labels=dict(row["labels"]), attributes=dict(row["attributes"]),
    )  # fmt: skip


def _write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for start in range(0, len(rows), ROWS):
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start : start + ROWS], schema=_SCHEMA))


def _read_table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _entry(path: Path) -> dict[str, Any]:
    return {"path": path.name, "bytes": path.stat().st_size, "sha256": runs.hash_file(path)}


def _verify(path: Path, entry: dict[str, Any]) -> None:
    """Refuse a file that is not what was written."""
    found = "no file"
    if path.is_file():
        found = f"{path.stat().st_size} bytes"
        if path.stat().st_size == entry["bytes"]:
            found = "other bytes"
            if runs.hash_file(path) == entry["sha256"]:
                return
    raise RunError(
        "a file of the store of reports is missing or damaged", where=str(path), found=found,
        expected=f"{entry['bytes']} bytes with SHA-256 {entry['sha256'][:12]}...", remedy="run the `index` stage again",
    )  # fmt: skip
