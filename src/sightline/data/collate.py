"""Rows to batches. The pictures in the docstrings are what the tests assert.

A collator knows nothing of models: the stage hands it `look`, which turns a view of an image into a tensor
(features of a frozen tower, or pixels).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..types import View
from .chat import Encoded

IGNORE = -100


@dataclass(frozen=True)
class Row:
    """One encoded conversation with the views that its image tokens stand for."""

    id: str
    encoded: Encoded
    views: tuple[View, ...]


Look = Callable[[View], Tensor]


def collate(rows: Sequence[Row], look: Look, *, pad: int) -> dict[str, Any]:
    """Pad rows on the right and gather what their image tokens stand for.

        ids             labels (next token is predicted)   mask
        a b A E         -100 -100 A E                      1 1 1 1
        c C E .         -100 C E -100                      1 1 1 0

    Returns:
        `input_ids`, `labels`, `attention_mask` [rows, length], `images` [views, ...] in row order, `ids`.
    """
    length = max(len(r.encoded.ids) for r in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORE)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for i, row in enumerate(rows):
        own = torch.tensor(row.encoded.ids)
        ids[i, : len(own)] = own
        mask[i, : len(own)] = 1
        labels[i, : len(own)] = torch.where(torch.tensor(row.encoded.learned), own, torch.tensor(IGNORE))
    shown = [look(v) for r in rows for v in r.views]
    images = torch.stack(shown) if shown else torch.zeros(0)
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "images": images,
        "ids": [r.id for r in rows],
    }


@dataclass(frozen=True)
class SupervisedCollator:
    """Rows of one answered conversation each. See `collate`."""

    look: Look
    pad: int

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Collate conversations."""
        return collate(rows, self.look, pad=self.pad)


@dataclass(frozen=True)
class Pair:
    """A chosen and a rejected row of one preference, with its reference log-probs once they are known."""

    id: str
    chosen: Row
    rejected: Row

    @property
    def views(self) -> tuple[View, ...]:
        """What both sides' image tokens stand for."""
        return self.chosen.views + self.rejected.views


@dataclass(frozen=True)
class PairCollator:
    """Pairs: the first half of the batch holds the chosen rows, the second half the rejected ones."""

    look: Look
    pad: int
    reference: Mapping[str, tuple[float, float]]

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Collate pairs; adds `reference` [2, pairs], summed log-probs of the reference, once it is known."""
        rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
        batch = collate(rows, self.look, pad=self.pad)
        batch["ids"] = [p.id for p in pairs]
        if self.reference:
            batch["reference"] = torch.tensor([self.reference[p.id] for p in pairs], dtype=torch.float64).T
        return batch
