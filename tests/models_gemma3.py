"""A tiny Gemma 3 as a stock folder: random weights, a window shorter than any row, layers of both kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)

import models
from sightline.models import checkpoint
from sightline.models.family import Bundle

WINDOW = 7
MARKS = {
    "bos_token": "<bos>",
    "eos_token": "<end_of_turn>",
    "sot_token": "<start_of_turn>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
# Gemma's way: the system text stands in the first user turn, the assistant is called `model`, texts are trimmed.
TEMPLATE = """{{ bos_token }}{% set system = '' %}{% if messages[0]['role'] == 'system' %}
{%- set system = messages[0]['content'] + '\n\n' %}{% set messages = messages[1:] %}{% endif %}
{%- for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' }}
{%- if loop.first %}{{ system }}{% endif %}
{%- if m['content'] is string %}{{ m['content'] | trim }}{% else %}{% for part in m['content'] %}
{%- if part['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part['text'] | trim }}{% endif %}
{%- endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""


def tokenizer() -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with Gemma's marks."""
    extra = {k: v for k, v in MARKS.items() if k not in ("bos_token", "eos_token")}
    made = PreTrainedTokenizerFast(
        tokenizer_object=_joined(models.bytes_tokenizer().backend_tokenizer),
        bos_token=MARKS["bos_token"],
        eos_token=MARKS["eos_token"],
        pad_token="<|endoftext|>",
        extra_special_tokens=extra,
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return made


def _joined(core: Tokenizer) -> Tokenizer:
    """Runs of up to four line breaks become one token each, as in Gemma's vocabulary."""
    plain = json.loads(core.to_str())
    vocabulary, merges = plain["model"]["vocab"], plain["model"]["merges"]
    for left, right in (("Ċ", "Ċ"), ("ĊĊ", "Ċ"), ("ĊĊ", "ĊĊ")):
        vocabulary[left + right] = len(vocabulary)
        merges.append([left, right])
    return Tokenizer.from_str(json.dumps(plain))


def config(words: PreTrainedTokenizerFast, **text: Any) -> Gemma3Config:
    """Three layers, 32 wide; 16 patches of 7 px pooled to 4 tokens."""
    plain: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "max_position_embeddings": 1024,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "initializer_range": 0.3,
        "pad_token_id": 0,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    tower = {k: v for k, v in models.SIGLIP.items() if k != "model_type"} | {"patch_size": 7}
    return Gemma3Config(
        text_config=Gemma3TextConfig(**{**plain, **text}),
        vision_config=SiglipVisionConfig(**tower, vision_use_head=False),
        mm_tokens_per_image=4,
        boi_token_index=words.convert_tokens_to_ids(MARKS["boi_token"]),
        eoi_token_index=words.convert_tokens_to_ids(MARKS["eoi_token"]),
        image_token_index=words.convert_tokens_to_ids(MARKS["image_token"]),
        initializer_range=0.3,
    )


def write(folder: Path, *, image: dict[str, Any] | None = None, **text: Any) -> Path:
    """Model, tokenizer and image processor; `image` changes the processor, `text` the language model."""
    words = tokenizer()
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(config(words, **text))
    models.stir(model.model.multi_modal_projector.parameters(), seed=5, size=0.5)  # it starts at zero
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    Gemma3ImageProcessor(**{"size": {"height": 28, "width": 28}, **(image or {})}).save_pretrained(folder)
    return folder


def processor(folder: Path) -> Gemma3Processor:
    """The stock processor of such a folder."""
    return Gemma3Processor(
        Gemma3ImageProcessor.from_pretrained(folder),
        PreTrainedTokenizerFast.from_pretrained(folder),
        chat_template=TEMPLATE,
        image_seq_length=4,
    )


def section(place: Path) -> dict[str, Any]:
    """A recipe's `model` section that opens the folder."""
    return {"family": "gemma3", "path": str(place), "system": ""}


def bundle(language: Path) -> Bundle:
    """The same, opened; `language` only says where there is room."""
    return checkpoint.compose(section(write(language.parent / "gemma3")), 0)
