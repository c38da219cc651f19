"""A tiny Mllama as a stock folder: random weights, every gate open, one layer in three of cross-attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
    MllamaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig

import models
from sightline.models import checkpoint
from sightline.models.family import Bundle

MARKS = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|image|>")
# Llama 3.2's way: a dated system turn where no image is shown, no system text where one is.
TEMPLATE = """{{ bos_token }}
{%- if not date_string is defined %}{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{% set image_ns = namespace(has_images=false) %}
{%- for m in messages %}{%- for part in m['content'] %}
    {%- if part['type'] == 'image' %}{%- set image_ns.has_images = true %}{%- endif %}
{%- endfor %}{%- endfor %}
{%- if image_ns.has_images and not system == '' %}{{- raise_exception('no system text with images') }}{%- endif %}
{%- if not image_ns.has_images %}
    {{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + date_string + '\n\n' + system + '<|eot_id|>' }}
{%- endif %}
{%- for m in messages %}
    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}
    {%- if m['content'] is string %}{{- m['content'] }}{%- else %}{%- for part in m['content'] %}
        {%- if part['type'] == 'image' %}{{- '<|image|>' }}{%- else %}{{- part['text'] }}{%- endif %}
    {%- endfor %}{%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"""


def tokenizer() -> PreTrainedTokenizerFast:
    """The byte-level tokenizer with Llama's marks; the image token is the last, as in the published ones."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=models.bytes_tokenizer().backend_tokenizer,
        bos_token=MARKS[0],
        eos_token=MARKS[1],
        pad_token="<|endoftext|>",
        additional_special_tokens=list(MARKS[2:]),
        clean_up_tokenization_spaces=False,
    )
    made.chat_template = TEMPLATE
    return made


def config(words: PreTrainedTokenizerFast, **vision: Any) -> MllamaConfig:
    """Three layers, 32 wide, the second of cross-attention; up to 4 tiles of 4 patches and a class token."""
    text = MllamaTextConfig(
        vocab_size=len(words) - 1,  # the head knows no image token
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        cross_attention_layers=[1],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        max_position_embeddings=1024,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    tower = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "intermediate_layers_indices": [0, 1],
        "vision_output_dim": 48,
    }
    return MllamaConfig(
        vision_config=MllamaVisionConfig(**{**tower, **vision}),
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<|image|>"),
        initializer_range=0.3,
    )


def write(folder: Path, *, image: dict[str, Any] | None = None, **vision: Any) -> Path:
    """Model, tokenizer and image processor; `image` changes the processor, `vision` the tower's config."""
    words = tokenizer()
    torch.manual_seed(0)
    model = MllamaForConditionalGeneration(config(words, **vision))
    gates = [p for name, p in model.named_parameters() if "gate" in name.rpartition(".")[2]]
    models.stir(gates, seed=5, size=0.7)  # they start at zero, which would hide the images
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    size = {"height": 28, "width": 28}
    MllamaImageProcessor(**{"size": size, "max_image_tiles": 4, **(image or {})}).save_pretrained(folder)
    return folder


def processor(folder: Path) -> MllamaProcessor:
    """The stock processor of such a folder."""
    return MllamaProcessor(
        MllamaImageProcessor.from_pretrained(folder),
        PreTrainedTokenizerFast.from_pretrained(folder),
        chat_template=TEMPLATE,
    )


def section(place: Path) -> dict[str, Any]:
    """A recipe's `model` section that opens the folder."""
    return {"family": "mllama", "path": str(place), "system": ""}


def bundle(language: Path) -> Bundle:
    """The same, opened; `language` only says where there is room."""
    return checkpoint.compose(section(write(language.parent / "mllama")), 0)
