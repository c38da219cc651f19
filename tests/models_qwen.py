"""A tiny Qwen2.5-VL and a tiny Qwen3-VL as stock folders: random weights, patches of 4 px, tokens of 8 px."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

import models
from sightline.models import checkpoint
from sightline.models.family import Bundle

MARKS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
TAPS = [0, 1]


def tokenizer() -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with the marks of images and videos."""
    made = models.bytes_tokenizer()
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return made


def _settings(words: PreTrainedTokenizerFast, **language: Any) -> dict[str, Any]:
    """What both configs say: 32 wide, three layers, heads of 16, eight of whose angles are 4 + 2 + 2."""
    start, end, image, video = words.convert_tokens_to_ids(list(MARKS))
    vision = {
        "depth": 3, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 32, "initializer_range": 0.3,
    }  # fmt: skip
    text = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 1024,
        "initializer_range": 0.3, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0, **language,
    }  # fmt: skip
    ids = {"vision_start_token_id": start, "vision_end_token_id": end}
    return {"vision": vision, "text": text, "ids": {**ids, "image_token_id": image, "video_token_id": video}}


def _save(model: Any, words: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    Qwen2VLImageProcessor(
        patch_size=4, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 256, "longest_edge": 4096}
    ).save_pretrained(folder)
    return folder


def write_2_5(folder: Path, **language: Any) -> Path:
    """Qwen2.5-VL: windows of 2 x 2 tokens in the first and the last layer of the tower."""
    words = tokenizer()
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
    made = _settings(words, rope_parameters=rope, **language)
    vision = {**made["vision"], "window_size": 16, "fullatt_block_indexes": [1]}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(vision_config=vision, text_config=made["text"], **made["ids"])
    return _save(Qwen2_5_VLForConditionalGeneration(config), words, folder)


def write_3(folder: Path, **language: Any) -> Path:
    """Qwen3-VL: the first two layers of the tower are shown to the first two of the language model."""
    words = tokenizer()
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [4, 2, 2],
        "mrope_interleaved": True,
    }
    made = _settings(words, rope_parameters=rope, head_dim=16, **language)
    vision = {**made["vision"], "num_position_embeddings": 36, "deepstack_visual_indexes": TAPS}
    torch.manual_seed(0)
    config = Qwen3VLConfig(vision_config=vision, text_config=made["text"], **made["ids"])
    return _save(Qwen3VLForConditionalGeneration(config), words, folder)


def qwen2_5_vl(language: Path) -> Bundle:
    """The first, opened; `language` only says where there is room."""
    place = write_2_5(language.parent / "qwen2_5_vl")
    return checkpoint.compose({"family": "qwen2_5_vl", "path": str(place), "system": ""}, 0)


def qwen3_vl(language: Path) -> Bundle:
    """The second, opened."""
    place = write_3(language.parent / "qwen3_vl")
    return checkpoint.compose({"family": "qwen3_vl", "path": str(place), "system": ""}, 0)
