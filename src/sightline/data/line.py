"""Lines: what stands in one sequence. One prompt is written once, however many answers to it are learned.

    ids        p  p  p | a  a  A | b  b         two answers to the prompt p p p
    position   0  1  2 | 3  4  5 | 3  4         b continues the prompt: its positions restart after it
    source     .  .  . | 2  3  4 | 2  6         where each token is predicted from
    segment    0  0  0 | 1  1  1 | 2  2         a token sees the prompt (0) and its own segment, never another
    answer     .  .  . | 0  0  0 | 1  1         whose log-probability it belongs to

Log-probabilities and gradients equal those of separate rows to rounding; the prompt and its images are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..types import View
from .chat import Encoded

NOBODY = -1


@dataclass(frozen=True)
class Row:
    """One encoded conversation with the views that its image tokens stand for."""

    id: str
    encoded: Encoded
    views: tuple[View, ...]


@dataclass(frozen=True)
class Line:
    """One or several rows as one sequence; see the picture at the file's head.

    Args:
        ids, learned, positions, sources, segments, answers: one entry per token; `answers` counts the rows of
            this line from 0 and is -1 on what is not learned.
        views: what the image tokens stand for, in reading order.
        rows: how many rows it holds.
    """

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    positions: tuple[int, ...]
    sources: tuple[int, ...]
    segments: tuple[int, ...]
    answers: tuple[int, ...]
    views: tuple[View, ...]
    rows: int

    @property
    def shares(self) -> bool:
        """Whether several rows stand in this line."""
        return self.rows > 1


def alone(row: Row) -> Line:
    """A row as a line of its own."""
    n = len(row.encoded.ids)
    return Line(
        ids=row.encoded.ids,
        learned=row.encoded.learned,
        positions=tuple(range(n)),
        sources=tuple(max(i - 1, 0) for i in range(n)),
        segments=(0,) * n,
        answers=tuple(0 if flag else NOBODY for flag in row.encoded.learned),
        views=row.views,
        rows=1,
    )


def shared(rows: Sequence[Row], image_token: int) -> Line | None:
    """Several rows that begin alike as one line, the beginning written once.

    Args:
        rows: at least two.
        image_token: id of an image place.

    Returns:
        The line; None where the rows do not show the same views, show one after their common beginning, or
        learn their first token.
    """
    first = rows[0]
    wanted = [v.sight for v in first.views]
    if any([v.sight for v in row.views] != wanted for row in rows):
        return None
    cut = prefix(rows)
    if cut < 1 or any(image_token in row.encoded.ids[cut:] for row in rows):
        return None
    ids, learned = list(first.encoded.ids[:cut]), [False] * cut
    positions, sources = list(range(cut)), [max(i - 1, 0) for i in range(cut)]
    segments, answers = [0] * cut, [NOBODY] * cut
    for number, row in enumerate(rows):
        end = last_learned(row) + 1  # what follows the last learned token teaches nothing
        start, length = len(ids), end - cut
        ids += row.encoded.ids[cut:end]
        learned += row.encoded.learned[cut:end]
        positions += range(cut, end)
        sources += [cut - 1, *range(start, start + length - 1)][:length]
        segments += [number + 1] * length
        answers += [number if flag else NOBODY for flag in row.encoded.learned[cut:end]]
    return Line(
        tuple(ids), tuple(learned), tuple(positions), tuple(sources), tuple(segments), tuple(answers),
        first.views, len(rows),
    )  # fmt: skip


def prefix(rows: Sequence[Row]) -> int:
    """Length of the beginning that all rows have in common, before anything is learned."""
    cut = min(row.encoded.learned.index(True) if any(row.encoded.learned) else 0 for row in rows)
    first = rows[0].encoded.ids
    for row in rows[1:]:
        same = next((i for i in range(cut) if row.encoded.ids[i] != first[i]), cut)
        cut = min(cut, same)
    return cut


def last_learned(row: Row) -> int:
    """Place of the last learned token."""
    return max(i for i, flag in enumerate(row.encoded.learned) if flag)
