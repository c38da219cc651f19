"""The kit's vision tower, with random weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel

from sightline.errors import MissingExtra
from sightline.models.parts.efficientnet_lite import (
    FLOOR,
    PART,
    EfficientNetLiteConfig,
    EfficientNetLiteModel,
)

try:
    import efficientnet_lite_pytorch  # the kit's package
except ImportError:
    efficientnet_lite_pytorch = None

needs_kit = pytest.mark.skipif(
    efficientnet_lite_pytorch is None, reason="the package efficientnet-lite-pytorch is absent"
)


@pytest.fixture(scope="module")
def tower() -> EfficientNetLiteModel:
    torch.manual_seed(0)
    return EfficientNetLiteModel(EfficientNetLiteConfig()).eval()


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1


@needs_kit
def test_an_image_becomes_49_tokens(tower: EfficientNetLiteModel) -> None:
    with torch.no_grad():
        out = tower(pictures(2), output_hidden_states=True, return_dict=True)
    assert out.last_hidden_state.shape == (2, 49, 1294)
    assert len(out.hidden_states) == 1
    assert out.hidden_states[-1] is out.last_hidden_state


@needs_kit
def test_tokens_follow_the_picture_row_by_row(tower: EfficientNetLiteModel) -> None:
    image = pictures(1)
    with torch.no_grad():
        maps = tower.trunk.extract_features(image)  # [1, 1280, 7, 7]
        tokens = tower.maps(image)
    torch.testing.assert_close(tokens[0, 3 * 7 + 5], maps[0, :, 3, 5])


@needs_kit
def test_the_last_channels_say_where_a_token_stands(tower: EfficientNetLiteModel) -> None:
    with torch.no_grad():
        where = tower(pictures(2)).last_hidden_state[..., 1280:]
    #                row 0 .. 6             column 0 .. 6
    assert where[0, 0].tolist() == [5, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0]
    assert where[0, 6].tolist() == [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]
    assert where[1, 3 * 7 + 5].tolist() == [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0]
    assert torch.equal(where[0], where[1])


@needs_kit
def test_places_can_be_left_out() -> None:
    plain = EfficientNetLiteModel(EfficientNetLiteConfig(place=0)).eval()
    assert plain.config.hidden_size == 1280
    with torch.no_grad():
        assert plain(pictures(1)).last_hidden_state.shape == (1, 49, 1280)


@needs_kit
def test_batch_norms_never_learn_from_batches(tower: EfficientNetLiteModel) -> None:
    image = pictures(1)
    norms = [m for m in tower.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        before = tower(image).last_hidden_state
        kept = [m.running_mean.clone() for m in norms]
        tower.train()
        assert tower.training
        assert not any(m.training for m in norms)
        tower.maps(pictures(2))
        tower.eval()
        assert torch.equal(tower(image).last_hidden_state, before)
    assert all(torch.equal(m.running_mean, k) for m, k in zip(norms, kept, strict=True))


@needs_kit
def test_calibrate_standardises_every_channel_that_speaks(tower: EfficientNetLiteModel) -> None:
    images = pictures(3)
    tower.calibrate(images)
    with torch.no_grad():
        raw = tower.maps(images).flatten(0, 1)
        made = tower(images).last_hidden_state[..., :1280].flatten(0, 1)
    assert float(made.mean(0).abs().max()) < 1e-3
    silent = raw.std(0) < FLOOR
    torch.testing.assert_close(made.std(0)[~silent], torch.ones(int((~silent).sum())), rtol=1e-3, atol=1e-3)
    assert bool((made.std(0)[silent] <= 1.001).all())
    assert float(tower.deviation.min()) >= FLOOR


@needs_kit
def test_saved_and_loaded_through_auto_model(tower: EfficientNetLiteModel, tmp_path: Path) -> None:
    tower.calibrate(pictures(1))
    tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, local_files_only=True).eval()
    assert isinstance(loaded, EfficientNetLiteModel)
    assert torch.equal(loaded.deviation, tower.deviation)
    with torch.no_grad():
        assert torch.equal(loaded(pictures(1)).last_hidden_state, tower(pictures(1)).last_hidden_state)


def test_the_part_says_what_it_is() -> None:
    assert (PART.slot, PART.config, PART.model) == ("vision", EfficientNetLiteConfig, EfficientNetLiteModel)
    assert EfficientNetLiteConfig().to_dict()["patch_size"] == 32


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingExtra) as caught:
        EfficientNetLiteModel(EfficientNetLiteConfig())
    assert "efficientnet-lite-pytorch" in caught.value.what
    assert caught.value.remedy == "pip install 'sightline[kit]'"
