"""Checkpoints as their authors publish them: which folder, weights, chat template, and the folder's image processor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import AutoConfig

from .. import runs
from ..errors import ModelError
from ..images.transforms import eight_bits
from . import kit

# Stock templates of models with images may take messages as lists of parts only; ours come as one text each.
LISTS = (
    "{%- set told = namespace(messages=[]) -%}{%- for m in messages -%}"
    "{%- set parts = [{'type': 'text', 'text': m['content']}] if m['content'] is string else m['content'] -%}"
    "{%- set told.messages = told.messages + [{'role': m['role'], 'content': parts}] -%}{%- endfor -%}"
    "{%- set messages = told.messages -%}"
)
FIRST = "{{ bos_token }}"
BACKWARDS = ("<\\\\s>", "<\\s>")  # what LLaVA-1.6's template (Mistral) writes for `</s>`
PROBE = "\ue000probe\ue001"


@dataclass(frozen=True)
class StockProcessor:
    """One image through the checkpoint's own image processor; a family adds `grid` and whatever differs.

    Args:
        processor: an image processor of transformers.
    """

    processor: Any
    version: ClassVar[str] = ""  # of the family's way to call it, for the keys of caches

    def __call__(self, image: np.ndarray) -> Tensor:
        """Pixels [H, W, 3] in [0, 1] -> float32 `pixel_values` of this image; in 8 bits, as the checkpoint saw them."""
        made = self.processor(
            images=eight_bits(image), return_tensors="pt", input_data_format="channels_last"
        )
        return made["pixel_values"][0].float()

    def key(self) -> str:
        """Changes with any setting of the processor."""
        text = json.dumps([self.version, self.processor.to_dict()], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder(section: Mapping[str, Any], title: str) -> Path:
    """The folder that a recipe's `model` section opens.

    Args:
        section: with a `path`.
        title: what people call the model, with its article.

    Raises:
        ModelError: no path, or no folder of a model that can be opened.
    """
    if not section.get("path"):
        raise ModelError(
            f"{title} is opened, not composed from parts", where="model.path", found="no path",
            expected="a folder with config.json, safetensors, tokenizer and processor",
        )  # fmt: skip
    return part_folder(str(Path(section["path"])))


def weights(kind: Any, place: Path, title: str) -> Any:
    """A model with all the weights of its folder and no others, in float32.

    Args:
        kind: its class in transformers.
        place: the folder.
        title: what people call the model, without an article.

    Raises:
        ModelError: weights are missing or unexpected.
    """
    model, info = kind.from_pretrained(
        place, dtype=torch.float32, local_files_only=True, output_loading_info=True
    )
    if info["missing_keys"] or info["unexpected_keys"]:
        raise ModelError(
            f"'{place}' is not a complete {title}", where=f"missing {sorted(info['missing_keys'])[:5]}",
            found=f"unexpected {sorted(info['unexpected_keys'])[:5]}",
        )  # fmt: skip
    # Of compressed-tensors: it waits for a forward of the whole model, which parts that are asked alone pass by.
    compressor = getattr(getattr(model, "hf_quantizer", None), "compressor", None)
    if compressor is not None:
        compressor.decompress_model(model)
    return model


def outline(kind: Any, place: Path) -> Any:
    """The model of a folder's config without weights, on the meta device: to count before there is room for them.

    Args:
        kind: its class in transformers.
        place: a folder with `config.json`.
    """
    config = AutoConfig.from_pretrained(place, local_files_only=True)
    with torch.device("meta"):
        return kind(config)


def template(place: Path, tokenizer: Any) -> str:
    """A folder's chat template, made to write messages of one text each as the stock processor would.

    Older checkpoints keep it in `chat_template.json`. Some leave the token that begins a text to the tokenizer, which
    adds it to whatever it reads whole; our pieces are read apart, so it is written by the template.

    Raises:
        ModelError: there is none.
    """
    older = place / "chat_template.json"
    text = tokenizer.chat_template
    if not text and older.is_file():
        text = runs.read_json(older).get("chat_template")
    if not text or not isinstance(text, str):
        raise ModelError(
            "the checkpoint has no chat template", where=str(place),
            remedy="use an instruction-tuned one, or add its chat_template.jinja",
        )  # fmt: skip
    for wrong in BACKWARDS:
        text = text.replace(wrong, str(tokenizer.eos_token))
    if PROBE not in _written(text, tokenizer):
        text = LISTS + text
    first = tokenizer.bos_token_id is not None and tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    if first and not _written(text, tokenizer).startswith(tokenizer.bos_token):
        text = FIRST + text
    return text


def _written(text: str, tokenizer: Any) -> str:
    """What a template makes of one question; nothing where it refuses it."""
    asked = [{"role": "user", "content": PROBE}]
    try:
        return str(tokenizer.apply_chat_template(asked, chat_template=text, tokenize=False))
    except TemplateError:
        return ""


def part_folder(source: str) -> Path:
    """A part's local folder: `kit/NAME` or a path. Names of hubs are refused: nothing is downloaded.

    Raises:
        ModelError: no such folder, or one that asks to run its own code.
    """
    if source.startswith("kit/"):
        return kit.folder(source.removeprefix("kit/"))
    place = Path(source)
    if not (place / "config.json").is_file():
        raise ModelError(
            f"no model folder '{source}'", expected="kit/NAME, or a folder with config.json",
            remedy="download it yourself and give its folder: Sightline opens no network connection",
        )  # fmt: skip
    if "auto_map" in (place / "config.json").read_text(encoding="utf-8"):
        raise ModelError(
            f"'{source}' wants to run code of its own (auto_map)",
            remedy="use a model that transformers knows",
        )
    if not list(place.glob("*.safetensors")):
        raise ModelError(
            f"'{source}' holds no safetensors", remedy="convert its weights: pickles are not opened"
        )
    return place
