"""Boxes on images: how they are written, where a finding is, and where else a box of that size may lie.

A box is left, top, right and bottom as shares of the image's width and height, from 0 to 1. A data set says where the
finding of a topic is by an attribute of the sample: `box_nodule: "0.31 0.22 0.44 0.35"`.
"""

from __future__ import annotations

import numpy as np

from ..errors import DataError

Box = tuple[float, float, float, float]
ATTRIBUTE = "box_"  # and the topic behind it
VISIBLE = 4  # grey levels by which a finding changes a pixel that belongs to it
TRIES = 400


def written(box: Box) -> str:
    """A box as an attribute's text."""
    return " ".join(f"{end:.4f}" for end in box)


def read(text: str, where: str = "") -> Box:
    """A box from an attribute's text.

    Raises:
        DataError: not four numbers from 0 to 1, left below right and top below bottom.
    """
    try:
        left, top, right, bottom = (float(word) for word in text.replace(",", " ").split())
    except ValueError:
        left, top, right, bottom = 0.0, 0.0, 0.0, 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise DataError(
            "a box is not one", where=where, found=repr(text[:60]),
            expected="left, top, right and bottom as shares of the image from 0 to 1, such as 0.31 0.22 0.44 0.35",
            remedy="divide pixels by the image's width and height",
        )  # fmt: skip
    return left, top, right, bottom


def changed(one: np.ndarray, other: np.ndarray) -> Box | None:
    """The smallest box around all pixels in which two pictures [H, W] differ visibly; None where none do."""
    apart = np.abs(one.astype(int) - other.astype(int)) >= VISIBLE
    rows, columns = np.flatnonzero(apart.any(axis=1)), np.flatnonzero(apart.any(axis=0))
    if not len(rows):
        return None
    height, width = apart.shape
    return (
        float(columns[0] / width), float(rows[0] / height), float((columns[-1] + 1) / width),
        float((rows[-1] + 1) / height),
    )  # fmt: skip


def slices(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels in a box, at least one of each."""
    left, top, right, bottom = box
    first, last = round(top * height), round(bottom * height)
    start, end = round(left * width), round(right * width)
    first, start = min(first, height - 1), min(start, width - 1)
    return slice(first, max(last, first + 1)), slice(start, max(end, start + 1))


def elsewhere(box: Box, random: np.random.Generator) -> Box | None:
    """A box of the same size away from a box: its mirror image, left for right, or else a drawn one.

    The mirror image covers the same anatomy of the other side, so that it differs in nothing but the finding.

    Returns:
        The box; None where the box is so large that none of its size lies beside it.
    """
    left, top, right, bottom = box
    mirrored = (1 - right, top, 1 - left, bottom)
    if apart(box, mirrored):
        return mirrored
    width, height = right - left, bottom - top
    for x, y in random.random((TRIES, 2)):
        drawn = (x * (1 - width), y * (1 - height))
        found = (*drawn, drawn[0] + width, drawn[1] + height)
        if apart(box, found):
            return found
    return None


def apart(one: Box, other: Box) -> bool:
    """Whether two boxes share no area."""
    return one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
