r"""Idefics3: a picture in tiles of the tower's size, row by row, and the whole of it behind them.

Laurençon et al. 2024 (arXiv 2408.12637); code: `Idefics3ForConditionalGeneration` of transformers, opened from its
folder (SmolVLM's first checkpoints are of this kind too). The connector folds squares of patches into one token each.
One image of two rows and one column, two tokens a tile (f: the mark around images, i: the image token):

    f <row_1_col_1> i i \n f <row_2_col_1> i i \n\n f <global-img> i i f

The marks of rows and columns are plain text to one tokenizer and words of their own to another (SmolVLM's).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoTokenizer, Idefics3ForConditionalGeneration
from transformers.models.idefics3.image_processing_idefics3 import get_resize_output_image_size

from ... import runs
from ...errors import ModelError
from ...images.transforms import eight_bits
from ..family import Bundle, Family, Grid
from ..stock import StockProcessor, folder, template, weights
from .llava import head

AROUND, WHOLE = "<fake_token_around_image>", "<global-img>"


@dataclass(frozen=True)
class Tiles(StockProcessor):
    """One image to its tiles [tiles, 3, S, S], the whole picture last, by the checkpoint's own image processor.

    Args:
        processor: an `Idefics3ImageProcessor` or a `SmolVLMImageProcessor`.
    """

    version: ClassVar[str] = "idefics3.1"

    @property
    def side(self) -> int:
        """Side of a tile in pixels."""
        return int(self.processor.max_image_size["longest_edge"])

    def __call__(self, image: np.ndarray) -> Tensor:
        """Pixels [H, W, 3] in [0, 1] -> float32 [tiles, 3, S, S], the whole picture last; in 8 bits."""
        made = self.processor(
            images=eight_bits(image), return_tensors="pt", input_data_format="channels_last"
        )
        return made["pixel_values"][0].float()

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of tiles; (0, 0) where the whole picture is all that is shown."""
        if not self.processor.do_image_splitting:
            return (0, 0)
        blank = torch.empty(3, height, width, device="meta")
        height, width = get_resize_output_image_size(blank, self.processor.size["longest_edge"])
        # As the processor does: the longer side first, then the shorter of the picture thus enlarged.
        ratio = width / height
        if width >= height:
            columns = math.ceil(width / self.side)
            rows = math.ceil(int(columns * self.side / ratio) / self.side)
        else:
            rows = math.ceil(height / self.side)
            columns = math.ceil(int(rows * self.side * ratio) / self.side)
        return (rows, columns) if max(rows, columns) > 1 else (0, 0)


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock Idefics3 folder (`path`).

    Raises:
        ModelError: no path, no complete Idefics3, or settings that are not done here.
    """
    return opened(FAMILY, "Idefics3", Idefics3ForConditionalGeneration, section, seed)


def opened(family: Family, title: str, kind: Any, section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock folder of this architecture.

    Args:
        family: its family; the name is the config's `model_type`.
        title: what people call it.
        kind: the model's class.
        section: a recipe's `model` section.
        seed: kept for the record; nothing is drawn.

    Raises:
        ModelError: as `compose`.
    """
    place = folder(section, title)
    found = runs.read_json(place / "config.json").get("model_type")
    if found != family.name:
        raise ModelError(
            f"'{place}' is no {title}",
            where="config.json, model_type",
            found=str(found),
            expected=family.name,
        )
    model = weights(kind, place, title)
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    tokenizer.chat_template = template(place, tokenizer)
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    _check(model.config, processor, tokenizer)
    model.eval()
    tiles = Tiles(processor)
    largest = tiles.grid(1000, 1000)  # of all shapes a square has the most tiles
    made = Bundle(
        family=family,
        model=model,
        tokenizer=tokenizer,
        preprocess=tiles,
        image_token=model.config.image_token_id,
        tokens_per_image=0,
        feature_width=model.config.vision_config.hidden_size * model.config.scale_factor**2,
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
        fixed=largest == (0, 0),
    )
    made.tokens_per_image = words(made, largest).count(made.image_token)
    return made


def _check(config: Any, processor: Any, tokenizer: Any) -> None:
    """Refuse what would be passed over in silence, or break far from its cause."""
    patches = processor.max_image_size["longest_edge"] // config.vision_config.patch_size
    text, folds = config.text_config, config.scale_factor
    longest = dict(processor.size).get("longest_edge")
    own = tokenizer.convert_tokens_to_ids("<image>")
    wrong = [
        (text.model_type != "llama", "text_config.model_type", text.model_type, "llama"),
        (not processor.do_resize, "do_resize of the image processor", False, True),
        (not longest, "size of the image processor", dict(processor.size), "longest_edge"),
        (patches < folds or patches % folds != 0, "max_image_size of the image processor",
         f"{patches} patches a side", f"a multiple of {folds}, the scale_factor"),
        (own != config.image_token_id, "image_token_id", config.image_token_id, f"{own}, the tokenizer's <image>"),
        (config.image_token_id >= text.vocab_size, "image_token_id", config.image_token_id,
         f"below {text.vocab_size}, the vocabulary"),
    ]  # fmt: skip
    for refused, name, is_now, expected in wrong:
        if refused:
            raise ModelError(
                "this checkpoint is set in a way that is not supported", where=name, found=str(is_now),
                expected=str(expected), remedy="use a checkpoint without it, or mend its config",
            )  # fmt: skip


def words(bundle: Bundle, grid: Grid) -> tuple[int, ...]:
    """Every tile with its mark, a line break after each row, the whole picture between marks.

    It begins and ends with a special token, so that texts beside it are read apart from it.
    """
    rows, columns = grid or (0, 0)
    shown = bundle.tokenizer.convert_ids_to_tokens(bundle.image_token) * _tokens(bundle)
    text = ""
    for row in range(1, rows + 1):
        text += "".join(f"{AROUND}<row_{row}_col_{column}>{shown}" for column in range(1, columns + 1)) + "\n"
    text += "\n" * bool(rows) + f"{AROUND}{WHOLE}{shown}{AROUND}"
    return tuple(bundle.tokenizer(text, add_special_tokens=False)["input_ids"])


def _tokens(bundle: Bundle) -> int:
    """Tokens of one tile."""
    config: Any = bundle.model.config
    tiles: Any = bundle.preprocess
    return int((tiles.side // config.vision_config.patch_size // config.scale_factor) ** 2)


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """What the tower makes of every tile. Tiles are full, so that no patch is masked.

    The stock model passes over tiles whose every value is 0, which are padding of a batch. There is none here: such
    a tile is part of a picture.

    Args:
        model: the Idefics3.
        images: [tiles, 3, S, S] each.
        grids: not needed: the tiles are counted.

    Returns:
        [tiles, patches, width] each.
    """
    tower: Any = model.get_submodule("model.vision_model")
    states = tower(pixel_values=torch.cat(images), return_dict=True).last_hidden_state
    return list(states.split([len(image) for image in images]))


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tiles, patches, width] -> [tokens, hidden] of each image, tile by tile."""
    made = model.get_submodule("model.connector")(torch.cat(features))
    return [each.flatten(0, 1) for each in made.split([len(f) for f in features])]


def layer(model: nn.Module) -> str:
    """The last layer, behind the tower's norm."""
    return "-1"


def hidden(model: nn.Module, inputs_embeds: Tensor, **kwargs: Any) -> Any:
    """The language model without its head."""
    return model.get_submodule("model.text_model")(inputs_embeds=inputs_embeds, **kwargs)


FAMILY = Family(
    name="idefics3",
    parts={
        "vision": ("model.vision_model",),
        "connector": ("model.connector",),
        "language": ("model.text_model", "lm_head"),
    },
    placement="inline",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    words=words,
    opening=" ",
    layer=layer,
    cannot=("volumes", "composition from parts"),
)
