"""Gemma 3 and MedGemma: a SigLIP tower, pooled to few tokens, in front of a model with windows of two kinds.

Gemma Team 2025 (arXiv 2503.19786), Sellergren et al. 2025 (arXiv 2507.05201); code: `Gemma3ForConditionalGeneration`
of transformers, opened from its folder. The tokens of one image see each other in both directions. Most layers see
the last W positions only. Both hold in rows of several answers too, since W is counted in positions, not in places
(W = 3, one image i i i, the answers a and b; 1: every layer, f: only layers without a window):

              p  i  i  i  p  a  a  b  b     position
    p         1  .  .  .  .  .  .  .  .        0
    i         1  1  1  1  .  .  .  .  .        1
    i         1  1  1  1  .  .  .  .  .        2
    i         f  1  1  1  .  .  .  .  .        3
    p         f  f  1  1  1  .  .  .  .        4
    a         f  f  f  1  1  1  .  .  .        5
    a         f  f  f  f  1  1  1  .  .        6
    b         f  f  f  1  1  .  .  1  .        5
    b         f  f  f  f  1  .  .  1  1        6
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention.flex_attention import and_masks, create_block_mask, or_masks
from transformers import AutoImageProcessor, AutoTokenizer, Gemma3ForConditionalGeneration

from ... import runs
from ...errors import ModelError
from .. import pairpass
from ..family import Bundle, Family, Grid
from ..stock import StockProcessor, folder, weights


@dataclass(frozen=True)
class Square(StockProcessor):
    """One image to one square [3, S, S], by the checkpoint's own image processor.

    Args:
        processor: a `Gemma3ImageProcessor`.
    """

    version: ClassVar[str] = "gemma3.1"

    def grid(self, height: int, width: int) -> Grid:
        """Nothing: every image becomes one square, whatever its size."""
        return ()


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock Gemma 3 folder (`path`).

    Raises:
        ModelError: no path, no complete Gemma 3, or settings that are not done here.
    """
    place = folder(section, "a Gemma 3")
    kind = runs.read_json(place / "config.json").get("model_type")
    if kind != "gemma3":
        raise ModelError(
            f"'{place}' is no Gemma 3 with images", where="config.json, model_type", found=str(kind),
            expected="gemma3",
        )  # fmt: skip
    model = weights(Gemma3ForConditionalGeneration, place, "Gemma 3")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    if not tokenizer.chat_template:
        raise ModelError(
            "the checkpoint has no chat template", where=str(place),
            remedy="use the instruction-tuned one (`-it`), or add its chat_template.jinja",
        )  # fmt: skip
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    _check(model.config, processor.to_dict())
    model.eval()
    return Bundle(
        family=FAMILY,
        model=model,
        tokenizer=tokenizer,
        preprocess=Square(processor),
        image_token=model.config.image_token_id,
        tokens_per_image=model.config.mm_tokens_per_image,
        feature_width=model.config.vision_config.hidden_size,
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
    )


def _check(config: Any, processor: Mapping[str, Any]) -> None:
    """Refuse what would be passed over in silence, or break far from its cause."""
    vision, side = config.vision_config, math.isqrt(config.mm_tokens_per_image)
    size = dict(processor.get("size") or {})
    found = (size.get("height"), size.get("width"))
    patches = vision.image_size // vision.patch_size
    wrong = [
        (bool(processor.get("do_pan_and_scan")), "pan and scan", "on", "off"),
        (bool(config.text_config.use_bidirectional_attention), "use_bidirectional_attention", "on", "off"),
        (found != (vision.image_size,) * 2, "size of the image processor", found, vision.image_size),
        (patches % side != 0 or side**2 != config.mm_tokens_per_image, "mm_tokens_per_image",
         config.mm_tokens_per_image, f"a square number whose root divides {patches}"),
        (config.image_token_id >= config.text_config.vocab_size, "image_token_index", config.image_token_id,
         f"below {config.text_config.vocab_size}, the vocabulary"),
    ]  # fmt: skip
    for refused, name, is_now, expected in wrong:
        if refused:
            raise ModelError(
                "this Gemma 3 is set in a way that is not supported", where=name, found=str(is_now),
                expected=str(expected), remedy="use a checkpoint without it, or mend its config",
            )  # fmt: skip


def words(bundle: Bundle, grid: Grid) -> tuple[int, ...]:
    """The begin of an image, its tokens, its end. The line breaks around it are `around`."""
    config: Any = bundle.model.config
    return (config.boi_token_id, *[bundle.image_token] * bundle.tokens_per_image, config.eoi_token_id)


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """What the tower makes of images, already pooled: the pool learns nothing, and features to keep are few.

    Args:
        model: the Gemma 3.
        images: [3, S, S] each.
        grids: not needed: every image is one square.

    Returns:
        [tokens, width] each; a Gemma 3 of 896 px pools 4096 patches to 256 tokens.
    """
    tower: Any = model.get_submodule("model.vision_tower")
    states = tower(pixel_values=torch.stack(images), return_dict=True).last_hidden_state
    side, pool = _sides(model)
    plane = states.transpose(1, 2).unflatten(
        2, (side * pool, side * pool)
    )  # [images, width, patches, patches]
    return list(functional.avg_pool2d(plane.contiguous(), pool).flatten(2).transpose(1, 2).unbind())


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tokens, width] -> [tokens, hidden] of each image.

    The stock connector pools by itself. It is given every feature as often as its pool averages, which gives the
    feature back.
    """
    side, pool = _sides(model)
    plane = torch.stack(features).unflatten(1, (side, side))  # [images, side, side, width]
    patches = plane.repeat_interleave(pool, 1).repeat_interleave(pool, 2).flatten(1, 2)
    return list(model.get_submodule("model.multi_modal_projector")(patches).unbind())


def _sides(model: nn.Module) -> tuple[int, int]:
    """Tokens along an image's side, and patches along a token's side."""
    config: Any = model.config
    side = math.isqrt(config.mm_tokens_per_image)
    return side, config.vision_config.image_size // config.vision_config.patch_size // side


def layer(model: nn.Module) -> str:
    """The last layer, and how many tokens it is pooled to."""
    return f"-1/pooled {_sides(model)}"


def hidden(model: nn.Module, inputs_embeds: Tensor, **kwargs: Any) -> Any:
    """The language model without its head; nothing is kept for a next step unless asked for."""
    language: Any = model.get_submodule("model.language_model")
    return language(inputs_embeds=inputs_embeds, **{"use_cache": False, **kwargs})


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The layer from hidden states to logits, with soft capping if the config has it.

    `Gemma3ForCausalLM` caps so; `Gemma3ForConditionalGeneration` of transformers 5.17 forgets it. No Gemma 3 that
    was published sets it.
    """
    config: Any = model.config
    plain, cap = model.get_submodule("lm_head"), config.text_config.final_logit_softcapping
    if cap is None:
        return plain
    return lambda states: torch.tanh(plain(states) / cap) * cap


def tell(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
) -> dict[str, Any]:
    """A mask for each kind of layer, and positions. See the picture at the file's head.

    Rows without images that causal attention alone is right for are left to the model itself.
    """
    language = bundle.family.language(bundle.model)
    read = batch.get("read", 0)
    if not tokens and batch.get("plain", "document" not in batch and "read" not in batch):
        return pairpass.arrange(language, batch, dtype)
    config: Any = language.config
    document, segment, position = pairpass.layout(batch)
    image = blocks_of_images(batch["input_ids"] == bundle.image_token, document)
    if str(config._attn_implementation) == "flex_attention" and "read" not in batch:
        seen: Any = _flex(document, segment, position, image, config.sliding_window)
    else:
        together = (image[:, read:, None] == image[:, None, :]) & (image >= 0)[:, None, :]
        whole = pairpass.visible(document, segment, read) | together
        seen = pairpass.masks(config, whole, position, dtype)
    return {"attention_mask": seen, "position_ids": position[:, read:]}


def blocks_of_images(places: Tensor, document: Tensor) -> Tensor:
    """Which image each token belongs to: a run of image tokens within one document is one image.

    Args:
        places: [B, T] bool, true on image tokens.
        document: [B, T].

    Returns:
        [B, T], numbers from 0 in each row, -1 on what is no image.
    """
    goes_on = torch.zeros_like(places)
    goes_on[:, 1:] = places[:, :-1] & (document[:, 1:] == document[:, :-1])
    return torch.where(places, (places & ~goes_on).cumsum(1) - 1, -1)


def _flex(document: Tensor, segment: Tensor, position: Tensor, image: Tensor, window: int) -> dict[str, Any]:
    """The same masks for FlexAttention."""

    def together(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return (image[b, row] == image[b, column]) & (image[b, row] >= 0)

    def near(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return position[b, column] > position[b, row] - window

    whole = or_masks(pairpass.blocks(document, segment).mask_mod, together)
    batch, length = document.shape
    size: Any = (batch, None, length, length, str(document.device))
    return {
        "full_attention": create_block_mask(whole, *size),
        "sliding_attention": create_block_mask(and_masks(whole, near), *size),
    }


FAMILY = Family(
    name="gemma3",
    parts={
        "vision": ("model.vision_tower",),
        "connector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    placement="inline",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    words=words,
    around=("\n\n", "\n\n"),
    tell=tell,
    layer=layer,
    cannot=("volumes", "composition from parts", "pan and scan", "LoRA of the connector"),
)
