"""Prints of images: a 64-bit hash and a thumbnail, by which copies are found that were resized, re-saved or cropped.

The hash is the perceptual one of 32 x 32 grey pixels: the signs of its 8 x 8 lowest frequencies about their median
(Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions", phash.org), bit for bit that of the
package ImageHash. Radiographs of two patients can be as near in it as a cropped copy, so it only proposes; the
thumbnails decide, by the correlation of their details where one is laid over the other as a crop of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from PIL import Image

GRID, KEPT = 32, 8
EDGE = 48
BLUR = 9  # pixels of the thumbnail; what is coarser than that is anatomy, which patients share
CROPS = (1.0, 0.98, 0.96, 0.94, 0.92, 0.9)  # shares of an edge that a crop leaves
FLAT = 1e-3
TILE = 512
DEARER = 7  # times that a pair that was looked up costs, against one of a whole tile, measured
MOST_CANDIDATES = 4_000_000  # of one step of the banded search


@dataclass(frozen=True, slots=True)
class Print:
    """What is kept of an image: the hash as a whole number below 2^64, and a grey thumbnail [48, 48] of bytes."""

    bits: int
    thumb: np.ndarray


def taken(pixels: np.ndarray) -> Print:
    """The print of pixels [H, W, 3] in [0, 1]."""
    grey = Image.fromarray((pixels * 255).round().astype(np.uint8)).convert("L")
    small = np.asarray(grey.resize((GRID, GRID), Image.Resampling.LANCZOS), dtype=float)
    low = _cosines() @ small @ _cosines().T  # [8, 8]
    signs = (low > np.median(low)).ravel()
    thumb = np.asarray(grey.resize((EDGE, EDGE), Image.Resampling.BOX))
    return Print(int(np.packbits(signs).view(">u8")[0]), thumb)


@cache
def _cosines() -> np.ndarray:
    """The first rows of the cosine transform of type II, not normalised, [8, 32]."""
    return np.cos(np.pi * np.arange(KEPT)[:, None] * (2 * np.arange(GRID) + 1) / (2 * GRID))


def near(bits: np.ndarray, distance: int) -> np.ndarray:
    """All pairs of hashes that differ in at most so many bits.

    Cut into bands, two such hashes differ in few bits of at least one band, so those that are near in a band are
    looked up and compared. Hashes that crowd together are compared one by one where that is less work. Nothing is
    missed either way.

    Args:
        bits: [n] unsigned 64-bit.
        distance: most bits that differ.

    Returns:
        [pairs, 2] places i < j, sorted.
    """
    bands = max(4, distance // 3 + 1)
    lots = [_Band(part, distance // bands) for part in _cut(bits, bands)]
    found: list[np.ndarray] = []
    if DEARER * sum(lot.work for lot in lots) > len(bits) * (len(bits) - 1) // 2:
        found += _every(bits, distance)
    else:
        for lot in lots:
            for first, second in lot.pairs():
                held = np.bitwise_count(bits[first] ^ bits[second]) <= distance
                found.append(np.stack([first[held], second[held]], axis=1))
    whole = np.concatenate(found) if found else np.zeros((0, 2), dtype=np.int64)
    return np.unique(np.sort(whole, axis=1), axis=0)


def _cut(bits: np.ndarray, bands: int) -> list[np.ndarray]:
    """Each hash in pieces of nearly equal width, [n] each."""
    edges = np.linspace(0, 64, bands + 1).astype(int)
    return [
        ((bits >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)).astype(np.int64)
        for low, high in pairwise(edges.tolist())
    ]


def _every(bits: np.ndarray, distance: int) -> Iterator[np.ndarray]:
    """Near pairs, by looking at all of them, a tile at a time."""
    for start in range(0, len(bits), TILE):
        rows = bits[start : start + TILE]
        for other in range(start, len(bits), TILE):
            differ = np.bitwise_count(rows[:, None] ^ bits[None, other : other + TILE])  # [tile, tile]
            i, j = np.nonzero(differ <= distance)
            pairs = np.stack([i + start, j + other], axis=1)
            yield pairs[pairs[:, 0] < pairs[:, 1]]


class _Band:
    """One piece of all hashes, sorted, so that equal pieces lie together.

    Args:
        values: [n] the pieces.
        apart: most bits in which two pieces differ that are looked up.
    """

    def __init__(self, values: np.ndarray, apart: int) -> None:
        self.order = np.argsort(values, kind="stable")
        self.known, self.starts, self.counts = np.unique(
            values[self.order], return_index=True, return_counts=True
        )
        self.table = np.full(int(values.max(initial=0)) * 2 + 2, -1, dtype=np.int64)
        self.table[self.known] = np.arange(len(self.known))
        width = int(values.max(initial=0)).bit_length()
        self.masks = list(_masks(width, apart))

    @property
    def work(self) -> int:
        """How many pairs would be compared."""
        return sum(int((self.counts[a] * self.counts[b]).sum()) for a, b in self._meetings())

    def pairs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Places of hashes whose pieces are near, in steps of bounded size; a pair may come as (i, j) or (j, i)."""
        for a, b in self._meetings():
            if not len(a):
                continue
            ends = np.cumsum(self.counts[a] * self.counts[b])
            cuts = np.unique(np.searchsorted(ends, np.arange(0, ends[-1], MOST_CANDIDATES)))
            for start, stop in zip(cuts, [*cuts[1:], len(a)], strict=True):
                yield self._crossed(a[start:stop], b[start:stop])

    def _meetings(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Groups of equal pieces that are near each other; each two meet once."""
        for mask in self.masks:
            wanted = self.known ^ mask
            inside = wanted < len(self.table)
            met = np.where(inside, self.table[np.minimum(wanted, len(self.table) - 1)], -1)
            own = np.arange(len(self.known))
            held = met >= own  # a group with itself (mask 0), and each other pair from one side
            yield own[held], met[held]

    def _crossed(self, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every member of groups a with every member of groups b, without a member and itself."""
        sizes = self.counts[a] * self.counts[b]
        group = np.repeat(np.arange(len(a)), sizes)
        within = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        row, column = np.divmod(within, self.counts[b][group])
        first, second = self.order[self.starts[a][group] + row], self.order[self.starts[b][group] + column]
        other = first != second
        return first[other], second[other]


def _masks(width: int, apart: int) -> Iterator[int]:
    """All numbers of so many bits of which at most two are set."""
    yield 0
    if apart >= 1:
        yield from (1 << i for i in range(width))
    if apart >= 2:
        yield from (1 << i | 1 << j for i in range(width) for j in range(i))


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """How far two thumbnails' details agree at best, where one is laid over the other as a crop of it; at most 1.

    Args:
        first: the one, as `details` gives it.
        second: the other.
    """
    return float(max((first @ second[0]).max(), (second @ first[0]).max()))


def details(thumb: np.ndarray) -> np.ndarray:
    """A thumbnail's details as they are and under every small crop, each of length 1; zeros for a flat image.

    Args:
        thumb: [48, 48] bytes.

    Returns:
        [crops, 2304]; the first is the whole.
    """
    grey = thumb.astype(np.float32) / 255
    fine = grey - _blur() @ grey @ _blur().T
    if np.abs(fine).max() < FLAT:
        return np.zeros((len(_places()), EDGE * EDGE), dtype=np.float32)
    rows = _windows() @ fine  # [windows, 48, 48]
    cut = np.stack([rows[i] @ _windows()[j].T for i, j in _places()]).reshape(len(_places()), -1)
    cut -= cut.mean(axis=1, keepdims=True)
    return cut / np.linalg.norm(cut, axis=1, keepdims=True)


@cache
def _blur() -> np.ndarray:
    """A running mean along an edge as a matrix, [48, 48]."""
    apart = np.abs(np.arange(EDGE)[:, None] - np.arange(EDGE))
    held = (apart <= BLUR // 2).astype(np.float32)
    return held / held.sum(axis=1, keepdims=True)


@cache
def _windows() -> np.ndarray:
    """Windows along an edge: of each share that is left at the low end, the middle and the high end, [w, 48, 48]."""
    made = []
    for share in CROPS:
        for shift in (-1, 0, 1) if share < 1 else (0,):
            centre = (EDGE - 1) / 2 + shift * (1 - share) * EDGE / 2
            at = np.clip(centre + (np.arange(EDGE) - (EDGE - 1) / 2) * share, 0, EDGE - 1)
            weights = 1 - np.abs(at[:, None] - np.arange(EDGE))
            made.append(np.clip(weights, 0, 1).astype(np.float32))
    return np.stack(made)


@cache
def _places() -> tuple[tuple[int, int], ...]:
    """The windows of rows and of columns that make a crop: the same share along both edges, any place."""
    sizes = [1, *([3] * (len(CROPS) - 1))]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return tuple(
        (start + i, start + j)
        for start, size in zip(starts, sizes, strict=True)
        for i in range(size)
        for j in range(size)
    )
