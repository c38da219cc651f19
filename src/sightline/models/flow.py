"""A context whose rows come and go: new conversations join what is being answered, and leave when they are done.

row 1    p  p  p  a  a |               row 1    p  p  p  a  a | a
row 2    p  a  .  .  . |   row 3 joins  row 2    p  a  .  .  . | a     row 2 is padded, and the padding is masked
                                        row 3    p  p  .  .  . | a

Which column a word stands in does not matter: positions count what is there (see `context`). So rows of any length
can stand beside one another, and columns that nobody uses any more are taken out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from .context import Context
from .family import Bundle

LOOSE = 32  # columns that may be idle before rows are moved together


class Flow(Context):
    """A context that rows join and leave between two readings.

    Args:
        bundle: the model. Images of its family stand in the row: what stands beside (`Family.beside`) has states of its
            own in the cache, whose lengths differ between rows.
        rows: how many conversations it begins with.
    """

    def __init__(self, bundle: Bundle, rows: int = 0) -> None:
        super().__init__(bundle, rows)

    @property
    def rows(self) -> int:
        """How many conversations it holds."""
        return len(self.grids)

    def join(self, other: Context) -> None:
        """Put another context's rows behind these; the other one is used up."""
        if not self.rows:
            self.grids, self.beside = other.grids, other.beside
            self.cache, self.ids, self.mask = other.cache, other.ids, other.mask
            return
        self.close_up(loose=0)
        longest = max(self.length, other.length)
        pairs = zip(_states(self.cache), _states(other.cache), strict=True)
        made = [
            tuple(
                torch.cat([_wide(a, longest, 2), _wide(b, longest, 2)])
                for a, b in zip(mine, new, strict=True)
            )
            for mine, new in pairs
        ]
        self._store(made)
        self.ids = torch.cat([_wide(self.ids, longest, 1), _wide(other.ids, longest, 1)])
        self.mask = torch.cat([_wide(self.mask, longest, 1), _wide(other.mask, longest, 1)])
        self.grids, self.beside = self.grids + other.grids, self.beside + other.beside

    def keep(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; the others leave."""
        if list(rows) == list(range(self.rows)):
            return
        if rows:
            self.select(rows)
            self.close_up()
            return
        self.grids, self.beside = [], []
        self._forget()

    def close_up(self, loose: int = LOOSE) -> None:
        """Move every row's words together and drop the columns that are then empty, if more than `loose` are."""
        longest = int(self.mask.sum(1).max()) if self.rows else 0
        if self.length - longest <= loose:
            return
        order = self.mask.argsort(dim=1, descending=True, stable=True)[:, :longest]  # [rows, longest]
        made = []
        for pair in _states(self.cache):
            wide = [order[:, None, :, None].expand(-1, each.shape[1], -1, each.shape[3]) for each in pair]
            made.append(tuple(each.gather(2, at) for each, at in zip(pair, wide, strict=True)))
        self._store(made)
        self.ids, self.mask = self.ids.gather(1, order), self.mask.gather(1, order)

    def _store(self, states: Iterable[tuple[Tensor, ...]]) -> None:
        """A cache that holds these keys and values, layer by layer."""
        self.cache = DynamicCache()
        for number, (keys, values) in enumerate(states):
            self.cache.update(keys, values, number)


def _states(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [rows, heads, length, width] of every layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def _wide(values: Tensor, length: int, dim: int) -> Tensor:
    """The same with zeros behind it along one dimension, up to a length."""
    behind = [0, 0] * (values.dim() - 1 - dim) + [0, length - values.shape[dim]]
    return functional.pad(values, behind)
