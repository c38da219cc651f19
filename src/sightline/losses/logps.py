"""Log-probabilities of answer tokens in float32, from answer positions only; no full logits exist.

The vocabulary is read in pieces with a running maximum, as attention is in FlashAttention (Dao et al. 2022,
arXiv 2205.14135). With h a state, w the row of the wanted token and p the softmax over the vocabulary V:

    log p(w) = h.w - log sum_v exp(h.v)        d log p(w) / dh = (1 - p(w)) w - sum_(v != w) p(v) v

The slope needs no upstream gradient, so it is summed up in the same pass and kept: [tokens, width] instead of
[tokens, vocabulary]. The wanted word stays out of the sum: for a sure token both terms are small, while the
difference of w and a whole mean, rounded to bfloat16, would be noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORE = -100
VOCABULARY = 8192  # rows of the head that are read at once
POSITIONS = 1024  # positions that a head which is no plain matrix sees at once
Head = Callable[[Tensor], Tensor]


def token_logps(hidden: Tensor, labels: Tensor, head: Head, source: Tensor | None = None) -> Tensor:
    """Log-probability of each learned token at its own place, zero elsewhere.

    Args:
        hidden: [B, T, width], last hidden states.
        labels: [B, T], token ids at their own places, -100 where nothing is learned.
        head: hidden states [n, width] -> logits [n, vocabulary]; a bias-free `nn.Linear` is read in pieces of
            the vocabulary, any other head in pieces of the positions, computed again for the gradient.
        source: [B, T], the place in the row from whose state a token is predicted; the one before it if None.

    Returns:
        [B, T] float32 (float64 for float64 states).
    """
    learned = labels != IGNORE
    if source is None:
        source = (torch.arange(labels.shape[1], device=labels.device) - 1).expand_as(labels)
    rows, _ = learned.nonzero(as_tuple=True)
    states, wanted = hidden[rows, source[learned]], labels[learned]  # [n, width], [n]
    if not len(wanted):
        found = states.new_zeros(0, dtype=_exact(states))
    elif plain(head):
        found = LinearLogps.apply(states, head.weight, wanted)
    else:
        found = _by_position(states, wanted, head)
    return torch.zeros(labels.shape, dtype=found.dtype, device=hidden.device).masked_scatter(learned, found)


def answer_logps(hidden: Tensor, labels: Tensor, head: Head) -> Tensor:
    """Summed log-probability of each row's learned tokens. [B] float32. See `token_logps`."""
    return token_logps(hidden, labels, head).sum(-1)


def plain(head: Head) -> TypeGuard[nn.Linear]:
    """Whether a head is one matrix and nothing else."""
    return isinstance(head, nn.Linear) and type(head) is nn.Linear and head.bias is None


def _exact(states: Tensor) -> torch.dtype:
    return torch.float64 if states.dtype == torch.float64 else torch.float32


def _by_position(states: Tensor, wanted: Tensor, head: Head) -> Tensor:
    """The same for any head: logits of a few positions at a time, made again in the backward pass."""

    def piece(h: Tensor, w: Tensor) -> Tensor:
        logits = head(h).to(_exact(h))
        return logits.gather(-1, w[:, None]).squeeze(-1) - logits.logsumexp(-1)

    cuts = range(0, len(wanted), POSITIONS)
    return torch.cat([
        checkpoint(piece, states[i : i + POSITIONS], wanted[i : i + POSITIONS], use_reentrant=False) for i in cuts
    ])  # fmt: skip


class LinearLogps(torch.autograd.Function):
    """log softmax(states @ weight.T)[wanted] without the logits. See the file's head."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, wanted: Tensor) -> Tensor:
        """Read the vocabulary once; keep what the gradient of the states will need.

        Args:
            ctx: what is kept.
            states: [n, width].
            weight: [vocabulary, width].
            wanted: [n].

        Returns:
            [n] float32 (float64 for float64 states).
        """
        exact, needs = _exact(states), ctx.needs_input_grad
        lower = torch.get_autocast_dtype(states.device.type) if _autocast(states) else states.dtype
        h = states.to(lower)
        peak = torch.full((len(h), 1), -torch.inf, dtype=exact, device=h.device)
        total, others = torch.zeros_like(peak), torch.zeros_like(peak)
        mean = torch.zeros(h.shape, dtype=exact, device=h.device) if needs[0] else None
        picked = torch.empty(len(h), dtype=exact, device=h.device)
        for start in range(0, len(weight), VOCABULARY):
            piece = weight[start : start + VOCABULARY].to(lower)  # [v, width]
            logits = (h @ piece.T).to(exact)  # [n, v]
            here = (wanted >= start) & (wanted < start + len(piece))
            picked[here] = logits[here, wanted[here] - start]
            top = torch.maximum(peak, logits.amax(-1, keepdim=True))
            shrink, share = (peak - top).exp(), logits.sub_(top).exp_()
            total = total * shrink + share.sum(-1, keepdim=True)
            share[here, wanted[here] - start] = 0.0
            others = others * shrink + share.sum(-1, keepdim=True)
            if mean is not None:
                mean = mean.mul_(shrink).add_(share.to(lower) @ piece)
            peak = top
        log_total = (peak + total.log()).squeeze(-1)
        slope = None if mean is None else (others * weight[wanted].to(exact) - mean) / total
        ctx.save_for_backward(h, weight, wanted, log_total, slope)
        return picked - log_total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Scale the kept slope; the head's own gradient, where it trains, reads the vocabulary again."""
        h, weight, wanted, log_total, slope = ctx.saved_tensors
        gradient = gradients[0]
        to_states = None if slope is None else (slope * gradient[:, None]).to(h.dtype)
        if not ctx.needs_input_grad[1]:
            return to_states, None, None
        to_weight = torch.zeros_like(weight)
        for start in range(0, len(weight), VOCABULARY):
            piece = weight[start : start + VOCABULARY].to(h.dtype)
            share = ((h @ piece.T).to(log_total.dtype) - log_total[:, None]).exp_()  # [n, v]
            share.mul_(-gradient[:, None])
            here = (wanted >= start) & (wanted < start + len(piece))
            share[here, wanted[here] - start] += gradient[here]
            to_weight[start : start + len(piece)] = (share.T.to(h.dtype) @ h).to(weight.dtype)
        return to_states, to_weight, None


def _autocast(states: Tensor) -> bool:
    return torch.is_autocast_enabled(states.device.type) and states.dtype != torch.float64
