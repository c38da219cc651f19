"""Prints of images: the hash, the banded search, and which copies and which strangers the details tell apart."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from sightline.data.twins import pairs
from sightline.images import prints
from sightline.images.phantom import draw

LEAST = 0.88


def film(seed: int, size: int = 160) -> Image.Image:
    """A phantom of a patient of its own."""
    return Image.fromarray(draw(np.random.default_rng(seed), {"nodule": 1, "device": seed % 2}, size=size))


def taken(image: Image.Image) -> prints.Print:
    """The print of an image as Sightline reads it: grey three times."""
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
    return prints.taken(np.repeat(grey[..., None], 3, axis=2))


def saved(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(io.BytesIO(stream.getvalue()))


def cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Without so many percent of each edge."""
    w, h = image.size
    cut = (w * left / 100, h * top / 100, w * (1 - right / 100), h * (1 - bottom / 100))
    return image.crop(tuple(round(each) for each in cut))


COPIES = {
    "half": lambda i: i.resize((i.width // 2, i.height // 2), Image.Resampling.BICUBIC),
    "stretched": lambda i: i.resize((i.width * 2, i.height), Image.Resampling.BILINEAR),
    "poor": lambda i: saved(i, 30),
    "small and poor": lambda i: saved(i.resize((i.width // 2, i.height // 2)), 60),
    "brighter": lambda i: i.point(lambda v: min(255, int(v * 1.15 + 8))),
    "two percent": lambda i: cropped(i, 2, 2, 2, 2),
    "one corner": lambda i: cropped(i, 3, 0, 0, 3),
}


@pytest.fixture(scope="module")
def films() -> list[Image.Image]:
    return [film(seed) for seed in range(40)]


@pytest.mark.parametrize("way", COPIES)
def test_a_copy_is_found_and_only_its_original(way: str, films: list[Image.Image]) -> None:
    known = [taken(each) for each in films[:10]]
    copies = [taken(COPIES[way](each)) for each in films[:10]]
    found = {(i, j) for i, j, _ in pairs([*known, *copies], LEAST)}
    assert found == {(i, i + 10) for i in range(10)}


def test_different_patients_are_not_reported(films: list[Image.Image]) -> None:
    known = [taken(each) for each in films]
    assert pairs(known, LEAST) == []
    close = prints.near(np.array([p.bits for p in known], dtype=np.uint64), 18)
    assert len(close) > 20  # the hash alone would not tell them apart
    details = [prints.details(p.thumb) for p in known]
    assert max(prints.alike(details[i], details[j]) for i, j in close) < 0.86


def test_the_hash_of_a_known_picture() -> None:
    slope = np.tile(np.linspace(0, 1, 64), (64, 1))
    wave = 0.5 + 0.4 * np.sin(np.arange(64) / 5)[:, None] * np.cos(np.arange(64) / 7)
    both = [np.repeat(p[..., None], 3, axis=2).astype(np.float32) for p in (slope, wave)]
    bits = [prints.taken(p).bits for p in both]
    assert all(0 <= b < 2**64 for b in bits)
    assert bits[0] >> 63 == 1  # the mean is the first and largest frequency
    assert bits[0] != bits[1]
    assert prints.taken(both[0]).thumb.shape == (48, 48)
    assert prints.taken(both[0]).thumb.dtype == np.uint8


def test_a_flat_image_is_like_nothing() -> None:
    black = prints.details(np.zeros((48, 48), dtype=np.uint8))
    assert prints.alike(black, black) == 0.0
    assert pairs([prints.Print(0, np.zeros((48, 48), dtype=np.uint8))] * 3, LEAST) == []


def plain(bits: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """Every pair looked at."""
    return [
        (i, j)
        for i in range(len(bits))
        for j in range(i + 1, len(bits))
        if (int(bits[i]) ^ int(bits[j])).bit_count() <= distance
    ]


@pytest.mark.parametrize("distance", [0, 3, 8, 12, 16])
@pytest.mark.parametrize("spread", [64, 14, 3], ids=["apart", "near", "crowded"])
def test_the_banded_search_misses_nothing(distance: int, spread: int) -> None:
    random = np.random.default_rng(distance * 100 + spread)
    centre = random.integers(0, 2**64, size=3, dtype=np.uint64)[random.integers(0, 3, 200)]
    flips = [
        sum(1 << int(b) for b in random.choice(64, random.integers(0, spread + 1), False)) for _ in centre
    ]
    bits = centre ^ np.array(flips, dtype=np.uint64)
    assert [tuple(pair) for pair in prints.near(bits, distance).tolist()] == plain(bits, distance)


def test_no_image_and_one_image_have_no_pair() -> None:
    assert prints.near(np.zeros(0, dtype=np.uint64), 12).shape == (0, 2)
    assert prints.near(np.zeros(1, dtype=np.uint64), 12).shape == (0, 2)
    assert prints.near(np.zeros(3, dtype=np.uint64), 12).tolist() == [[0, 1], [0, 2], [1, 2]]


def test_equal_to_the_package_imagehash(films: list[Image.Image]) -> None:
    imagehash = pytest.importorskip("imagehash", reason="the package ImageHash is not installed")
    for each in films[:10]:
        theirs = imagehash.phash(each.convert("L")).hash.ravel()
        assert taken(each).bits == int("".join("1" if bit else "0" for bit in theirs), 2)
