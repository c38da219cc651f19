"""Checkpoints as their authors publish them: which folder, complete weights, and the folder's own image processor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..images.transforms import eight_bits
from . import kit


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
    return model


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
