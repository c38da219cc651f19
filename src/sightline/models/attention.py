"""How much of its attention a model has on the images when it is about to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..images.seen import Seen
from .family import Bundle


@torch.no_grad()
def on_images(bundle: Bundle, ids: Sequence[int], images: Sequence[Seen]) -> float | None:
    """The share of the last token's attention that lies on image tokens, mean over layers and heads, 0-1.

    Args:
        bundle: the model; its language model attends by `eager` from now on, which alone tells weights.
        ids: a row up to the answer, with the images' places.
        images: features of the tower of the images, in reading order.

    Returns:
        The share; None where the image tokens do not stand in the row, or the layers tell no attention.
    """
    if bundle.family.beside:
        return None
    bundle.attend("eager")
    connector = bundle.family.module(bundle.model, bundle.family.parts["connector"][0])
    like = next(connector.parameters())
    row = torch.tensor([list(ids)], device=like.device)  # [1, T]
    grids = [seen.grid for seen in images]
    tokens = bundle.tokens([seen.values.to(like.device, like.dtype) for seen in images], grids, "features")
    embeds = bundle.embed(row, tokens)
    told = bundle.told(
        {"input_ids": row, "attention_mask": torch.ones_like(row)}, tokens, grids, embeds.dtype
    )
    out: Any = bundle.family.hidden(bundle.model, embeds, **told, output_attentions=True)
    layers = [each for each in getattr(out, "attentions", None) or () if each is not None]
    if not layers:
        return None
    places = row[0] == bundle.image_token  # [T]
    shares = [each[0, :, -1].float()[:, places].sum(-1).mean() for each in layers]
    return float(torch.stack(shares).mean())
