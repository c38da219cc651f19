"""How near each answer is to its image, to the encoder that a `contrast` stage tuned; kept beside the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..judging import Side
from ..metrics.measure import written
from ..metrics.similarity import RIGHT, SAID
from ..models.checkpoint import folder_of
from ..models.encoder_checkpoint import load_encoder
from ..retrieval import embed
from ..types import Prediction, Sample

REPORT = "report"
CLEAN = "clean"


def compared(
    made: Mapping[Side, Sequence[Prediction]],
    samples: Sequence[Sample],
    root: Path,
    place: Path,
    features: Path,
) -> dict[Side, list[Prediction]]:
    """Answers to clean images with their similarities: reports, or open answers where there are none.

    Args:
        made: answers of every side; the others stay as they are.
        samples: what was asked.
        root: data root of the images.
        place: folder of the saved encoder, or of its stage.
        features: where features of its tower are kept.
    """
    known = {s.id: s.images for s in samples}
    chosen = {side: written(each, REPORT) for side, each in made.items() if side[1] == CLEAN}
    ids = sorted({p.sample for each in chosen.values() for p in each})
    if not ids:
        return {side: list(each) for side, each in made.items()}
    encoder = load_encoder(folder_of(place))
    seen = embed.pictures(encoder, root, features)([known[name] for name in ids])  # [n, width]
    texts = sorted({text for each in chosen.values() for p in each for text in (p.text, p.answer)})
    read = embed.texts(encoder, texts)  # [m, width]
    image, text = dict(zip(ids, seen, strict=True)), dict(zip(texts, read, strict=True))

    def near(turn: Prediction, words: str) -> str:
        return f"{float(np.dot(image[turn.sample], text[words])):.6f}"

    out: dict[Side, list[Prediction]] = {}
    for side, each in made.items():
        told = {(p.sample, p.turn) for p in chosen.get(side, ())}
        out[side] = [
            replace(p, attributes={**p.attributes, SAID: near(p, p.text), RIGHT: near(p, p.answer)})
            if (p.sample, p.turn) in told
            else p
            for p in each
        ]
    return out
