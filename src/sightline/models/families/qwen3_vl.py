"""Qwen3-VL: as Qwen2.5-VL, but whole pictures in every layer, and several layers of the tower are shown.

Bai et al. 2025 (arXiv 2511.21631); code: `Qwen3VLForConditionalGeneration` of transformers, opened from its folder.
States of earlier layers of the tower have connectors of their own, and what those make is added to the image places
behind the first layers of the language model (DeepStack, Meng et al. 2024, arXiv 2406.04334). Features and tokens
are therefore wider: the last layer first, then each earlier one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration
from transformers.vision_utils import (
    get_vision_attention_seqlens,
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
)

from ..family import Bundle, Family, Grid
from . import qwen2_5_vl
from .llava import head, hidden


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock Qwen3-VL folder (`path`).

    Raises:
        ModelError: no path, or no complete Qwen3-VL.
    """
    made = qwen2_5_vl.opened(FAMILY, Qwen3VLForConditionalGeneration, section, seed)
    levels = 1 + len(_shown(made.model))
    made.feature_width *= levels
    made.token_width = levels * made.model.config.text_config.hidden_size
    return made


def _shown(model: nn.Module) -> list[int]:
    """The earlier layers of the tower that are shown, first to last."""
    config: Any = model.config
    return sorted(config.vision_config.deepstack_visual_indexes)


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """States of the last layer and of those shown, the 4 patches of a token side by side.

    The tower is gone through here, since its own forward keeps no states from before the connectors.

    Args:
        model: the Qwen3-VL.
        images: [patches, values] each.
        grids: (1, rows, columns) each.

    Returns:
        [tokens, layers x 4 x width] each, in reading order.
    """
    tower: Any = model.get_submodule("model.visual")
    merge, shown = tower.config.spatial_merge_size, _shown(model)
    grid = qwen2_5_vl.sizes(grids, images[0])
    near, weights = get_vision_interpolation_indices_and_weights(
        grid, tower.num_grid_per_side, tower.interpolation_mode, tower.interpolation_align_corners, merge
    )
    states = tower.patch_embed(torch.cat(images))  # [patches, width]
    states = states + (tower.pos_embed(near) * weights[..., None]).sum(1).to(states.dtype)
    angles = tower.rotary_pos_emb(states, get_vision_position_ids(grid, merge))
    ends, longest = get_vision_attention_seqlens(grid, tower.config)
    kept = []
    for number, block in enumerate(tower.blocks):
        states = block(states, cu_seqlens=ends, max_seqlen=longest, position_embeddings=angles)
        kept += [states] if number in shown else []
    wide = [each.reshape(-1, merge**2 * each.shape[-1]) for each in (states, *kept)]
    return list(torch.cat(wide, dim=-1).split([len(image) // merge**2 for image in images]))


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tokens, layers x 4 x width] -> [tokens, layers x hidden] of each image."""
    tower: Any = model.get_submodule("model.visual")
    order = list(tower.config.deepstack_visual_indexes)
    mergers = [tower.merger, *(tower.deepstack_merger_list[order.index(i)] for i in _shown(model))]
    layers = torch.cat(features).chunk(len(mergers), dim=-1)
    width = tower.config.hidden_size
    made = [merger(each.reshape(-1, width)) for merger, each in zip(mergers, layers, strict=True)]
    return list(torch.cat(made, dim=-1).split([len(f) for f in features]))


def layer(model: nn.Module) -> str:
    """Which earlier layers of the tower are shown."""
    return f"{_shown(model)}"


def tell(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
) -> dict[str, Any]:
    """As Qwen2.5-VL, and what the first layers add at the image places."""
    told = qwen2_5_vl.tell(bundle, batch, tokens, grids, dtype)
    more = len(_shown(bundle.model))
    if tokens and more:
        _, *deep = torch.cat(tokens).chunk(1 + more, dim=-1)
        told["visual_pos_masks"] = (batch["input_ids"] == bundle.image_token)[:, batch.get("read", 0) :]
        told["deepstack_visual_embeds"] = [each.to(dtype) for each in deep]
    return told


FAMILY = Family(
    name="qwen3_vl",
    parts={
        "vision": ("model.visual.patch_embed", "model.visual.pos_embed", "model.visual.blocks"),
        "connector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "language": ("model.language_model", "lm_head"),
    },
    placement="inline",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    words=qwen2_5_vl.words,
    tell=tell,
    layer=layer,
    cannot=("volumes", "video", "composition from parts"),
)
