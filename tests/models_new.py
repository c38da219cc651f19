"""Configs of new models with random weights, as the tiny recipes have them; the tokenizer is that of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LAYERS = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
CLIP = {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **LAYERS}


def siglip(language: Path) -> dict[str, Any]:
    """A recipe's `model` section of a `contrast` stage."""
    return {
        "encoder": "siglip",
        "vision": {**LAYERS, "image_size": 28, "patch_size": 14},
        "text": {**LAYERS, "max_position_embeddings": 16, "tokenizer": str(language)},
    }


def mllama(language: Path, **text: Any) -> dict[str, Any]:
    """A recipe's `model` section: three layers, the second of cross-attention; up to 4 tiles of 4 patches."""
    return {
        "family": "mllama",
        "vision": {
            "model_type": "mllama_vision_model",
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
            "intermediate_layers_indices": [0, 1],
        },
        "language": {
            "model_type": "mllama_text_model",
            "tokenizer": str(language),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "cross_attention_layers": [1],
            "initializer_range": 0.3,
            **text,
        },
    }


def llava_next(language: Path, **more: Any) -> dict[str, Any]:
    """A recipe's `model` section: tiles of 28 px with 4 patches, a tiny Llama of a folder."""
    return {"family": "llava_next", "vision": CLIP, "language": str(language), "select_layer": -2, **more}
