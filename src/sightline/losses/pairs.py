"""Log-probabilities of answers, in float32, from answer positions only, and the shape of a pair loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100
CHUNK = 1024


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


def token_logps(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Log-probability of each learned token, zero elsewhere; the head sees answer positions only.

    Args:
        hidden: [B, T, width], last hidden states.
        labels: [B, T], token ids, -100 where nothing is learned; position t is predicted from t - 1.
        head: hidden states [n, width] -> logits [n, vocabulary].

    Returns:
        [B, T - 1] float32, aligned with `labels[:, 1:]`.
    """
    target = labels[:, 1:]
    learned = target != IGNORE
    states, wanted = hidden[:, :-1][learned], target[learned]  # [n, width], [n]
    pieces = []
    for start in range(0, len(wanted), CHUNK):
        logits = head(states[start : start + CHUNK]).float()  # [chunk, vocabulary]
        picked = logits.gather(-1, wanted[start : start + CHUNK, None]).squeeze(-1)
        pieces.append(picked - logits.logsumexp(-1))
    logps = torch.cat(pieces) if pieces else states.new_zeros(0, dtype=torch.float32)
    out = torch.zeros(target.shape, dtype=logps.dtype, device=hidden.device)
    return out.masked_scatter(learned, logps)


def answer_logps(hidden: Tensor, labels: Tensor, head: Callable[[Tensor], Tensor]) -> Tensor:
    """Summed log-probability of each row's learned tokens. [B] float32. See `token_logps`."""
    return token_logps(hidden, labels, head).sum(-1)
