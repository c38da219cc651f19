"""What `align.py` measures on: sizes of models, and random weights, pictures and pairs of that size.

    shape      of the real model                                  scaled down
    llava15    CLIP-L/336: 24 layers, 1024 wide, 576 tokens       6 layers, 128 wide, 64 tokens
               Llama 7B: 32 layers, 4096 wide, 32064 words        8 layers, 512 wide, 1008 words
               prompt 576 + 60, answers 128, LoRA rank 128        prompt 64 + 7, answers 14, rank 16
    siglip05   SigLIP-so400m-384: 27 layers, 1152 wide, 729       7 layers, 288 wide, 169 tokens
               Qwen1.5 0.5B: 24 layers, 1024 wide, 152000 words   6 layers, 256 wide, 9500 words
               prompt 729 + 60, answers 128, LoRA rank 32         prompt 169 + 14, answers 30, rank 8
    tiny       (to see that everything runs)                      2 layers each, 4 image tokens

Tokens and widths shrink together, so that what the ratios rest on stays: prompt to answer, image to text, the tower's
work to the language model's, attention's share, the head's share. `proportions` computes them for both columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import AutoModelForImageTextToText, LlavaConfig, PreTrainedTokenizerFast

from sightline import runs
from sightline.data.chat import Chat
from sightline.data.collate import Pair
from sightline.data.rows import encode_pairs
from sightline.images.transforms import Preprocess
from sightline.models.families.llava import FAMILY
from sightline.models.family import Bundle
from sightline.types import ImageRef, Message, Preference

CONTROL = ("<pad>", "<user>", "<assistant>", "<end>", "<image>")
OTHERS = ("\n", "?unknown?")
# One template for both: Sightline gives plain strings, TRL gives lists of parts.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<user>{% else %}<assistant>{% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}{{ '<image>\n' }}{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of one model and of its rows.

    Args:
        vision, language: configs of transformers.
        layer, select: which of the tower's states are used, and whether the class token is dropped.
        text: tokens of the prompt beside those of the image.
        answer: tokens of an answer, its end token counted.
        rank: of LoRA on the language model.
    """

    vision: Mapping[str, Any]
    language: Mapping[str, Any]
    layer: int
    select: str
    text: int
    answer: int
    rank: int

    @property
    def image(self) -> int:
        """Image tokens."""
        return int((self.vision["image_size"] // self.vision["patch_size"]) ** 2)

    @property
    def has_class(self) -> bool:
        """Whether the tower has a class token."""
        return self.vision["model_type"] == "clip_vision_model"

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


REAL = {
    "llava15": Shape(
        vision=tower("clip", 336, 1024, 4096, 24, 16), language=words("llama", 4096, 11008, 32, 32, 32064),
        layer=-2, select="default", text=60, answer=128, rank=128,
    ),
    "siglip05": Shape(
        vision=tower("siglip", 384, 1152, 4304, 27, 16), language=words("qwen2", 1024, 2816, 24, 16, 152000),
        layer=-1, select="full", text=60, answer=128, rank=32,
    ),
}  # fmt: skip
SCALED = {
    "llava15": Shape(
        vision=tower("clip", 112, 128, 512, 6, 2), language=words("llama", 512, 1376, 8, 4, 1008),
        layer=-2, select="default", text=7, answer=14, rank=16,
    ),
    "siglip05": Shape(
        vision=tower("siglip", 182, 288, 1076, 7, 4), language=words("qwen2", 256, 704, 6, 4, 9500),
        layer=-1, select="full", text=14, answer=30, rank=8,
    ),
    "tiny": Shape(
        vision=tower("clip", 28, 16, 32, 2, 2), language=words("llama", 32, 64, 2, 2, 64),
        layer=-2, select="default", text=8, answer=6, rank=2,
    ),
}  # fmt: skip
# Shapes whose model family does not exist yet: give them sizes above once it does.
ABSENT = {
    "llava16": "any-resolution LLaVA-1.6-7B (5 tiles, 2340 image tokens) needs a family for tiled images",
    "medgemma": "MedGemma-4B (SigLIP-896, 256 image tokens) needs a family for Gemma 3",
}


def proportions(shape: Shape) -> dict[str, float]:
    """What a scaled shape keeps of the real one, from matrix products of one forward pass."""

    def layers(of: Mapping[str, Any], tokens: int, gates: int) -> tuple[float, float]:
        wide, deep = of["hidden_size"], of["num_hidden_layers"]
        flat = 2 * tokens * deep * (4 * wide**2 + gates * wide * of["intermediate_size"])
        return flat, 4 * tokens**2 * deep * wide

    flat, attention = layers(shape.language, shape.row, 3)
    seen = sum(layers(shape.vision, shape.image + shape.has_class, 2))
    head = 2 * shape.row * shape.language["hidden_size"] * shape.language["vocab_size"]
    return {
        "prompt / answer": (shape.image + shape.text) / shape.answer,
        "image / prompt": shape.image / (shape.image + shape.text),
        "tower / language": seen / (flat + attention),
        "attention / language": attention / (flat + attention),
        "head / language": head / (flat + attention),
    }


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all contenders stand on.

    Args:
        shape: sizes.
        count: how many pairs there are, each with a picture of its own.
        batch: pairs in a step.
        checkpointing: whether layers are computed again in the backward pass.
        device, dtype: where and how precisely.
        work: an empty folder.
    """

    shape: Shape
    count: int
    batch: int
    checkpointing: bool
    device: str
    dtype: torch.dtype
    work: Path
    tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokenizer", vocabulary(self.shape.language["vocab_size"]))

    @property
    def root(self) -> Path:
        """Where the pictures are."""
        return self.work / "images"

    @cached_property
    def chat(self) -> Chat:
        """How rows are written."""
        return Chat(
            tokenizer=self.tokenizer, image_token=CONTROL.index("<image>"), tokens_per_image=self.shape.image
        )

    @cached_property
    def preferences(self) -> list[Preference]:
        """Random words about random pictures, of exactly the asked lengths."""
        draw, shape, side = np.random.default_rng(0), self.shape, self.shape.vision["image_size"]
        free = shape.language["vocab_size"] - len(CONTROL) - len(OTHERS)
        self.root.mkdir()

        def say(count: int) -> str:
            return " ".join(f"w{i}" for i in draw.integers(0, free, count))

        made = []
        for i in range(self.count):
            file = self.root / f"{i}.png"
            Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file)
            ref = ImageRef(path=file.name, sha256=runs.hash_file(file))
            # <user>, a line break and <assistant> belong to the prompt's text, <end> to the answer.
            asked = Message(role="user", parts=(0, say(shape.text - 3)))
            chosen, rejected = say(shape.answer - 1), say(shape.answer - 1)
            made.append(
                Preference(
                    id=str(i),
                    patient=str(i),
                    images=(ref,),
                    prompt=(asked,),
                    chosen=chosen,
                    rejected=rejected,
                )
            )
        return made

    @cached_property
    def pairs(self) -> list[Pair]:
        """The same as encoded rows."""
        pairs, aside = encode_pairs(self.preferences, self.chat, 10_000)
        assert not aside
        assert all(len(row.encoded.ids) == self.shape.row for pair in pairs for row in pair.rows)
        return pairs

    def records(self) -> list[dict[str, Any]]:
        """The same as TRL wants them."""
        return [
            {
                "images": [Image.open(self.root / p.images[0].path)],
                "prompt": [{"role": "user", "content": p.prompt[0].text}],
                "chosen": [{"role": "assistant", "content": p.chosen}],
                "rejected": [{"role": "assistant", "content": p.rejected}],
            }
            for p in self.preferences
        ]


def vocabulary(count: int) -> PreTrainedTokenizerFast:
    """One id per word."""
    known = [*CONTROL, *OTHERS]
    names = [*known, *(f"w{i}" for i in range(count - len(known)))]
    core = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="?unknown?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+"), behavior="removed", invert=True)
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in CONTROL])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def build(ground: Ground) -> Bundle:
    """The model with weights that are the same at each call."""
    shape = ground.shape
    config = LlavaConfig(
        vision_config=dict(shape.vision), text_config=dict(shape.language), projector_hidden_act="gelu",
        image_token_index=CONTROL.index("<image>"), vision_feature_layer=shape.layer,
        vision_feature_select_strategy=shape.select, tie_word_embeddings=shape.language["tie_word_embeddings"],
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device(ground.device):
        model = AutoModelForImageTextToText.from_config(config, dtype=ground.dtype)
    return Bundle(
        family=FAMILY, model=model.eval(), tokenizer=ground.tokenizer, image_token=CONTROL.index("<image>"),
        preprocess=Preprocess(size=shape.vision["image_size"], mean=HALF, std=HALF),
        tokens_per_image=shape.image, feature_width=shape.vision["hidden_size"],
    )  # fmt: skip


def processor(ground: Ground) -> Any:
    """A LLaVA processor of transformers that writes and sees what Sightline does."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    side = ground.shape.vision["image_size"]
    shown = CLIPImageProcessor(
        size={"height": side, "width": side}, do_center_crop=False, image_mean=HALF, image_std=HALF
    )
    return LlavaProcessor(
        image_processor=shown, tokenizer=ground.tokenizer, patch_size=14, chat_template=TEMPLATE,
        vision_feature_select_strategy=ground.shape.select, num_additional_image_tokens=int(ground.shape.has_class),
    )  # fmt: skip
