"""NIfTI files: right values and orientation from every stored form, and a clear word for every bad one."""

from __future__ import annotations

import gzip
import tracemalloc
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import refusals
from sightline import images
from sightline.errors import ImageError
from sightline.images.formats.nifti import check, header, nifti, write
from sightline.images.volume import Volume, to_ras
from sightline.types import ImageRef

DATA = Path(nibabel.__file__).parent / "tests" / "data"
RNG = np.random.default_rng(5)
VALUES = RNG.integers(-50, 900, (4, 5, 6)).astype(np.int16)


def save(path: Path, values: np.ndarray, affine: np.ndarray | None = None, **more: Any) -> Path:
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine, dtype=values.dtype)
    image.set_sform(image.affine, code=more.get("sform", 1))
    image.set_qform(more.get("turned", image.affine), code=more.get("qform", 0))
    if "units" in more:
        image.header.set_xyzt_units(*more["units"])
    if "zooms" in more:
        image.header.set_zooms(more["zooms"])
    nibabel.save(image, path)
    return path


def refusal(path: Path, **how: Any) -> ImageError:
    """Both ways of reading refuse, with the same words."""
    return refusals.refusal(path, nifti, check, **how)


@pytest.mark.parametrize(
    ("name", "shape", "spacing", "seconds", "orientation"),
    [
        ("anatomical.nii", (33, 41, 25), (2, 2, 2), 0, "LAS"),
        ("functional.nii", (17, 21, 3, 20), (4, 4, 8), 2, "LAS"),
        ("example4d.nii.gz", (128, 96, 24, 2), (2, 2, 2.2), 2000, "LAS"),
        ("example_nifti2.nii.gz", (32, 20, 12, 2), (2, 2, 2.2), 2000, "LAS"),
        ("reoriented_anat_moved.nii", (21, 26, 22), (4, 4, 4), 0, "RAS"),
        ("standard.nii.gz", (4, 5, 7), (1, 3, 2), 0, "RAS"),
    ],
)
def test_real_volumes(
    name: str, shape: tuple[int, ...], spacing: tuple[float, ...], seconds: float, orientation: str
) -> None:
    check(DATA / name)
    made = nifti(DATA / name)
    assert header(DATA / name) == made.values.shape == shape
    assert made.spacing == pytest.approx(spacing, abs=1e-5)
    assert made.seconds == seconds  # the header of example4d gives 2000 and calls it seconds
    assert made.orientation == orientation
    stock = nibabel.load(DATA / name)
    assert np.array_equal(made.values, stock.get_fdata(dtype=np.float32))
    closest = nibabel.as_closest_canonical(stock).get_fdata(dtype=np.float32)
    assert np.array_equal(to_ras(made).values, closest)


def test_a_real_volume_with_nan_is_refused() -> None:
    found = refusal(DATA / "resampled_anat_moved.nii")
    assert found.what == "a volume holds NaN or infinite values"
    assert found.found == "153 of 1071 values at point of time 0"
    assert "wrong" not in refusal(DATA / "row_major.dconn.nii").what


@pytest.mark.parametrize("case", range(48))
def test_a_marked_phantom_has_its_left_on_the_left_under_any_affine(tmp_path: Path, case: int) -> None:
    """The mark's place in the world is known; the affine says where an array index is in the world."""
    order = list(permutations(range(3)))[case // 8]
    signs = list(product((1, -1), repeat=3))[case % 8]
    affine = np.zeros((4, 4))
    for axis, (row, sign) in enumerate(zip(order, signs, strict=True)):
        affine[row, axis] = sign * (1.0, 2.0, 3.0)[row]
    affine[:, 3] = [7, -3, 11, 1]
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    values = np.ones((6, 6, 6), np.float32)
    world = np.array([2.0, -4.0, 3.0])  # right of, behind and above the middle
    middle = affine[:3, :3] @ np.full(3, 2.5)
    index = np.rint(np.linalg.solve(affine[:3, :3], middle + world)).astype(int)
    values[tuple(index)] = 9
    for matrix in (affine, tilt @ affine):
        made = to_ras(nifti(save(tmp_path / "a.nii.gz", values, matrix)))
        assert made.spacing == pytest.approx((1, 2, 3))
        x, y, z = (int(i) for i in np.argwhere(made.values == 9)[0])
        assert (x > 2.5, y > 2.5, z > 2.5) == (True, False, True)


def test_what_write_wrote_reads_back_and_has_equal_bytes(tmp_path: Path) -> None:
    for name, values in (("a.nii", VALUES), ("b.nii.gz", np.stack([VALUES, VALUES + 1], -1))):
        made = Volume(
            values=values.astype(np.float32), spacing=(1.0, 2.0, 3.0), orientation="PIL",
            seconds=1.5 if values.ndim == 4 else 0.0,
        )  # fmt: skip
        write(tmp_path / name, made)
        first = (tmp_path / name).read_bytes()
        back = nifti(tmp_path / name)
        assert np.array_equal(back.values, made.values)
        assert (back.spacing, back.seconds, back.orientation) == ((1.0, 2.0, 3.0), made.seconds, "PIL")
        write(tmp_path / name, made)
        assert (tmp_path / name).read_bytes() == first


def test_scaling_and_units(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VALUES, np.diag([0.002, 0.002, 0.003, 1]))
    image.header.set_xyzt_units("meter", "msec")
    image.header.set_slope_inter(0.5, 10)
    image.set_sform(image.affine, code=1)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    raw = nibabel.load(tmp_path / "a.nii").get_fdata(dtype=np.float32)
    made = nifti(tmp_path / "a.nii")
    assert np.array_equal(made.values, raw)
    assert made.spacing == pytest.approx((2.0, 2.0, 3.0))
    timed = np.stack([VALUES] * 3, -1)
    path = save(tmp_path / "b.nii", timed, units=("mm", "msec"), zooms=(1, 1, 1, 720))
    assert nifti(path).seconds == pytest.approx(0.72)


def test_chosen_times_alone_are_held(tmp_path: Path) -> None:
    timed = np.stack([VALUES + i for i in range(10)], -1)
    path = save(tmp_path / "a.nii.gz", timed, units=("mm", "sec"), zooms=(1, 1, 1, 2))
    asked: list[int] = []

    def times(total: int) -> list[int]:
        asked.append(total)
        return [1, 4, 7]

    made = nifti(path, times=times)
    assert asked == [10]
    assert made.values.shape == (4, 5, 6, 3)
    assert np.array_equal(made.values, timed[..., [1, 4, 7]].astype(np.float32))
    assert made.seconds == 6.0


def test_axes_of_one_behind_the_third_are_dropped(tmp_path: Path) -> None:
    assert header(save(tmp_path / "a.nii", VALUES[..., None])) == (4, 5, 6)
    assert header(save(tmp_path / "b.nii", np.stack([VALUES, VALUES], -1)[..., None])) == (4, 5, 6, 2)
    found = refusal(save(tmp_path / "c.nii", np.zeros((2, 2, 2, 1, 3), np.float32)))
    assert found.found == "shape [2, 2, 2, 1, 3]"
    assert "three axes" in refusal(save(tmp_path / "d.nii", np.zeros((5, 5), np.float32))).what


def test_orientation_is_never_guessed(tmp_path: Path) -> None:
    found = refusal(save(tmp_path / "a.nii", VALUES, sform=0, qform=0))
    assert found.what == "the volume does not say where left and right are"
    assert found.found == "neither an sform nor a qform is coded"
    mirrored = np.diag([-1.0, 1, 1, 1])
    found = refusal(save(tmp_path / "b.nii", VALUES, turned=mirrored, qform=1))
    assert found.found == "sform and qform are mirror images"
    assert nifti(save(tmp_path / "c.nii", VALUES, turned=mirrored, sform=0, qform=1)).orientation == "LAS"


def test_sizes_are_checked_before_memory_is_taken(tmp_path: Path) -> None:
    image = nibabel.Nifti1Header()
    image.set_data_shape((2000, 2000, 2000))
    image.set_data_dtype(np.float32)
    image.set_sform(np.eye(4), code=1)
    image["magic"], image["vox_offset"] = b"n+1", 352
    (tmp_path / "huge.nii").write_bytes(image.binaryblock + bytes(4))
    image.set_data_shape((100, 100, 100, 3000))
    (tmp_path / "long.nii").write_bytes(image.binaryblock + bytes(4))
    tracemalloc.start()
    assert refusal(tmp_path / "huge.nii").found == "2000 x 2000 x 2000 = 8000000000 voxels"
    with pytest.raises(ImageError, match="too long"):
        nifti(tmp_path / "long.nii")
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    assert refusal(save(tmp_path / "a.nii", VALUES), max_pixels=119).expected == "at most 119 voxels"
    check(tmp_path / "a.nii", max_pixels=120)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_cut_is_noticed(tmp_path: Path, suffix: str) -> None:
    whole = save(tmp_path / f"a{suffix}", VALUES).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for length in sorted({1, 3, 10, 100, 250, 347, len(whole) // 2, len(whole) - 1}):
        if length >= len(whole):
            continue
        path.write_bytes(whole[:length])
        words = refusal(path).what
        assert words in ("the volume is truncated", "the image file is not a NIfTI volume"), (length, words)


def test_flipped_bytes_of_a_compressed_file_are_noticed(tmp_path: Path) -> None:
    whole = bytearray(save(tmp_path / "a.nii.gz", VALUES).read_bytes())
    path = tmp_path / "b.nii.gz"
    for at in range(12, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(ImageError):
            check(path)


def test_random_headers_never_escape_as_other_errors(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii", VALUES).read_bytes()
    path, rng, refused = tmp_path / "b.nii", np.random.default_rng(2), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for at in rng.integers(0, 348, 4):
            damaged[at] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            made = nifti(path)
            assert np.isfinite(made.values).all()
        except ImageError:
            refused += 1
    assert 50 < refused < 300


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello, I am text", "not a NIfTI volume"),
        (b"\x89PNG\r\n\x1a\n" + bytes(400), "not a NIfTI volume"),
        (gzip.compress(b"hello"), "not a NIfTI volume"),
        (b"\x1f\x8bnot gzip at all", "damaged"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.nii").write_bytes(content)
    assert words in refusal(tmp_path / "a.nii").what


def test_values_that_show_nothing(tmp_path: Path) -> None:
    zeros = np.zeros((3, 3, 3), np.float32)
    assert refusal(save(tmp_path / "a.nii", zeros)).found == "every value is 0"
    broken = zeros.copy()
    broken[1, 1, 1], broken[0, 0, 0] = np.inf, 1
    assert refusal(save(tmp_path / "b.nii", broken)).found == "1 of 27 values at point of time 0"
    assert "plain numbers" in refusal(save(tmp_path / "c.nii", np.ones((3, 3, 3), np.complex64))).what


def test_images_hands_volumes_on_with_record_and_path(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", VALUES)
    ref = ImageRef(path="a.nii.gz", form="volume")
    assert images.volume(tmp_path, ref).values.shape == (4, 5, 6)
    assert images.extent(tmp_path, ref) == (4, 5, 6)
    assert images.check(tmp_path, ref) == images.files.hash_file(tmp_path / "a.nii.gz")
    assert images.picture(tmp_path, ref).shape[2] == 3
    for act in (images.read, images.header):
        with pytest.raises(ImageError, match="a volume stands where a raster is read"):
            act(tmp_path, ref, record="r1")
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    with pytest.raises(ImageError) as caught:
        images.volume(tmp_path, ref, record="r7")
    assert caught.value.where == "record r7, field image, file a.nii.gz"
