"""Our split forward of LLaVA equals the stock model's, logit by logit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

import models
from sightline.models import checkpoint
from sightline.models.families import llava
from sightline.models.family import Bundle

try:
    import efficientnet_lite_pytorch  # the kit's package
except ImportError:
    efficientnet_lite_pytorch = None


def batch(bundle: Bundle, images_per_row: int) -> dict[str, torch.Tensor]:
    """Two rows of unequal length, with the padding on the right, and their pixels."""
    draw = torch.Generator().manual_seed(5)
    front = [bundle.image_token] * bundle.tokens_per_image * images_per_row
    long = [9, *front, 40, 50, 60, 2]
    short = [*front, 70, 2]
    ids = torch.zeros(2, len(long), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate((long, short)):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    size = bundle.preprocess.size
    pixels = torch.randn(2 * images_per_row, 3, size, size, generator=draw)
    return {"input_ids": ids, "attention_mask": mask, "images": pixels}


def compare(bundle: Bundle, images_per_row: int = 1) -> None:
    made = batch(bundle, images_per_row)
    with torch.no_grad():
        stock = bundle.model(
            input_ids=made["input_ids"], attention_mask=made["attention_mask"], pixel_values=made["images"]
        ).logits
        ours = bundle.head(bundle.forward(made, given="pixels"))
        features = bundle.family.encode_images(bundle.model, list(made["images"]), [()] * len(made["images"]))
        cached = bundle.head(bundle.forward({**made, "images": features}, given="features"))
    real = made["attention_mask"].bool()
    assert [len(f) for f in features] == [bundle.tokens_per_image] * (2 * images_per_row)
    assert float((ours - stock)[real].abs().max()) <= 1e-6
    assert torch.equal(cached, ours)


@pytest.mark.parametrize("layer", [-1, -2])
@pytest.mark.parametrize(("select", "tokens"), [("default", 4), ("full", 5)])
def test_clip(language: Path, layer: int, select: str, tokens: int) -> None:
    made = models.bundle(language, select_layer=layer, select=select)
    assert made.tokens_per_image == tokens
    compare(made)


@pytest.mark.parametrize("layer", [-1, -2])
def test_siglip(language: Path, layer: int) -> None:
    made = models.bundle(language, vision=models.SIGLIP, select_layer=layer, select="full")
    assert made.tokens_per_image == 4
    compare(made)


def test_several_images_a_row(language: Path) -> None:
    compare(models.bundle(language), images_per_row=2)


def test_tied_embeddings(tied_language: Path) -> None:
    compare(models.bundle(tied_language))


def test_the_class_token_is_the_first(language: Path) -> None:
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole, cut = (
            llava.encode_images(models.bundle(language, select=s).model, list(pixels), [()])[0]
            for s in ("full", "default")
        )
    assert torch.equal(whole[1:], cut)


@pytest.mark.skipif(
    efficientnet_lite_pytorch is None, reason="the package efficientnet-lite-pytorch is absent"
)
def test_the_kit_s_tower(language: Path) -> None:
    made = models.bundle(language, vision={"model_type": "efficientnet_lite"}, select="full")
    assert made.tokens_per_image == 49
    compare(made)


def test_layers_differ(language: Path) -> None:
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        last, before = (
            llava.encode_images(models.bundle(language, select_layer=i).model, list(pixels), [()])[0]
            for i in (-1, -2)
        )
    assert not torch.allclose(last, before, atol=1e-3)


def stock_folder(language: Path, place: Path) -> Bundle:
    """A composed model saved as the stock class saves it, with its tokenizer and processor."""
    made = models.bundle(language)
    made.model.save_pretrained(place)
    made.tokenizer.save_pretrained(place)
    half = [0.5, 0.5, 0.5]
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 28},
        "crop_size": {"height": 28, "width": 28},
        "image_mean": half,
        "image_std": half,
        "resample": 3,
    }
    (place / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return made


def test_a_stock_checkpoint_opens_as_it_is(language: Path, tmp_path: Path) -> None:
    made = stock_folder(language, tmp_path)
    section: dict[str, Any] = models.section(language, path=str(tmp_path))
    opened = checkpoint.compose(section, 0)
    assert isinstance(opened.model, LlavaForConditionalGeneration)
    assert (opened.image_token, opened.tokens_per_image) == (made.image_token, 4)
    inputs = batch(made, 1)
    with torch.no_grad():
        one, other = (b.head(b.forward(inputs, given="pixels")) for b in (made, opened))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    compare(opened)
