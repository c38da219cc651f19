"""The 64-bit hash of images bit for bit against the package ImageHash: on real radiology images, and on odd sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.images import prints

VQA_RAD = Path(__file__).parents[3] / "shared" / "data" / "vqa_rad" / "images"
imagehash = pytest.importorskip("imagehash", reason="ImageHash is in the dev extra")


def ours(image: Image.Image) -> int:
    """The hash of an image as Sightline reads it: grey three times."""
    grey = np.asarray(image.convert("L"), dtype=np.float32) / 255
    return prints.taken(np.repeat(grey[..., None], 3, axis=2)).bits


def theirs(image: Image.Image) -> int:
    """That of the package, row by row, the lowest frequency first."""
    bits = imagehash.phash(image.convert("L")).hash.ravel()
    return int("".join("1" if bit else "0" for bit in bits), 2)


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not beside the project (../shared/data/vqa_rad)")
def test_real_images_have_the_hash_of_imagehash() -> None:
    files = sorted(VQA_RAD.iterdir())
    found = {path.name: (ours(image), theirs(image)) for path in files for image in [Image.open(path)]}
    assert [name for name, (one, other) in found.items() if one != other] == []
    assert len(found) == 250
    assert len({one for one, _ in found.values()}) > 240


@pytest.mark.parametrize("size", [(31, 200), (32, 32), (33, 7), (640, 480), (5, 5)])
def test_any_size_has_the_hash_of_imagehash(size: tuple[int, int]) -> None:
    for seed in range(5):
        pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        image = Image.fromarray(pixels)
        assert ours(image) == theirs(image)
