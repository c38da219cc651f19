"""The audit of a data set, prepared or raw: what splits share, word for word, byte for byte, and nearly so."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..data.audit import Audit
    from ..data.prepare import Prepared
    from ..data.twins import Alike
    from ..types import Preference, Sample

Wish = tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Audited:
    """Audits of exact equality, near duplicates where they were looked for, and how many records were set aside."""

    audits: tuple[Audit, ...]
    near: Alike | None
    rejected: int


def audited(folder: Path, reader: str | None, words: Sequence[str], wish: Wish) -> Audited:
    """Audit a prepared data set, or raw files by a reader.

    Args:
        folder: of either.
        reader: how raw files are laid out; None for a prepared data set.
        words: options of the reader as `key=value`.
        wish: from which similarity of images and of texts on; None: near duplicates are not looked for.

    Raises:
        DataError: no data set there.
        RecipeError: an unknown reader or option.
    """
    from ..data import prepare as prepared
    from ..data.audit import audit

    if reader is None:
        data = prepared.load(folder)
        records: dict[str, Sequence[Sample | Preference]] = {s: data.records(s) for s in data.counts}
        return Audited(audits=(audit(records),), near=_near(data, records, wish), rejected=data.rejected)
    from .measure import parse

    with tempfile.TemporaryDirectory(prefix="sightline-") as scratch:
        made = prepared.prepare(
            reader,
            parse(words),
            root=folder,
            out=Path(scratch),
            seed=0,
            shares={"all": 1.0},
            max_bad=1.0,
        )
        return Audited(audits=made.audits, near=_near(made, _official(made), wish), rejected=made.rejected)


def _official(made: Prepared) -> dict[str, Sequence[Sample | Preference]]:
    """Records by the authors' split, where every record has one; else all of them as one."""
    every = made.records("all")
    if len(made.audits) == 1:
        return {"all": every}
    found: dict[str, list[Sample | Preference]] = {}
    for record in every:
        found.setdefault(made.official[record.id] or "", []).append(record)
    return dict(found)


def _near(data: Prepared, records: dict[str, Any], wish: Wish) -> Alike | None:
    """Near duplicates; prints of images are kept beside a stage of a run, and nowhere else."""
    if wish is None:
        return None
    from ..data.printed import FOLDER
    from ..data.twins import twins
    from ..runs import MANIFEST
    from ..settings import Near

    beside = (data.folder / MANIFEST).is_file() and os.access(data.folder.parent, os.W_OK)
    home = data.folder.parent / FOLDER if beside else None
    return twins(records, data.root, Near(images=wish[0], texts=wish[1]), home)


def shown(found: Audited, *, as_json: bool, raw: bool) -> str:
    """The audit as JSON, or for a reader."""
    if as_json:
        plain = {
            "audits": {each.name: each.to_dict() for each in found.audits},
            "near": None if found.near is None else found.near.to_dict(),
            "rejected": found.rejected,
        }
        return json.dumps(plain, indent=1, ensure_ascii=False)
    lines = [each.text() for each in found.audits]
    if raw and len(found.audits) == 1:
        lines.append("the data set has no official splits to compare")
    if found.near is not None:
        lines.append(found.near.text())
    lines.append(f"{found.rejected} record(s) {'would be' if raw else ''} set aside".replace("  ", " "))
    return "\n".join(lines)
