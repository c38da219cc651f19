"""The contract of an image-text encoder: two towers whose embeddings are compared.

It has what `features`, `trainable` and `checkpoint` ask of a `Bundle` (parts, tower, preprocessing, base), so a
frozen tower's features are kept, and adapters are trained and merged, by the same code as for a language model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from .family import Bundle, Grid, Prepares, submodule

Tokens = Mapping[str, Tensor]  # `input_ids` [n, T] and what else the text tower takes


@dataclass(frozen=True, kw_only=True)
class EncoderFamily:
    """What an encoder's file must say. Embeddings have the same width on both sides and are not normalised.

    Args:
        name: the file's name.
        parts: part name -> dotted names of its modules or parameters: `vision`, `text`, and `heads`, to which
            the temperature (and the bias) belong.
        compose: (section, seed) -> DualEncoder.
        encode_images: (model, inputs of the tower, grids) -> features of each image, the half that can be kept
            while the tower is frozen.
        pool: (model, features) -> image embeddings [n, width].
        encode_texts: (model, tokens) -> features of the texts [n, w], made by the part `text` alone: the half that
            can be kept while it is frozen.
        scale: model -> (logarithm of the factor on similarities, bias added to them or None), as parameters.
        pool_texts: (model, features of texts) -> text embeddings [n, width]; nothing is left to do where the
            projection belongs to the tower.
        tower: the parts that an image passes before `pool`; features are kept while all of them are frozen.
        layer: model -> which features of the tower are taken, for the keys of caches.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    compose: Callable[[Mapping[str, Any], int], DualEncoder]
    encode_images: Callable[[nn.Module, list[Tensor], list[Grid]], list[Tensor]]
    pool: Callable[[nn.Module, list[Tensor]], Tensor]
    encode_texts: Callable[[nn.Module, Tokens], Tensor]
    scale: Callable[[nn.Module], tuple[Tensor, Tensor | None]]
    pool_texts: Callable[[nn.Module, Tensor], Tensor] = lambda model, features: features
    tower: tuple[str, ...] = ("vision",)
    layer: Callable[[nn.Module], str] = lambda model: ""

    def module(self, model: nn.Module, name: str) -> nn.Module:
        """A module of the model by dotted name.

        Raises:
            ModelError: the file's name for it is not what this model has.
        """
        return submodule(
            model, name, f"encoder '{self.name}'", "check the versions of its library and of this file"
        )


@dataclass(kw_only=True)
class DualEncoder:
    """An image-text encoder with everything that belongs to it.

    Args:
        family: its family.
        model: the bare model (adapters, where there are any, are injected in place).
        tokenize: texts -> padded tokens, cut at what the text tower can read.
        preprocess: an image to the tower's input.
        width: of embeddings.
        base: what it was composed from, as plain JSON: enough to compose it again.
        fixed: whether all images are alike to it, whatever their size.
        tower: hash of the vision tower's weights, once known.
    """

    family: EncoderFamily
    model: nn.Module
    tokenize: Callable[[Sequence[str]], Tokens]
    preprocess: Prepares
    width: int
    base: dict[str, Any] = field(default_factory=dict)
    fixed: bool = True
    tower: str = ""

    def images(self, features: Sequence[Tensor]) -> Tensor:
        """Features of the tower, one tensor per image -> unit embeddings [n, width], float32."""
        return functional.normalize(self.family.pool(self.model, list(features)).float(), dim=-1)

    def texts(self, tokens: Tokens) -> Tensor:
        """Tokens of n texts -> unit embeddings [n, width], float32."""
        return self.pool_texts(self.family.encode_texts(self.model, tokens))

    def pool_texts(self, features: Tensor) -> Tensor:
        """Features of n texts [n, w] -> unit embeddings [n, width], float32."""
        return functional.normalize(self.family.pool_texts(self.model, features).float(), dim=-1)

    def scale(self) -> tuple[Tensor, Tensor | None]:
        """The logarithm of the factor on similarities, and the bias added to them where there is one."""
        return self.family.scale(self.model)


Learner = Bundle | DualEncoder  # what is trained part by part, saved and loaded
