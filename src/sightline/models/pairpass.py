"""The pair pass: one prompt with its images, run once, and every answer to it behind it in the same row.

What a token may see, for a prompt p p p with the answers a a and b b b (1: the row's token sees the column's):

              p  p  p  a  a  b  b  b     position
    p         1  .  .  .  .  .  .  .        0
    p         1  1  .  .  .  .  .  .        1
    p         1  1  1  .  .  .  .  .        2
    a         1  1  1  1  .  .  .  .        3
    a         1  1  1  1  1  .  .  .        4
    b         1  1  1  .  .  1  .  .        3
    b         1  1  1  .  .  1  1  .        4
    b         1  1  1  .  .  1  1  1        5

Kwon et al. describe it for text (arXiv 2410.20305). Several such rows may stand behind one another (`document`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from ..errors import ModelError


def visible(document: Tensor, segment: Tensor) -> Tensor:
    """Which token may look at which.

    Args:
        document: [B, T]; equal numbers belong together, -1 is padding.
        segment: [B, T]; 0 is the prompt, any other number one answer.

    Returns:
        [B, T, T] bool, true where the row's token sees the column's. Padding sees padding before it: no row is
        empty, so that no softmax is undefined.
    """
    length = document.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=document.device).tril()
    same = document[:, :, None] == document[:, None, :]
    prompt = (segment == 0)[:, None, :]
    own = segment[:, :, None] == segment[:, None, :]
    return causal & same & (prompt | own)


def mask(allowed: Tensor, attention: str, dtype: torch.dtype) -> Tensor:
    """The 4-D mask that an attention of transformers takes as it is.

    Args:
        allowed: [B, T, T] bool.
        attention: `sdpa` (bool) or `eager` (added to the scores).
        dtype: of the scores.

    Raises:
        ModelError: an attention that takes no mask of this kind.
    """
    if attention == "sdpa":
        return allowed[:, None]
    if attention == "eager":
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
    raise ModelError(
        f"the attention '{attention}' takes no mask for shared prompts", expected="sdpa, eager or flex_attention",
        remedy="set `share: false`, or open the model with another attention",
    )  # fmt: skip


def blocks(document: Tensor, segment: Tensor) -> BlockMask:
    """The same mask for FlexAttention: whole blocks that nobody may see are never computed."""
    batch, length = document.shape

    def sees(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        together = document[b, row] == document[b, column]
        prompt = segment[b, column] == 0
        return (row >= column) & together & (prompt | (segment[b, row] == segment[b, column]))

    return create_block_mask(sees, batch, None, length, length, device=str(document.device))


def arrange(model: nn.Module, batch: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What a language model is told of a batch's rows: nothing where plain causal attention is right.

    Args:
        model: the language model; its config names the attention.
        batch: of `collate`, or a plain one with `attention_mask` [B, T] or nothing.
        dtype: of the model's states.
    """
    if "document" not in batch:
        return {"attention_mask": batch.get("attention_mask")}
    if batch["plain"]:
        return {"attention_mask": None}
    attention = str(model.config._attn_implementation)
    if attention == "flex_attention":
        seen: Any = blocks(batch["document"], batch["segment"])
    else:
        seen = mask(visible(batch["document"], batch["segment"]), attention, dtype)
    return {"attention_mask": seen, "position_ids": batch["position"]}
