"""What encoders that are opened from their folder share: image processor, tokenizer, and images of another size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoImageProcessor, AutoTokenizer

from ...errors import ModelError
from .. import stock
from ..encoder import Tokens
from ..family import Grid
from ..stock import StockProcessor

READ = ("input_ids", "attention_mask")  # what a text tower is given, where its tokenizer makes it


@dataclass(frozen=True)
class Square(StockProcessor):
    """Every image becomes one square, as the checkpoint's own processor makes it."""

    version: ClassVar[str] = "square.1"

    def grid(self, height: int, width: int) -> Grid:
        """Nothing: all images are alike."""
        return ()


@dataclass(frozen=True)
class Words:
    """Texts to tokens by the checkpoint's tokenizer; a mask is made only where that tokenizer makes one.

    Args:
        tokenizer: of transformers.
        length: tokens that the text tower can read; longer texts are cut.
        padding: up to the longest text, or always up to `length`.
        lower: write texts in small letters first.
    """

    tokenizer: Any
    length: int
    padding: Literal["longest", "max_length"] = "longest"
    lower: bool = False

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """`input_ids` and, where there is one, `attention_mask`, [n, T] each."""
        made = self.tokenizer(
            [t.lower() if self.lower else t for t in texts],
            padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt",
        )  # fmt: skip
        return {key: made[key] for key in READ if key in made}


def folder(section: Mapping[str, Any], kind: str, title: str, hints: Mapping[str, str]) -> Path:
    """The folder that a recipe's encoder opens.

    Args:
        section: with a `path`.
        kind: `model_type` that its config must say.
        title: what people call the model.
        hints: what to do where the config says another `model_type`.

    Raises:
        ModelError: no such folder, or a model of another kind in it.
    """
    place = stock.folder(section, title)
    found = json.loads((place / "config.json").read_text(encoding="utf-8")).get("model_type")
    if found != kind:
        raise ModelError(
            f"'{place}' holds no {title}", where="model.path", found=f"model_type {found!r}",
            expected=repr(kind), remedy=hints.get(str(found), "choose the encoder that fits the folder"),
        )  # fmt: skip
    return place


def read(kind: Any, place: Path, what: str, **more: Any) -> Any:
    """The tokenizer or image processor of a folder.

    Args:
        kind: `AutoTokenizer` or `AutoImageProcessor`.
        place: the folder.
        what: what it is, in words.
        more: settings that replace those of the folder.

    Raises:
        ModelError: it is not there, or a package that it needs is not.
    """
    try:
        return kind.from_pretrained(place, local_files_only=True, **more)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ModelError(
            f"the {what} cannot be opened", where=str(place), found=str(error).strip().splitlines()[0],
            remedy="put its files into the folder as its authors publish them, or install the package that is named "
            "(sentencepiece, for the first SigLIP)",
        ) from None  # fmt: skip


def words(place: Path, length: int, **more: Any) -> Words:
    """The tokenizer of a folder. See `Words`."""
    return Words(read(AutoTokenizer, place, "tokenizer"), length, **more)


def processor(place: Path, own: int, size: int) -> Square:
    """The image processor of a folder, made to give images of `size` instead of its `own`, both in pixels."""
    made = read(AutoImageProcessor, place, "image processor")
    if size == own:
        return Square(made)
    plain = made.to_dict()
    scaled = {key: _scaled(plain[key], size / own) for key in ("size", "crop_size") if plain.get(key)}
    return Square(read(AutoImageProcessor, place, "image processor", **scaled))


def _scaled(sizes: int | Mapping[str, int | None], ratio: float) -> int | dict[str, int]:
    if isinstance(sizes, int):
        return round(sizes * ratio)
    return {key: round(value * ratio) for key, value in sizes.items() if value is not None}


def wanted(section: Mapping[str, Any], own: int, patch: int) -> int:
    """Edge of images in pixels: the recipe's `size`, else the checkpoint's `own`.

    Raises:
        ModelError: smaller than one patch.
    """
    size = section.get("size") or own
    if size < patch:
        raise ModelError(
            "images this small hold no patch", where="model.size", found=f"{size} px",
            expected=f"{patch} px or more; the checkpoint's own size is {own} px",
        )  # fmt: skip
    return int(size)


def resize(embeddings: nn.Module, size: int, leading: int) -> None:
    """Make the patch embeddings of a transformers tower read images of another size, in place.

    Args:
        embeddings: with `position_embedding`, `position_ids`, `patch_size` and `image_size`.
        size: edge of images in pixels.
        leading: positions in front of those of patches: 1 for a class token.
    """
    grid = size // embeddings.patch_size
    table = stretch(embeddings.position_embedding.weight, grid, leading)  # [leading + grid * grid, width]
    embeddings.position_embedding = nn.Embedding.from_pretrained(table, freeze=False)
    embeddings.position_ids = torch.arange(len(table)).expand((1, -1))
    embeddings.num_positions, embeddings.num_patches = len(table), grid * grid
    embeddings.image_size = embeddings.config.image_size = size


@torch.no_grad()
def stretch(table: Tensor, grid: int, leading: int, *, antialias: bool = False) -> Tensor:
    """Position embeddings of a square of patches for another square, bicubic; those in front stay as they are.

    transformers does it without antialiasing (`interpolate_pos_encoding`), OpenCLIP with it.

    Args:
        table: [leading + own * own, width].
        grid: patches along the new edge.
        leading: positions in front, such as that of a class token.
        antialias: smooth where the square shrinks.

    Returns:
        [leading + grid * grid, width].

    Raises:
        ModelError: the positions do not make a square.
    """
    own = math.isqrt(len(table) - leading)
    if own * own != len(table) - leading:
        raise ModelError(
            "the positions of this tower do not make a square", where="model.size",
            found=f"{len(table) - leading} positions", remedy="leave `size` out",
        )  # fmt: skip
    width = table.shape[1]
    square = table[leading:].reshape(1, own, own, width).permute(0, 3, 1, 2)  # [1, width, own, own]
    made = functional.interpolate(
        square, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias
    )  # [1, width, grid, grid]
    return torch.cat([table[:leading], made.permute(0, 2, 3, 1).reshape(-1, width)]).contiguous()
