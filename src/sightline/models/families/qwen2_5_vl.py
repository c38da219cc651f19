"""Qwen2.5-VL: pictures at their own size, read in windows, with three rows of positions in the language model.

Bai et al. 2025 (arXiv 2502.13923); code: `Qwen2_5_VLForConditionalGeneration` of transformers, opened from its folder.
A grid is (1, rows, columns) of patches; 2 x 2 patches become one token. In the rotary positions (time, row, column)
a picture takes as many steps as its longer side has tokens, and the text goes on from there:

    ids             a  b  I  I  I  I  I  I  c  d      a picture of 2 x 3 tokens
    line            0  1  2  3  4  5  6  7  8  9      places in the text, as `data.line` counts them
    time            0  1  2  2  2  2  2  2  5  6
    row             0  1  2  2  2  3  3  3  5  6
    column          0  1  2  3  4  2  3  4  5  6

So every answer to a prompt begins behind the prompt's largest position, wherever it stands in the row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_window_index

from ... import runs
from ...errors import ImageError, ModelError
from ...images.formats import check_pixels
from ...images.transforms import PILLOW_RESAMPLES, resize
from ..family import Bundle, Family, Grid
from ..pairpass import arrange, layout
from ..stock import StockProcessor, folder, weights
from .llava import head, hidden

NEARLY = 1e-3  # of a step of 1/255: what float32 may be off a picture of 8 bits


@dataclass(frozen=True)
class Patches(StockProcessor):
    """One image to its patches, by the checkpoint's own image processor.

    Args:
        processor: a `Qwen2VLImageProcessor`.
    """

    version: ClassVar[str] = "qwen_vl.1"

    def __call__(self, image: np.ndarray) -> Tensor:
        """Pixels [H, W, 3] in [0, 1] -> [patches, channels x frames x side x side].

        A picture of 8 bits is handed on as such and comes out as the processor makes it, bit by bit. The processor
        would round any other to 8 bits, so that is resized here, in float32.

        Raises:
            ImageError: not an image, or too long and thin.
        """
        check_pixels(image)
        grid, steps = self.grid(*image.shape[:2]), np.rint(image * 255)
        how = {}
        if float(np.abs(image * 255 - steps).max()) < NEARLY:
            shown = steps.astype(np.uint8)
        else:
            side, how = self.processor.patch_size, {"do_resize": False, "do_rescale": False}
            target = (grid[1] * side, grid[2] * side)
            shown = resize(image, target, PILLOW_RESAMPLES[int(self.processor.resample)])
        made = self.processor(
            images=torch.from_numpy(np.ascontiguousarray(shown.transpose(2, 0, 1))),
            return_tensors="pt", input_data_format="channels_first", **how,
        )  # fmt: skip
        return made["pixel_values"].float()

    def grid(self, height: int, width: int) -> Grid:
        """(1, rows, columns) of patches of an image of this size.

        Raises:
            ImageError: too long and thin.
        """
        its = self.processor
        least, most = (
            its.size["shortest_edge"],
            its.size["longest_edge"],
        )  # numbers of pixels, despite their names
        try:
            high, wide = smart_resize(height, width, its.patch_size * its.merge_size, least, most)
        except ValueError:
            raise ImageError(
                "an image is too long and thin for this model", found=f"{height} x {width} pixels",
                expected="at most 200 times as long as wide",
            ) from None  # fmt: skip
        return (1, high // its.patch_size, wide // its.patch_size)


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock Qwen2.5-VL folder (`path`).

    Raises:
        ModelError: no path, no complete Qwen2.5-VL, or one with sliding windows in its language model.
    """
    made = opened(FAMILY, Qwen2_5_VLForConditionalGeneration, section, seed)
    config: Any = made.model.config
    if "sliding_attention" in config.text_config.layer_types:
        raise ModelError(
            "the language model has layers of sliding windows", where=str(section["path"]),
            expected="use_sliding_window: false, as published",
        )  # fmt: skip
    made.model.get_submodule("model.visual.merger").register_forward_pre_hook(_as_its_weights)
    return made


def _as_its_weights(merger: nn.Module, states: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """States in the connector's precision: the stock tower ends in the connector, which may be asked in another one."""
    return tuple(each.to(next(merger.parameters()).dtype) for each in states)


def opened(family: Family, kind: Any, section: Mapping[str, Any], seed: int) -> Bundle:
    """A stock folder of a model that reads patches, with its tokenizer and its image processor.

    Args:
        family: its family; its name is the config's `model_type`.
        kind: its class in transformers.
        section: a recipe's `model` section.
        seed: for the record; nothing is random.

    Raises:
        ModelError: no path, another model, missing or unexpected weights, no chat template, or a processor that
            does not fit.
    """
    place = folder(section, f"a {family.name}")
    found = str(runs.read_json(place / "config.json").get("model_type"))
    if found != family.name:
        raise ModelError(f"'{place}' is another model", found=found, expected=family.name)
    model = weights(kind, place, family.name)
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    if not tokenizer.chat_template:
        raise ModelError("the model has no chat template", where=str(place), remedy="add chat_template.jinja")
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    vision = model.config.vision_config
    _check(processor, vision, place)
    return Bundle(
        family=replace(family, parts={part: members(model, names) for part, names in family.parts.items()}),
        model=model.eval(),
        tokenizer=tokenizer,
        preprocess=Patches(processor),
        image_token=model.config.image_token_id,
        tokens_per_image=processor.size["longest_edge"] // (processor.patch_size * processor.merge_size) ** 2,
        feature_width=vision.hidden_size * vision.spatial_merge_size**2,
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
        fixed=False,
    )


def _check(processor: Any, vision: Any, place: Path) -> None:
    """Refuse a processor that cuts other patches than the tower takes, or does not resize and scale."""
    sides = ("patch_size", "temporal_patch_size", "merge_size")
    found = [getattr(processor, side) for side in sides]
    expected = [vision.patch_size, vision.temporal_patch_size, vision.spatial_merge_size]
    odd = [name for name in ("do_resize", "do_rescale", "do_normalize") if not getattr(processor, name)]
    odd += [] if math.isclose(processor.rescale_factor, 1 / 255, rel_tol=1e-6) else ["rescale_factor"]
    odd += [] if int(processor.resample) in PILLOW_RESAMPLES else ["resample"]
    if found != expected or odd:
        raise ModelError(
            "the image processor does not fit the tower", where=str(place),
            found=f"{dict(zip(sides, found, strict=True))}, odd: {odd}", expected=f"{expected}, nothing odd",
        )  # fmt: skip


def members(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    """The names with lists of modules spelled out: PEFT keeps copies of modules, but not of lists."""
    lists = {n: model.get_submodule(n) for n in names}
    return tuple(
        name
        for n, module in lists.items()
        for name in ([f"{n}.{i}" for i in range(len(module))] if isinstance(module, nn.ModuleList) else [n])
    )


def words(bundle: Bundle, grid: Grid) -> tuple[int, ...]:
    """A start, the image token for every 2 x 2 patches, and an end."""
    config: Any = bundle.model.config
    count = math.prod(grid) // config.vision_config.spatial_merge_size**2
    return (config.vision_start_token_id, *[bundle.image_token] * count, config.vision_end_token_id)


def sizes(grids: Sequence[Grid], like: Tensor) -> Tensor:
    """Grids as the tower wants them: [images, 3], on the same device."""
    return torch.tensor([list(grid) for grid in grids], device=like.device)


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """States of the last layer, the 4 patches of a token side by side, tokens in the order of the windows.

    Args:
        model: the Qwen2.5-VL.
        images: [patches, values] each.
        grids: (1, rows, columns) each.

    Returns:
        [tokens, 4 x width] each.
    """
    config: Any = model.config
    unit = config.vision_config.spatial_merge_size**2
    tower: Any = model.get_submodule("model.visual")
    states = tower(torch.cat(images), grid_thw=sizes(grids, images[0])).last_hidden_state  # [patches, width]
    grouped = states.reshape(-1, unit * states.shape[-1])
    return list(grouped.split([len(image) // unit for image in images]))


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tokens, 4 x width] in the order of the windows -> [tokens, hidden] in reading order, of each image."""
    config: Any = model.config
    vision = config.vision_config
    joined = torch.cat(features).reshape(-1, vision.hidden_size)
    made = model.get_submodule("model.visual.merger")(joined).split([len(f) for f in features])
    out = []
    for tokens, grid in zip(made, grids, strict=True):
        order, _ = get_vision_window_index(
            sizes([grid], tokens), vision.spatial_merge_size, vision.window_size, vision.patch_size
        )
        out.append(tokens[order.argsort()])
    return out


def positions(bundle: Bundle, batch: Mapping[str, Any], grids: Sequence[Grid]) -> Tensor:
    """Time, row and column of every token; see the picture at the file's head.

    Args:
        bundle: the model.
        batch: of `data.collate`, or a plain one with `attention_mask` [B, T] or nothing.
        grids: of the images shown, in reading order.

    Returns:
        [3, B, T]; whatever on padding.
    """
    config: Any = bundle.model.config
    merge, ids = config.vision_config.spatial_merge_size, batch["input_ids"]
    if "document" in batch:
        line, document = batch["position"], batch["document"]
    else:
        document, _, line = layout(batch)
    made = line.expand(3, *ids.shape).clone()
    shapes = [(rows // merge, columns // merge) for _, rows, columns in grids]
    starts = [0, *accumulate(rows * columns for rows, columns in shapes)][: len(shapes)]
    places = (ids == bundle.image_token).nonzero()[starts].tolist()  # the first token of each image
    for (rows, columns), (at, first) in zip(shapes, places, strict=True):
        stop, start = first + rows * columns, made[0, at, first].clone()
        down = torch.arange(rows, device=ids.device).repeat_interleave(columns)
        across = torch.arange(columns, device=ids.device).repeat(rows)
        made[:, at, first:stop] = start + torch.stack([torch.zeros_like(down), down, across])
        same = document[at, stop:] == document[at, first]
        made[:, at, stop:] += same * (max(rows, columns) - rows * columns)
    return made


def tell(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
) -> dict[str, Any]:
    """The mask of the pair pass, and three rows of positions."""
    told = arrange(bundle.family.language(bundle.model), batch, dtype)
    return {**told, "position_ids": positions(bundle, batch, grids)[..., batch.get("read", 0) :]}


FAMILY = Family(
    name="qwen2_5_vl",
    parts={
        "vision": ("model.visual.patch_embed", "model.visual.blocks"),
        "connector": ("model.visual.merger",),
        "language": ("model.language_model", "lm_head"),
    },
    placement="inline",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    words=words,
    tell=tell,
    cannot=("volumes", "video", "composition from parts"),
)
