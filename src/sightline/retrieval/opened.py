"""An index as a stage left it: its store, the encoder that made it, and the images that its reports belong to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from .. import runs
from ..errors import RunError
from ..models.checkpoint import fingerprint
from ..types import ImageRef, Sample
from .report import normalise, text_of
from .store import Store

FORMAT = 1
ABOUT, STORE, IMAGES = "index.json", "store", "images.safetensors"
ROUTED = 4096  # images of an index that its domain is learned from

Traces = dict[str, set[str]]


@dataclass(frozen=True, kw_only=True)
class Index:
    """An opened index.

    Args:
        store: its reports.
        encoder: folder of the saved encoder.
        root: data root of its images.
        topic: of the answers that its reports are.
        splits: the splits that its reports come from.
        studies: images of up to `ROUTED` of its reports.
        embeddings: of these, unit vectors [n, width].
    """

    store: Store
    encoder: Path
    root: Path
    topic: str
    splits: tuple[str, ...]
    studies: tuple[tuple[ImageRef, ...], ...]
    embeddings: np.ndarray

    @classmethod
    def open(cls, folder: Path) -> Index:
        """Open what `save` wrote.

        Raises:
            RunError: there is none, a file is damaged, or the encoder has changed since.
        """
        about = runs.read_json(folder / ABOUT)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise RunError("this is no index of this version", where=str(folder / ABOUT))
        encoder = (folder / about["encoder"]["path"]).resolve()
        if fingerprint(encoder) != about["encoder"]["content"]:
            raise RunError(
                "the encoder of an index has changed since", where=str(encoder),
                expected=about["encoder"]["content"][:12], remedy="run the recipe again, from `index` on",
            )  # fmt: skip
        studies = tuple(tuple(ImageRef(**ref) for ref in study) for study in about["studies"])
        return cls(
            store=Store.open(folder / STORE), encoder=encoder, root=(folder / about["root"]).resolve(),
            topic=about["topic"], splits=tuple(about["splits"]), studies=studies,
            embeddings=load_file(folder / IMAGES)["images"],
        )  # fmt: skip


def save(
    work: Path,
    home: Path,
    *,
    encoder: Path,
    root: Path,
    studies: Sequence[Sequence[ImageRef]],
    embeddings: np.ndarray,
    facts: dict[str, Any],
) -> None:
    """Write everything of an index but its store.

    Args:
        work: the stage's work folder.
        home: where it will finally stand, for relative paths.
        encoder: folder of the saved encoder.
        root: data root of the images.
        studies: images of some of its reports.
        embeddings: of these, unit vectors [n, width].
        facts: `topic`, `splits`, and whatever else is worth telling.
    """
    save_file({"images": embeddings}, work / IMAGES)
    fields = ("path", "sha256", "kind", "when", "form")
    runs.write_json(
        work / ABOUT,
        {
            "format": FORMAT,
            "encoder": {"path": os.path.relpath(encoder, home), "content": fingerprint(encoder)},
            "root": os.path.relpath(root, home) if root.is_relative_to(home.parent) else str(root),
            **facts,
            "studies": [
                [{name: getattr(ref, name) for name in fields} for ref in study] for study in studies
            ],
        },
    )


def traces(indexes: Iterable[Index], samples: Iterable[Sample]) -> tuple[Traces, list[Traces]]:
    """Patients, images and normalised texts: those of some indexes together, and those of each sample."""
    held: Traces = {"patients": set(), "images": set(), "texts": set()}
    topics = set()
    for index in indexes:
        topics.add(index.topic)
        held["patients"] |= set(index.store.patients.values.to_pylist())
        held["images"] |= set(index.store.pictures.values.to_pylist())
        held["texts"] |= {normalise(text) for text in index.store.table["text"].to_pylist()}
    each: list[Traces] = [
        {
            "patients": {s.patient},
            "images": {ref.sha256 for ref in s.images},
            "texts": {normalise(text_of(s, topic)) for topic in topics},
        }
        for s in samples
    ]
    return held, each
