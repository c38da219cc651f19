"""The kit's tower with several layers, with random weights, and the connector that reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel

import models
from sightline.models import kit, languages, towers
from sightline.models.families import llava
from sightline.models.parts.efficientnet_layers import (
    PART,
    EfficientNetLayersConfig,
    EfficientNetLayersModel,
)

try:
    import efficientnet_lite_pytorch  # the kit's package
except ImportError:
    efficientnet_lite_pytorch = None

needs_kit = pytest.mark.skipif(
    efficientnet_lite_pytorch is None, reason="the package efficientnet-lite-pytorch is absent"
)
ENDS = (0, 40, 120, 232)  # channels of the first layers together


@pytest.fixture(scope="module")
def tower() -> EfficientNetLayersModel:
    torch.manual_seed(0)
    made = EfficientNetLayersModel(EfficientNetLayersConfig()).eval()
    made.calibrate(pictures(2))
    return made


def pictures(count: int) -> Tensor:
    return torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(1)) * 2 - 1


@needs_kit
def test_each_layer_adds_its_own_channels(tower: EfficientNetLayersModel) -> None:
    with torch.no_grad():
        out = tower(pictures(2), output_hidden_states=True, return_dict=True)
        raw = (tower.maps(pictures(2)) - tower.mean) / tower.deviation
    assert len(out.hidden_states) == 4
    assert out.hidden_states[-1] is out.last_hidden_state
    for state, end in zip(out.hidden_states, ENDS, strict=True):
        assert state.shape == (2, 49, 256)
        assert torch.equal(state[..., :end], raw[..., :end])
        assert not state[..., end:232].any()
        assert torch.equal(state[..., 232:], out.last_hidden_state[..., 232:])
    where = out.last_hidden_state[0, 3 * 7 + 5, 232:]
    assert where.tolist() == [0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0] + [0] * 10


@needs_kit
def test_maps_are_those_of_the_blocks_that_are_named(tower: EfficientNetLayersModel) -> None:
    found: dict[int, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda module, given, made, number=number: found.update({number: made}))
        for number, block in enumerate(tower.trunk._blocks)
    ]
    with torch.no_grad():
        tokens = tower.maps(pictures(1))[0]  # [49, 232]
    for hook in hooks:
        hook.remove()
    for number, first, size in ((4, 0, 28), (7, 40, 14), (10, 120, 14)):
        assert found[number].shape[2:] == (size, size)
        small = functional.avg_pool2d(found[number], size // 7)[0]  # [channels, 7, 7]
        own = tokens[3 * 7 + 5, first : first + len(small)]
        torch.testing.assert_close(own, small[:, 3, 5])


@needs_kit
def test_a_temporal_connector_reads_its_layers(language: Path) -> None:
    made = models.bundle(
        language, vision={"model_type": "efficientnet_lite_layers"}, connector="temporal", select="full"
    )
    assert [p.shape for p in made.model.model.multi_modal_projector.LFE[1].parameters()] == [(1, 3, 1, 1)]
    pixels = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        (features,) = llava.encode_images(made.model, [pixels], [()])
    assert features.shape == (2, 3, 49, 256)
    assert (made.tokens_per_image, made.prior) == (49, "fuse")


@needs_kit
def test_sizes_come_from_the_tower(tower: EfficientNetLayersModel, tmp_path: Path) -> None:
    made, preprocess = towers.open_tower({"model_type": "efficientnet_lite_layers"}, 0)
    shape = towers.measure(made, preprocess)
    assert (shape.depth, shape.tokens, shape.width, shape.leading, shape.heads) == (3, 49, 256, 0, 0)
    tower.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, local_files_only=True).eval()
    assert isinstance(loaded, EfficientNetLayersModel)
    with torch.no_grad():
        assert torch.equal(loaded(pictures(1)).last_hidden_state, tower(pictures(1)).last_hidden_state)


def test_the_part_and_the_kit_know_it() -> None:
    assert (PART.slot, PART.config, PART.model) == (
        "vision",
        EfficientNetLayersConfig,
        EfficientNetLayersModel,
    )
    two = EfficientNetLayersConfig(blocks=(14, 15), widths=(192, 320), place=0)
    assert (two.channels, two.hidden_size, two.patch_size) == (512, 512, 32)
    assert "efficientnet-lite0-layers" in kit.CONVERT


def test_a_random_language_model_may_take_the_kit_s_tokenizer(
    language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def folder(name: str) -> Path:
        asked.append(name)
        return language

    monkeypatch.setattr(kit, "folder", folder)
    config = {**models.llama(300).to_dict(), "tokenizer": "kit/smollm2-135m"}
    made, tokenizer = languages.open_language(config, 0)
    assert asked == ["smollm2-135m"]
    assert made.get_input_embeddings().num_embeddings == 300
    assert tokenizer.chat_template == models.CHATML
