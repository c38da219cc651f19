"""A tiny LLaVA-NeXT as a stock folder: random weights, tiles of 28 px."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
)

import models
from sightline.models import checkpoint
from sightline.models.family import Bundle

PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def write(folder: Path) -> Path:
    """Model, tokenizer and processor."""
    tokenizer = models.bytes_tokenizer()
    vision = {k: v for k, v in models.CLIP.items() if k != "model_type"}
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**vision),
        text_config=models.llama(len(tokenizer)),
        image_token_id=models.CONTROL.index("<empty_output>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    model = LlavaNextForConditionalGeneration(config)
    models.stir([model.model.image_newline], seed=5, size=0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    LlavaNextImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS
    ).save_pretrained(folder)
    return folder


def bundle(language: Path) -> Bundle:
    """The same, opened; `language` only says where there is room."""
    place = write(language.parent / "llava_next")
    return checkpoint.compose({"family": "llava_next", "path": str(place), "system": ""}, 0)
