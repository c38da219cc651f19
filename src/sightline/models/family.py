"""The contract of a model family: what its parts are called, and how images get into its rows.

Everything above this file speaks to a model through a `Bundle`, so that a new family is one new file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import ModelError
from ..images.transforms import Preprocess
from .pairpass import arrange

Given = Literal["pixels", "features", "tokens"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family must say.

    Args:
        name: the file's name.
        parts: part name -> dotted names of its modules, e.g. `{"vision": ("model.vision_tower",), ...}`.
        placement: where image tokens stand in a conversation.
        compose: (section, seed) -> Bundle.
        encode_images: (model, pixels [N, 3, H, W]) -> features [N, tokens, width] before the connector: the
            half that can be cached while the tower is frozen.
        connect: (model, features) -> [N, tokens, hidden].
        splice: (model, input_ids [B, T], connected) -> inputs_embeds [B, T, hidden].
        hidden: (model, inputs_embeds, **kwargs) -> last hidden states [B, T, hidden], without the head.
        head: model -> the layer from hidden states [..., hidden] to logits [..., vocabulary].
        cannot: what this family cannot do, in words for error messages.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    placement: Literal["front", "inline"]
    compose: Callable[[Mapping[str, Any], int], Bundle]
    encode_images: Callable[[nn.Module, Tensor], Tensor]
    connect: Callable[[nn.Module, Tensor], Tensor]
    splice: Callable[[nn.Module, Tensor, Tensor], Tensor]
    hidden: Callable[..., Any]
    head: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    cannot: tuple[str, ...] = ()

    def language(self, model: nn.Module) -> nn.Module:
        """The language model, without its head."""
        return self.module(model, self.parts["language"][0])

    def module(self, model: nn.Module, name: str) -> nn.Module:
        """A module of the model by dotted name.

        Raises:
            ModelError: the family's name for it is not what this model has.
        """
        try:
            return model.get_submodule(name)
        except AttributeError:
            raise ModelError(
                f"family '{self.name}' expects a module '{name}'",
                found=", ".join(n for n, _ in model.named_children()),
                remedy="check the versions of transformers and of this family's file",
            ) from None


@dataclass(kw_only=True)
class Bundle:
    """A model with everything that belongs to it.

    Args:
        family: its family.
        model: the bare model (adapters, where there are any, are injected in place).
        tokenizer: its tokenizer; its chat template is the one that the checkpoint was trained with.
        preprocess: pixels to tower input.
        image_token: id of the image token.
        tokens_per_image: image tokens per image.
        feature_width: width of the tower's features, before the connector.
        base: what it was composed from, as plain JSON: enough to compose it again.
        system: default system text.
        tower: hash of the vision tower's weights, once known.
    """

    family: Family
    model: nn.Module
    tokenizer: Any
    preprocess: Preprocess
    image_token: int
    tokens_per_image: int
    feature_width: int = 0
    base: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    tower: str = ""

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """Hidden states [..., hidden] to logits [..., vocabulary]."""
        return self.family.head(self.model)

    @property
    def tower_trains(self) -> bool:
        """Whether anything of the vision part wants a gradient."""
        modules = (self.family.module(self.model, name) for name in self.family.parts["vision"])
        return any(p.requires_grad for module in modules for p in module.parameters())

    def attend(self, attention: str) -> None:
        """Choose how the language model's attention is computed: `sdpa`, `eager` or `flex_attention`.

        Raises:
            ModelError: FlexAttention without a GPU, where it has no gradient.
        """
        if attention == "flex_attention" and not torch.cuda.is_available():
            raise ModelError(
                "FlexAttention has no backward pass on a CPU", where="speed.attention",
                remedy="use `sdpa`: the numbers are the same",
            )  # fmt: skip
        self.family.language(self.model).set_attn_implementation(attention)

    def forward(self, batch: Mapping[str, Any], *, given: Given) -> Tensor:
        """Last hidden states of a batch.

        Args:
            batch: of `data.collate`: `input_ids` and the like [B, T], `images` and `shown`; a plain batch may
                give `attention_mask` [B, T] and leave out the rest.
            given: what `images` holds: `pixels` [N, 3, H, W], `features` [N, tokens, width] of the tower, or
                `tokens` [N, tokens, hidden] behind the connector. The tower runs without gradients where
                nothing of it trains.

        Returns:
            [B, T, hidden].
        """
        images = batch["images"]
        if not images.numel():
            embeds = self.model.get_input_embeddings()(batch["input_ids"])
        else:
            if given == "pixels":
                with torch.set_grad_enabled(torch.is_grad_enabled() and self.tower_trains):
                    images = self.family.encode_images(self.model, images)
            connected = images if given == "tokens" else self.family.connect(self.model, images)
            if "shown" in batch:
                connected = connected[batch["shown"]]
            embeds = self.family.splice(self.model, batch["input_ids"], connected)
        told = arrange(self.family.language(self.model), batch, embeds.dtype)
        return self.family.hidden(self.model, embeds, **told).last_hidden_state
