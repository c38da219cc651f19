"""CLIP, opened from its folder.

Radford et al. 2021 (arXiv 2103.00020); code: `CLIPModel` of transformers. It has no bias: one is a matter of the
SigLIP loss, for whoever trains with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPModel

from .. import stock
from ..encoder import DualEncoder, EncoderFamily, Tokens
from ..family import Grid
from . import opened

HINTS = {"siglip": "say `encoder: siglip`"}


def compose(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """Open a CLIP folder (`path`), its images in another `size` if asked.

    Raises:
        ModelError: no path, or no complete CLIP.
    """
    place = opened.folder(section, "clip", "CLIP", HINTS)
    model = stock.weights(CLIPModel, place, "CLIP").eval()
    own = model.config.vision_config
    edge, size = own.image_size, opened.wanted(section, own.image_size, own.patch_size)
    if size != edge:
        opened.resize(model.vision_model.embeddings, size, leading=1)
    length = model.config.text_config.max_position_embeddings
    return DualEncoder(
        family=ENCODER,
        model=model,
        tokenize=opened.words(place, length),
        preprocess=opened.processor(place, edge, size),
        width=model.config.projection_dim,
        base={"encoder": dict(section), "seed": seed},
    )


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Pixels [3, S, S] each -> normed class tokens [hidden] each, before the projection."""
    return list(model.vision_model(torch.stack(images)).pooler_output.unbind())


def pool(model: nn.Module, features: list[Tensor]) -> Tensor:
    """[hidden] each -> [n, width]."""
    made: Tensor = model.visual_projection(torch.stack(features))
    return made


def encode_texts(model: nn.Module, tokens: Tokens) -> Tensor:
    """Tokens [n, T] -> the normed state at the end of each text [n, hidden], before the projection."""
    made: Tensor = model.text_model(**tokens).pooler_output
    return made


def pool_texts(model: nn.Module, features: Tensor) -> Tensor:
    """[n, hidden] -> [n, width]."""
    made: Tensor = model.text_projection(features)
    return made


def scale(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Logarithm of the factor []; no bias."""
    return model.logit_scale, None


ENCODER = EncoderFamily(
    name="clip",
    parts={
        "vision": ("vision_model",),
        "text": ("text_model",),
        "heads": ("visual_projection", "text_projection", "logit_scale"),
    },
    compose=compose,
    encode_images=encode_images,
    pool=pool,
    encode_texts=encode_texts,
    pool_texts=pool_texts,
    scale=scale,
    layer=lambda model: "class token",
)
