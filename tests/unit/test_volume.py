"""Volumes: turned by their orientation and never mirrored, resampled without distortion, scaled, chosen in time."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from sightline.errors import ImageError, ModelError
from sightline.images import degrade
from sightline.images.brain import Brain, draw
from sightline.images.volume import (
    Volume,
    fit,
    frames,
    mirror,
    normalise,
    resample,
    slices,
    spacing_to_fit,
    to_ras,
    turn,
)
from sightline.images.volume_input import Box, VolumeInput
from sightline.types import Degrade

ORIENTATIONS = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]


def marked(**more: object) -> Volume:
    """[3, 4, 5] with one marked voxel at the far right, one in front and one on top."""
    values = np.zeros((3, 4, 5), np.float32)
    values[2, 1, 1], values[1, 3, 2], values[0, 0, 4] = 1, 2, 3
    return Volume(values=values, spacing=(1.0, 2.0, 3.0), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("stored", ORIENTATIONS)
def test_any_of_the_48_orientations_comes_back_to_ras(stored: str) -> None:
    volume = marked()
    other = turn(volume, stored)
    assert other.orientation == stored
    back = to_ras(other)
    assert np.array_equal(back.values, volume.values)
    assert back.spacing == (1.0, 2.0, 3.0)
    assert back.orientation == "RAS"


def test_there_are_48_and_turning_moves_what_it_says() -> None:
    assert len(set(ORIENTATIONS)) == 48
    flipped = turn(marked(), "LAS").values
    assert flipped[0, 1, 1] == 1
    stood = turn(marked(), "SAR")
    assert stood.values.shape == (5, 4, 3)
    assert stood.spacing == (3.0, 2.0, 1.0)
    assert stood.values[4, 0, 0] == 3


def test_a_mirrored_head_is_another_head_whatever_its_orientation() -> None:
    head = draw(Brain(side="left", sex="male"), np.random.default_rng(0), size=16)
    half = head.values[:8].sum(), head.values[8:].sum()
    assert half[0] > half[1]  # the spot is on the left, at small x
    for stored in ("RAS", "LPS", "PIR"):
        seen = to_ras(mirror(turn(head, stored))).values
        assert np.array_equal(seen, head.values[::-1])


def test_time_stays_last() -> None:
    values = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    made = turn(Volume(values=values, spacing=(1, 1, 1), seconds=2.0), "SPL")
    assert made.values.shape == (5, 4, 3, 2)
    assert made.values[0, 0, 0, 1] == values[2, 3, 0, 1]
    assert made.times == 2
    assert made.seconds == 2.0


def test_halving_the_resolution_keeps_the_mean_and_the_middle() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None], (8, 4, 4)).copy()
    made = resample(Volume(values=ramp, spacing=(1, 1, 1)), (2.0, 1.0, 1.0))
    assert made.values.shape == (4, 4, 4)
    assert made.spacing == (2.0, 1.0, 1.0)
    # A triangle of half width 2 about 0.5, 2.5, 4.5, 6.5; at the ends it is cut off and weighed anew.
    assert made.values[:, 0, 0] == pytest.approx([5 / 7, 2.5, 4.5, 7 - 5 / 7], abs=1e-6)


def test_finer_voxels_lie_on_the_line_between_coarse_ones() -> None:
    ramp = np.broadcast_to(np.arange(4, dtype=np.float32), (2, 2, 4)).copy()
    made = resample(Volume(values=ramp, spacing=(1, 1, 2)), (1.0, 1.0, 1.0))
    assert made.values[0, 0] == pytest.approx([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_nothing_changes_at_its_own_spacing() -> None:
    volume = marked()
    assert np.array_equal(resample(volume, (1.0, 2.0, 3.0)).values, volume.values)


def test_a_ball_stays_a_ball_where_voxels_are_flat() -> None:
    across, along = np.arange(40) - 19.5, (np.arange(10) - 4.5) * 4  # mm
    x, y, z = np.meshgrid(across, across, along, indexing="ij")
    ball = np.exp(-(x**2 + y**2 + z**2) / 72).astype(np.float32)
    made = VolumeInput(t1=Box(size=(20, 20, 20)), scale="none").apply(Volume(values=ball, spacing=(1, 1, 4)))
    assert made.values.shape == (20, 20, 20)
    assert made.spacing == (2.0, 2.0, 2.0)
    at = (np.arange(20) - 9.5) * 2
    profiles = [made.values.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)]
    widths = [float(np.sqrt((p * at**2).sum() / p.sum())) for p in profiles]
    assert widths[0] == pytest.approx(widths[1], rel=1e-4)
    assert widths == pytest.approx([6.0] * 3, rel=0.05)
    stretched = fit(Volume(values=ball, spacing=(1, 1, 4)), (20, 20, 20)).values.sum(axis=(0, 1))
    assert float(np.sqrt((stretched * at**2).sum() / stretched.sum())) < 4  # the check would notice


def test_the_spacing_at_which_all_fits_is_the_same_along_all_axes() -> None:
    volume = Volume(values=np.zeros((10, 20, 30), np.float32), spacing=(1.0, 1.0, 2.0))
    assert spacing_to_fit(volume, (20, 20, 20)) == (3.0, 3.0, 3.0)
    made = fit(resample(volume, (3.0, 3.0, 3.0)), (20, 20, 20))
    assert made.values.shape == (20, 20, 20)
    assert made.spacing == (3.0, 3.0, 3.0)


def test_fit_pads_and_cuts_around_the_middle() -> None:
    volume = Volume(values=np.arange(1, 6, dtype=np.float32).reshape(5, 1, 1), spacing=(1, 1, 1))
    assert fit(volume, (3, 1, 1)).values[:, 0, 0].tolist() == [2, 3, 4]
    assert fit(volume, (8, 1, 1)).values[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert fit(volume, (5, 1, 2), fill=9).values[0, 0].tolist() == [1, 9]
    with pytest.raises(ImageError, match="size does not fit"):
        fit(volume, (0, 1, 1))


def test_znorm_scales_the_foreground_and_leaves_the_background() -> None:
    values = np.array([0, 0, 2, 4, 6], np.float32).reshape(5, 1, 1)
    made = normalise(Volume(values=values, spacing=(1, 1, 1))).values[:, 0, 0]
    third = 1.5**0.5
    assert made == pytest.approx([0, 0, -third, 0, third])
    least = normalise(Volume(values=values, spacing=(1, 1, 1)), "znorm_minback").values[:, 0, 0]
    assert least == pytest.approx([-third, -third, -third, 0, third])
    assert values[2, 0, 0] == 2


def test_time_is_scaled_as_one_and_flat_or_empty_volumes_stay_finite() -> None:
    values = np.zeros((2, 1, 1, 2), np.float32)
    values[1, 0, 0] = [1, 3]
    made = normalise(Volume(values=values, spacing=(1, 1, 1), seconds=1)).values
    assert made[1, 0, 0].tolist() == [-1, 1]
    assert made[0].tolist() == [[[0, 0]]]
    values[1, 0, 0] = [0, 2]  # a voxel that is 0 at one time is foreground at all
    assert normalise(Volume(values=values, spacing=(1, 1, 1), seconds=1)).values[1, 0, 0].tolist() == [-1, 1]
    flat = normalise(Volume(values=np.full((2, 2, 2), 7, np.float32), spacing=(1, 1, 1)))
    assert not flat.values.any()
    empty = normalise(Volume(values=np.zeros((2, 2, 2), np.float32), spacing=(1, 1, 1)))
    assert not empty.values.any()


def test_which_points_of_time_are_taken() -> None:
    assert frames(10, 3) == [0, 1, 2]
    assert frames(10, 5, "even") == [1, 3, 5, 7, 9]
    assert frames(7, 7, "even") == [0, 1, 2, 3, 4, 5, 6]
    window = frames(100, 4, "window", seed=1, record="r1")
    assert window == list(range(window[0], window[0] + 4))
    assert window == frames(100, 4, "window", seed=1, record="r1")
    starts = {frames(100, 4, "window", seed=1, record=f"r{i}")[0] for i in range(400)}
    assert len(starts) > 80
    assert (min(starts), max(starts)) == (0, 96)
    with pytest.raises(ImageError, match="too short") as caught:
        frames(3, 4)
    assert caught.value.found == "3 points of time"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": np.zeros((2, 2), np.float32)}, "wrong shape"),
        ({"values": np.zeros((2, 2, 2))}, "wrong shape"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "spacing"),
        ({"orientation": "RLS"}, "orientation"),
        ({"orientation": "RA"}, "orientation"),
        ({"seconds": -1.0}, "time step"),
    ],
)
def test_a_volume_that_contradicts_itself_cannot_be_made(change: dict[str, object], words: str) -> None:
    sound: dict[str, object] = {"values": np.zeros((2, 2, 2), np.float32), "spacing": (1.0, 1.0, 1.0)}
    with pytest.raises(ImageError, match=words):
        Volume(**{**sound, **change})  # type: ignore[arg-type]


def test_what_would_take_all_memory_is_refused() -> None:
    small = Volume(values=np.zeros((2, 2, 2), np.float32), spacing=(1, 1, 1))
    with pytest.raises(ImageError, match="too large"):
        fit(small, (1000, 1000, 1000))
    with pytest.raises(ImageError, match="too large"):
        resample(small, (0.001, 0.001, 0.001))


def test_input_of_a_tower() -> None:
    reading = VolumeInput(t1=Box(size=(4, 4, 4)), fmri=Box(size=(4, 4, 4), times=2), frames="first")
    assert reading.extent((9, 9, 9)) == (4, 4, 4)
    assert reading.extent((9, 9, 9, 5)) == (4, 4, 4, 2)
    with pytest.raises(ImageError, match="too short"):
        reading.extent((9, 9, 9, 1))
    assert tuple(reading.tensor(marked()).shape) == (1, 4, 4, 4)
    only = VolumeInput(fmri=Box(size=(4, 4, 4), times=2))
    with pytest.raises(ImageError, match="volumes of this kind") as caught:
        only.extent((9, 9, 9))
    assert caught.value.found == "a volume without a time axis"
    with pytest.raises(ImageError, match="not pictures"):
        reading(np.zeros((2, 2, 3)))
    with pytest.raises(ModelError, match="no kind of volume"):
        VolumeInput()


def test_left_and_right_are_exchanged_only_where_it_is_asked_for() -> None:
    plain = VolumeInput(t1=Box(size=(16, 16, 16), spacing=(4, 4, 4)), scale="none")
    flipped = VolumeInput(t1=Box(size=(16, 16, 16), spacing=(4, 4, 4)), scale="none", flip=True)
    head = draw(Brain(side="right", sex="female"), np.random.default_rng(1), size=16)
    assert np.array_equal(plain.apply(turn(head, "LPI")).values, head.values)
    assert np.array_equal(flipped.apply(head).values, head.values[::-1])
    assert plain.key() != flipped.key()
    assert plain.key() == VolumeInput(t1=Box(size=(16, 16, 16), spacing=(4, 4, 4)), scale="none").key()


def test_degraded_volumes() -> None:
    head = draw(Brain(side="left", sex="male"), np.random.default_rng(0), size=8, times=2)
    black = degrade.apply_volume(head, Degrade(kind="black"), "r1")
    assert not black.values.any()
    noise = [degrade.apply_volume(head, Degrade(kind="replace", seed=s), "r1").values for s in (1, 1, 2)]
    assert noise[0].shape == (8, 8, 8, 2)
    assert np.array_equal(noise[0], noise[1])
    assert not np.array_equal(noise[0], noise[2])
    assert noise[0].max() <= head.values.max()
    with pytest.raises(ImageError, match="cannot be degraded") as caught:
        degrade.apply_volume(head, Degrade(kind="jpeg"), "r1")
    assert caught.value.expected.startswith("one of black, gaussian, replace")


def test_the_picture_for_people_is_in_proportion() -> None:
    head = draw(Brain(side="left", sex="male"), np.random.default_rng(0), size=12, times=2)
    shown = slices(head)
    assert shown.shape == (12, 36, 3)
    assert shown.min() == 0
    assert shown.max() == 1
    tall = slices(Volume(values=np.ones((2, 2, 4), np.float32), spacing=(1, 1, 3)))
    assert tall.shape == (12, 6, 3)
