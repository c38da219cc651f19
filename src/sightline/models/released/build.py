"""A gathered release as models of transformers, with all weights and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
)

from ...errors import ModelError
from ..stock import part_folder
from .gather import Released
from .weights import State, same

# What the originals' classes and `model_type`s say about the language model, longest words first.
LANGUAGES = ("mistral", "llama", "phi3", "gemma", "qwen2")
PATCHES = {"patch": "default", "cls_patch": "full"}
ROTARY = ("rope_theta", "rope_scaling")
TABLE = "model.embed_tokens.weight"


@dataclass(kw_only=True)
class Tower:
    """A vision tower: its config, its weights, its image processor and a name for messages."""

    config: Any
    state: State
    processor: Any
    place: str


def open_tower(released: Released, folder: Path | None) -> Tower:
    """The tower of a release: its own weights where it was trained, else those of a folder.

    Args:
        released: the release.
        folder: of the tower, with its config and image processor; None: what the release names, if it is a folder.

    Raises:
        ModelError: no folder, or weights that do not fit the tower.
    """
    named = str(released.config.get("mm_vision_tower") or released.config.get("vision_tower") or "")
    place = folder or Path(named)
    if not (place / "config.json").is_file():
        raise ModelError(
            "the vision tower is not part of this checkpoint", where="--vision", found=str(folder or "not given"),
            expected=f"the folder of {named or 'its tower'}, with config.json and preprocessor_config.json",
            remedy="download it yourself: Sightline opens no network connection",
        )  # fmt: skip
    config = AutoConfig.from_pretrained(place, local_files_only=True)
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        config = config.vision_config
    with torch.device("meta"):
        empty = AutoModel.from_config(config)
    state = released.parts.vision or _stored(place)
    state = {name.removeprefix("vision_model."): value for name, value in state.items()}
    own = {name.removeprefix("vision_model."): name for name in empty.state_dict()}
    same(set(state), set(own), f"vision tower, {place}")
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return Tower(
        config=config, state={own[k]: v for k, v in state.items()}, processor=processor, place=str(place)
    )


def _stored(place: Path) -> State:
    """The weights of a tower's folder, alone or of an image-text model, in the number format that they have."""
    model = AutoModel.from_pretrained(part_folder(str(place)), local_files_only=True, dtype="auto")
    if hasattr(model, "vision_model") and hasattr(model, "text_model"):
        model = model.vision_model
    return dict(model.state_dict())


def open_tokenizer(released: Released, folder: Path | None) -> Any:
    """The tokenizer of a release, or of the folder that is named.

    Raises:
        ModelError: none can be opened.
    """
    places = [folder] if folder else released.tokenizers
    reasons = []
    for place in places:
        if place is None or not list(place.glob("tokenizer*")):
            continue
        try:
            return AutoTokenizer.from_pretrained(place, local_files_only=True)
        except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
            reasons.append(f"{place}: {type(error).__name__}")
    raise ModelError(
        "no tokenizer of this checkpoint can be opened", where=", ".join(str(p) for p in places),
        found="; ".join(reasons) or "no tokenizer files", expected="a folder with tokenizer.json",
        remedy="name one as `--tokenizer`; a lone tokenizer.model needs the package sentencepiece",
    )  # fmt: skip


def language_config(config: Mapping[str, Any], state: State, where: str) -> Any:
    """The config of the language model alone.

    Args:
        config: of the release.
        state: the language model's weights; the rows of its table of words count.
        where: for messages.

    Raises:
        ModelError: a language model that is not known here, or no table of words.
    """
    said = " ".join(str(config.get(key, "")) for key in ("architectures", "model_type")).lower()
    kind = next(
        (name for name in LANGUAGES if name in said), "llama" if said.split()[-1:] == ["llava"] else ""
    )
    if not kind or TABLE not in state:
        raise ModelError(
            "the language model of this checkpoint is not known", where=where, found=said,
            expected=f"{', '.join(LANGUAGES)}, with {TABLE}",
        )  # fmt: skip
    plain = CONFIG_MAPPING[kind]().to_dict()
    kept = {k: v for k, v in config.items() if k in plain or k in ROTARY}
    drop = ("model_type", "architectures", "transformers_version", "_name_or_path", "torch_dtype", "dtype")
    kept = {k: v for k, v in kept.items() if k not in drop and not (k == "rope_parameters" and v is None)}
    return CONFIG_MAPPING[kind].from_dict({**kept, "vocab_size": state[TABLE].shape[0]})


def language_model(released: Released, where: str) -> Any:
    """The causal language model alone."""
    state = released.parts.language
    config = language_config(released.config, state, where)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return fill(model, untied(state, config), f"language model, {where}")


def untied(state: State, config: Any) -> State:
    """The weights without a second copy of the table of words, where the model has one for both ends."""
    head = state.get("lm_head.weight")
    if head is None or not config.tie_word_embeddings or not torch.equal(head, state[TABLE]):
        return state
    return {name: tensor for name, tensor in state.items() if name != "lm_head.weight"}


def stock(released: Released, tower: Tower, image_token: int, where: str) -> Any:
    """A LLaVA or, where it has an end for lines of tiles, a LLaVA-NeXT of transformers.

    Raises:
        ModelError: weights are missing, unexpected or of other shapes; or a way to join tiles that is not known here.
    """
    parts = released.parts
    text = language_config(released.config, parts.language, where)
    common: dict[str, Any] = {
        "vision_config": tower.config,
        "text_config": text,
        "image_token_index": image_token,
        "vision_feature_layer": layer(released.config, where),
        "vision_feature_select_strategy": selection(released.config, where),
        "tie_word_embeddings": text.tie_word_embeddings,
    }
    state = {f"model.vision_tower.{k}": v for k, v in tower.state.items()}
    state |= {f"model.multi_modal_projector.{k}": v for k, v in parts.connector.items()}
    for name, tensor in untied(parts.language, text).items():
        inner = name.startswith("model.")
        state[f"model.language_model.{name.removeprefix('model.')}" if inner else name] = tensor
    if not tiled(released.config):
        if parts.newline is not None:
            state["model.image_newline"] = parts.newline
        kind, config = LlavaForConditionalGeneration, LlavaConfig(**common)
    else:
        if parts.newline is not None:
            state["model.image_newline"] = parts.newline
        points = released.config.get("image_grid_pinpoints")
        kind, config = (
            LlavaNextForConditionalGeneration,
            LlavaNextConfig(image_grid_pinpoints=points, **common),
        )
    with torch.device("meta"):
        model = kind(config)
    return fill(model, state, where)


def tiled(config: Mapping[str, Any]) -> bool:
    """Whether pictures are cut into tiles, as in LLaVA-1.6.

    Raises:
        ModelError: tiles that are joined in another way.
    """
    shape, joined = config.get("image_aspect_ratio", ""), config.get("mm_patch_merge_type", "flat")
    points = config.get("image_grid_pinpoints")
    if shape != "anyres":
        return False
    if joined != "spatial_unpad" or not isinstance(points, list):
        raise ModelError(
            "this checkpoint joins its tiles in a way that is not known here", where="config.json",
            found=f"image_aspect_ratio {shape}, mm_patch_merge_type {joined}, image_grid_pinpoints {points}",
            expected="anyres, spatial_unpad and a list of sizes",
        )  # fmt: skip
    return True


def layer(config: Mapping[str, Any], where: str) -> int:
    """Which layer of the tower is taken.

    Raises:
        ModelError: none, or all of them, which only a temporal connector takes.
    """
    said = config.get("mm_vision_select_layer", -2)
    if not isinstance(said, int):
        raise ModelError(
            "this connector takes one layer of the tower", where=f"{where}, mm_vision_select_layer",
            found=repr(said), expected="a number, such as -2",
        )  # fmt: skip
    return said


def selection(config: Mapping[str, Any], where: str) -> str:
    """Which tokens of the tower are taken: `default` leaves out the class token."""
    said = str(config.get("mm_vision_select_feature") or "patch")
    if said not in PATCHES:
        raise ModelError(
            "unknown choice of the tower's tokens", where=where, found=said, expected=", ".join(PATCHES)
        )
    return PATCHES[said]


def fill(model: Any, state: State, where: str) -> Any:
    """Put all weights into a model without values.

    Raises:
        ModelError: names that are missing or unexpected, or other shapes; the first are named.
    """
    own = model.state_dict()
    if (
        getattr(model.config, "tie_word_embeddings", False)
        and "lm_head.weight" in own
        and "lm_head.weight" not in state
    ):
        own.pop("lm_head.weight")
    same(set(state), set(own), where)
    odd = [
        f"{k} {tuple(v.shape)}, not {tuple(own[k].shape)}"
        for k, v in state.items()
        if v.shape != own[k].shape
    ]
    if odd:
        raise ModelError(
            "the weights of this checkpoint have other shapes", where=where, found="; ".join(sorted(odd)[:3]),
            expected="the shapes that config.json says", remedy="give the base and the tower that it was trained with",
        )  # fmt: skip
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    model.config.dtype = state[next(iter(state))].dtype
    return model


def tower_model(tower: Tower) -> nn.Module:
    """The tower as a model of its own."""
    with torch.device("meta"):
        model = AutoModel.from_config(tower.config)
    made: nn.Module = fill(model, tower.state, f"vision tower, {tower.place}")
    return made
