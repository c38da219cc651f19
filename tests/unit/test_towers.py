"""Vision towers for composition: sizes from configs, class tokens where there are any, the folder's preprocessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BitImageProcessor, Dinov2Config, Dinov2Model, SiglipModel

import models
import models_encoders
from sightline.errors import ModelError
from sightline.images.transforms import Preprocess
from sightline.models import checkpoint, towers
from sightline.models.encoders import openclip
from sightline.models.families import llava

VIT = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
DINO = {"model_type": "dinov2", "image_size": 28, "patch_size": 14, "mlp_ratio": 2, **VIT}
REGISTERS = {**DINO, "model_type": "dinov2_with_registers", "num_register_tokens": 4}
B16 = {**models.CLIP, "image_size": 32, "patch_size": 16}


def shape_of(source: Any) -> tuple[int, ...]:
    tower, preprocess = towers.open_tower(source, 0)
    shape = towers.measure(tower, preprocess)
    return (shape.depth, shape.tokens, shape.width, shape.leading, shape.heads)


@pytest.mark.parametrize(
    ("vision", "shape"),
    [
        (DINO, (3, 5, 16, 1, 2)),
        (REGISTERS, (3, 9, 16, 5, 2)),
        (models.CLIP, (2, 5, 16, 1, 2)),
        (B16, (2, 5, 16, 1, 2)),
        (models.SIGLIP, (2, 4, 16, 0, 2)),
        ({"model_type": "efficientnet_lite"}, (1, 49, 1294, 0, 0)),
    ],
    ids=["dinov2", "registers", "clip", "clip-b/16", "siglip", "kit"],
)
def test_sizes_come_from_the_tower(vision: dict[str, Any], shape: tuple[int, ...]) -> None:
    assert shape_of(vision) == shape


@pytest.mark.parametrize(("vision", "full"), [(DINO, 5), (REGISTERS, 9), (models.SIGLIP, 4)])
@pytest.mark.parametrize("connector", ["linear", {"name": "temporal", "heads": "vision"}])
def test_default_drops_what_is_no_patch(
    language: Path, vision: dict[str, Any], full: int, connector: Any
) -> None:
    whole = models.bundle(language, vision=vision, select="full", connector=connector)
    cut = models.bundle(language, vision=vision, select="default", connector=connector)
    assert (whole.tokens_per_image, cut.tokens_per_image) == (full, 4)
    pixels = torch.randn(3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = (llava.encode_images(b.model, [pixels], [()])[0] for b in (whole, cut))
    assert torch.equal(one[..., full - 4 :, :], other)
    names = {llava.layer(b.model) for b in (whole, cut)}
    assert len(names) == (1 if full == 4 else 2)  # features of another kind never meet in a cache


def write_rad_dino(place: Path) -> Path:
    """A Dinov2 as its folder stands on the hub, with a processor of its own mean and deviation."""
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(image_size=28, patch_size=14, mlp_ratio=2, **VIT)).save_pretrained(place)
    BitImageProcessor(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_mean=[0.53] * 3,
        image_std=[0.26] * 3,
    ).save_pretrained(place)
    return place


def test_mean_and_deviation_come_from_the_processor(language: Path, tmp_path: Path) -> None:
    made = models.bundle(language, vision=str(write_rad_dino(tmp_path)), connector="temporal")
    assert isinstance(made.preprocess, Preprocess)
    assert (made.preprocess.size, made.preprocess.mean, made.preprocess.std) == (28, (0.53,) * 3, (0.26,) * 3)
    white = made.preprocess(np.ones((28, 28, 3), dtype=np.float32))
    torch.testing.assert_close(white, torch.full((3, 28, 28), 0.47 / 0.26), rtol=0, atol=1e-4)
    assert (made.tokens_per_image, made.prior) == (4, "fuse")


def test_the_image_side_of_an_image_text_model(tmp_path: Path) -> None:
    place = models_encoders.write_siglip(tmp_path)
    tower, preprocess = towers.open_tower(str(place), 0)
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = SiglipModel.from_pretrained(place).vision_model(pixels, output_hidden_states=True)
        assert torch.equal(towers.layers(tower, pixels)[-1], whole.hidden_states[-1])
    assert preprocess.size == 28


@pytest.mark.parametrize(("kind", "shape"), [("vit", (2, 5, 32, 1)), ("bert", (6, 101, 64, 1))])
def test_towers_of_openclip(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    place = models_encoders.write_openclip(tmp_path / kind, kind)
    tower, preprocess = towers.open_tower(str(place), 0)
    found = towers.measure(tower, preprocess)
    assert (found.depth, found.tokens, found.width, found.leading) == shape
    assert found.heads > 0
    assert shape[2] % found.heads == 0
    assert (preprocess.mean, preprocess.std) == ((0.5,) * 3, (0.25,) * 3)
    encoder = openclip.compose(models_encoders.section("openclip", path=str(place)), 0)
    pixels = torch.randn(2, 3, preprocess.size, preprocess.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = towers.layers(tower, pixels)
        theirs = encoder.model.visual(pixels)
        assert torch.equal(tower.visual(pixels), theirs)
        blocks = tower.blocks
        again = blocks[-1](states[-2])
    torch.testing.assert_close(states[-1], again, rtol=0, atol=1e-5)


def test_the_last_state_of_timm_is_what_its_norm_reads(tmp_path: Path) -> None:
    place = models_encoders.write_openclip(tmp_path / "bert", "bert")
    tower, preprocess = towers.open_tower(str(place), 0)
    pixels = torch.randn(1, 3, preprocess.size, preprocess.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = towers.layers(tower, pixels)
        wanted = tower.visual.trunk.forward_features(pixels)
        torch.testing.assert_close(tower.visual.trunk.norm(states[-1]), wanted, rtol=0, atol=1e-5)


def test_an_openclip_tower_needs_all_its_weights(tmp_path: Path) -> None:
    place = models_encoders.write_openclip(tmp_path / "vit", "vit")
    file = place / "open_clip_model.safetensors"
    stored = load_file(file)
    lost = next(k for k in stored if k.startswith("visual."))
    save_file({k: v for k, v in stored.items() if k != lost}, file)
    with pytest.raises(ModelError, match="weights do not fit the tower") as caught:
        towers.open_tower(str(place), 0)
    assert caught.value.expected == f"missing ['{lost}']"
    file.unlink()
    with pytest.raises(ModelError, match="holds no safetensors of OpenCLIP"):
        towers.open_tower(str(place), 0)


def test_a_convolutional_openclip_tower_has_no_tokens(tmp_path: Path) -> None:
    place = models_encoders.write_openclip(tmp_path / "resnet", "resnet")
    with pytest.raises(ModelError, match="no transformer blocks"):
        towers.open_tower(str(place), 0)


def test_openclip_s_own_mean_where_a_folder_names_none(tmp_path: Path) -> None:
    place = models_encoders.write_openclip(tmp_path / "vit", "vit")
    file = place / "open_clip_config.json"
    stored = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**stored, "preprocess_cfg": {}}), encoding="utf-8")
    import open_clip

    _, preprocess = towers.open_tower(str(place), 0)
    assert (preprocess.mean, preprocess.std) == (
        open_clip.OPENAI_DATASET_MEAN,
        open_clip.OPENAI_DATASET_STD,
    )


def test_a_llava_with_an_openclip_tower_is_composed_and_composed_again(
    language: Path, tmp_path: Path
) -> None:
    place = models_encoders.write_openclip(tmp_path / "vit", "vit")
    made = models.bundle(language, vision=str(place), select="default")
    again = checkpoint.compose(made.base["model"], made.base["seed"])
    assert (made.tokens_per_image, made.feature_width) == (4, 32)
    for (name, one), (other_name, other) in zip(
        made.model.state_dict().items(), again.model.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one, other)
    assert made.model.config.vision_config.model_type == "openclip_tower"
    assert AutoModel.from_config(made.model.config.vision_config).config.num_hidden_layers == 2
