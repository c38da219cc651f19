"""Embeddings of texts and of studies' images, by a frozen encoder whose tower's features are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ..models.encoder import DualEncoder
from ..models.features import Features
from ..models.passing import Passing
from ..models.readings import read
from ..types import ImageRef, View

BATCH = 64

Pictures = Callable[[Sequence[Sequence[ImageRef]]], np.ndarray]


def texts(encoder: DualEncoder, said: Sequence[str]) -> np.ndarray:
    """Unit embeddings of texts, float32 [n, width]; equal texts are read once."""
    found = read(encoder, said)
    if found is None:
        return np.empty((0, encoder.width), dtype=np.float32)
    with torch.inference_mode():
        made: np.ndarray = encoder.pool_texts(found(said)).cpu().numpy()
    return made


def pictures(
    encoder: DualEncoder, root: Path, folder: Path | None, held: Mapping[str, np.ndarray] | None = None
) -> Pictures:
    """What embeds studies: lists of images to unit embeddings, float32 [n, width].

    A study is the mean of its images' embeddings, scaled to length 1; earlier studies' images are left out, unless
    there are no others. (MMed-RAG takes the first image alone.)

    Args:
        encoder: a frozen one.
        root: data root of the images.
        folder: where features of the tower are kept; None keeps nothing.
        held: pixels [H, W, 3] by path, of images that are in no file; only where nothing is kept.
    """
    look = Passing(encoder, root, held=held or {}) if folder is None else Features(encoder, root, folder)
    known: dict[tuple[str, ...], np.ndarray] = {}

    def embed(studies: Sequence[Sequence[ImageRef]]) -> np.ndarray:
        shown = [_shown(study) for study in studies]
        todo = list({v.sight: v for views in shown for v in views if v.sight not in known}.values())
        look.prepare(todo, what="images to search with")
        with torch.inference_mode():
            for part in (todo[i : i + BATCH] for i in range(0, len(todo), BATCH)):
                made = encoder.images([look(view).values for view in part]).cpu().numpy()  # [batch, width]
                known.update({view.sight: row for view, row in zip(part, made, strict=True)})
        return np.stack([_mean([known[v.sight] for v in views]) for views in shown])  # [n, width]

    return embed


def _shown(study: Sequence[ImageRef]) -> list[View]:
    current = [ref for ref in study if ref.when == "current"]
    return [View(ref, ref.path) for ref in current or study]


def _mean(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of unit vectors as a unit vector; the first, where they cancel each other out."""
    mean: np.ndarray = np.asarray(rows, dtype=np.float64).sum(axis=0)
    length = float(np.linalg.norm(mean))
    return rows[0] if length < 1e-6 else (mean / length).astype(np.float32)
