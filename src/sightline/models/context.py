"""What a batch of conversations has read so far: whole pieces first, then word by word, for every family alike.

row 1    p  p  i  i  q | a  a  a  E | q  q          read in three goes: a question, an answer, a question
row 2    p  i  i  q  . | a  E  .  . | q  q
mask     1  1  1  1  0 | 1  1  0  0 | 1  1          of row 2; positions count what is there
read     0               5            9             how much stands in the cache when a piece comes
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from ..images.seen import Seen
from .family import Bundle, Grid


class Context:
    """Reads pieces of a batch of rows into one cache, whatever their lengths.

    Pieces are padded on the right and the padding is masked, so a row's positions count its own tokens only. A family
    is told of all that was read (`Family.tell`) and finds positions, windows, images and who sees them from that. The
    cache keeps every layer whole, those with a window too: with padding between, a row's last W tokens may reach
    further back than W places.

    Args:
        bundle: the model.
        rows: how many conversations.
    """

    def __init__(self, bundle: Bundle, rows: int) -> None:
        self.bundle = bundle
        self.grids: list[list[Grid]] = [[] for _ in range(rows)]
        self.beside: list[list[Tensor]] = [[] for _ in range(rows)]
        self._forget()

    def _forget(self) -> None:
        """Begin with an empty cache."""
        device = self.bundle.model.get_input_embeddings().weight.device
        self.cache = DynamicCache()
        self.ids = torch.zeros(len(self.grids), 0, dtype=torch.long, device=device)
        self.mask = torch.zeros_like(self.ids)

    @property
    def length(self) -> int:
        """Tokens of every row that stand in the cache, padding among them."""
        return self.ids.shape[1]

    def read(self, pieces: Sequence[Sequence[int]], shown: Sequence[Sequence[Seen]] = ()) -> Tensor:
        """Read one piece per row (an empty one is skipped) and predict what comes after.

        Args:
            pieces: token ids per row.
            shown: connected tokens of the images whose places are in the pieces, per row; nothing for no images.

        Returns:
            Logits [rows, vocabulary] after each row's last token.
        """
        bundle, family = self.bundle, self.bundle.family
        fresh = [seen.values for row in shown for seen in row]
        for i, row in enumerate(shown):
            self.grids[i] += [seen.grid for seen in row]
            self.beside[i] += [seen.values for seen in row] if family.beside else []
        if family.beside and fresh and self.length:
            pieces, fresh = self._again(pieces), [tokens for row in self.beside for tokens in row]
        before, lengths = self.length, self._add(pieces)
        embeds = bundle.embed(self.ids[:, before:], fresh)
        batch = {"input_ids": self.ids, "attention_mask": self.mask, "read": before}
        told = bundle.told(batch, fresh, [grid for row in self.grids for grid in row], embeds.dtype)
        out = family.hidden(bundle.model, embeds, **told, past_key_values=self.cache, use_cache=True)
        rows = torch.arange(len(pieces), device=embeds.device)
        return bundle.head(out.last_hidden_state[rows, (lengths - 1).clamp_min(0)])

    def _again(self, pieces: Sequence[Sequence[int]]) -> list[list[int]]:
        """Everything that was read with the pieces behind it, to be read anew."""
        whole = [
            [*ids[real.bool()].tolist(), *piece]
            for ids, real, piece in zip(self.ids, self.mask, pieces, strict=True)
        ]
        self._forget()
        return whole

    def _add(self, pieces: Sequence[Sequence[int]]) -> Tensor:
        """Put pieces behind what was read; their lengths [rows]."""
        device = self.ids.device
        lengths = torch.tensor([len(piece) for piece in pieces], device=device)
        longest = max(len(piece) for piece in pieces)
        pad = int(self.bundle.image_token == 0)  # any word that no image takes the place of
        ids = torch.tensor([[*piece, *[pad] * (longest - len(piece))] for piece in pieces], device=device)
        new = torch.arange(longest, device=device) < lengths[:, None]
        self.ids = torch.cat([self.ids, ids], dim=1)
        self.mask = torch.cat([self.mask, new.long()], dim=1)
        return lengths

    def spread(self, times: int) -> Context:
        """A context in which every row stands so many times, one behind the other; this one stays as it is."""
        made = Context(self.bundle, len(self.grids))
        made.grids, made.beside = list(self.grids), list(self.beside)
        made.cache, made.ids, made.mask = copy.deepcopy(self.cache), self.ids, self.mask
        made.select([row for row in range(len(self.grids)) for _ in range(times)])
        return made

    def select(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order; one may be kept several times."""
        at = torch.tensor(rows, device=self.ids.device)
        self.cache.batch_select_indices(at)
        self.ids, self.mask = self.ids[at], self.mask[at]
        self.grids = [list(self.grids[row]) for row in rows]
        self.beside = [list(self.beside[row]) for row in rows]

    def rewind(self, length: int) -> None:
        """Forget what was read since it was so long: it is masked, and positions count on from before."""
        self.mask[:, length:] = 0
