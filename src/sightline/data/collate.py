"""Lines to batches. The pictures in the docstrings are what the tests assert.

A collator knows nothing of models: the stage hands it `look`, which turns a view of an image into a tensor
(features of a frozen tower, or pixels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..images.seen import Seen
from ..runs import canonical, digest
from ..settings import Speed
from ..types import View
from .chat import Chat
from .line import NOBODY, Line, Row, alone, shared

IGNORE = -100
PADDING = -1


Look = Callable[[View], Seen]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How lines become a batch.

    Args:
        look: a view to features or pixels.
        pad: the id that fills lines up.
        image_token: the id of an image place.
        share: write the prompt of rows that begin alike once.
        pack: put lines behind one another into one sequence of up to this many tokens; 0 gives every line a
            sequence of its own.
        side: where the padding stands.
        always: one view of each sort, given with every batch that shows none of its sort; see `one_of_each`.
    """

    look: Look
    pad: int
    image_token: int
    share: bool = True
    pack: int = 0
    side: Literal["right", "left"] = "right"
    always: tuple[View, ...] = ()

    @classmethod
    def of(cls, chat: Chat, look: Look, speed: Speed, always: tuple[View, ...] = ()) -> Plan:
        """The plan of a model's conversations under a recipe's `speed`."""
        return cls(
            look=look, pad=chat.pad, image_token=chat.image_token, share=speed.share, pack=speed.pack, always=always
        )  # fmt: skip


def one_of_each(views: Iterable[View]) -> tuple[View, ...]:
    """The first view of each sort: pictures, and each kind of volume.

    Processes that train one model have to run the same parts of it in every step, whatever their rows show: they put
    weights together, and add gradients up, in one order. So a batch without a sort is given one that no row shows, in
    a process that is alone too: AdamW moves on a weight whose gradient is zero, and leaves one that has none.
    """
    found: dict[str, View] = {}
    for view in views:
        found.setdefault(_sort(view), view)
    return tuple(found.values())


def _sort(view: View) -> str:
    return view.image.kind if view.image.form == "volume" else view.image.form


def collate(lines: Sequence[tuple[Line, Sequence[int]]], plan: Plan) -> dict[str, Any]:
    """Lay lines out, each with the numbers of its answers in the batch, and gather their images.

        input_ids   p p a A  c C E .      two lines of different length, padded on the right
        labels      . . a A  . C E .
        document    0 0 0 0  1 1 1 -1     -1 is padding; a token sees its own document only
        (position, source, segment, answer: as in `line`, padding 0, 0, 0, -1)

    Returns:
        `input_ids`, `labels`, `position`, `source`, `segment`, `document`, `answer` [sequences, length];
        `images`, a list of unique views with their `grids`, and `shown` [places], which of them stands at each
        place in reading order; those of `always` stand at none;
        `answers`, how many there are; `plain`, whether causal attention alone is right.
    """
    bins = _bins([line for line, _ in lines], plan.pack)
    length = max(sum(len(lines[i][0].ids) for i in each) for each in bins)
    shape = (len(bins), length)
    out = {
        "input_ids": torch.full(shape, plan.pad), "labels": torch.full(shape, IGNORE),
        "position": torch.zeros(shape, dtype=torch.long), "source": torch.zeros(shape, dtype=torch.long),
        "segment": torch.zeros(shape, dtype=torch.long), "document": torch.full(shape, PADDING),
        "answer": torch.full(shape, NOBODY),
    }  # fmt: skip
    for at, each in enumerate(bins):
        start = length - sum(len(lines[i][0].ids) for i in each) if plan.side == "left" else 0
        for i in each:
            line, numbers = lines[i]
            place = (at, slice(start, start + len(line.ids)))
            own = torch.tensor(line.ids)
            out["input_ids"][place] = own
            out["labels"][place] = torch.where(torch.tensor(line.learned), own, torch.tensor(IGNORE))
            out["position"][place] = torch.tensor(line.positions)
            out["source"][place] = torch.tensor(line.sources) + start
            out["segment"][place] = torch.tensor(line.segments)
            out["document"][place] = i
            names = torch.tensor([*numbers, NOBODY])  # NOBODY, -1, reads the last entry
            out["answer"][place] = names[torch.tensor(line.answers)]
            start += len(line.ids)
    order = [v for each in bins for i in each for v in lines[i][0].views]
    return {
        **out,
        **_images(order, plan),
        "answers": sum(len(numbers) for _, numbers in lines),
        "plain": plan.side == "right" and all(len(b) == 1 and not lines[b[0]][0].shares for b in bins),
    }


def _images(order: Sequence[View], plan: Plan) -> dict[str, Any]:
    """Each different view once, and which of them stands at each place."""
    number: dict[tuple[str, ...], int] = {}
    unique: list[Seen] = []
    sorts = {_sort(view) for view in order}
    for view in [*order, *(view for view in plan.always if _sort(view) not in sorts)]:
        if number.setdefault(view.sight, len(unique)) == len(unique):
            unique.append(plan.look(view))
    return {
        "images": [seen.values for seen in unique],
        "grids": [seen.grid for seen in unique],
        "shown": torch.tensor([number[v.sight] for v in order], dtype=torch.long),
    }


def _bins(lines: Sequence[Line], limit: int) -> list[list[int]]:
    """Which lines share a sequence: first fit, longest first; the order within a sequence is that given."""
    if not limit:
        return [[i] for i in range(len(lines))]
    room: list[int] = []
    bins: list[list[int]] = []
    for i in sorted(range(len(lines)), key=lambda i: (-len(lines[i].ids), i)):
        size = len(lines[i].ids)
        at = next((b for b, free in enumerate(room) if free >= size), None)
        if at is None:
            room.append(max(limit, size) - size)
            bins.append([i])
        else:
            room[at] -= size
            bins[at].append(i)
    return sorted(sorted(each) for each in bins)


@dataclass(frozen=True)
class Together:
    """Conversations about the same images that are learned in one step, and in one line where they can be."""

    rows: tuple[Row, ...]

    @property
    def id(self) -> str:
        """The ids of its rows."""
        return "+".join(row.id for row in self.rows)


def together(rows: Sequence[Row], most: int, seed: int) -> list[Together]:
    """Group rows that show the same views, at most so many to a group, by a hash of (seed, id)."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: digest(str(seed), "together", r.id)):
        groups.setdefault(canonical([v.sight for v in row.views]) if row.views else row.id, []).append(row)
    return [
        Together(tuple(group[i : i + most])) for group in groups.values() for i in range(0, len(group), most)
    ]


@dataclass(frozen=True)
class SupervisedCollator:
    """Answered conversations; those that stand together share one line if the plan says so."""

    plan: Plan

    def __call__(self, items: Sequence[Together]) -> dict[str, Any]:
        """Collate conversations; answer i of the batch belongs to row i."""
        lines: list[tuple[Line, Sequence[int]]] = []
        count = 0
        for item in items:
            numbers = list(range(count, count + len(item.rows)))
            count += len(numbers)
            several = self.plan.share and len(item.rows) > 1
            one = shared(item.rows, self.plan.image_token) if several else None
            if one is not None:
                lines.append((one, numbers))
            else:
                lines += [(alone(row), [n]) for row, n in zip(item.rows, numbers, strict=True)]
        return {**collate(lines, self.plan), "ids": [row.id for item in items for row in item.rows]}


@dataclass(frozen=True)
class Pair:
    """A chosen and a rejected row of one preference, and a third one where the loss asks for it."""

    id: str
    chosen: Row
    rejected: Row
    third: Row | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """Its rows, chosen first."""
        return (self.chosen, self.rejected, *((self.third,) if self.third else ()))

    @property
    def views(self) -> tuple[View, ...]:
        """What the image tokens of all rows stand for."""
        return tuple(v for row in self.rows for v in row.views)


@dataclass(frozen=True)
class PairCollator:
    """Pairs of rows. Of P pairs, answers i, P + i and 2 P + i are the chosen, rejected and third one of pair i.

    Rows with equal images share one line; those whose images differ take their own, in the same batch.

    Args:
        plan: how lines become a batch.
        reference: pair id -> summed log-probs of its rows under the reference, once they are known.
        apart: lay the third rows out as a batch of their own, `third`, since their tokens are the policy's.
    """

    plan: Plan
    reference: Mapping[str, Sequence[float]]
    apart: bool = False

    def __call__(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Collate pairs; adds `reference` [rows, pairs], once it is known."""
        lines: list[tuple[Line, Sequence[int]]] = []
        thirds: list[tuple[Line, Sequence[int]]] = []
        for i, pair in enumerate(pairs):
            both = [pair.chosen, pair.rejected]
            one = shared(both, self.plan.image_token) if self.plan.share else None
            if one is not None:
                lines.append((one, [i, len(pairs) + i]))
            else:
                lines += [(alone(row), [i + side * len(pairs)]) for side, row in enumerate(both)]
            if pair.third is not None:
                number = i if self.apart else 2 * len(pairs) + i
                (thirds if self.apart else lines).append((alone(pair.third), [number]))
        batch = {**collate(lines, self.plan), "ids": [p.id for p in pairs]}
        if thirds:
            batch["third"] = collate(thirds, self.plan)
        if self.reference:
            batch["reference"] = torch.tensor([self.reference[p.id] for p in pairs], dtype=torch.float64).T
        return batch
