"""Several data sets as one: every source read by its own reader, then one split and one audit over all of them.

    sources: {knee: {reader: class_folders, root: knees}, skin: {reader: pad_ufes, root: PAD-UFES-20}}

| of a record | in the merged data set |
|---|---|
| id `a` of `knee` | `knee/a` |
| patient `7` | `knee/7`, or `PEOPLE/7` where the source says `people`; a picture that stands in stays as it is |
| image `x.png` | `knee/x.png`; `.roots.json` in the data set's root says where `knee` is |
| attributes | and `source_set: knee`; a preference has no attributes, its id tells |

Equal pictures are one group wherever they come from, so two sources that share some never share them across a split.
A source draws from a seed of its own, made of the recipe's and its name. `max_bad` holds for every source by itself:
a source that is all wrong does not hide behind a large one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import plugins, runs
from ..errors import DataError, RecipeError
from ..images.files import ROOTS
from ..images.formats import MAX_PIXELS
from ..settings import Raw
from ..types import Degrade, ImageRef, Sample
from .audit import audit
from .prepare import (
    MAX_BAD,
    PICTURES,
    Prepared,
    Seen,
    check_share,
    finish,
    gather,
    open_reader,
    used,
    write_lines,
)
from .source import STAND_IN, Reader, Record, Source

SOURCE = "source_set"


@dataclass
class _Named(Source):
    """A source whose refusals say which one it is; see `Source`."""

    name: str = ""

    def reject(
        self, file: str, line: int, id: str, field: str, reason: str, found: str = "", remedy: str = ""
    ) -> None:
        """Refuse one record; its file is told as `SOURCE/file`."""
        super().reject(f"{self.name}/{file}", line, id, field, reason, found, remedy)


@dataclass
class _Merged:
    """What has been gathered so far: all records, refusals, roots of raw files, and facts about each source."""

    seen: Seen = field(default_factory=Seen)
    rejected: list[dict[str, str | int]] = field(default_factory=list)
    roots: dict[str, str] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    own: dict[str, list[Record]] = field(default_factory=dict)


def merge(
    sources: Mapping[str, Raw],
    *,
    out: Path,
    seed: int,
    shares: Mapping[str, float],
    by: str = "patient",
    strict: bool = False,
    max_bad: float = MAX_BAD,
    max_pixels: int = MAX_PIXELS,
) -> Prepared:
    """Read, check, join, split and write several data sets.

    Args:
        sources: by name, in any order: they are read in that of their names.
        out: folder to write to; made if absent.
        seed: decides the splits, and with a source's name all that a generating reader draws.
        shares: split name to share.
        by: `patient`, `image` or `official`.
        strict: raise at the first bad record.
        max_bad: the largest share of bad records of each source.
        max_pixels: largest width x height of an image.

    Returns:
        The data set, with its audits; `dataset.json` says of each source what it gave and what two of them share.

    Raises:
        DataError: as `prepare`, with the source's name.
        RecipeError: options of a reader, the shares or `by` are not right.
    """
    merged = _Merged()
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    opened = {name: _open(name, raw) for name, raw in sorted(sources.items())}
    try:
        for name, (plugin, options) in opened.items():
            root = None if sources[name].root is None else Path(str(sources[name].root))
            source = _Named(
                root=root, seed=_seed(seed, name), images=out / PICTURES / name, strict=strict, name=name
            )
            try:
                _read(merged, source, plugin, options, sources[name], max_pixels)
                check_share(len(merged.own[name]), source.rejected, max_bad)
            except (DataError, RecipeError) as error:
                raise _placed(error, name) from None
            finally:
                merged.rejected += source.rejected
    finally:
        write_lines(out / "rejected.jsonl", merged.rejected)
    runs.write_json(out / PICTURES / ROOTS, merged.roots)
    about = {"sources": merged.about, "shared": _shared(merged.own)}
    return finish(merged.seen, out, None, merged.rejected, about, shares=shares, by=by, seed=seed)


def told(made: Prepared) -> list[str]:
    """A merged data set by source and split, and what sources share, as lines; nothing of another data set."""
    about = json.loads((made.folder / "dataset.json").read_text(encoding="utf-8"))
    if "sources" not in about:
        return []
    splits = {split: _counts(made, split) for split in made.counts}
    lines = []
    for name, facts in about["sources"].items():
        parts = ", ".join(f"{split} {count[name]}" for split, count in splits.items() if count[name])
        lines.append(f"{name}: {parts or 'no records'}; {facts['rejected']} set aside")
    for each in about["shared"]:
        both = f"{each['images']} images in both, {each['patients']} patients in both"
        lines.append(f"{each['first']} and {each['second']}: {both}")
    return lines


def _counts(made: Prepared, split: str) -> Counter[str]:
    """Records of each source in a split."""
    rows = made.samples(split) if made.kind == "samples" else made.preferences(split)
    return Counter(row.id.partition("/")[0] for row in rows)


def _open(name: str, raw: Raw) -> tuple[Reader, dict[str, Any]]:
    """A source's reader and its options, checked before any file is read."""
    root = None if raw.root is None else Path(raw.root)
    try:
        return open_reader(raw.reader, root), plugins.bind("readers", raw.reader, raw.options)
    except (DataError, RecipeError) as error:
        raise _placed(error, name) from None


def _read(
    merged: _Merged, source: _Named, plugin: Reader, options: dict[str, Any], raw: Raw, max_pixels: int
) -> None:
    """Gather one source, then give its records their names in the whole."""
    name, seen = source.name, Seen(kind=merged.seen.kind)
    home = source.root if plugin.needs_root and not plugin.unpacks else None
    if home is not None:
        merged.roots[name] = str(home)
    merged.own[name] = []
    gather(plugin, options, source, seen, home or source.images, max_pixels)
    merged.own[name] = [_renamed(record, name, raw.people or name) for record in seen.records]
    merged.seen.kind = seen.kind
    merged.seen.records += merged.own[name]
    merged.seen.official |= {f"{name}/{id}": split for id, split in seen.official.items()}
    merged.about[name] = {
        "reader": raw.reader, "options": used(plugin, options), "root": merged.roots.get(name, ""),
        "people": raw.people or name, "official": plugin.official,
        "records": len(seen.records), "rejected": len(source.rejected),
    }  # fmt: skip


def _renamed(record: Record, name: str, people: str) -> Record:
    """A record under its name in the whole; see the table above."""

    def moved(refs: Iterable[ImageRef]) -> tuple[ImageRef, ...]:
        return tuple(replace(ref, path=f"{name}/{ref.path}") for ref in refs)

    def side(seen: tuple[ImageRef, ...] | Degrade | None) -> tuple[ImageRef, ...] | Degrade | None:
        return moved(seen) if isinstance(seen, tuple) else seen

    patient = record.patient if record.patient.startswith(STAND_IN) else f"{people}/{record.patient}"
    common: dict[str, Any] = {
        "id": f"{name}/{record.id}",
        "patient": patient,
        "images": moved(record.images),
    }
    if isinstance(record, Sample):
        return replace(record, **common, attributes={**record.attributes, SOURCE: name})
    return replace(
        record,
        **common,
        chosen_images=side(record.chosen_images),
        rejected_images=side(record.rejected_images),
    )


def _shared(own: Mapping[str, list[Record]]) -> list[dict[str, Any]]:
    """Pairs of sources that have pictures or patients in common."""
    found = audit(own, name="sources").overlaps
    return [
        {"first": o.first, "second": o.second, "images": o.images, "patients": o.patients}
        for o in found
        if o.images or o.patients
    ]


def _seed(seed: int, name: str) -> int:
    """A source's own seed: two generating sources draw different things."""
    return int(runs.digest(str(seed), "source", name)[:8], 16)


def _placed(error: DataError | RecipeError, name: str) -> DataError | RecipeError:
    """The same error with the source's name in front of its place."""
    where = f"source {name}" + (f", {error.where}" if error.where else "")
    kind = RecipeError if isinstance(error, RecipeError) else DataError
    return kind(error.what, where=where, found=error.found, expected=error.expected, remedy=error.remedy)
