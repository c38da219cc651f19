"""What a frozen text tower makes of texts: each of them is read once, before the first step, and kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from . import device
from .encoder import DualEncoder

BATCH = 64


@dataclass(frozen=True)
class Readings:
    """Features of texts, by their words.

    Args:
        place: text -> its row in the table.
        table: features [texts, w] in memory, without gradients, float32.
    """

    place: dict[str, int]
    table: Tensor

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Features [n, w] of texts that were read."""
        return self.table[[self.place[text] for text in texts]]


def read(encoder: DualEncoder, texts: Iterable[str]) -> Readings | None:
    """Read texts with a frozen tower, equal ones once; None where there is no text.

    The tower stays in eval mode from here on: nothing is dropped. Texts of about the same length stand in one batch,
    so that little is padding; which ones do depends on the set of texts alone, so a run that goes on has the features
    that it had. Padding is masked or, for a tower without a mask, up to one length everywhere: beyond rounding, a
    feature does not depend on its neighbours.

    Args:
        encoder: one whose part `text` does not train.
        texts: in any order.
    """
    order = sorted(set(texts), key=lambda text: (len(text), text))
    if not order:
        return None
    towers = [encoder.family.module(encoder.model, name).eval() for name in encoder.family.parts["text"]]
    made: list[Tensor] = []
    with (
        device.lent(encoder),
        torch.no_grad(),
        tqdm(total=len(order), desc="  reading texts", unit="text") as bar,
    ):
        home = next(p.device for tower in towers for p in tower.parameters())
        for part in (order[i : i + BATCH] for i in range(0, len(order), BATCH)):
            tokens = {name: values.to(home) for name, values in encoder.tokenize(part).items()}
            made.append(encoder.family.encode_texts(encoder.model, tokens).float().cpu())  # [batch, w]
            bar.update(len(part))
    return Readings({text: row for row, text in enumerate(order)}, torch.cat(made))  # [texts, w]
