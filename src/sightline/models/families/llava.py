"""LLaVA: any vision encoder, a connector, any causal language model.

Liu et al. 2023 (arXiv 2304.08485, 2310.03744); code: `LlavaForConditionalGeneration` of transformers, which takes
any vision config and any text config. Image tokens stand in front of the first user turn. The image token is a
token that the vocabulary already holds and that no text uses: the vocabulary never grows. A connector that fuses
(`connectors/temporal.py`) is given all layers of the tower, of the current image and of the prior one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from ...errors import ModelError
from ...images.transforms import Preprocess
from .. import conversations, languages, towers
from ..connector import Joint, make
from ..family import Bundle, Family, Grid
from ..stock import part_folder, weights

Prior = Literal["stand", "fuse", "leave"]
_image_token = languages.image_token


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Put a LLaVA together from a recipe's `model` section, or open a stock LLaVA folder (`path`).

    The connector of a composed model is random, a function of the seed alone, unless the section names its weights.
    Under `torch.device("meta")` parts given as configs are put together without values.

    Raises:
        ModelError: a part cannot be opened, the connector cannot join them, or the vocabulary has no unused token.
    """
    if section.get("path"):
        return _open(Path(section["path"]), section)
    tower, preprocess = towers.open_tower(section["vision"], seed)
    language, tokenizer = languages.open_language(section["language"], seed, section.get("template"))
    return assemble(tower, preprocess, language, tokenizer, section, seed)


def assemble(
    tower: Any, preprocess: Preprocess, language: Any, tokenizer: Any, section: Mapping[str, Any], seed: int
) -> Bundle:
    """A LLaVA of parts that are open already; the rest as in `compose`."""
    table = language.get_input_embeddings().weight
    shape = towers.measure(tower, preprocess)
    drops = section["select"] == "default" and shape.leading > 0
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1),
        text_config=language.config,
        image_token_index=languages.image_token(tokenizer, len(table), section.get("image_token")),
        vision_feature_layer=section["select_layer"],
        vision_feature_select_strategy="default" if drops else "full",
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    joint = Joint(
        depth=shape.depth,
        width=shape.width,
        hidden=table.shape[1],
        heads={"vision": shape.heads, "language": getattr(language.config, "num_attention_heads", 0)},
    )
    spread = 1.0 if table.is_meta else float(table.detach().float().std())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device("meta"):
            model: Any = LlavaForConditionalGeneration(config)
        connector, kind = make(section["connector"], joint, spread)
    config.vision_config = tower.config
    config.leading = shape.leading
    config.every_layer = kind.fuses
    config.heads = getattr(connector, "heads", 0)
    model.model.vision_tower = tower
    model.model.multi_modal_projector = connector
    model.model.language_model = language.get_decoder()
    model.lm_head = language.get_output_embeddings()
    model.config.dtype = torch.float32
    return _bundle(model.float(), tokenizer, preprocess, section, seed)


def _open(place: Path, section: Mapping[str, Any]) -> Bundle:
    """A stock LLaVA checkpoint folder, as it is."""
    model = weights(LlavaForConditionalGeneration, part_folder(str(place)), "LLaVA")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    if section.get("template"):
        tokenizer.chat_template = conversations.find(section["template"]).jinja
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return _bundle(model, tokenizer, Preprocess.from_processor(processor, pad=True), section, 0)


def _bundle(
    model: Any, tokenizer: Any, preprocess: Preprocess, section: Mapping[str, Any], seed: int
) -> Bundle:
    model.eval()
    with torch.no_grad():
        blank = torch.zeros(3, preprocess.size, preprocess.size)
        made = encode_images(model, [blank], [()])[0]  # [tokens, width], or [1, layers, tokens, width]
    template = section.get("template")
    bundle = Bundle(
        family=FAMILY,
        model=model,
        tokenizer=tokenizer,
        preprocess=preprocess,
        image_token=model.config.image_token_index,
        tokens_per_image=made.shape[-2],
        feature_width=made.numel() // made.shape[-2],
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
        prior=_prior(section.get("prior", "auto"), fuses(model)),
        wording=conversations.find(template).wording if template else {},
    )
    # The default would leave soft capping out.
    bundle.attend(str(model.model.language_model.config._attn_implementation))
    return bundle


def _prior(asked: str, fusing: bool) -> Prior:
    """What becomes of prior images.

    Raises:
        ModelError: the connector compares pairs, and prior images are to stand for themselves.
    """
    if asked == "auto":
        return "fuse" if fusing else "stand"
    if asked == "leave":
        return "leave"
    if fusing:
        raise ModelError(
            "a connector that compares an image with its prior leaves the prior no place of its own",
            where="model.prior", found=asked, expected="auto or leave",
        )  # fmt: skip
    return "stand"


def fuses(model: nn.Module) -> bool:
    """Whether the connector takes all layers, of the current image and of the prior one."""
    return bool(getattr(model.config, "every_layer", False))


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Tokens of the tower's chosen layer, before the connector; of all its layers for a connector that fuses.

    Args:
        model: the LLaVA.
        images: [3, S, S] each; for a connector that fuses also [2, 3, S, S], current and prior.
        grids: not needed: every image is one square.

    Returns:
        [tokens, width] each; for a connector that fuses [1 or 2, layers, tokens, width].
    """
    if fuses(model):
        tower, first = model.get_submodule("model.vision_tower"), _first(model)
        several = [image if image.dim() == 4 else image[None] for image in images]
        states = towers.layers(tower, torch.cat(several))
        inner = states[1:] or states  # a convolutional tower has its output only
        made = torch.stack([state[:, first:] for state in inner], dim=1)  # [images, layers, tokens, width]
        return list(made.split([len(image) for image in several]))
    return list(chosen(model, torch.stack(images)).unbind())


def chosen(model: nn.Module, images: Tensor) -> Tensor:
    """Tokens [images, tokens, width] of the chosen layer of the tower; the chosen layers' beside one another."""
    config: Any = model.config
    states = towers.layers(model.get_submodule("model.vision_tower"), images)
    layers = config.vision_feature_layer
    own = [states[i][:, _first(model) :] for i in ([layers] if isinstance(layers, int) else layers)]
    return torch.cat(own, dim=-1)


def _first(model: nn.Module) -> int:
    """How many tokens in front of the patches are left out."""
    config: Any = model.config
    return getattr(config, "leading", 1) if config.vision_feature_select_strategy == "default" else 0


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Features of each image, as `encode_images` gives them -> [tokens, hidden] of each.

    Of a connector that fuses, an image without a prior one is its own.
    """
    connector = model.get_submodule("model.multi_modal_projector")
    if not fuses(model):
        return list(connector(torch.stack(features)).unbind())
    current, prior = torch.stack([f[0] for f in features]), torch.stack([f[-1] for f in features])
    present = torch.tensor([len(f) == 2 for f in features], device=current.device)
    return list(connector(current, prior, present).unbind())


def layer(model: nn.Module) -> str:
    """Which layer of the tower, and whether without its class token; all of them, and how a connector looks at them."""
    config: Any = model.config
    if not fuses(model):
        return f"{config.vision_feature_layer}/{config.vision_feature_select_strategy}"
    return f"all/{config.vision_feature_select_strategy}/{config.heads} heads"


def hidden(model: nn.Module, inputs_embeds: Tensor, **kwargs: Any) -> Any:
    """The language model without its head."""
    return model.model.language_model(inputs_embeds=inputs_embeds, **kwargs)


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer from hidden states to logits, with soft capping where the language model has it (Gemma 2)."""
    config: Any = model.config
    plain: Any = model.lm_head
    cap = getattr(config.get_text_config(), "final_logit_softcapping", None)
    if cap is None:
        return plain
    return lambda states: torch.tanh(plain(states) / cap) * cap


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
