"""An encoder without weights to train, and reports with vectors: for tests of the index."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from sightline.images.transforms import Preprocess
from sightline.models.encoder import DualEncoder, EncoderFamily
from sightline.retrieval.report import Report, normalise

PICTURE = 8


class Bag(nn.Module):
    """Images as an 8 x 8 picture, texts as a hashed bag of words and of pairs of words."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.vision = nn.Conv2d(3, 1, 1, bias=False)
        self.text = nn.Embedding.from_pretrained(torch.eye(width))
        self.heads = nn.ParameterDict({"scale": nn.Parameter(torch.tensor(0.0))})
        nn.init.constant_(self.vision.weight, 1 / 3)

    def look(self, values: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(self.vision(values[None]), PICTURE).flatten(1)  # [1, 64]
        return nn.functional.pad(small, (0, self.width - PICTURE**2))

    def read(self, ids: Tensor) -> Tensor:
        return self.text(ids.clamp(min=0)).mul((ids >= 0)[..., None]).sum(1)  # [n, width]


def bag(text: str, width: int) -> list[int]:
    words = normalise(text).split()
    pairs = [f"{a} {b}" for a, b in pairwise(words)]
    return [int(hashlib.sha256(w.encode()).hexdigest(), 16) % width for w in words + pairs]


def encoder(width: int = PICTURE**2) -> DualEncoder:
    """The same whenever it is made."""

    def tokenize(texts: Sequence[str]) -> dict[str, Tensor]:
        bags = [bag(t, width) for t in texts]
        longest = max(map(len, bags))
        return {"input_ids": torch.tensor([b + [-1] * (longest - len(b)) for b in bags])}

    family = EncoderFamily(
        name="bag",
        parts={"vision": ("vision",), "text": ("text",), "heads": ("heads",)},
        compose=lambda section, seed: encoder(width),
        encode_images=lambda model, values, grids: [model.look(v) for v in values],
        pool=lambda model, features: torch.cat(features),
        encode_texts=lambda model, tokens: model.read(tokens["input_ids"]),
        scale=lambda model: (model.heads["scale"], None),
    )
    return DualEncoder(
        family=family,
        model=Bag(width).eval(),
        tokenize=tokenize,
        preprocess=Preprocess(size=32, mean=(0.0,) * 3, std=(1.0,) * 3),
        width=width,
    )


def rows(count: int, width: int = 32, seed: int = 0) -> np.ndarray:
    """Random unit vectors, float32 [count, width]."""
    made = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def report(number: int, **more: object) -> Report:
    """The report `r00007` of patient `p7`, whose words no other has."""
    given = {
        "id": f"r{number:05d}",
        "patient": f"p{number}",
        "split": "train",
        "text": f"Text number {number}.",
    }
    return Report(**{**given, **more})


def embedder(vectors: np.ndarray) -> Callable[[Sequence[Report]], np.ndarray]:
    """Reports to the vectors of their numbers."""
    return lambda part: np.stack([vectors[int(r.id[1:])] for r in part])
