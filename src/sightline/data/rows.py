"""Samples and preferences to encoded rows; what does not fit is set aside with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..types import Degrade, ImageRef, Message, Preference, Sample, View
from .chat import Chat, fit
from .collate import Pair
from .line import Row

R = TypeVar("R", Sample, Preference)
GridOf = Callable[[ImageRef], tuple[int, ...]]
NOT_DEGRADABLE = "the chosen answer shows no image, or one that is degraded already; this loss degrades it"
LONELY = "more prior images than current ones, for a model that compares each current image with one of them"
TOO_LONG = "does not fit into max_tokens with its image and one whole answer"


def plain(ref: ImageRef) -> tuple[int, ...]:
    """The grid of a model to which all images are alike."""
    return ()


def select(records: Iterable[R], where: Mapping[str, str | Sequence[str]]) -> list[R]:
    """Records whose attributes (a preference's `why`, as `kind`) have the value asked for, or one of several."""
    wanted = {key: (value,) if isinstance(value, str) else value for key, value in where.items()}
    return [r for r in records if all(_attribute(r, key) in values for key, values in wanted.items())]


def _attribute(record: Sample | Preference, key: str) -> str | None:
    if isinstance(record, Preference):
        return record.why if key == "kind" else None
    return record.attributes.get(key)


def encode_samples(
    samples: Sequence[Sample], chat: Chat, limit: int, grid: GridOf = plain
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Rows of whole conversations, and what was set aside.

    Args:
        samples: conversations that end with an answer.
        chat: how the model writes them.
        limit: longest row in tokens, image tokens counted.
        grid: what the model must know of an image's size.
    """
    rows: list[Row] = []
    aside: list[dict[str, Any]] = []
    for sample in samples:
        if chat.lonely(sample.images):
            aside.append({"id": sample.id, "reason": LONELY})
            continue
        encoded = chat.encode(sample.messages, [grid(ref) for ref in sample.images])
        short = fit(encoded, limit, chat.image_token)
        if short is None:
            aside.append(
                {"id": sample.id, "reason": TOO_LONG, "tokens": len(encoded.ids), "max_tokens": limit}
            )
            continue
        views = chat.views([View(sample.images[i], sample.id) for i in short.images])
        rows.append(Row(sample.id, short, views))
    return rows, aside


def encode_pairs(
    pairs: Sequence[Preference], chat: Chat, limit: int, third: Degrade | None = None, grid: GridOf = plain
) -> tuple[list[Pair], list[dict[str, Any]]]:
    """Pairs of rows in which only the last answer is learned, and what was set aside.

    Args:
        pairs: preferences.
        chat: how the model writes them.
        limit: longest row in tokens, image tokens counted.
        third: give each pair a third row: the chosen answer under its images degraded so.
        grid: what the model must know of an image's size.
    """
    out: list[Pair] = []
    aside: list[dict[str, Any]] = []
    for pair in pairs:
        if any(chat.lonely(refs) for refs in (pair.images, pair.chosen_images, pair.rejected_images)):
            aside.append({"id": pair.id, "reason": LONELY})
            continue
        sides = [
            _side(pair, answer, shown, chat, limit, grid)
            for answer, shown in ((pair.chosen, pair.chosen_images), (pair.rejected, pair.rejected_images))
        ]
        chosen, rejected = sides
        if chosen is None or rejected is None:
            aside.append({"id": pair.id, "reason": TOO_LONG, "max_tokens": limit})
            continue
        if third is None:
            out.append(Pair(pair.id, chosen, rejected))
            continue
        if not chosen.views or any(v.degrade for v in chosen.views):
            aside.append({"id": pair.id, "reason": NOT_DEGRADABLE})
            continue
        spoiled = replace(chosen, views=tuple(v.spoilt(third) for v in chosen.views))
        out.append(Pair(pair.id, chosen, rejected, spoiled))
    return out, aside


def _side(
    pair: Preference,
    answer: str,
    shown: tuple[ImageRef, ...] | Degrade | None,
    chat: Chat,
    limit: int,
    grid: GridOf,
) -> Row | None:
    """One side as a row; None where it is too long."""
    refs = shown if isinstance(shown, tuple) else pair.images
    messages = [*pair.prompt, Message(role="assistant", parts=(answer,))]
    encoded = chat.encode(messages, [grid(ref) for ref in refs])
    if len(encoded.ids) > limit:
        return None
    spoiled = shown if isinstance(shown, Degrade) else None
    views = chat.views([View(refs[i], pair.id, spoiled) for i in encoded.images])
    return Row(pair.id, chat.last_only(encoded), views)
