"""What a pair loss is given, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities of answers in nats, each [pairs], and answer lengths in tokens.

    Args:
        chosen, rejected: under the policy.
        chosen_reference, rejected_reference: under the reference; None where a loss needs none.
        chosen_length, rejected_length: learned tokens of each answer.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_reference: Tensor | None = None
    rejected_reference: Tensor | None = None
    chosen_length: Tensor | None = None
    rejected_length: Tensor | None = None


@dataclass(frozen=True)
class PairLoss:
    """A pair-loss plug-in: `loss(logps, **options) -> [pairs]`."""

    loss: Callable[..., Tensor]
    needs_reference: bool
    paper: str
