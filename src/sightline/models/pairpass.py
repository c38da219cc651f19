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


def visible(document: Tensor, segment: Tensor, read: int = 0) -> Tensor:
    """Which token may look at which.

    Args:
        document: [B, T]; equal numbers belong together, -1 is padding.
        segment: [B, T]; 0 is the prompt, any other number one answer.
        read: how many tokens from the left have looked already.

    Returns:
        [B, T - read, T] bool, true where the row's token sees the column's. Padding sees padding before it: no row
        is empty, so that no softmax is undefined.
    """
    place = torch.arange(document.shape[1], device=document.device)
    causal = place[read:, None] >= place
    same = document[:, read:, None] == document[:, None, :]
    prompt = (segment == 0)[:, None, :]
    own = segment[:, read:, None] == segment[:, None, :]
    return causal & same & (prompt | own)


def mask(allowed: Tensor, attention: str, dtype: torch.dtype) -> Any:
    """The mask that an attention of transformers takes as it is.

    Args:
        allowed: [B, T, S] bool.
        attention: `sdpa` (bool), `eager` (added to the scores) or `flex_attention` (blocks).
        dtype: of the scores.

    Raises:
        ModelError: an attention that takes no mask of this kind.
    """
    if attention == "sdpa":
        return allowed[:, None]
    if attention == "eager":
        return torch.zeros_like(allowed, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
    if attention == "flex_attention":
        batch, length, width = allowed.shape
        return create_block_mask(
            lambda b, h, row, column: allowed[b, row, column], batch, None, length, width,
            device=str(allowed.device),
        )  # fmt: skip
    raise ModelError(
        f"the attention '{attention}' takes no mask for shared prompts", expected="sdpa, eager or flex_attention",
        remedy="set `share: false`, or open the model with another attention",
    )  # fmt: skip


def window(config: Any) -> int | None:
    """How many positions, its own with them, a token of the layers with a window sees; None without such layers."""
    span, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    return None if kinds and "sliding_attention" not in kinds else span


def masks(config: Any, whole: Tensor, position: Tensor, dtype: torch.dtype) -> Any:
    """What each kind of a language model's layers takes: one mask, or one for each kind.

    A window is counted in positions, not in places: between two tokens of one answer may stand another answer, or
    padding.

    Args:
        config: the language model's.
        whole: [B, T - read, T] bool, what a token without a window sees.
        position: [B, T].
        dtype: of the scores.
    """
    attention, span = str(config._attn_implementation), window(config)
    if span is None:
        return mask(whole, attention, dtype)
    near = position[:, None, :] > position[:, -whole.shape[1] :, None] - span
    narrow = mask(whole & near, attention, dtype)
    if not getattr(config, "layer_types", None):
        return narrow
    return {"full_attention": mask(whole, attention, dtype), "sliding_attention": narrow}


def blocks(document: Tensor, segment: Tensor) -> BlockMask:
    """The same mask for FlexAttention: whole blocks that nobody may see are never computed."""
    batch, length = document.shape

    def sees(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
        together = document[b, row] == document[b, column]
        prompt = segment[b, column] == 0
        return (row >= column) & together & (prompt | (segment[b, row] == segment[b, column]))

    return create_block_mask(sees, batch, None, length, length, device=str(document.device))


def layout(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Document, segment and position [B, T] of a batch of `collate`, or of a plain one with or without a mask."""
    if "document" in batch:
        return batch["document"], batch["segment"], batch["position"]
    real = batch.get("attention_mask")
    real = torch.ones_like(batch["input_ids"]) if real is None else real.long()
    return real - 1, torch.zeros_like(real), (real.cumsum(1) - 1).clamp_min(0)


def arrange(model: nn.Module, batch: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """What a language model is told of a batch's rows: nothing where plain causal attention is right.

    Args:
        model: the language model; its config names the attention.
        batch: of `collate`, or a plain one with `attention_mask` [B, T] or nothing; with `read`, what is told is of
            the tokens behind the first so many, which stand in a cache.
        dtype: of the model's states.
    """
    config: Any = model.config
    read, length, span = batch.get("read"), batch["input_ids"].shape[1], window(config)
    if "document" not in batch and (read is None or span is None or length <= span):
        told = {"attention_mask": batch.get("attention_mask")}
        return told if read is None else {**told, "position_ids": layout(batch)[2][:, read:]}
    if batch.get("plain", False):
        return {"attention_mask": None}
    document, segment, position = layout(batch)
    if str(config._attn_implementation) == "flex_attention" and read is None and span is None:
        seen: Any = blocks(document, segment)
    else:
        seen = masks(config, visible(document, segment, read or 0), position, dtype)
    return {"attention_mask": seen, "position_ids": position[:, read or 0 :]}
