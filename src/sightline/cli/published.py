"""Sizes of published models that recipes name, for folders that are not here yet: what their `config.json` says.

A folder is known by its last name, which is that of the model on the hub. What stands in the folder goes before.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLIP_L_336: dict[str, Any] = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
SIGLIP_SO400M: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    # microsoft, epfl-llm
    "rad-dino": {"model_type": "dinov2", "image_size": 518},
    "meditron-7b": {"model_type": "llama", "vocab_size": 32017},
    # llava-hf
    "llava-1.5-7b-hf": {
        "text_config": {"model_type": "llama", "vocab_size": 32064}, "vision_config": CLIP_L_336,
    },
    "llava-v1.6-mistral-7b-hf": {
        "text_config": {"model_type": "mistral", "vocab_size": 32064}, "vision_config": CLIP_L_336,
    },
    "llava-interleave-qwen-0.5b-hf": {
        "text_config": {
            "model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 24,
            "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 152000, "tie_word_embeddings": True,
        },
        "vision_config": {**SIGLIP_SO400M, "num_hidden_layers": 26, "vision_use_head": False},
    },
    # meta-llama
    "Llama-3.2-11B-Vision-Instruct": {
        "text_config": {"model_type": "mllama_text_model"},
        "vision_config": {"model_type": "mllama_vision_model", "image_size": 560},
    },
}  # fmt: skip


def config(source: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """The config of a published model whose folder is not here; anything else as it is."""
    if isinstance(source, Mapping) or Path(source).is_dir():
        return source
    return CONFIGS.get(Path(source).name, source)
