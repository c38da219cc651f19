"""Padding, resizing, cropping and normalising: shapes, exact cases, and what is refused."""

import numpy as np
import pytest
import torch

from sightline.errors import ImageError, ModelError
from sightline.images.transforms import Preprocess, crop_centre, normalise, pad_square, resize

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
IMAGE = np.random.default_rng(0).random((6, 9, 3), dtype=np.float32)


class Settings:
    """Stands for an image processor of transformers."""

    def __init__(self, **settings: object) -> None:
        self.settings = {"image_mean": MEAN, "image_std": STD, "resample": 3, **settings}

    def to_dict(self) -> dict[str, object]:
        return self.settings


def test_padding_puts_the_image_in_the_middle() -> None:
    square = pad_square(IMAGE, (0.1, 0.2, 0.3))
    assert square.shape == (9, 9, 3)
    assert np.array_equal(square[1:7], IMAGE)
    assert np.allclose(square[[0, 7, 8]], [0.1, 0.2, 0.3])
    tall = pad_square(IMAGE.swapaxes(0, 1))
    assert np.array_equal(tall[:, 1:7], IMAGE.swapaxes(0, 1))
    assert tall[:, 0].max() == 0


def test_a_square_is_not_padded() -> None:
    assert np.array_equal(pad_square(IMAGE[:, :6]), IMAGE[:, :6])


@pytest.mark.parametrize("bad", [(0.0, 0.0), (0.0, 0.0, 1.5), (float("nan"), 0.0, 0.0)])
def test_a_colour_that_is_none(bad: tuple[float, ...]) -> None:
    with pytest.raises(ImageError, match="padding colour"):
        pad_square(IMAGE, bad)


@pytest.mark.parametrize("resample", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (12, 20), (1, 1)])
def test_resize_gives_the_size_and_keeps_the_range(resample: str, size: tuple[int, int]) -> None:
    sharp = np.round(IMAGE)  # bicubic overshoots at edges
    made = resize(sharp, size, resample)
    assert made.shape == (*size, 3)
    assert made.dtype == np.float32
    assert made.min() >= 0
    assert made.max() <= 1


def test_resize_of_a_flat_picture_is_flat() -> None:
    for resample in ("nearest", "bilinear", "bicubic"):
        assert np.abs(resize(np.full((30, 20, 3), 0.3, np.float32), 7, resample) - 0.3).max() < 1e-6


def test_resize_to_the_same_size_changes_nothing() -> None:
    assert np.array_equal(resize(IMAGE, (6, 9)), IMAGE)


def test_antialiasing_matters_when_shrinking() -> None:
    stripes = np.zeros((64, 64, 3), np.float32)
    stripes[:, ::2] = 1
    smooth, rough = resize(stripes, 16, "bilinear"), resize(stripes, 16, "nearest")
    assert np.abs(smooth[4:-4, 4:-4] - 0.5).max() < 0.1
    assert set(np.unique(rough)) <= {0.0, 1.0}


def test_views_that_torch_cannot_take_are_copied() -> None:
    frozen = IMAGE[::-1, ::-1]
    frozen.flags.writeable = False
    assert np.allclose(resize(frozen, 4), resize(IMAGE, 4)[::-1, ::-1], atol=1e-6)


def test_resize_refusals() -> None:
    with pytest.raises(ImageError, match="unknown resampling"):
        resize(IMAGE, 4, "magic")
    with pytest.raises(ImageError, match="cannot be this small"):
        resize(IMAGE, 0)
    with pytest.raises(ImageError, match="too large"):
        resize(IMAGE, 100_000)


def test_a_long_thin_picture_cannot_take_all_memory() -> None:
    line = np.zeros((1, 20_000, 3), np.float32)
    with pytest.raises(ImageError, match="padding would make an image too large") as caught:
        pad_square(line)
    assert "20000 x 20000" in caught.value.found
    with pytest.raises(ImageError, match="resizing would make an image too large"):
        Preprocess(size=224, mean=MEAN, std=STD, pad=False, crop_from=224)(line)


def test_normalise_puts_channels_first() -> None:
    made = normalise(IMAGE, MEAN, STD)
    assert made.shape == (3, 6, 9)
    assert made.dtype == torch.float32
    assert made.is_contiguous()
    assert abs(float(made[1, 2, 3]) - (IMAGE[2, 3, 1] - 0.46) / 0.26) < 1e-5


@pytest.mark.parametrize(("mean", "std"), [((0.5,), STD), (MEAN, (0.0, 1.0, 1.0)), (MEAN, (np.nan, 1, 1))])
def test_normalise_refuses_statistics(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(ImageError, match="mean and std do not fit"):
        normalise(IMAGE, mean, std)


BAD = {
    "wrong dimensions": IMAGE[:, :, 0],
    "wrong dimensions ": IMAGE[:, :, :2],
    "wrong dimensions  ": IMAGE[:0],
    "wrong number type": (IMAGE * 255).astype(np.uint8),
    "outside [0, 1]": IMAGE * 255,
    "outside [0, 1] ": IMAGE - 0.5,
    "NaN or infinite": np.where(IMAGE.max() == IMAGE, np.nan, IMAGE),
    "NaN or infinite ": np.where(IMAGE.max() == IMAGE, np.inf, IMAGE),
    "is not an array": [[[0.5, 0.5, 0.5]]],
}


@pytest.mark.parametrize("words", BAD)
def test_each_boundary_checks_what_it_is_given(words: str) -> None:
    whole = Preprocess(size=4, mean=MEAN, std=STD)
    cropped = Preprocess(size=4, mean=MEAN, std=STD, pad=False, crop_from=5)
    steps = [
        pad_square,
        lambda i: resize(i, 4),
        lambda i: crop_centre(i, 2),
        lambda i: normalise(i, MEAN, STD),
    ]
    for step in (*steps, whole, cropped):
        with pytest.raises(ImageError) as caught:
            step(BAD[words])
        assert words.strip() in caught.value.what
        assert caught.value.expected == "a float array [H, W, 3] with values in [0, 1]"


def test_crop_takes_the_middle() -> None:
    assert np.array_equal(crop_centre(IMAGE, 4), IMAGE[1:5, 2:6])
    with pytest.raises(ImageError, match="too small to crop"):
        crop_centre(IMAGE, 7)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (33, 50), (8, 8)])
def test_preprocess_gives_the_size_for_any_shape(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 0.5, np.float32)
    for how in (
        Preprocess(size=8, mean=MEAN, std=STD),
        Preprocess(size=8, mean=MEAN, std=STD, pad=False),
        Preprocess(size=8, mean=MEAN, std=STD, pad=False, crop_from=9),
    ):
        made = how(image)
        assert made.shape == (3, 8, 8)
        assert torch.isfinite(made).all()


def test_preprocess_does_not_change_its_input() -> None:
    before = IMAGE.copy()
    Preprocess(size=4, mean=MEAN, std=STD)(IMAGE)
    assert np.array_equal(before, IMAGE)


def test_the_key_changes_with_every_setting_and_with_nothing_else() -> None:
    base = {"size": 8, "mean": MEAN, "std": STD}
    others = [
        {"size": 9}, {"mean": (0.5, 0.5, 0.5)}, {"std": (0.5, 0.5, 0.5)}, {"resample": "bilinear"},
        {"pad": False}, {"crop_from": 9},
    ]  # fmt: skip
    keys = {Preprocess(**{**base, **other}).key() for other in ({}, *others)}
    assert len(keys) == 7
    assert Preprocess(**base).key() == Preprocess(**base).key()
    assert Preprocess(**base).key() == "0a63550aa4776ca9e97de0442cd33c60"


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"std": (0, 1, 1)},
        {"mean": (np.inf, 0, 0)},
        {"resample": "x"},
        {"crop_from": 3},
        {"std": ()},
    ],
)
def test_settings_that_do_not_fit_together(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="preprocessing does not fit"):
        Preprocess(**{"size": 8, "mean": MEAN, "std": STD, **wrong})


@pytest.mark.parametrize(
    ("settings", "pad", "expected"),
    [
        ({"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}, "do_center_crop": True}, None,
         (8, False, 8)),
        ({"size": {"shortest_edge": 8}, "crop_size": {"height": 8, "width": 8}, "do_center_crop": True}, True,
         (8, True, 0)),
        ({"size": {"shortest_edge": 9}, "crop_size": 8, "do_center_crop": True}, True, (8, True, 9)),
        ({"size": {"height": 8, "width": 8}}, None, (8, False, 0)),
        ({"size": {"height": 8, "width": 8}, "do_pad": True}, None, (8, True, 0)),
        ({"size": 8}, None, (8, False, 0)),
        ({"size": {"shortest_edge": 8}}, True, (8, True, 0)),
        ({"size": {"shortest_edge": None, "height": 8, "width": 8}}, None, (8, False, 0)),
    ],
)  # fmt: skip
def test_processors_that_are_understood(
    settings: dict[str, object], pad: bool | None, expected: tuple[int, bool, int]
) -> None:
    made = Preprocess.from_processor(Settings(**settings), pad=pad)
    assert (made.size, made.pad, made.crop_from) == expected
    assert made.resample == "bicubic"
    assert made.mean == MEAN


def test_a_processor_that_does_not_normalise() -> None:
    made = Preprocess.from_processor(Settings(size=8, do_normalize=False, image_mean=None, image_std=None))
    assert made.mean == (0.0, 0.0, 0.0)
    assert made.std == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"size": 8, "image_grid_pinpoints": [[8, 8]]}, "image_grid_pinpoints"),
        ({"size": 8, "do_resize": False}, "do_resize=False"),
        ({"size": 8, "rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"size": {"height": 8, "width": 9}}, "'width': 9"),
        ({"size": {"longest_edge": 8}}, "longest_edge"),
        ({"size": {"shortest_edge": 8}}, "shortest_edge"),
        ({"size": {"height": 9, "width": 9}, "crop_size": 8, "do_center_crop": True}, "'height': 9"),
        ({"size": 8, "resample": 1}, "1"),
    ],
)
def test_processors_that_do_something_else_are_refused(settings: dict[str, object], found: str) -> None:
    with pytest.raises(ModelError) as caught:
        Preprocess.from_processor(Settings(**settings))
    assert found in caught.value.found
    assert caught.value.expected
