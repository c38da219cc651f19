"""What does not fit, or would not do the same, is refused with the names at fault, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import models
import models_released as made
from sightline.errors import ModelError
from sightline.models.released.convert import convert


@pytest.mark.parametrize(
    ("lost", "added", "message"),
    [
        ("model.layers.1.mlp.up_proj.weight", "", r"1 missing: .*layers\.1\.mlp\.up_proj\.weight"),
        ("lm_head.weight", "", r"1 missing: lm_head\.weight"),
        ("model.mm_projector.2.bias", "", r"none that is known here"),
        ("", "model.layers.2.mlp.up_proj.weight", r"1 unexpected: .*layers\.2\.mlp\.up_proj\.weight"),
        ("", "model.mm_projector.3.weight", r"none that is known here"),
        ("", "vision_resampler.weight", r"1 unexpected: vision_resampler\.weight"),
        ("", "model.image_newline", r"1 unexpected: model\.image_newline"),
    ],
)
def test_missing_and_unexpected_names_are_told(lost: str, added: str, message: str, tmp_path: Path) -> None:
    state = made.whole(tmp_path)
    state.pop(lost, None)
    if added:
        state[added] = torch.ones(3)
    with pytest.raises(ModelError, match=message):
        convert(made.write(tmp_path / "a", made.LLAVA, state), tmp_path / "new", vision=tmp_path / "clip")
    assert not (tmp_path / "new").exists()
    assert not list(tmp_path.glob(".new*"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mm_use_im_start_end": True}, "between <im_start> and <im_end>"),
        ({"mm_projector_type": "TAC"}, "of another kind than the config says"),
        ({"mm_projector_type": "linear"}, "of another kind than the config says"),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": "flat"}, "in a way that is not known"),
        ({"mm_vision_select_feature": "cls"}, "unknown choice of the tower's tokens"),
        ({"mm_vision_select_layer": "all"}, "takes one layer of the tower"),
        (
            {"architectures": ["LlavaMptForCausalLM"], "model_type": "llava_mpt"},
            "language model .* is not known",
        ),
        ({"hidden_size": 48}, "have other shapes"),
        ({"architectures": ["LlavaForConditionalGeneration"]}, "has today's layout already"),
    ],
)
def test_what_would_not_do_the_same_is_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = made.write(tmp_path / "a", {**made.LLAVA, **config}, made.whole(tmp_path))
    with pytest.raises(ModelError, match=message):
        convert(folder, tmp_path / "new", vision=tmp_path / "clip")


def test_what_is_not_at_hand_is_asked_for(tmp_path: Path) -> None:
    state = made.whole(tmp_path)
    folder = made.write(tmp_path / "a", made.LLAVA, state)
    with pytest.raises(ModelError, match=r"(?s)vision tower is not part.*openai/clip-vit-large-patch14-336"):
        convert(folder, tmp_path / "new")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"(?s)no tokenizer.*--tokenizer"):
        convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    models.bytes_tokenizer().save_pretrained(tmp_path / "words")
    convert(folder, tmp_path / "new", vision=tmp_path / "clip", tokenizer=tmp_path / "words")
    with pytest.raises(ModelError, match="something already"):
        convert(folder, tmp_path / "new", vision=tmp_path / "clip", tokenizer=tmp_path / "words")
    empty = made.write(tmp_path / "b", made.LLAVA, {})
    with pytest.raises(ModelError, match="stands on a base, which is not named"):
        convert(empty, tmp_path / "c", vision=tmp_path / "clip")
    with pytest.raises(ModelError, match="no conversation format"):
        convert(folder, tmp_path / "c", vision=tmp_path / "clip", template="libra_v9")
