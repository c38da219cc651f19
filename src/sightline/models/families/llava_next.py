"""LLaVA-NeXT (LLaVA-1.6): the picture as a whole and in up to four tiles of full resolution.

Liu et al. 2024 (llava-vl.github.io/blog/2024-01-30-llava-next); code: `LlavaNextForConditionalGeneration` of
transformers, opened from its folder. The tiles follow the image's shape; what the padding of the best grid holds is
cut away, and every line of tiles ends in a learned `image_newline`, so the number of tokens depends on the size. That
vector is a part of its own, `newline`: it trains in full or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
)
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image

from ...errors import ModelError
from .. import conversations, languages, towers
from ..connector import Joint, make
from ..family import Bundle, Family, Grid
from ..stock import StockProcessor, folder, template, weights
from .llava import head, hidden, layer

GRIDS = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))  # rows and columns of tiles, as LLaVA-1.6's are


@dataclass(frozen=True)
class Tiles(StockProcessor):
    """One image to its tiles [tiles, 3, S, S], the whole picture first, by the checkpoint's own image processor.

    Args:
        processor: a `LlavaNextImageProcessor`.
    """

    version: ClassVar[str] = "llava_next.1"

    def grid(self, height: int, width: int) -> Grid:
        """The size itself: the tiles follow from it."""
        return (height, width)


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock LLaVA-NeXT folder (`path`); `template` names a conversation format instead of the folder's own.

    Without a path, a `vision` config makes a new one: any tower, connector and language model, as in `llava`.

    Raises:
        ModelError: no path and no config, no complete LLaVA-NeXT, no such format, or parts that do not join.
    """
    if not section.get("path") and isinstance(section.get("vision"), Mapping):
        return _new(section, seed)
    place = folder(section, "a LLaVA-NeXT")
    model = weights(LlavaNextForConditionalGeneration, place, "LLaVA-NeXT")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    wording: Mapping[str, Any] = {"kept": True}
    if section.get("template"):
        form = conversations.find(section["template"])
        tokenizer.chat_template, wording = form.jinja, form.wording
    else:
        tokenizer.chat_template = template(place, tokenizer)
    tiles = Tiles(AutoImageProcessor.from_pretrained(place, local_files_only=True))
    return _bundle(model, tokenizer, tiles, wording, section, seed)


def _new(section: Mapping[str, Any], seed: int) -> Bundle:
    """One of parts: a random tower of a config, a random connector, a language model of the kit, a folder or a config.

    Raises:
        ModelError: a part cannot be opened, or the connector fuses two images.
    """
    tower, look = towers.open_tower(section["vision"], seed)
    language, tokenizer = languages.open_language(section["language"], seed, section.get("template"))
    table = language.get_input_embeddings().weight
    shape, spread = towers.measure(tower, look), float(table.detach().float().std())
    pinpoints = [[rows * look.size, columns * look.size] for rows, columns in GRIDS]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1),
        text_config=language.config,
        image_token_index=languages.image_token(tokenizer, len(table), section.get("image_token")),
        vision_feature_layer=section.get("select_layer", -2),
        vision_feature_select_strategy="default",
        image_grid_pinpoints=pinpoints,
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    heads = {"vision": shape.heads, "language": getattr(language.config, "num_attention_heads", 0)}
    joint = Joint(depth=shape.depth, width=shape.width, hidden=table.shape[1], heads=heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta"):
            model: Any = LlavaNextForConditionalGeneration(config)
        connector, kind = make(section.get("connector", "mlp2x_gelu"), joint, spread)
        newline = nn.Parameter(torch.randn(table.shape[1]) * spread)
    if kind.fuses:
        raise ModelError(
            "this connector compares two images of one size, and here an image has several tiles",
            where="model.connector", found=kind.name, expected="linear or mlpNx_gelu",
        )  # fmt: skip
    config.vision_config, config.leading = tower.config, shape.leading
    model.model.vision_tower, model.model.multi_modal_projector = tower, connector
    model.model.image_newline = newline
    model.model.language_model, model.lm_head = language.get_decoder(), language.get_output_embeddings()
    edge = {"height": look.size, "width": look.size}
    tiles = LlavaNextImageProcessor(
        size={"shortest_edge": look.size}, crop_size=edge, image_grid_pinpoints=pinpoints,
        image_mean=list(look.mean), image_std=list(look.std),
    )  # fmt: skip
    wording = conversations.find(section["template"]).wording if section.get("template") else {}
    made = _bundle(model.float(), tokenizer, Tiles(tiles), wording, section, seed)
    made.attend(str(language.config._attn_implementation))
    return made


def _bundle(
    model: Any,
    tokenizer: Any,
    tiles: Tiles,
    wording: Mapping[str, Any],
    section: Mapping[str, Any],
    seed: int,
) -> Bundle:
    """All that belongs to a model."""
    model.eval()
    made = Bundle(
        family=FAMILY,
        model=model,
        tokenizer=tokenizer,
        preprocess=tiles,
        image_token=model.config.image_token_id,
        tokens_per_image=0,
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
        wording=wording,
        fixed=False,
    )
    largest = max(model.config.image_grid_pinpoints, key=lambda size: size[0] * size[1])
    made.tokens_per_image = len(words(made, tuple(largest)))
    layers = model.config.vision_feature_layer
    made.feature_width = model.config.vision_config.hidden_size * (
        1 if isinstance(layers, int) else len(layers)
    )
    return made


def words(bundle: Bundle, grid: Grid) -> tuple[int, ...]:
    """The image token as often as the model makes tokens of an image of this height and width.

    Counted on a tensor without values, by the function that cuts the padding off in the model.
    """
    config = bundle.model.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    rows, columns = _tiles(bundle.model, grid)
    whole = torch.empty(1, rows * side, columns * side, device="meta")
    _, height, width = unpad_image(whole, grid).shape
    return (bundle.image_token,) * (side * side + height * (width + 1))


def _tiles(model: nn.Module, grid: Grid) -> tuple[int, int]:
    """Rows and columns of tiles for an image of this height and width."""
    config: Any = model.config
    rows, columns = get_anyres_image_grid_shape(
        grid, config.image_grid_pinpoints, config.vision_config.image_size
    )
    return int(rows), int(columns)


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Tokens of the tower's chosen layer for every tile.

    Args:
        model: the LLaVA-NeXT.
        images: [tiles, 3, S, S] each.
        grids: (height, width) each.

    Returns:
        [tiles, tokens, width] each.
    """
    config: Any = model.config
    tower: Any = model.get_submodule("model.vision_tower")
    states = tower(torch.cat(images), output_hidden_states=True, return_dict=True).hidden_states
    layers = config.vision_feature_layer
    chosen = [states[i] for i in ([layers] if isinstance(layers, int) else layers)]
    if config.vision_feature_select_strategy == "default":
        chosen = [c[:, getattr(config, "leading", 1) :] for c in chosen]
    return list(torch.cat(chosen, dim=-1).split([len(image) for image in images]))


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tiles, tokens, width] -> [tokens, hidden] of each image: joined, cut and with ends of lines."""
    inner: Any = model.get_submodule("model")
    made = inner.multi_modal_projector(torch.cat(features))
    packed, _ = inner.pack_image_features(
        list(made.split([len(f) for f in features])),
        torch.tensor([list(grid) for grid in grids]),
        vision_feature_select_strategy=inner.config.vision_feature_select_strategy,
        image_newline=inner.image_newline,
    )
    return list(packed)


FAMILY = Family(
    name="llava_next",
    parts={
        "vision": ("model.vision_tower",),
        "connector": ("model.multi_modal_projector",),
        "newline": ("model.image_newline",),
        "language": ("model.language_model", "lm_head"),
    },
    placement="front",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    words=words,
    opening=" ",
    between=("connector", "newline"),
    layer=layer,
    cannot=("volumes",),
)
