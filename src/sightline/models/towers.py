"""Vision towers for composition: any that transformers or OpenCLIP can open, with the preprocessing that it wants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from ..errors import ModelError
from ..images.transforms import Preprocess
from .parts import efficientnet_layers, efficientnet_lite, openclip_tower
from .stock import part_folder

# Importing them registers the kit's towers with AutoModel.
assert efficientnet_lite.PART.slot == efficientnet_layers.PART.slot == "vision"
OPENCLIP, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
VISUAL = "visual."
# OpenAI's, which OpenCLIP takes where a config names none (`open_clip.constants`).
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Shape:
    """What a tower makes of one image.

    Args:
        depth: layers.
        tokens: of each layer, all of them.
        width: of a token.
        leading: tokens in front of the patches: a class token, registers.
        heads: of its attention; 0 where it has none.
    """

    depth: int
    tokens: int
    width: int
    leading: int
    heads: int


def open_tower(source: str | Mapping[str, Any], seed: int) -> tuple[nn.Module, Preprocess]:
    """A vision tower and its preprocessing, from the kit, a folder, or a config (random weights).

    Raises:
        ModelError: it cannot be opened, or is not complete.
    """
    if isinstance(source, Mapping):
        config = AutoConfig.for_model(**source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tower = AutoModel.from_config(config)
        half = (0.5, 0.5, 0.5)
        return tower.eval(), Preprocess(size=config.image_size, mean=half, std=half)
    if (Path(source) / OPENCLIP).is_file():
        return _openclip(Path(source))
    place = part_folder(source)
    tower = AutoModel.from_pretrained(place, dtype=torch.float32, local_files_only=True)
    if hasattr(tower, "vision_model") and hasattr(tower, "text_model"):
        tower = tower.vision_model
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return tower.eval(), Preprocess.from_processor(processor, pad=True)


def _openclip(place: Path) -> tuple[nn.Module, Preprocess]:
    """The image side of a folder as the hub stores an OpenCLIP model; its text side is not read."""
    weights = place / WEIGHTS
    if not weights.is_file():
        raise ModelError(
            f"'{place}' holds no safetensors of OpenCLIP", where="model.vision", expected=WEIGHTS,
            remedy="convert its weights with safetensors.torch.save_file: pickles are not opened",
        )  # fmt: skip
    stored = json.loads((place / OPENCLIP).read_text(encoding="utf-8"))
    model, look = stored["model_cfg"], stored.get("preprocess_cfg") or {}
    config = openclip_tower.OpenClipTowerConfig(
        vision=model["vision_cfg"], embed_dim=model["embed_dim"], quick_gelu=model.get("quick_gelu", False)
    )
    tower = openclip_tower.OpenClipTower(config)
    own = {k: v for k, v in load_file(weights).items() if k.startswith(VISUAL)}
    missing, unexpected = tower.load_state_dict(own, strict=False)
    if missing or unexpected:
        raise ModelError(
            "the weights do not fit the tower", where=str(weights), found=f"unexpected {sorted(unexpected)[:5]}",
            expected=f"missing {sorted(missing)[:5]}",
        )  # fmt: skip
    size = config.image_size
    mean, std = tuple(look.get("mean") or MEAN), tuple(look.get("std") or STD)
    return tower.float().eval(), Preprocess(size=size, mean=mean, std=std)


@torch.no_grad()
def measure(tower: nn.Module, preprocess: Preprocess) -> Shape:
    """What a tower makes of one black image.

    Raises:
        ModelError: fewer tokens than patches.
    """
    states = layers(tower, torch.zeros(1, 3, preprocess.size, preprocess.size))
    config: Any = tower.config
    _, tokens, width = states[-1].shape
    patches = (preprocess.size // config.patch_size) ** 2
    if tokens < patches:
        raise ModelError(
            "a tower makes fewer tokens than it has patches", where="model.vision", found=str(tokens),
            expected=f"{patches} or more, at {preprocess.size} px and patches of {config.patch_size} px",
        )  # fmt: skip
    heads = getattr(config, "num_attention_heads", 0)
    depth = max(len(states) - 1, 1)
    return Shape(depth, tokens, width, tokens - patches, heads if isinstance(heads, int) else 0)


def layers(tower: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
    """What goes into the first layer and what each layer gives out, [images, tokens, width] each."""
    made: tuple[Tensor, ...] = tower(images, output_hidden_states=True, return_dict=True).hidden_states
    return made
