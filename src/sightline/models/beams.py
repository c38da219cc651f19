"""Beam search over a context: the best of several answers kept side by side, as transformers' `generate` finds it.

Every row keeps `beams` unfinished answers. A step takes the likeliest continuations of all of them, puts those that end
among the finished ones, scored log p / length^length_penalty, and goes on with the rest. A row is done when all its
places for finished answers are taken and the best unfinished one, scored at its present length, is not above the
worst of them (`early_stopping` false there); at the limit the unfinished ones count as finished.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..settings import Generate
from .context import Context

Words = tuple[int, ...]
NEVER = -1e9  # log-probability of a beam that is not there yet


@dataclass
class _Row:
    """The search of one row: unfinished answers with their log-probabilities, finished ones with their scores."""

    going: list[tuple[Words, float]]
    ended: list[tuple[float, Words, float]] = field(default_factory=list)
    done: bool = False


def search(
    context: Context, logits: Tensor, settings: Generate, ends: Collection[int], never: int
) -> list[tuple[Words, float]]:
    """The best answer of every row.

    Args:
        context: what was read; it is left as it is.
        logits: of the first word, [rows, vocabulary].
        settings: beams, length penalty, longest answer, and how long a run of words may not come twice.
        ends: ids that end an answer.
        never: an id that is not said.

    Returns:
        The ids without the one that ended them, and the mean log-probability of their words, that one counted.
    """
    count = settings.beams
    rows = [_Row([((), 0.0), *[((), NEVER)] * (count - 1)]) for _ in range(len(logits))]
    wide = context.spread(count)
    logits = logits.repeat_interleave(count, dim=0)  # [rows * beams, vocabulary]
    for length in range(1, settings.max_new_tokens + 1):
        last = length == settings.max_new_tokens
        scores = logits.float().log_softmax(-1)
        scores[:, never : never + 1] = -torch.inf  # a head may not even know it
        came = [_step(row, scores[i * count : (i + 1) * count], settings, ends, length, last) for i, row in
                enumerate(rows)]  # fmt: skip
        if last or all(row.done for row in rows):
            break
        wide.select([i * count + beam for i, beams in enumerate(came) for beam in beams])
        logits = wide.read([[] if row.done else [words[-1]] for row in rows for words, _ in row.going])
    return [_best(row, ends) for row in rows]


def _step(
    row: _Row, scores: Tensor, settings: Generate, ends: Collection[int], length: int, last: bool
) -> list[int]:
    """Lengthen the answers of one row by a word; which beams its unfinished ones came from.

    Args:
        row: changed in place.
        scores: log-probabilities of the next word, [beams, vocabulary].
        settings: as in `search`.
        ends: as in `search`.
        length: of the answers with this word.
        last: nothing comes behind this word.
    """
    count = settings.beams
    if row.done:
        return list(range(count))
    for beam, (words, _) in enumerate(row.going):
        scores[beam, _banned(words, settings.no_repeat)] = -torch.inf
    summed = scores + torch.tensor([logp for _, logp in row.going], device=scores.device)[:, None]
    kept = min(max(2, 1 + len(ends)) * count, summed.numel())
    values, places = summed.flatten().topk(kept)
    going: list[tuple[int, Words, float]] = []
    for rank, (logp, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
        beam, word = divmod(place, scores.shape[1])
        words = (*row.going[beam][0], word)
        if word not in ends and not last:
            going.append((beam, words, logp))
        elif rank < count:  # an end that is not among the best waits for nothing
            row.ended.append((logp / length**settings.length_penalty, words, logp))
    row.ended = sorted(row.ended, key=lambda each: -each[0])[:count]
    if last or not going:
        row.done = True
        return list(range(count))
    going = (going * count)[:count]
    row.going = [(words, logp) for _, words, logp in going]
    best = row.going[0][1] / length**settings.length_penalty
    row.done = len(row.ended) == count and best <= row.ended[-1][0]
    return [beam for beam, _, _ in going]


def _banned(words: Sequence[int], run: int) -> list[int]:
    """Words that would repeat a run of so many words of this answer; 0 bans none."""
    if not run or len(words) < run:
        return []
    tail = tuple(words[len(words) - run + 1 :])
    return [words[i + run - 1] for i in range(len(words) - run + 1) if tuple(words[i : i + run - 1]) == tail]


def _best(row: _Row, ends: Collection[int]) -> tuple[Words, float]:
    """The finished answer with the highest score, without its end."""
    _, words, logp = row.ended[0]
    spoken = words[:-1] if words[-1] in ends else words
    return spoken, logp / len(words)
