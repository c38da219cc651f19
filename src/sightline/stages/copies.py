"""Near duplicates that `prepare` found, with their pictures for the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import images, runs
from ..data import prepare
from ..data.split import images as shown
from ..data.twins import FILE as NEAR
from ..errors import DataError
from ..types import ImageRef
from .cases import thumbnail

MOST = 12


def copies_of(line: Mapping[str, Path]) -> list[tuple[Path, dict[str, Any]]]:
    """The folders of the stages that looked for near duplicates, each with what it found."""
    return [(place, runs.read_json(place / NEAR)) for place in line.values() if (place / NEAR).is_file()]


def pictured(place: Path, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The first pairs across splits or patients with both pictures; a pair that cannot be read is left out."""
    pairs = [p for p in found["images"]["pairs"] if p["splits"][0] != p["splits"][1] or not p["one_patient"]][
        :MOST
    ]
    if not pairs:
        return []
    data = prepare.load(place)
    wanted = {path for pair in pairs for path in pair["paths"]}
    refs = {
        ref.path: ref
        for split in data.counts
        for record in data.records(split)
        for ref in shown(record)
        if ref.path in wanted
    }
    made = []
    for pair in pairs:
        try:
            pictures = [_thumb(data.root, refs[path]) for path in pair["paths"]]
        except (DataError, KeyError):
            continue
        made.append({**pair, "pictures": pictures})
    return made


def _thumb(root: Path, ref: ImageRef) -> bytes:
    """A small picture of an image."""
    return thumbnail(images.picture(root, ref))
