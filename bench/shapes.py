"""The sizes that `align.py` measures: real models, and the same with everything shrunk alike.

    shape      of the real model                                  scaled down
    llava15    CLIP-L/336: 24 layers, 1024 wide, 576 tokens       6 layers, 128 wide, 64 tokens
               Llama 7B: 32 layers, 4096 wide, 32064 words        8 layers, 512 wide, 1008 words
               prompt 576 + 60, answers 128, LoRA rank 128        prompt 64 + 7, answers 14, rank 16
    llava16    the same on 672 x 504: 5 tiles, 2340 tokens        5 tiles, 268 tokens
    siglip05   SigLIP-so400m-384: 27 layers, 1152 wide, 729       7 layers, 288 wide, 169 tokens
               Qwen1.5 0.5B: 24 layers, 1024 wide, 152000 words   6 layers, 256 wide, 9500 words
               prompt 729 + 60, answers 128, LoRA rank 32         prompt 169 + 14, answers 30, rank 8
    medgemma   SigLIP-896: 4096 patches pooled to 256 tokens      576 patches pooled to 36 tokens, 160 wide
               Gemma 3 4B: 34 layers, 2560 wide, 262208 words     9 layers, 360 wide, 9752 words
               prompt 256 + 60, answers 128, LoRA rank 64         prompt 36 + 12, answers 18, rank 9
    tiny, tiny-tiles, tiny-gemma                                  2 layers each, to see that everything runs

Tokens and widths shrink together, so that what the ratios rest on stays: prompt to answer, image to text, the tower's
work to the language model's, attention's share, the head's share. `proportions` computes them for both columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of one model and of its rows.

    Args:
        family: which of Sightline's families it is.
        vision, language: configs of transformers.
        picture: height and width of every picture, in pixels.
        tiles: how many squares the tower sees of a picture.
        image: image tokens of a picture.
        text: tokens of the prompt beside those of the image.
        answer: tokens of an answer, its end token counted.
        rank: of LoRA on the language model.
        layer, select: which of the tower's states are used, and whether the class token is dropped (LLaVA's).
    """

    family: Literal["llava", "llava_next", "gemma3"] = "llava"
    vision: Mapping[str, Any]
    language: Mapping[str, Any]
    picture: tuple[int, int]
    tiles: int = 1
    image: int
    text: int
    answer: int
    rank: int
    layer: int = -1
    select: str = "full"

    @property
    def has_class(self) -> bool:
        """Whether the tower has a class token."""
        return bool(self.vision["model_type"] == "clip_vision_model")

    @property
    def side(self) -> int:
        """What the tower sees, in pixels."""
        return int(self.vision["image_size"])

    @property
    def row(self) -> int:
        """Tokens of a prompt with its image and one answer."""
        return self.image + self.text + self.answer


def tower(kind: str, side: int, wide: int, inner: int, layers: int, heads: int) -> dict[str, Any]:
    """The config of a vision tower with patches of 14."""
    more = {"projection_dim": wide} if kind == "clip" else {"vision_use_head": False}
    return {
        "model_type": f"{kind}_vision_model", "image_size": side, "patch_size": 14, "hidden_size": wide,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads, **more,
    }  # fmt: skip


def words(kind: str, wide: int, inner: int, layers: int, heads: int, vocabulary: int) -> dict[str, Any]:
    """The config of a language model; Qwen's ties its head to its embeddings."""
    return {
        "model_type": kind, "hidden_size": wide, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": heads, "vocab_size": vocabulary,
        "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": 3, "pad_token_id": 0,
        "tie_word_embeddings": kind == "qwen2",
    }  # fmt: skip


def gemma(wide: int, inner: int, layers: int, heads: int, each: int, vocabulary: int) -> dict[str, Any]:
    """The config of Gemma 3's language model: half as many keys as queries, one layer in six without a window."""
    return {
        **words("gemma3_text", wide, inner, layers, heads, vocabulary), "num_key_value_heads": heads // 2,
        "head_dim": each, "query_pre_attn_scalar": each, "sliding_window": 1024, "tie_word_embeddings": True,
    }  # fmt: skip


CLIP, LLAMA = tower("clip", 336, 1024, 4096, 24, 16), words("llama", 4096, 11008, 32, 32, 32064)
SMALL_CLIP, SMALL_LLAMA = tower("clip", 112, 128, 512, 6, 2), words("llama", 512, 1376, 8, 4, 1008)
TINY_CLIP, TINY_LLAMA = tower("clip", 28, 16, 32, 2, 2), words("llama", 32, 64, 2, 2, 64)
REAL = {
    "llava15": Shape(
        vision=CLIP, language=LLAMA, layer=-2, select="default", picture=(336, 336), image=576,
        text=60, answer=128, rank=128,
    ),
    "llava16": Shape(
        family="llava_next", vision=CLIP, language=LLAMA, layer=-2, select="default", picture=(504, 672),
        tiles=5, image=2340, text=60, answer=128, rank=128,
    ),
    "siglip05": Shape(
        vision=tower("siglip", 384, 1152, 4304, 27, 16), language=words("qwen2", 1024, 2816, 24, 16, 152000),
        picture=(384, 384), image=729, text=60, answer=128, rank=32,
    ),
    "medgemma": Shape(
        family="gemma3", vision=tower("siglip", 896, 1152, 4304, 27, 16),
        language=gemma(2560, 10240, 34, 8, 256, 262208), picture=(896, 896), image=256,
        text=60, answer=128, rank=64,
    ),
}  # fmt: skip
SCALED = {
    "llava15": Shape(
        vision=SMALL_CLIP, language=SMALL_LLAMA, layer=-2, select="default", picture=(112, 112), image=64,
        text=7, answer=14, rank=16,
    ),
    "llava16": Shape(
        family="llava_next", vision=SMALL_CLIP, language=SMALL_LLAMA, layer=-2, select="default",
        picture=(168, 224), tiles=5, image=268, text=7, answer=14, rank=16,
    ),
    "siglip05": Shape(
        vision=tower("siglip", 182, 288, 1076, 7, 4), language=words("qwen2", 256, 704, 6, 4, 9500),
        picture=(182, 182), image=169, text=14, answer=30, rank=8,
    ),
    "medgemma": Shape(
        family="gemma3", vision=tower("siglip", 336, 160, 600, 7, 4),
        language=gemma(360, 1440, 9, 8, 36, 9752), picture=(336, 336), image=36, text=12, answer=18, rank=9,
    ),
    "tiny": Shape(
        vision=TINY_CLIP, language=TINY_LLAMA, layer=-2, select="default", picture=(28, 28), image=4,
        text=8, answer=6, rank=2,
    ),
    "tiny-tiles": Shape(
        family="llava_next", vision=TINY_CLIP, language=TINY_LLAMA, layer=-2, select="default",
        picture=(42, 56), tiles=5, image=24, text=8, answer=6, rank=2,
    ),
    "tiny-gemma": Shape(
        family="gemma3", vision=tower("siglip", 56, 16, 32, 2, 2), language=gemma(32, 64, 2, 2, 16, 64),
        picture=(56, 56), image=4, text=11, answer=6, rank=2,
    ),
}  # fmt: skip


def proportions(shape: Shape) -> dict[str, float]:
    """What a scaled shape keeps of the real one, from matrix products of one forward pass."""

    def layers(of: Mapping[str, Any], tokens: int, gates: int) -> tuple[float, float]:
        wide, deep, heads = of["hidden_size"], of["num_hidden_layers"], of["num_attention_heads"]
        each = of.get("head_dim", wide // heads)
        queries, keys = heads * each, of.get("num_key_value_heads", heads) * each
        flat = 2 * tokens * deep * (2 * wide * (queries + keys) + gates * wide * of["intermediate_size"])
        return flat, 4 * tokens**2 * deep * queries

    flat, attention = layers(shape.language, shape.row, 3)
    patches = (shape.side // shape.vision["patch_size"]) ** 2
    seen = shape.tiles * sum(layers(shape.vision, patches + shape.has_class, 2))
    head = 2 * shape.row * shape.language["hidden_size"] * shape.language["vocab_size"]
    return {
        "prompt / answer": (shape.image + shape.text) / shape.answer,
        "image / prompt": shape.image / (shape.image + shape.text),
        "tower / language": seen / (flat + attention),
        "attention / language": attention / (flat + attention),
        "head / language": head / (flat + attention),
    }
