"""SigLIP and SigLIP 2 of fixed resolution, opened from their folders, or new ones of configs.

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
from transformers import AutoTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

from ...errors import ModelError
from .. import stock
from ..encoder import DualEncoder, EncoderFamily, Tokens
from ..family import Grid
from ..languages import tokenizer_folder
from . import opened

NO_ENDS = {"bos_token_id": None, "eos_token_id": None}  # the defaults are those of another vocabulary
HINTS = {
    "siglip2": "NaFlex checkpoints of SigLIP 2 are not opened; take one of fixed resolution, such as "
    "siglip2-base-patch16-256",
    "clip": "say `encoder: clip`",
}


def compose(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """Open a SigLIP folder (`path`), its images in another `size` if asked; or make one of configs.

    Raises:
        ModelError: no path and no configs, no complete SigLIP, or one of variable resolution.
    """
    if section.get("vision") and not section.get("path"):
        return _new(section, seed)
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


def _new(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """A small one with random weights, a function of the seed, of the configs `vision` and `text`.

    Raises:
        ModelError: no tokenizer, one with more words than the text tower, or towers of different widths.
    """
    text = dict(section["text"])
    place = tokenizer_folder(text, "model.text")
    tokenizer = opened.read(
        AutoTokenizer, place, "tokenizer", model_input_names=["input_ids"]
    )  # no mask, as published
    plain = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, **NO_ENDS, **text}
    config = SiglipConfig(
        text_config={k: v for k, v in plain.items() if k not in ("tokenizer", "model_type")},
        vision_config={k: v for k, v in section["vision"].items() if k != "model_type"},
    )
    own, words = config.vision_config, config.text_config
    if len(tokenizer) > words.vocab_size or words.projection_size != own.hidden_size:
        raise ModelError(
            "these two towers do not fit", where="model.vision, model.text",
            found=f"{len(tokenizer)} words, {words.vocab_size} in the text tower; its output {words.projection_size} "
            f"wide, that of the vision tower {own.hidden_size}",
            expected="a vocab_size that holds the tokenizer, and equal widths (`hidden_size`, or `projection_size`)",
        )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SiglipModel(config).eval()
    edge = {"height": own.image_size, "width": own.image_size}
    return DualEncoder(
        family=ENCODER,
        model=model,
        tokenize=opened.Words(tokenizer, words.max_position_embeddings, padding="max_length", lower=True),
        preprocess=opened.Square(SiglipImageProcessor(size=edge)),
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
