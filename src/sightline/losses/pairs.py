"""What a pair loss is given, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Third = Literal["", "conditional", "imagined"]


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities of answers in nats, each [pairs], and answer lengths in tokens.

    Args:
        chosen, rejected: under the policy.
        chosen_reference, rejected_reference: under the reference; None where a loss needs none.
        chosen_length, rejected_length: learned tokens of each answer.
        third, third_reference: of the third answer, where the loss asks for one (`PairLoss.third`).
    """

    chosen: Tensor
    rejected: Tensor
    chosen_reference: Tensor | None = None
    rejected_reference: Tensor | None = None
    chosen_length: Tensor | None = None
    rejected_length: Tensor | None = None
    third: Tensor | None = None
    third_reference: Tensor | None = None

    @property
    def chosen_ratio(self) -> Tensor:
        """Log pi(chosen) - log pi_ref(chosen). [pairs]."""
        assert self.chosen_reference is not None
        return self.chosen - self.chosen_reference

    @property
    def rejected_ratio(self) -> Tensor:
        """Log pi(rejected) - log pi_ref(rejected). [pairs]."""
        assert self.rejected_reference is not None
        return self.rejected - self.rejected_reference

    @property
    def third_ratio(self) -> Tensor:
        """The same of the third answer. [pairs]."""
        assert self.third is not None
        assert self.third_reference is not None
        return self.third - self.third_reference

    @property
    def margin(self) -> Tensor:
        """How much more the policy prefers the chosen answer than the reference does. [pairs]."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def chosen_mean(self) -> Tensor:
        """Mean log-probability of a token of the chosen answer. [pairs]."""
        assert self.chosen_length is not None
        return self.chosen / self.chosen_length

    @property
    def rejected_mean(self) -> Tensor:
        """Mean log-probability of a token of the rejected answer. [pairs]."""
        assert self.rejected_length is not None
        return self.rejected / self.rejected_length


@dataclass(frozen=True)
class PairLoss:
    """A pair-loss plug-in: `loss(logps, **options) -> [pairs]`.

    Args:
        loss: the formula.
        needs_reference: whether it reads the reference's log-probabilities.
        paper: where the formula comes from.
        third: a third answer per pair: `conditional` is the chosen answer under a degraded image, `imagined` the
            policy's own likeliest tokens in its place, under a degraded image.
        degrade: the kind of degraded image that the paper uses for it.
    """

    loss: Callable[..., Tensor]
    needs_reference: bool
    paper: str
    third: Third = ""
    degrade: str = ""
