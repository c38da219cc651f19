"""Training of image-text encoders: both towers as one module, a large batch in chunks, and the trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import ModelError, RecipeError
from ..losses.similarity import Contrastive, Sides, gathered
from ..models.encoder import DualEncoder
from ..models.family import Given, Grid
from .callbacks import Clamp
from .trainers import AtomicTrainer

Formula = Callable[[Sides], Tensor]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Towers(nn.Module):
    """A batch to unit embeddings of both sides, so that DDP and autocast wrap exactly what is computed.

    Gradient caching (Gao et al. 2021, arXiv 2101.06983): with `chunk`, so many pairs at a time pass through the
    towers, nothing but their embeddings is kept, and the backward pass computes each chunk again. That is what
    `torch.utils.checkpoint` does, not reentrant, with the chunk's random state restored. The loss still sees all
    pairs, so its value and gradients are those of one large batch. Accumulation (`train.accumulate`) is not that: it
    averages losses of small batches, in which a pair meets fewer negatives and so has an easier question.

    Parts that are frozen stay in eval mode, and batch norms use their running statistics throughout: statistics of a
    batch would make an embedding depend on its neighbours, and those of a chunk are not those of the batch.

    Args:
        encoder: the encoder.
        trained: what `trainable.apply` returned (PEFT's wrapper or the bare model).
        given: what a batch's `images` hold: pixels, or features of the tower.
        chunk: pairs that pass at a time; 0 for all.
    """

    complete: ClassVar[bool] = True  # whether every weight that trains has its part in every batch

    def __init__(self, encoder: DualEncoder, trained: nn.Module, *, given: Given, chunk: int = 0) -> None:
        super().__init__()
        self.trained = trained
        self.bundle = encoder
        self.given: Given = given
        self.chunk = chunk
        self.still = [module for module in trained.modules() if _still(module)]

    def train(self, mode: bool = True) -> Towers:
        """Switch to training or back; what is frozen stays as it is in use."""
        super().train(mode)
        for module in self.still:
            module.eval()
        return self

    def forward(self, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Images and texts [n, width], the logarithm of the factor, and the bias. See `CaptionCollator`."""
        images, grids = list(batch["images"]), list(batch["grids"])

        def picture(at: slice) -> Tensor:
            return self._images(images[at], grids[at])

        def words(at: slice) -> Tensor:
            if "readings" in batch:
                return self.bundle.pool_texts(batch["readings"][at])
            return self.bundle.texts({name: values[at] for name, values in batch["tokens"].items()})

        count = len(images)
        return self._pieces(count, picture), self._pieces(count, words), *self.bundle.scale()

    def weights(self) -> dict[str, nn.Parameter]:
        """What trains, by name."""
        return {name: p for name, p in self.bundle.model.named_parameters() if p.requires_grad}

    def gradient_checkpointing_enable(self, **asked: Any) -> None:
        """Refuse `train.extra: {gradient_checkpointing: true}`.

        Raises:
            RecipeError: always; `chunk` does the same for an encoder.
        """
        raise RecipeError(
            "an encoder has no gradient checkpointing of layers", where="train.extra.gradient_checkpointing",
            remedy="set `chunk`: so many pairs at a time are computed again in the backward pass",
        )  # fmt: skip

    def _images(self, values: list[Tensor], grids: list[Grid]) -> Tensor:
        encoder = self.bundle
        if self.given == "pixels":
            values = encoder.family.encode_images(encoder.model, values, grids)
        return encoder.images(values)  # [n, width]

    def _pieces(self, count: int, make: Callable[[slice], Tensor]) -> Tensor:
        """Embeddings of all pairs, a chunk at a time where one is set and gradients are wanted."""
        if not self.chunk or count <= self.chunk or not torch.is_grad_enabled():
            return make(slice(0, count))
        cuts = [slice(i, i + self.chunk) for i in range(0, count, self.chunk)]
        return torch.cat([checkpoint(make, at, use_reentrant=False) for at in cuts])  # [n, width]


def _still(module: nn.Module) -> bool:
    """Whether a module stays in eval mode: a batch norm, or one whose parameters are all frozen."""
    parameters = list(module.parameters())
    return isinstance(module, NORMS) or (bool(parameters) and not any(p.requires_grad for p in parameters))


class ContrastTrainer(AtomicTrainer):
    """A loss of similarities over all pairs of a step, wherever they are computed.

    Args:
        plugin: the loss; its limit on the factor is kept after every step.
        loss: its formula, options bound.
    """

    apart: ClassVar[bool] = False  # every pair of a batch is a negative of the others

    def __init__(self, *args: Any, plugin: Contrastive, loss: Formula, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plugin = plugin
        self.contrast = loss
        if plugin.limit is not None:
            self.add_callback(Clamp(self.answers.bundle.scale, plugin.limit))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The loss of this process's pairs against those of all; see `losses.similarity`."""
        images, texts, scale, bias = model(inputs)
        loss = self.contrast(gathered(images, texts, scale, bias, inputs["keys"]))
        if bias is not None and not self.plugin.needs_bias:
            # DDP waits for a gradient of every parameter, and AdamW leaves a value with one of 0 as it is.
            loss = loss + 0 * bias.sum()
        loss = self._finite(loss, inputs)
        return (loss, {}) if return_outputs else loss


def begin(encoder: DualEncoder, plugin: Contrastive, *, new: bool) -> None:
    """Give a new encoder the factor and bias that its loss begins with, where they train.

    Args:
        encoder: the encoder, `trainable.apply` done.
        plugin: the loss.
        new: False keeps those of a checkpoint.

    Raises:
        ModelError: the loss adds a bias that the encoder does not have.
    """
    scale, bias = encoder.scale()
    if plugin.needs_bias and bias is None:
        raise ModelError(
            f"the loss adds a bias, and encoder '{encoder.family.name}' has none", where="loss.name",
            expected="an encoder of the SigLIP kind, or a loss without a bias", remedy="set loss.name: clip",
        )  # fmt: skip
    with torch.no_grad():
        for value, start in zip((scale, bias), plugin.start, strict=True):
            if new and value is not None and value.requires_grad:
                value.fill_(start)
