"""The contract of a model family: what its parts are called, and how images get into its rows.

Everything above this file speaks to a model through a `Bundle`, so that a new family is one new file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, ModelError
from ..types import View
from .pairpass import arrange

Given = Literal["pixels", "features", "tokens"]
Grid = tuple[int, ...]  # what a family must know of an image's size: tiles, patches, nothing
ABSENT: Grid = (-1,)  # of an image that has no tokens of its own in a row


class Prepares(Protocol):
    """What turns an image into the input of a tower. `images.transforms.Preprocess` is the plainest one."""

    def __call__(self, image: np.ndarray) -> Tensor:
        """Pixels [H, W, 3] in [0, 1] -> the tower's input for this image, of any shape."""

    def grid(self, height: int, width: int) -> Grid:
        """What the family must know of an image of this size; it decides how many tokens stand for it."""

    def key(self) -> str:
        """Changes with anything that the result depends on, for caches."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family must say. Images come as lists, one entry per image: their sizes may differ.

    Args:
        name: the file's name.
        parts: part name -> dotted names of its modules, e.g. `{"vision": ("model.vision_tower",), ...}`.
        placement: where image tokens stand in a conversation.
        compose: (section, seed) -> Bundle.
        encode_images: (model, inputs of the tower, grids) -> features [n, width] of each image before the
            connector: the half that can be cached while the tower is frozen.
        connect: (model, features, grids) -> tokens [m, hidden or more] of each image.
        hidden: (model, inputs_embeds, **kwargs) -> output with the last hidden states [B, T, hidden], no head.
        head: model -> the layer from hidden states [..., hidden] to logits [..., vocabulary].
        words: (bundle, grid) -> ids that stand for one image; those equal to the image token are filled with
            its tokens in order. None: the image token, `tokens_per_image` times.
        around: texts in front of and behind an image, read as one with the texts that stand there.
        beside: an image's tokens do not stand in the row: one image token marks its place and keeps its own
            embedding, and `tell` hands the tokens on. Words in front of an image may see it too: where one is shown
            later in a conversation, the whole of it is read anew.
        opening: what the chat template writes last before a message, read as one with the message's first text
            and left out before an image.
        tell: (bundle, batch, tokens, grids, dtype) -> further arguments of `hidden` for the images shown, in
            reading order: mask, positions and what else the family needs. None: `pairpass.arrange`. A batch with
            `read` (see `context`) holds all that was read so far, the first `read` tokens of every row in a cache:
            what is told is of the tokens behind them, `tokens` are of the images there, and `grids` of all images.
            For a family whose images stand beside the row, tokens without grids are of images that no row shows.
        tower: the parts that an image passes before the connector; features are kept while all of them are frozen.
        between: the parts that make tokens of features; tokens are kept while all of them are frozen.
        layer: model -> which features of the tower are taken, for the keys of caches.
        cannot: what this family cannot do (`share`, `generation`, ...), in words for error messages.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    placement: Literal["front", "inline"]
    compose: Callable[[Mapping[str, Any], int], Bundle]
    encode_images: Callable[[nn.Module, list[Tensor], list[Grid]], list[Tensor]]
    connect: Callable[[nn.Module, list[Tensor], list[Grid]], list[Tensor]]
    hidden: Callable[..., Any]
    head: Callable[[nn.Module], Callable[[Tensor], Tensor]]
    words: Callable[[Bundle, Grid], tuple[int, ...]] | None = None
    around: tuple[str, str] = ("", "")
    opening: str = ""
    beside: bool = False
    tell: (
        Callable[[Bundle, Mapping[str, Any], list[Tensor], list[Grid], torch.dtype], dict[str, Any]] | None
    ) = None
    tower: tuple[str, ...] = ("vision",)
    between: tuple[str, ...] = ("connector",)
    layer: Callable[[nn.Module], str] = lambda model: ""
    cannot: tuple[str, ...] = ()

    def language(self, model: nn.Module) -> nn.Module:
        """The language model, without its head."""
        return self.module(model, self.parts["language"][0])

    def module(self, model: nn.Module, name: str) -> nn.Module:
        """A module of the model by dotted name.

        Raises:
            ModelError: the family's name for it is not what this model has.
        """
        return submodule(
            model,
            name,
            f"family '{self.name}'",
            "check the versions of transformers and of this family's file",
        )


def submodule(model: nn.Module, name: str, owner: str, remedy: str) -> nn.Module:
    """A module of a model by the dotted name that a plug-in has for it.

    Args:
        model: the model.
        name: the dotted name.
        owner: who expects it, for the message.
        remedy: what to do where it is not there.

    Raises:
        ModelError: the model has no such module.
    """
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise ModelError(
            f"{owner} expects a module '{name}'",
            found=", ".join(n for n, _ in model.named_children()),
            remedy=remedy,
        ) from None


@dataclass(kw_only=True)
class Bundle:
    """A model with everything that belongs to it.

    Args:
        family: its family.
        model: the bare model (adapters, where there are any, are injected in place).
        tokenizer: its tokenizer; its chat template is the one that the checkpoint was trained with.
        preprocess: an image to the tower's input.
        image_token: id of the image token.
        tokens_per_image: image tokens per image; of the largest one, where sizes differ.
        feature_width: width of the tower's features, before the connector.
        token_width: width of the connector's tokens where it is not that of words.
        fixed: whether all images are alike to this model, whatever their size.
        base: what it was composed from, as plain JSON: enough to compose it again.
        system: default system text.
        prior: what becomes of images of an earlier study: each stands among the others (`stand`), each is made one
            with a current image (`fuse`, see `pair`), or they are left out (`leave`).
        wording: settings of a named conversation format that differ from the family's, by their names in `Chat`.
        tower: hash of the vision tower's weights, once known.
    """

    family: Family
    model: nn.Module
    tokenizer: Any
    preprocess: Prepares
    image_token: int
    tokens_per_image: int
    feature_width: int = 0
    token_width: int = 0
    fixed: bool = True
    base: dict[str, Any] = field(default_factory=dict)
    system: str = ""
    prior: Literal["stand", "fuse", "leave"] = "stand"
    wording: Mapping[str, Any] = field(default_factory=dict)
    tower: str = ""

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """Hidden states [..., hidden] to logits [..., vocabulary]."""
        return self.family.head(self.model)

    @property
    def tower_trains(self) -> bool:
        """Whether anything in front of the connector wants a gradient."""
        names = [name for part in self.family.tower for name in self.family.parts[part]]
        modules = (self.family.module(self.model, name) for name in names)
        return any(p.requires_grad for module in modules for p in module.parameters())

    def attend(self, attention: str) -> None:
        """Choose how the language model's attention is computed: `sdpa`, `eager` or `flex_attention`.

        One that caps its scores softly (Gemma 2) is computed by `eager` instead of `sdpa`, which cannot.

        Raises:
            ModelError: FlexAttention without a GPU, where it has no gradient.
        """
        if attention == "flex_attention" and not torch.cuda.is_available():
            raise ModelError(
                "FlexAttention has no backward pass on a CPU", where="speed.attention",
                remedy="use `sdpa`: the numbers are the same",
            )  # fmt: skip
        language: Any = self.family.language(self.model)
        if attention == "sdpa" and getattr(language.config, "attn_logit_softcapping", None) is not None:
            attention = "eager"  # the other one would leave the soft capping of scores out in silence
        language.set_attn_implementation(attention)

    def words(self, grid: Grid) -> tuple[int, ...]:
        """The ids that stand for one image of this grid."""
        if grid == ABSENT:
            return ()
        if self.family.words is not None:
            return self.family.words(self, grid)
        return (self.image_token,) * self.tokens_per_image

    def see(self, views: Sequence[View]) -> tuple[View, ...]:
        """The views of a row as this model takes them: one for each image that has tokens in it.

        Raises:
            DataError: more prior images than current ones, for a model that compares them.
        """
        if self.prior == "stand":
            return tuple(views)
        current = [v for v in views if v.image.when == "current"]
        return pair(views) if self.prior == "fuse" else tuple(current)

    def tokens(self, images: Sequence[Tensor], grids: Sequence[Grid], given: Given) -> list[Tensor]:
        """Connected tokens [m, hidden] of each image; the tower runs without gradients where none of it trains."""
        made, grids = list(images), list(grids)
        if given == "pixels":
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.tower_trains):
                made = self.family.encode_images(self.model, made, grids)
        return made if given == "tokens" else self.family.connect(self.model, made, grids)

    def embed(self, input_ids: Tensor, tokens: Sequence[Tensor]) -> Tensor:
        """Word embeddings [B, T, hidden] with image places filled, in reading order, unless tokens stand beside.

        Raises:
            ModelError: places and tokens differ in number.
        """
        embeds: Tensor = self.model.get_input_embeddings()(input_ids)
        places = input_ids == self.image_token
        count, flat = int(places.sum()), list(tokens)
        wanted = len(flat) if self.family.beside else sum(len(t) for t in flat)
        if count != wanted:
            raise ModelError(
                "image places and image tokens do not match", found=f"{count} places",
                expected=f"{len(flat)} images with {wanted} tokens together",
            )  # fmt: skip
        if not flat or self.family.beside:
            return embeds
        filled = torch.cat([t[:, : embeds.shape[-1]] for t in flat]).to(embeds.dtype)
        return embeds.masked_scatter(places.unsqueeze(-1), filled)

    def forward(self, batch: Mapping[str, Any], *, given: Given) -> Tensor:
        """Last hidden states of a batch.

        Args:
            batch: of `data.collate`: `input_ids` and the like [B, T], `images`, `grids` and `shown`; a plain
                batch may give `attention_mask` [B, T] and leave out the rest.
            given: what `images` holds: `pixels`, `features` of the tower, or `tokens` behind the connector.

        Returns:
            [B, T, hidden].
        """
        images = list(batch["images"])
        grids = list(batch.get("grids", [()] * len(images)))
        order = batch["shown"].tolist() if "shown" in batch else range(len(images))
        tokens = self.tokens(images, grids, given) if images else []
        shown, sizes = [tokens[i] for i in order], [grids[i] for i in order]
        embeds = self.embed(batch["input_ids"], shown)
        # Of `Plan.always`: their parts take part, and add nothing.
        unseen = [tokens[i] for i in range(len(tokens)) if i not in set(order)]
        for each in [] if self.family.beside else unseen:
            embeds = embeds + (each[:1].sum() * 0).to(embeds.dtype)
        told = self.told(batch, (shown or unseen) if self.family.beside else shown, sizes, embeds.dtype)
        return self.family.hidden(self.model, embeds, **told).last_hidden_state

    def told(
        self, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
    ) -> dict[str, Any]:
        """Further arguments of `hidden`; see `Family.tell`."""
        return (self.family.tell or _tell)(self, batch, tokens, grids, dtype)


def pair(views: Sequence[View]) -> tuple[View, ...]:
    """Current images in their order, each with its prior: the first prior one belongs to the first current one.

    Raises:
        DataError: more prior images than current ones.
    """
    current = [v for v in views if v.image.when == "current"]
    priors: list[View | None] = [v for v in views if v.image.when == "prior"]
    if len(priors) > len(current):
        raise DataError(
            "a record shows more prior images than current ones", where=f"record {views[0].record}, field images",
            found=f"{len(priors)} prior, {len(current)} current", expected="at most one prior image to each other",
            remedy="choose one prior image for each current one, or set `prior: stand` in the recipe's `model`",
        )  # fmt: skip
    priors += [None] * (len(current) - len(priors))
    return tuple(replace(now, prior=then) for now, then in zip(current, priors, strict=True))


def _tell(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
) -> dict[str, Any]:
    """Mask and positions of a model that reads one line of tokens from the left."""
    return arrange(bundle.family.language(bundle.model), batch, dtype)
