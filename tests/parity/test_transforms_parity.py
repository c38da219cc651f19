"""Our preprocessing against transformers' image processors, and against LLaVA's padding done with Pillow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor, SiglipImageProcessor

from sightline import images
from sightline.images.transforms import Preprocess, pad_square
from sightline.types import ImageRef

DATA = Path(__file__).parents[3] / "shared" / "data" / "vqa_rad"
SHAPES = [(60, 90), (91, 60), (48, 48), (20, 33), (33, 20), (1, 1), (7, 100)]
STEP = 1.1  # they round to 8 bits after each of two passes, half a step each; measured: 1.06 at most


def photograph(height: int, width: int) -> np.ndarray:
    """Smooth blobs with hard edges and some noise, 8 bit: bicubic overshoots at the edges."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[0:height, 0:width]
    waves = 127 + 90 * np.sin(x[..., None] / (5, 9, 14)) * np.cos(y[..., None] / (7, 4, 11))
    waves[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = (255, 0, 255)
    return np.clip(waves + rng.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


def clip(size: int, crop: int) -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": crop, "width": crop})


def llava_square(stored: np.ndarray, mean: tuple[float, ...]) -> Image.Image:
    """What the original LLaVA shows its tower: pasted onto a square of the mean colour, in 8 bits."""
    height, width = stored.shape[:2]
    side = max(height, width)
    square = Image.new("RGB", (side, side), tuple(int(value * 255) for value in mean))
    square.paste(Image.fromarray(stored), ((side - width) // 2, (side - height) // 2))
    return square


def steps(ours: torch.Tensor, theirs: torch.Tensor, std: tuple[float, ...]) -> float:
    """Largest difference in steps of 1/255 of brightness."""
    assert ours.shape == theirs.shape
    return float(((ours - theirs).abs() * torch.tensor(std)[:, None, None]).max() * 255)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_padding_equals_llava_exactly(shape: tuple[int, int]) -> None:
    stored, processor = photograph(*shape), clip(48, 48)
    how = Preprocess.from_processor(processor, pad=True)
    theirs = np.asarray(llava_square(stored, processor.image_mean), np.float32) / 255
    assert np.array_equal(pad_square(stored.astype(np.float32) / 255, how._colour()), theirs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_llava_preprocessing_agrees_within_one_step(shape: tuple[int, int]) -> None:
    stored, processor = photograph(*shape), clip(48, 48)
    square = llava_square(stored, processor.image_mean)
    theirs = processor(images=square, return_tensors="pt")["pixel_values"][0]
    ours = Preprocess.from_processor(processor, pad=True)(stored.astype(np.float32) / 255)
    assert steps(ours, theirs, processor.image_std) <= STEP


@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
@pytest.mark.parametrize("crop", [48, 40])
def test_clip_processor_agrees_within_one_step(shape: tuple[int, int], crop: int) -> None:
    stored, processor = photograph(*shape), clip(48, crop)
    theirs = processor(images=Image.fromarray(stored), return_tensors="pt")["pixel_values"][0]
    ours = Preprocess.from_processor(processor)(stored.astype(np.float32) / 255)
    assert steps(ours, theirs, processor.image_std) <= STEP


@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("shape", SHAPES[:5], ids=str)
def test_siglip_processor_agrees_within_one_step(shape: tuple[int, int], resample: int) -> None:
    stored, processor = photograph(*shape), SiglipImageProcessor(size={"height": 48, "width": 48})
    processor.resample = resample
    theirs = processor(images=Image.fromarray(stored), return_tensors="pt", resample=resample)["pixel_values"]
    ours = Preprocess.from_processor(processor)(stored.astype(np.float32) / 255)
    assert steps(ours, theirs[0], processor.image_std) <= STEP


@pytest.mark.parametrize("processor", [clip(48, 48), SiglipImageProcessor(size={"height": 48, "width": 48})])
@pytest.mark.parametrize("pad", [True, None])
def test_a_square_of_the_right_size_agrees_to_rounding(processor: object, pad: bool | None) -> None:
    stored = photograph(48, 48)
    theirs = processor(images=Image.fromarray(stored), return_tensors="pt")["pixel_values"][0]
    ours = Preprocess.from_processor(processor, pad=pad)(stored.astype(np.float32) / 255)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.skipif(not DATA.is_dir(), reason="the VQA-RAD images are not beside this checkout")
def test_real_radiographs_agree_within_one_step() -> None:
    processor = clip(224, 224)
    how = Preprocess.from_processor(processor, pad=True)
    pictures = sorted(path for path in DATA.rglob("*") if path.suffix in (".jpg", ".png"))[:3]
    assert pictures
    for path in pictures:
        with Image.open(path) as stored:
            square = llava_square(np.asarray(stored.convert("RGB")), processor.image_mean)
        theirs = processor(images=square, return_tensors="pt")["pixel_values"][0]
        pixels = images.read(DATA, ImageRef(path=path.relative_to(DATA).as_posix()))
        assert steps(how(pixels), theirs, processor.image_std) <= STEP
