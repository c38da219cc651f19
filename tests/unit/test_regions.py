"""Boxes: how they are read, where the control lies, what is covered, and that a phantom's finding is inside its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data.readers.phantom import READER
from sightline.data.source import Source
from sightline.errors import DataError, ImageError
from sightline.images import degrade, regions
from sightline.images.phantom import FINDINGS, boxes, draw
from sightline.types import Cover, Degrade, ImageRef, View

BOX = (0.25, 0.5, 0.5, 0.75)


def test_a_box_is_written_and_read():
    assert regions.written((0.12345, 0, 0.5, 1)) == "0.1235 0.0000 0.5000 1.0000"
    assert regions.read("0.1 0.2 0.3 0.4") == (0.1, 0.2, 0.3, 0.4)
    assert regions.read("0.1, 0.2, 0.3, 0.4") == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(
    "text", ["", "0.1 0.2 0.3", "0.3 0.2 0.1 0.4", "0 0 1.2 1", "a b c d", "nan 0 1 1", "0 0 0 1"]
)
def test_what_is_no_box_is_refused(text):
    with pytest.raises(DataError, match="a box is not one") as caught:
        regions.read(text, "sample s1")
    assert caught.value.where == "sample s1"


def test_the_control_is_the_mirror_image_or_a_drawn_box_of_the_same_size():
    random = np.random.default_rng(0)
    assert regions.elsewhere((0.1, 0.2, 0.4, 0.5), random) == pytest.approx((0.6, 0.2, 0.9, 0.5))
    middle = (0.3, 0.5, 0.7, 0.9)
    for seed in range(20):
        found = regions.elsewhere(middle, np.random.default_rng(seed))
        assert found is not None
        assert regions.apart(middle, found)
        assert min(found) >= 0
        assert max(found) <= 1
        assert (found[2] - found[0], found[3] - found[1]) == pytest.approx((0.4, 0.4))
    assert regions.elsewhere((0.2, 0.2, 0.9, 0.9), random) is None


def test_boxes_apart():
    assert regions.apart((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5))
    assert regions.apart((0, 0, 0.5, 0.5), (0, 0.5, 0.5, 1))
    assert not regions.apart((0, 0, 0.5, 0.5), (0.4, 0.4, 0.6, 0.6))


def test_a_cover_is_the_mean_of_what_surrounds_it():
    image = np.zeros((100, 100, 3), np.float32)
    image[..., 0], image[:, :50, 1] = 0.5, 1.0
    image[50:75, 25:50] = (0.0, 0.3, 0.9)
    made = degrade.apply(image, Cover(kind="occluded", box=BOX), "r")
    inside = made[50:75, 25:50]
    assert np.array_equal(made[:50], image[:50])
    assert np.array_equal(made[:, :25], image[:, :25])
    assert np.array_equal(made[75:], image[75:])
    assert np.array_equal(made[:, 50:], image[:, 50:])
    assert np.ptp(inside.reshape(-1, 3), axis=0).max() == 0
    ring = (
        29 * 29 - 25 * 25
    )  # two pixels all around, of which the two rows and columns on the right have no green
    assert inside[0, 0] == pytest.approx([0.5, 1 - 2 * 29 / ring, 0.0], abs=1e-6)


def test_a_cover_by_half_and_none_at_all():
    image = np.random.default_rng(0).random((40, 30, 3)).astype(np.float32)
    whole, half, none = (
        degrade.apply(image, Cover(kind="occluded", strength=s, box=BOX), "r") for s in (1.0, 0.5, 0.0)
    )
    assert np.array_equal(none, image)
    assert half == pytest.approx((whole + image) / 2, abs=1e-6)
    with pytest.raises(ImageError, match="takes a share"):
        degrade.apply(image, Cover(kind="occluded", strength=1.5, box=BOX), "r")


def test_without_a_box_the_middle_is_covered_and_a_box_of_all_leaves_its_mean():
    image = np.random.default_rng(0).random((40, 40, 3)).astype(np.float32)
    made = degrade.apply(image, Degrade(kind="occluded"), "r")
    assert (made != image).any(axis=2).sum() == 20 * 20
    flat = degrade.apply(image, Cover(kind="occluded", box=(0, 0, 1, 1)), "r")
    assert flat == pytest.approx(np.broadcast_to(image.mean(axis=(0, 1)), image.shape), abs=1e-5)


def test_caches_tell_boxes_apart_and_know_plain_degradations_as_before():
    here, there = Cover(kind="occluded", box=BOX), Cover(kind="occluded", box=(0, 0, 0.25, 0.25))
    assert len({degrade.key(spec, "r") for spec in (here, there, Degrade(kind="occluded"))}) == 3
    assert (
        degrade.key(Degrade(kind="gaussian", strength=0.5, seed=2), "r1")
        == "e0212044816131b4134d877ee596fb6a"
    )
    ref = ImageRef(path="a.png", sha256="1")
    assert View(ref, "r", here).sight != View(ref, "r", there).sight
    assert str(Degrade(kind="gaussian")) == "Degrade(kind='gaussian', strength=1.0, seed=0)"


def test_all_that_a_finding_changes_is_in_its_box():
    """Covering the box of the truth leaves the same picture as the patient without the finding has."""
    every = dict.fromkeys(FINDINGS, 2)
    for seed in range(2):
        found = boxes(np.random.default_rng(seed), every, size=96)
        assert set(found) == set(FINDINGS)
        for name, box in found.items():
            one, other = (
                draw(np.random.default_rng(seed), each, size=96) for each in (every, {**every, name: 0})
            )
            rows, columns = regions.slices(box, 96, 96)
            apart = np.abs(one.astype(int) - other.astype(int))
            assert apart[rows, columns].max() >= regions.VISIBLE
            apart[rows, columns] = 0
            assert apart.max() < regions.VISIBLE


def test_the_reader_gives_regions_and_keeps_its_bytes_without(tmp_path: Path):
    def read(name: str, **options):
        source = Source(root=None, seed=5, images=tmp_path / name)
        return [sample for sample, _, _ in READER.read(source, patients=6, size=64, **options)]

    plain, told = read("a"), read("b", regions=True)
    boxed = 0
    for one, other in zip(plain, told, strict=True):
        assert one.images == other.images
        more = {k: v for k, v in other.attributes.items() if k not in one.attributes}
        assert set(more) == {f"box_{name}" for name, there in one.labels.items() if there}
        assert {k: v for k, v in other.attributes.items() if k not in more} == dict(one.attributes)
        boxed += len(more)
        for text in more.values():
            regions.read(text)
    assert boxed > 20
    assert Image.open(tmp_path / "a" / plain[0].images[0].path).size == (64, 64)
