"""What a loss of image-text similarities is given, and what it says of itself.

A batch of N pairs may be spread over processes. Each process then computes the rows of its own n pairs against the
columns of all N, so that every pair is a negative of every other one. The mean of the processes' losses is the loss
of the whole batch; so is the mean of their gradients, which is what data-parallel training takes: the gradient that
the rows of one process give to the columns of another travels back to where those columns were computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Both sides of a batch: the pairs of this process, and those of all processes in the order of their ranks.

    Args:
        images, texts: [n, width], unit embeddings of the pairs of this process.
        all_images, all_texts: [N, width], those of all processes, with gradients.
        scale: the logarithm of the factor on similarities, one number.
        bias: added to scaled similarities, one number, or None.
        same: [n, N] bool, pairs that are no negatives of each other; a pair and itself always are not.
        first: the column of this process's first pair.
    """

    images: Tensor
    texts: Tensor
    all_images: Tensor
    all_texts: Tensor
    scale: Tensor
    bias: Tensor | None
    same: Tensor
    first: int = 0

    @property
    def own(self) -> Tensor:
        """The column of each row's own pair. [n] long."""
        return torch.arange(len(self.images), device=self.images.device) + self.first


@dataclass(frozen=True)
class Contrastive:
    """A plug-in of kind `contrasts`: `loss(sides, **options) -> scalar`.

    Args:
        loss: the formula.
        needs_bias: whether it adds a bias to similarities.
        paper: where the formula comes from.
        start: the logarithm of the factor, and the bias, that a new encoder begins with.
        limit: the largest logarithm of the factor; None where the paper sets none.
    """

    loss: Callable[..., Tensor]
    needs_bias: bool
    paper: str
    start: tuple[float, float] = (0.0, 0.0)
    limit: float | None = None


def together(
    images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor | None = None, same: Tensor | None = None
) -> Sides:
    """A batch that this process holds whole.

    Args:
        images: [n, width], unit embeddings.
        texts: [n, width], the same; row i of both is pair i.
        scale: the logarithm of the factor.
        bias: added to scaled similarities.
        same: [n, n] bool, pairs that are no negatives of each other; None: only a pair and itself.
    """
    each = torch.eye(len(images), dtype=torch.bool, device=images.device)  # [n, n]
    return Sides(
        images=images, texts=texts, all_images=images, all_texts=texts, scale=scale, bias=bias,
        same=each if same is None else same | each,
    )  # fmt: skip


def gathered(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor | None, keys: Tensor) -> Sides:
    """A batch that may be spread over processes; every process must hold equally many pairs.

    Args:
        images: [n, width], unit embeddings of this process.
        texts: [n, width], the same; row i of both is pair i.
        scale: the logarithm of the factor.
        bias: added to scaled similarities.
        keys: [n, k] long; pairs of which any key is equal are no negatives of each other.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return together(images, texts, scale, bias, alike(keys, keys))
    # One collective for both sides, so that the order of collectives in the backward pass cannot matter.
    every = _everyone(torch.cat([images, texts], dim=-1))  # [N, 2 width]
    all_images, all_texts = every.split(images.shape[-1], dim=-1)
    return Sides(
        images=images, texts=texts, all_images=all_images, all_texts=all_texts, scale=scale, bias=bias,
        same=alike(keys, _everyone(keys)), first=distributed.get_rank() * len(images),
    )  # fmt: skip


def alike(rows: Tensor, columns: Tensor) -> Tensor:
    """Which pairs share a key.

    Args:
        rows: [n, k] long.
        columns: [N, k] long; a key is compared with that at the same place only.

    Returns:
        [n, N] bool.
    """
    return (rows[:, None] == columns[None]).any(-1)


def _everyone(values: Tensor) -> Tensor:
    """Rows of all processes in the order of their ranks, with gradients. [n, ...] -> [N, ...]."""
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(values))
