"""A toy image-text encoder: a linear tower, a bag of letters, two heads. It is also a plug-in of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sightline.models.encoder import DualEncoder, EncoderFamily
from sightline.models.family import Grid
from sightline.train.captions import Captioned
from sightline.types import ImageRef, View

EDGE, HIDDEN, LONGEST = 8, 12, 200


class Net(nn.Module):
    """Both towers, both heads, the temperature and the bias."""

    def __init__(self, width: int, *, bias: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.vision = nn.Sequential(nn.Linear(3 * EDGE * EDGE, HIDDEN), nn.Tanh(), nn.Dropout(dropout))
        self.text = nn.Embedding(128, HIDDEN)
        self.image_head = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, width))
        self.text_head = nn.Linear(HIDDEN, width)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))
        self.logit_bias = nn.Parameter(torch.tensor(-1.0)) if bias else None


class Shrink:
    """A picture as the means of 8 x 8 fields."""

    def __call__(self, image: np.ndarray) -> Tensor:
        high, wide = image.shape[0] // EDGE * EDGE, image.shape[1] // EDGE * EDGE
        cells = image[:high, :wide].reshape(EDGE, high // EDGE, EDGE, wide // EDGE, 3).mean(axis=(1, 3))
        return torch.from_numpy(cells.astype(np.float32)).permute(2, 0, 1)

    def grid(self, height: int, width: int) -> Grid:
        return ()

    def key(self) -> str:
        return "shrink.1"


def tokenize(texts: Sequence[str]) -> dict[str, Tensor]:
    """Letters, 0 behind them."""
    rows = [[ord(c) % 128 or 1 for c in text[:LONGEST]] for text in texts]
    longest = max(map(len, rows))
    return {"input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows])}


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    return list(model.vision(torch.stack(images).flatten(1)).unbind())


def pool(model: nn.Module, features: list[Tensor]) -> Tensor:
    return model.image_head(torch.stack(features))


def encode_texts(model: nn.Module, tokens: Mapping[str, Tensor]) -> Tensor:
    ids = tokens["input_ids"]
    shown = (ids > 0).unsqueeze(-1).to(model.text.weight.dtype)
    return (model.text(ids) * shown).sum(1) / shown.sum(1)


def pool_texts(model: nn.Module, features: Tensor) -> Tensor:
    return model.text_head(features)


def toy(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """Compose it; `name: unbiased` leaves the bias out."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Net(section["width"], bias=section.get("name") != "unbiased")
    return DualEncoder(
        family=ENCODER,
        model=model.eval(),
        tokenize=tokenize,
        preprocess=Shrink(),
        width=section["width"],
        base={"encoder": dict(section), "seed": seed},
    )


def pairs(count: int) -> list[Captioned]:
    """Rows without pictures behind them."""
    return [
        Captioned(
            f"s{i:02d}", 0, f"p{i // 2}", "", View(ImageRef(path=f"{i}.png"), f"s{i:02d}"), f"Report {i * i}."
        )
        for i in range(count)
    ]


def batch(count: int, *, given: str = "pixels", dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """A collated batch of random pictures (or features) with the texts of `pairs`."""
    draw = torch.Generator().manual_seed(7)
    shape = (3, EDGE, EDGE) if given == "pixels" else (HIDDEN,)
    rows = pairs(count)
    return {
        "images": [torch.randn(shape, generator=draw).to(dtype) for _ in rows],
        "grids": [()] * count,
        "tokens": tokenize([row.text for row in rows]),
        "keys": torch.tensor([row.keys for row in rows]),
        "ids": [row.id for row in rows],
    }


ENCODER = EncoderFamily(
    name="toy",
    parts={
        "vision": ("vision",),
        "text": ("text",),
        "heads": ("image_head", "text_head", "logit_scale", "logit_bias"),
    },
    compose=toy,
    encode_images=encode_images,
    pool=pool,
    encode_texts=encode_texts,
    pool_texts=pool_texts,
    scale=lambda model: (model.logit_scale, model.logit_bias),
)
