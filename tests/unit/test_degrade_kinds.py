"""What each kind does to pixels: POVID's schedule, mDPO's crop, a Gaussian, photons and JPEG, in figures."""

import hashlib
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from sightline.errors import ImageError
from sightline.images import degrade
from sightline.images.degrade import jpeg as jpeg_file
from sightline.images.degrade.crop import crop
from sightline.images.degrade.diffusion import shares
from sightline.images.phantom import FINDINGS, draw
from sightline.images.transforms import resize
from sightline.types import Degrade

KINDS = ("diffusion", "crop", "blur", "poisson", "jpeg")
IMAGE = np.random.default_rng(1).random((64, 80, 3), dtype=np.float32)
SMALL = ("nodule", "pneumothorax", "device")
GREY = np.repeat(IMAGE[:, :, :1], 3, axis=2)


def made(kind: str, strength: float, image: np.ndarray = IMAGE, record: str = "r") -> np.ndarray:
    return degrade.apply(image, Degrade(kind=kind, strength=strength), record)


def flat(*colour: float) -> np.ndarray:
    return np.broadcast_to(np.float32(colour if len(colour) == 3 else colour * 3), (200, 300, 3))


def radiograph(number: int, findings: dict[str, int]) -> np.ndarray:
    """A generated picture; the same number gives the same picture but for its findings."""
    grey = draw(np.random.default_rng([11, number]), findings).astype(np.float32) / 255
    return np.repeat(grey[:, :, None], 3, axis=2)


# What holds for all five.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image", [IMAGE, GREY, IMAGE.astype(np.float64)], ids=["colour", "grey", "f8"])
def test_strength_0_leaves_the_image_as_it_is(kind: str, image: np.ndarray) -> None:
    assert np.array_equal(made(kind, 0.0, image), image.astype(np.float32))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (3, 200), (61, 47)], ids=str)
def test_every_size(kind: str, size: tuple[int, int]) -> None:
    image = np.random.default_rng(2).random((*size, 3), dtype=np.float32)
    image.setflags(write=False)
    for strength in (1e-9, 0.4, 1.0):
        result = made(kind, strength, image)
        assert result.shape == image.shape
        assert result.dtype == np.float32
        assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize("kind", ["crop", "blur", "poisson", "jpeg"])
@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_grey_stays_grey(kind: str, strength: float) -> None:
    result = made(kind, strength, GREY)
    assert np.array_equal(result, np.repeat(result[:, :, :1], 3, axis=2))
    coloured = made(kind, strength)
    assert not np.array_equal(coloured[:, :, 0], coloured[:, :, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_more_strength_takes_the_picture_further_away(kind: str) -> None:
    pictures = [radiograph(number, {}) for number in range(4)]
    away = [
        np.mean([np.abs(made(kind, s, p, f"r{i}") - p).mean() for i, p in enumerate(pictures)])
        for s in (0.0, 0.25, 0.5, 1.0)
    ]
    assert away[0] == 0
    assert away[1] < 0.9 * away[2]
    assert away[2] < 0.9 * away[3]


def test_a_new_process_makes_the_same_bytes() -> None:
    code = (
        "import hashlib, numpy as np; from sightline.images import degrade;"
        "from sightline.types import Degrade;"
        "image = np.linspace(0, 1, 40 * 33 * 3, dtype=np.float32).reshape(40, 33, 3);"
        f"print([hashlib.sha256(degrade.apply(image, Degrade(kind=k, seed=3), 'r8')).hexdigest() for k in {KINDS}])"
    )
    image = np.linspace(0, 1, 40 * 33 * 3, dtype=np.float32).reshape(40, 33, 3)
    here = [hashlib.sha256(degrade.apply(image, Degrade(kind=k, seed=3), "r8")).hexdigest() for k in KINDS]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(degrade.__file__).parents[3]), "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.strip() == str(here)


@pytest.mark.parametrize(
    ("kind", "fits", "beyond", "expected"),
    [
        ("diffusion", 1.9989, 1.999, "strength from 0 to 1.998"),
        ("diffusion", 1.998, 1e308, "strength from 0 to 1.998"),
        ("crop", 1.0, 1.001, "strength from 0 to 1"),
        ("jpeg", 1.1, 1.101, "strength from 0 to 1.1"),
    ],
)
def test_strengths_that_are_too_high(kind: str, fits: float, beyond: float, expected: str) -> None:
    assert not np.array_equal(made(kind, fits), IMAGE)
    with pytest.raises(ImageError, match=f"the degradation '{kind}'") as caught:
        made(kind, beyond)
    assert caught.value.expected == expected
    assert str(beyond) in str(caught.value.found)


@pytest.mark.parametrize("kind", ["blur", "poisson"])
def test_strengths_without_an_upper_bound(kind: str) -> None:
    result = made(kind, 1e308)
    assert np.abs(result - (IMAGE.mean(axis=(0, 1)) if kind == "blur" else 0)).max() < 1e-6


# Diffusion.


@pytest.mark.parametrize(
    ("step", "kept", "added", "digits"),
    [(0, 1.0, 0.0047, 4), (100, 0.998, 0.058, 3), (500, 0.8630, 0.5052, 4), (700, 0.593, 0.805, 3),
     (999, 0.285, 0.959, 3), (999, 0.2850, 0.9585, 4)],
)  # fmt: skip
def test_the_schedule_is_povids(step: int, kept: float, added: float, digits: int) -> None:
    assert tuple(round(share, digits) for share in shares(step)) == (kept, added)


@pytest.mark.parametrize(
    ("strength", "step"), [(0.2, 100), (0.2009, 100), (0.2011, 101), (1.0, 500), (1.998, 999)]
)
def test_diffusion_mixes_image_and_noise_at_its_step(strength: float, step: int) -> None:
    kept, added = shares(step)
    noise = degrade.generator(Degrade(kind="diffusion"), "r").standard_normal(IMAGE.shape, dtype=np.float32)
    wanted = np.clip(IMAGE * kept + noise * added, 0, 1)
    assert np.allclose(made("diffusion", strength), wanted, atol=1e-6)


def test_diffusion_clips_where_povid_wraps() -> None:
    white = made("diffusion", 1.0, flat(1.0))
    assert abs((white == 1).mean() - 0.3931) < 0.004  # P(0.8630 + 0.5052 z > 1)
    assert abs((white == 0).mean() - 0.0438) < 0.002  # P(0.8630 + 0.5052 z < 0)
    grey = made("diffusion", 0.2, flat(0.5))
    assert abs(grey.mean() - 0.49915) < 0.0005
    assert abs(grey.std() - 0.05841) < 0.0005


def test_diffusion_begins_at_step_1() -> None:
    assert np.array_equal(made("diffusion", 0.0009), IMAGE)
    assert 0.002 < np.abs(made("diffusion", 0.0011) - IMAGE).mean() < 0.01


# Crop.


class Loaded:
    """A generator whose next numbers are known."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers

    def random(self, count: int) -> tuple[float, ...]:
        assert count == len(self.numbers)
        return self.numbers


PLACED: list[tuple[tuple[float, ...], float, tuple[int, int, int, int]]] = [
    ((0.0, 0.0, 0.0), 1.0, (0, 10, 0, 6)),  # 1 % of the area, top left
    ((1.0, 1.0, 1.0), 1.0, (55, 100, 33, 60)),  # 20 %, bottom right: sides of 0.447
    ((1.0, 1.0, 0.0), 1.0, (55, 100, 0, 27)),  # 20 %, bottom left
    ((0.0, 0.5, 0.5), 0.5, (14, 85, 8, 51)),  # 50.5 %: sides of 0.711
]


@pytest.mark.parametrize(("numbers", "strength", "place"), PLACED)
def test_crop_enlarges_a_piece(
    numbers: tuple[float, ...], strength: float, place: tuple[int, int, int, int]
) -> None:
    image = np.random.default_rng(3).random((100, 60, 3), dtype=np.float32)
    rng: Any = Loaded(*numbers)
    top, bottom, left, right = place
    wanted = resize(image[top:bottom, left:right], (100, 60), "bilinear")
    assert np.array_equal(crop(image, rng, strength=strength), wanted)


def pieces(strength: float) -> np.ndarray:
    """First and last row and column that 400 crops show, as shares of height and width [400, 4]."""
    down, right = np.meshgrid(np.linspace(0, 1, 161), np.linspace(0, 1, 81), indexing="ij")
    ramps = np.stack([down, right, down], axis=2).astype(np.float32)  # [161, 81, 3]
    shown = [made("crop", strength, ramps, f"r{number}") for number in range(400)]
    return np.array([[p[..., 0].min(), p[..., 0].max(), p[..., 1].min(), p[..., 1].max()] for p in shown])


def areas(ends: np.ndarray) -> np.ndarray:
    return ((ends[:, 1] - ends[:, 0]) * 160 + 1) / 161 * ((ends[:, 3] - ends[:, 2]) * 80 + 1) / 81


def test_crop_keeps_what_mdpo_keeps() -> None:
    ends = pieces(1.0)
    area = areas(ends)
    assert 0.009 < area.min() < 0.02
    assert 0.19 < area.max() < 0.207
    assert abs(area.mean() - 0.105) < 0.01
    assert ends[:, [0, 2]].min() < 0.01
    assert ends[:, [1, 3]].max() > 0.99
    middle = ends.reshape(-1, 2, 2).mean(axis=(0, 2))
    assert np.abs(middle - 0.5).max() < 0.04


def test_a_stronger_crop_lies_within_a_weaker_one() -> None:
    strong, weak = pieces(1.0), pieces(0.5)
    assert 0.5 < areas(weak).min() < 0.52
    assert 0.58 < areas(weak).max() < 0.61
    assert (strong[:, [0, 2]] >= weak[:, [0, 2]] - [1 / 160, 1 / 80] - 1e-6).all()
    assert (strong[:, [1, 3]] <= weak[:, [1, 3]] + [1 / 160, 1 / 80] + 1e-6).all()


# Blur.


def test_blur_is_a_gaussian_of_a_tenth_of_the_shorter_side() -> None:
    for size, strength, sigma in (((100, 100), 0.5, 5.0), ((60, 140), 1.0, 6.0), ((140, 60), 0.1, 0.6)):
        point = np.zeros((*size, 3), np.float32)
        row, column = size[0] // 2, size[1] // 2
        point[row, column] = 1
        spread = made("blur", strength, point)[:, :, 1].astype(np.float64)
        assert abs(spread.sum() - 1) < 1e-4
        assert spread.argmax() == row * size[1] + column
        for axis, middle in ((0, row), (1, column)):
            far = np.arange(size[axis]) - middle
            assert abs((spread.sum(axis=1 - axis) * far**2).sum() - sigma**2) < 0.01 * sigma**2
        if sigma > 2:
            assert abs(spread.max() * 2 * np.pi * sigma**2 - 1) < 0.02


def test_blur_mirrors_the_edges() -> None:
    weights = np.exp(-0.5 * (np.arange(-40, 41) / 6.4) ** 2)
    weights /= weights.sum()
    wide = np.pad(IMAGE[:, :, 0].astype(np.float64), 40, mode="symmetric")
    rows = np.apply_along_axis(np.convolve, 1, wide, weights, "valid")
    wanted = np.apply_along_axis(np.convolve, 0, rows, weights, "valid")
    assert np.abs(made("blur", 1.0)[:, :, 0] - wanted).max() < 0.001
    assert np.array_equal(made("blur", 1.0, flat(1.0)), flat(1.0))


def test_blur_takes_small_findings_below_the_grain() -> None:
    """Grey levels of 255 by which a finding of severity 1 stands out most: nodules have 100 of them before."""
    left = {}
    for finding in FINDINGS:
        pairs = [(radiograph(i, {}), radiograph(i, {finding: 1})) for i in range(6)]
        apart = [np.abs(made("blur", 1.0, a) - made("blur", 1.0, b)).max() for a, b in pairs]
        left[finding] = 255 * float(np.mean(apart))
    assert {finding for finding, levels in left.items() if levels < 10} == {
        "nodule",
        "pneumothorax",
        "device",
    }
    assert max(left.values()) < 40


# Poisson.


@pytest.mark.parametrize(("strength", "photons"), [(0.1, 1000), (1.0, 100), (10.0, 10), (20.0, 5)])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.25])
def test_poisson_counts_photons(strength: float, photons: int, value: float) -> None:
    result = made("poisson", strength, flat(value))[:, :, 0].astype(np.float64)
    assert abs(result.mean() - value) < 5 * np.sqrt(value / photons / result.size) + 1e-9
    unclipped = strength <= 10 or value == 0
    assert (
        not unclipped or abs(result.std() - np.sqrt(value / photons)) < 0.02 * np.sqrt(value / photons) + 1e-9
    )
    assert np.abs(result * photons - np.rint(result * photons)).max() < 1e-3


def test_poisson_clips_the_brightest() -> None:
    white = made("poisson", 1.0, flat(1.0))[:, :, 0]
    assert abs((white == 1).mean() - 0.5133) < 0.01  # P(a count of mean 100 is at least 100)


def test_poisson_counts_once_for_grey_and_thrice_for_colour() -> None:
    grey, tinted = made("poisson", 1.0, flat(0.5)), made("poisson", 1.0, flat(0.5, 0.5, 0.49))
    assert np.array_equal(grey[:, :, 0], grey[:, :, 2])
    assert abs(np.corrcoef(tinted[:, :, 0].ravel(), tinted[:, :, 1].ravel())[0, 1]) < 0.02


def test_poisson_without_noise() -> None:
    assert np.array_equal(made("poisson", 1e-13), IMAGE)
    assert np.abs(made("poisson", 1e-11) - IMAGE).max() < 2e-6


# JPEG.


@pytest.mark.parametrize(
    ("strength", "quality", "first"),
    [(0.5, 55, 14), (0.8, 28, 28), (1.0, 10, 80), (1.03, 7, 114), (1.1, 1, 255)],
)
def test_jpeg_writes_at_its_quality(
    strength: float, quality: int, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`first` opens the table of brightness: 16 times 5000 // quality percent, or 200 - 2 * quality from 50 up."""
    files: list[BytesIO] = []
    monkeypatch.setattr(jpeg_file, "BytesIO", lambda: files.append(BytesIO()) or files[-1])
    result = made("jpeg", strength)
    stored = JpegImageFile(BytesIO(files[0].getvalue()))
    assert stored.quantization[0][0] == first, quality
    assert get_sampling(stored) == 2  # 4:2:0
    assert np.array_equal(result, np.asarray(stored, np.float32) / np.float32(255))


@pytest.mark.parametrize(("value", "level"), [(0.0, 0), (0.2, 51), (0.4999, 127), (0.5001, 128), (1.0, 255)])
def test_jpeg_rounds_to_8_bits(value: float, level: int) -> None:
    assert np.array_equal(np.unique(made("jpeg", 0.01, flat(value))), np.float32([level]) / np.float32(255))


def test_jpeg_refuses_what_it_cannot_hold() -> None:
    assert made("jpeg", 1.0, np.zeros((1, 65_500, 3), np.float32)).shape == (1, 65_500, 3)
    with pytest.raises(ImageError, match="too long for a JPEG") as caught:
        made("jpeg", 1.0, np.zeros((65_501, 1, 3), np.float32))
    assert caught.value.found == "65501 x 1"
