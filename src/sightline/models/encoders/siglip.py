"""SigLIP and SigLIP 2 of fixed resolution, opened from their folders.

Zhai et al. 2023 (arXiv 2303.15343), Tschannen et al. 2025 (arXiv 2502.14786); code: `SiglipModel` of transformers.
Texts are padded to the length that the tower was trained with: it reads the last position, padding or not, and
without a mask (transformers, pull request 26522). SigLIP 2 was trained on small letters (pull request 43101); the
tokenizer of the first SigLIP makes them anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipModel

from .. import stock
from ..encoder import DualEncoder, EncoderFamily, Tokens
from ..family import Grid
from . import opened

HINTS = {
    "siglip2": "NaFlex checkpoints of SigLIP 2 are not opened; take one of fixed resolution, such as "
    "siglip2-base-patch16-256",
    "clip": "say `encoder: clip`",
}


def compose(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """Open a SigLIP folder (`path`), its images in another `size` if asked.

    Raises:
        ModelError: no path, no complete SigLIP, or one of variable resolution.
    """
    place = opened.folder(section, "siglip", "SigLIP", HINTS)
    model = stock.weights(SiglipModel, place, "SigLIP").eval()
    own = model.config.vision_config
    edge, size = own.image_size, opened.wanted(section, own.image_size, own.patch_size)
    if size != edge:
        opened.resize(model.vision_model.embeddings, size, leading=0)
    length = model.config.text_config.max_position_embeddings
    return DualEncoder(
        family=ENCODER,
        model=model,
        tokenize=opened.words(place, length, padding="max_length", lower=True),
        preprocess=opened.processor(place, edge, size),
        width=own.hidden_size,
        base={"encoder": dict(section), "seed": seed},
    )


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Pixels [3, S, S] each -> pooled outputs of the tower [width] each; the pooling is part of the tower."""
    return list(model.vision_model(torch.stack(images)).pooler_output.unbind())


def pool(model: nn.Module, features: list[Tensor]) -> Tensor:
    """[width] each -> [n, width]: there is no projection."""
    return torch.stack(features)


def encode_texts(model: nn.Module, tokens: Tokens) -> Tensor:
    """Tokens [n, T] -> [n, width]; the last layer is part of the tower."""
    made: Tensor = model.text_model(**tokens).pooler_output
    return made


def scale(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Logarithm of the factor, and the bias; [1] each."""
    return model.logit_scale, model.logit_bias


ENCODER = EncoderFamily(
    name="siglip",
    parts={
        "vision": ("vision_model",),
        "text": ("text_model",),
        "heads": ("logit_scale", "logit_bias"),
    },
    compose=compose,
    encode_images=encode_images,
    pool=pool,
    encode_texts=encode_texts,
    scale=scale,
    layer=lambda model: "pooled",
)
