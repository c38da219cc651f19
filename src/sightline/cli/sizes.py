"""Parameters and shapes of a model from its config alone, without torch: how large it will be before it is here.

What a `config.json` leaves out is its class's default in transformers; those of the kinds below are in `DEFAULTS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..settings import Patches

VIT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "mistral": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000,
    },
    "qwen2": {
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 151936,
    },
    "qwen3": {
        "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "head_dim": 128, "vocab_size": 151936,
    },
    "phi3": {
        "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32064,
    },
    "gemma2": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "tie_word_embeddings": True,
    },
    "gemma3_text": {
        "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208, "tie_word_embeddings": True,
    },
    "mllama_text_model": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 40, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "clip_vision_model": {**VIT, "image_size": 224, "patch_size": 32},
    "siglip_vision_model": {**VIT, "image_size": 224, "patch_size": 16},
    "dinov2": {**VIT, "image_size": 224, "patch_size": 14, "mlp_ratio": 4},
    "mllama_vision_model": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8,
        "attention_heads": 16, "image_size": 448, "patch_size": 14, "max_num_tiles": 4, "vision_output_dim": 7680,
    },
}  # fmt: skip
TEXTS = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text", "mllama_text_model")


@dataclass(frozen=True)
class Layer:
    """Widths of one layer.

    Args:
        width: of its input and output.
        query: of all query heads together.
        key: of all key heads together; values are as wide.
        inner: of the feed-forward part.
        gated: whether that has a second way in.
    """

    width: int
    query: int
    key: int
    inner: int
    gated: bool

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of its linear layers."""
        ways = 2 if self.gated else 1
        return (
            (self.width, self.query), (self.width, self.key), (self.width, self.key), (self.query, self.width),
            *[(self.width, self.inner)] * ways, (self.inner, self.width),
        )  # fmt: skip


@dataclass(frozen=True)
class Size:
    """How large a part is.

    Args:
        layer: its layers, all alike.
        layers: how many.
        around: parameters outside of them: embeddings, positions, head.
        vocabulary: words; 0 of an encoder.
        output: width of what an encoder hands on.
    """

    layer: Layer
    layers: int
    around: int
    vocabulary: int = 0
    output: int = 0

    @property
    def inside(self) -> int:
        """Weights of the linear layers."""
        return self.layers * sum(a * b for a, b in self.layer.linears)

    @property
    def weights(self) -> int:
        """All parameters; biases and norms, at most one in a thousand, are left out."""
        return self.inside + self.around

    def lora(self, rank: int, targets: str | tuple[str, ...] = "all-linear") -> int:
        """Parameters of adapters of this rank; of named kinds of layers, a share of all seven or six."""
        every = self.layer.linears
        whole = self.layers * rank * sum(a + b for a, b in every)
        return whole if isinstance(targets, str) else whole * min(len(targets), len(every)) // len(every)


def text(config: Mapping[str, Any]) -> Size | None:
    """A language model; None of a kind that is not known and leaves its sizes out."""
    full = DEFAULTS.get(str(config.get("model_type")), {}) | dict(config)
    if any(key not in full for key in DEFAULTS["llama"]):
        return None
    width, heads = full["hidden_size"], full["num_attention_heads"]
    each = full.get("head_dim") or width // heads
    keys = full.get("num_key_value_heads") or heads
    experts = full.get("num_local_experts") or full.get("num_experts") or 1
    layer = Layer(width, heads * each, keys * each, full["intermediate_size"] * experts, gated=True)
    tables = 1 if full.get("tie_word_embeddings", False) else 2
    return Size(layer, full["num_hidden_layers"], tables * full["vocab_size"] * width, full["vocab_size"])


def vision(config: Mapping[str, Any]) -> Size | None:
    """A vision transformer; None of another kind."""
    kind = str(config.get("model_type"))
    full = DEFAULTS.get(kind, {}) | dict(config)
    if kind == "mllama_vision_model":
        return _tiled(full)
    if any(key not in full for key in (*VIT, "image_size", "patch_size")) and "mlp_ratio" not in full:
        return None
    width, patch = full["hidden_size"], full["patch_size"]
    inner = int(width * full["mlp_ratio"]) if "mlp_ratio" in full else full["intermediate_size"]
    layer = Layer(width, width, width, inner, gated=False)
    around = 3 * patch**2 * width + (full["image_size"] // patch) ** 2 * width
    if kind == "siglip_vision_model" and full.get("vision_use_head", True):
        around += sum(a * b for a, b in layer.linears)  # its head, which pools by attention
    return Size(layer, full["num_hidden_layers"], around, output=width)


def _tiled(full: Mapping[str, Any]) -> Size:
    """Mllama's tower: layers for each tile, layers for all of them, and positions for every arrangement of tiles."""
    width, patches = full["hidden_size"], (full["image_size"] // full["patch_size"]) ** 2 + 1
    tiles = full["max_num_tiles"]
    arrangements = sum(tiles // rows for rows in range(1, tiles + 1)) + 1
    layer = Layer(width, width, width, full["intermediate_size"], gated=False)
    places = patches * width * (1 + arrangements * tiles) + 2 * arrangements * tiles * width
    layers = full["num_hidden_layers"] + full["num_global_layers"]
    return Size(layer, layers, places + 3 * full["patch_size"] ** 2 * width, output=full["vision_output_dim"])


def patches(wanted: Patches, width: int) -> int:
    """Weights of a patch embedding of volumes (UMBRELLA): a matrix, a bias and positions for each kind."""
    total = 0
    for kind in (wanted.t1, wanted.fmri):
        if kind is not None:
            up = 0 if kind.drop else 1
            grid = [(n + up * (p - 1)) // p for n, p in zip(kind.edges, kind.edges_of_patch, strict=True)]
            total += width * (prod(kind.edges_of_patch) + 1 + prod(grid))
    return total


def parts(source: str | Mapping[str, Any]) -> dict[str, Size]:
    """Sizes of the parts of a config or of a folder's `config.json`, by part: `language`, `vision` or both."""
    config: Mapping[str, Any] = source if isinstance(source, Mapping) else read(Path(source))
    found = {
        "language": text(config.get("text_config", {}) or config),
        "vision": vision(config.get("vision_config", {}) or config),
    }
    if "text_config" not in config and "vision_config" not in config:
        alone = "language" if "vocab_size" in config or config.get("model_type") in TEXTS else "vision"
        found = {alone: found[alone]}
    return {name: size for name, size in found.items() if size is not None}


def read(folder: Path) -> dict[str, Any]:
    """A folder's `config.json`; empty where there is none."""
    place = folder / "config.json"
    return dict(json.loads(place.read_text(encoding="utf-8"))) if place.is_file() else {}
