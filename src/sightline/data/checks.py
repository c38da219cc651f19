"""Whether one record can be used: its turns, and its images down to the last byte."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from .. import images
from ..errors import ImageError
from ..types import Degrade, ImageRef, Message, Preference, Sample
from .source import STAND_IN, Record, RecordError, clean, describe, stand_in


def check_turns(record: Record) -> None:
    """Whether a conversation can be learned from.

    A system turn may stand first; then the user asks and the assistant answers in turn, and an answer stands
    last (in a preference the two answers follow the prompt).

    Raises:
        RecordError: empty, one-sided, out of turn, or without text where text belongs.
    """
    turns: Sequence[Message] = record.messages if isinstance(record, Sample) else record.prompt
    place = "messages" if isinstance(record, Sample) else "prompt"
    spoken = [t.role for t in turns if t.role != "system"]
    if not spoken:
        raise RecordError("the conversation is empty", field=place, found="0 turns", remedy="drop it")
    if isinstance(record, Preference):
        for side, text in (("chosen", record.chosen), ("rejected", record.rejected)):
            if not text.strip():
                raise RecordError("an answer is empty", field=side, found=describe(text), remedy="drop it")
        spoken.append("assistant")
    if len(set(spoken)) < 2:
        raise RecordError(
            f"one-sided conversation: only the {spoken[0]} speaks",
            field=place,
            found=f"{len(spoken)} turn(s), all of the {spoken[0]}",
            remedy="give both the question and its answer",
        )
    wanted = ["user", "assistant"] * (len(spoken) // 2 + 1)
    late = any(t.role == "system" for t in turns[1:])
    if late or spoken != wanted[: len(spoken)] or spoken[-1] != "assistant":
        raise RecordError(
            "the turns are out of order",
            field=place,
            found=", ".join(t.role for t in turns[:8]),
            remedy="at most one system turn first, then user and assistant in turn, an answer last",
        )
    for at, turn in enumerate(turns):
        if not turn.text.strip() and (turn.role == "assistant" or not turn.parts):
            raise RecordError(
                "a turn is empty", field=place, found=f"turn {at}, {turn.role}", remedy="drop it"
            )


def check_images(
    record: Record, root: Path, hashes: dict[tuple[str, str], str | ImageError], max_pixels: int
) -> Record:
    """The record with the hash of every image; each file is decoded and hashed once.

    Args:
        record: its image paths start from `root`.
        root: the data root.
        hashes: what is known of files already, by path and form; added to.
        max_pixels: largest width x height of an image.

    Raises:
        RecordError: a path leaves the root, or a file cannot be decoded.
    """

    def seal(refs: Iterable[ImageRef]) -> tuple[ImageRef, ...]:
        return tuple(replace(ref, sha256=_hash(ref, root, hashes, max_pixels)) for ref in refs)

    def seal_side(side: tuple[ImageRef, ...] | Degrade | None) -> tuple[ImageRef, ...] | Degrade | None:
        return seal(side) if isinstance(side, tuple) else side

    refs = seal(record.images)
    patient = record.patient
    if patient.startswith(STAND_IN) and refs:
        patient = stand_in(refs[0].sha256)
    if isinstance(record, Sample):
        return replace(record, images=refs, patient=patient)
    return replace(
        record,
        images=refs,
        patient=patient,
        chosen_images=seal_side(record.chosen_images),
        rejected_images=seal_side(record.rejected_images),
    )


def _hash(ref: ImageRef, root: Path, hashes: dict[tuple[str, str], str | ImageError], max_pixels: int) -> str:
    key = (ref.path, ref.form)
    if key not in hashes:
        try:
            hashes[key] = images.check(root, ref, max_pixels=max_pixels)
        except ImageError as error:
            hashes[key] = error
    known = hashes[key]
    if isinstance(known, ImageError):
        path = clean(ref.path, 120)
        found = known.found if path in known.found else f"{path}: {known.found}"
        raise RecordError(known.what, field="image", found=found, remedy=known.remedy)
    return known
