"""A tiny Idefics3 and a tiny SmolVLM2 as stock folders: random weights, tiles of 28 px, 4 tokens a tile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
)

import models
from sightline.models import checkpoint
from sightline.models.family import Bundle

SIDE, LONGEST = 28, 84
MARKS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>")
PLACES = ("<global-img>", *(f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)))
# The stock template of both: a blank before a text that opens a message, none before an image.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def tokenizer(marks: tuple[str, ...] = MARKS) -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with the marks; two line breaks are one token, and so are " Yes", " No" and " Is"."""
    plain = json.loads(models.bytes_tokenizer().backend_tokenizer.to_str())
    vocabulary, merges = plain["model"]["vocab"], plain["model"]["merges"]
    for left, right in (("Ċ", "Ċ"), ("Ġ", "Yes"), ("Ġ", "No"), ("Ġ", "Is")):
        vocabulary[left + right] = len(vocabulary)
        merges.append([left, right])
    made = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    made.add_special_tokens({"additional_special_tokens": list(marks)})
    made.chat_template = TEMPLATE
    return made


def _settings(words: PreTrainedTokenizerFast, **more: Any) -> dict[str, Any]:
    """Both configs: a tower of 16 patches a tile, 16 wide, folded 2 x 2; a Llama of two layers."""
    vision = {k: v for k, v in models.SIGLIP.items() if k != "model_type"} | {"patch_size": 7}
    return {
        "vision_config": {**vision, "initializer_range": 0.3},
        "text_config": models.llama(len(words)).to_dict(),
        "image_token_id": words.convert_tokens_to_ids("<image>"),
        "pad_token_id": 0,
        "scale_factor": 2,
        **more,
    }


def write(folder: Path, *, small: bool = False, image: dict[str, Any] | None = None, **more: Any) -> Path:
    """Model, tokenizer and image processor; `small` is the SmolVLM2, `image` changes the processor."""
    words = tokenizer(MARKS + PLACES if small else MARKS)
    torch.manual_seed(0)
    model: Any
    if small:
        model = SmolVLMForConditionalGeneration(SmolVLMConfig(**_settings(words, **more)))
    else:
        model = Idefics3ForConditionalGeneration(Idefics3Config(**_settings(words, **more)))
    models.stir(model.model.connector.parameters(), seed=5, size=0.3)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    size = {"size": {"longest_edge": LONGEST}, "max_image_size": {"longest_edge": SIDE}}
    made = SmolVLMImageProcessor if small else Idefics3ImageProcessor
    made(**{**size, **(image or {})}).save_pretrained(folder)
    return folder


def section(place: Path, *, small: bool = False) -> dict[str, Any]:
    """A recipe's `model` section that opens the folder."""
    return {"family": "smolvlm" if small else "idefics3", "path": str(place), "system": ""}


def idefics3(language: Path) -> Bundle:
    """The Idefics3, opened; `language` only says where there is room."""
    return checkpoint.compose(section(write(language.parent / "idefics3")), 0)


def smolvlm(language: Path) -> Bundle:
    """The SmolVLM2, opened."""
    place = write(language.parent / "smolvlm", small=True)
    return checkpoint.compose(section(place, small=True), 0)
