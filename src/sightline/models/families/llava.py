"""LLaVA: any vision encoder, a two-layer connector, any causal language model.

Liu et al. 2023 (arXiv 2304.08485, 2310.03744); code: `LlavaForConditionalGeneration` of transformers, which takes
any vision config and any text config. Image tokens stand in front of the first user turn. The image token is a
token that the vocabulary already holds and that no text uses: the vocabulary never grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from ...errors import ModelError
from ...images.transforms import Preprocess
from ..family import Bundle, Family, Grid
from ..parts import efficientnet_lite
from ..stock import part_folder, weights

assert efficientnet_lite.PART.slot == "vision"  # importing it registers the kit's tower with AutoModel

CONNECTORS = {"mlp2x_gelu": "gelu"}
# Tokens that vocabularies reserve and no text uses, best first.
RESERVED = (
    "<image>",
    "<|image_pad|>",
    "<empty_output>",
    "<|reserved_special_token_0|>",
    "<unused0>",
    "<pad>",
)


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Put a LLaVA together from a recipe's `model` section, or open a stock LLaVA folder (`path`).

    The connector of a composed model is random: a function of the seed alone.

    Raises:
        ModelError: a part cannot be opened, or the vocabulary has no unused token.
    """
    if section.get("path"):
        return _open(Path(section["path"]), section)
    if section["connector"] not in CONNECTORS:
        raise ModelError(f"unknown connector '{section['connector']}'", expected=", ".join(CONNECTORS))
    tower, preprocess = _vision(section["vision"], seed)
    language, tokenizer = _language(section["language"])
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=language.config,
        image_token_index=_image_token(tokenizer),
        projector_hidden_act=CONNECTORS[section["connector"]],
        vision_feature_layer=section["select_layer"],
        vision_feature_select_strategy=section["select"],
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta"):
            model = LlavaForConditionalGeneration(config)
        connector = type(model.model.multi_modal_projector)(config)
        _start(connector, language.get_input_embeddings().weight)
    model.model.vision_tower = tower
    model.model.multi_modal_projector = connector
    model.model.language_model = language.get_decoder()
    model.lm_head = language.get_output_embeddings()
    model.config.dtype = torch.float32
    return _bundle(model.float(), tokenizer, preprocess, section, seed)


def _start(connector: nn.Module, embeddings: Tensor) -> None:
    """Scale the connector's output to the spread of the embedding table, so that images start as 'words'.

    For input of unit variance per channel; GELU of a unit normal has a second moment of 0.425.
    """
    first, second = connector.linear_1, connector.linear_2
    spread = float(embeddings.detach().float().std())
    nn.init.normal_(first.weight, std=first.in_features**-0.5)
    nn.init.normal_(second.weight, std=spread * (0.425 * second.in_features) ** -0.5)
    nn.init.zeros_(first.bias)
    nn.init.zeros_(second.bias)


def _vision(source: str | Mapping[str, Any], seed: int) -> tuple[nn.Module, Preprocess]:
    """A vision tower and its preprocessing, from the kit, a folder, or a config (random weights)."""
    if isinstance(source, Mapping):
        config = AutoConfig.for_model(**source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            tower = AutoModel.from_config(config)
        half = (0.5, 0.5, 0.5)
        return tower.eval(), Preprocess(size=config.image_size, mean=half, std=half)
    place = part_folder(source)
    tower = AutoModel.from_pretrained(place, dtype=torch.float32, local_files_only=True)
    if hasattr(tower, "vision_model") and hasattr(tower, "text_model"):
        tower = tower.vision_model
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return tower.eval(), Preprocess.from_processor(processor, pad=True)


def _language(source: str | Mapping[str, Any]) -> tuple[Any, Any]:
    """A causal language model and its tokenizer."""
    if isinstance(source, Mapping):
        raise ModelError(
            "a language model needs a tokenizer", found="a config", expected="kit/NAME or a folder"
        )
    place = part_folder(source)
    model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    if not tokenizer.chat_template:
        raise ModelError(
            "the language model has no chat template", where=str(source), remedy="add chat_template.jinja"
        )
    return model, tokenizer


def _image_token(tokenizer: Any) -> int:
    """The id of a token that the vocabulary holds and no text uses."""
    known = tokenizer.get_vocab()
    for word in RESERVED:
        if word in known and known[word] in tokenizer.added_tokens_decoder:
            return int(known[word])
    raise ModelError(
        "the vocabulary has no unused token for images", expected=f"one of {', '.join(RESERVED)}",
        remedy="use another tokenizer: Sightline never grows a vocabulary",
    )  # fmt: skip


def _open(place: Path, section: Mapping[str, Any]) -> Bundle:
    """A stock LLaVA checkpoint folder, as it is."""
    model = weights(LlavaForConditionalGeneration, part_folder(str(place)), "LLaVA")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return _bundle(model, tokenizer, Preprocess.from_processor(processor, pad=True), section, 0)


def _bundle(
    model: Any, tokenizer: Any, preprocess: Preprocess, section: Mapping[str, Any], seed: int
) -> Bundle:
    model.eval()
    with torch.no_grad():
        blank = torch.zeros(3, preprocess.size, preprocess.size)
        tokens, width = encode_images(model, [blank], [()])[0].shape
    return Bundle(
        family=FAMILY,
        model=model,
        tokenizer=tokenizer,
        preprocess=preprocess,
        image_token=model.config.image_token_index,
        tokens_per_image=tokens,
        feature_width=width,
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
    )


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Tokens of the tower's chosen layer, before the connector.

    Args:
        model: the LLaVA.
        images: [3, S, S] each.
        grids: not needed: every image is one square.

    Returns:
        [tokens, width] each.
    """
    config = model.config
    states = model.model.vision_tower(
        torch.stack(images), output_hidden_states=True, return_dict=True
    ).hidden_states
    layers = config.vision_feature_layer
    chosen = [states[i] for i in ([layers] if isinstance(layers, int) else layers)]
    if config.vision_feature_select_strategy == "default":
        chosen = [c[:, 1:] for c in chosen]  # drops the class token
    return list(torch.cat(chosen, dim=-1).unbind())


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tokens, width] -> [tokens, hidden] of each image."""
    return list(model.model.multi_modal_projector(torch.stack(features)).unbind())


def layer(model: nn.Module) -> str:
    """Which layer of the tower, and whether without its class token."""
    return f"{model.config.vision_feature_layer}/{model.config.vision_feature_select_strategy}"


def hidden(model: nn.Module, inputs_embeds: Tensor, **kwargs: Any) -> Any:
    """The language model without its head."""
    return model.model.language_model(inputs_embeds=inputs_embeds, **kwargs)


def head(model: nn.Module) -> nn.Module:
    """The layer from hidden states to logits."""
    return model.lm_head


FAMILY = Family(
    name="llava",
    parts={
        "vision": ("model.vision_tower",),
        "connector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    placement="front",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    layer=layer,
    head=head,
    cannot=("volumes", "several images of different sizes"),
)
