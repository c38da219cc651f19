"""Words by chance: one token id drawn from logits, as a function of names alone, whatever the batch and its order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..runs import digest

DIGITS = 13  # hexadecimal digits that make a number in [0, 1); a float64 holds all of them


@dataclass(frozen=True)
class Chance:
    """How tokens are drawn.

    Args:
        seed: the recipe's.
        attempt: counts the answers that are drawn to one question.
        temperature: 1 draws with the model's own probabilities, less of it with sharper ones.
    """

    seed: int
    attempt: int = 0
    temperature: float = 1.0

    def pick(self, words: Sequence[str], logits: Tensor) -> int:
        """One id.

        Args:
            words: what names the place: sample, turn and step.
            logits: [vocabulary].
        """
        name = digest(str(self.seed), "sample", str(self.attempt), *words)
        part = int(name[:DIGITS], 16) / 16**DIGITS
        sums = (logits.double() / self.temperature).softmax(-1).cumsum(-1)  # [vocabulary]
        found = int(torch.searchsorted(sums, part * sums[-1], right=True))
        return min(found, len(sums) - 1)
