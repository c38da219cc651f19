"""Models made of configs: random as a function of the seed, and the same models that their folders open as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import models
import models_encoders
import models_new
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.models import checkpoint, trainable
from sightline.models.encoder_checkpoint import compose_encoder
from sightline.models.family import Bundle
from sightline.models.languages import tokenizer_folder
from sightline.settings import Encoder, Lora, Model, Plan
from sightline.types import Message

SIZES = ((28, 28), (40, 90), (90, 31))
TALK = (
    Message(role="user", parts=(0, "Is there an effusion?")),
    Message(role="assistant", parts=("Yes, on the left.",)),
)


def composed(section: dict[str, Any], seed: int = 0) -> Bundle:
    return checkpoint.compose(Model.model_validate(section).model_dump(), seed)


def states(made: Bundle, seed: int, size: tuple[int, int] = (40, 90)) -> Tensor:
    """Last hidden states of the talk about a random picture."""
    picture = np.random.default_rng(seed).random((*size, 3)).astype(np.float32)
    grid = made.preprocess.grid(*size)
    encoded = Chat.of(made).encode(TALK, [grid])
    batch = {"input_ids": torch.tensor([encoded.ids]), "images": [made.preprocess(picture)], "grids": [grid]}
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    with torch.no_grad():
        return made.forward(batch, given="pixels")


def saved(made: Bundle, folder: Path) -> Path:
    """The model as a stock folder."""
    made.model.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    made.preprocess.processor.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", ["mllama", "llava_next"])
def test_the_seed_decides_every_weight(language: Path, family: str) -> None:
    section = getattr(models_new, family)(language)
    one, same, other = (composed(section, seed).model.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    part = (
        "vision_model.patch_embedding.weight"
        if family == "mllama"
        else "multi_modal_projector.linear_1.weight"
    )
    assert not torch.equal(one[f"model.{part}"], other[f"model.{part}"])


@pytest.mark.parametrize("family", ["mllama", "llava_next"])
@pytest.mark.parametrize("size", SIZES)
def test_its_stock_folder_opens_as_the_same_model(
    language: Path, tmp_path: Path, family: str, size: tuple[int, int]
) -> None:
    made = composed(getattr(models_new, family)(language))
    opened = checkpoint.compose({"family": family, "path": str(saved(made, tmp_path)), "system": ""}, 0)
    assert torch.equal(states(made, 1, size), states(opened, 1, size))


@pytest.mark.parametrize("family", ["mllama", "llava_next"])
def test_what_is_shown_counts_from_the_start(language: Path, family: str) -> None:
    made = composed(getattr(models_new, family)(language))
    assert (states(made, 1) - states(made, 2)).abs().max() > 1e-3


def test_a_new_mllama_is_laid_out_as_published(language: Path) -> None:
    made = composed(models_new.mllama(language))
    words = len(made.tokenizer)
    assert made.image_token == words
    assert made.model.get_input_embeddings().num_embeddings == words + 8
    assert made.model.lm_head.out_features == words
    assert made.model.config.vision_config.vision_output_dim == made.feature_width == 16 * 3
    gates = [
        float(p.detach().tanh())
        for n, p in made.model.named_parameters()
        if "cross_attn_" in n and n.endswith("gate")
    ]
    assert gates == pytest.approx([0.5, 0.5], abs=1e-6)
    plan = {"language": Plan(lora=Lora(r=2, alpha=4, lr=1e-3))}
    trainable.apply(made, plan, 0)
    adapted = {
        n.split(".lora_")[0].rpartition(".")[0] for n, p in made.model.named_parameters() if p.requires_grad
    }
    assert {"model.language_model.layers.0.self_attn", "model.language_model.layers.1.cross_attn"} <= adapted


def test_another_number_of_tiles(language: Path) -> None:
    section = models_new.mllama(language)
    section["vision"] |= {"max_num_tiles": 2}
    made = composed(section)
    assert made.model.config.vision_config.supported_aspect_ratios == [[1, 1], [1, 2], [2, 1]]
    assert made.preprocess.grid(28, 90) == (1, 2)
    assert made.tokens_per_image == 2 * 5


@pytest.mark.parametrize(
    ("change", "what", "found"),
    [
        (
            {"language": "kit/smollm2-135m"},
            "these configs make no Mllama",
            "mllama_vision_model, kit/smollm2-135m",
        ),
        ({"vision": models_new.CLIP}, "these configs make no Mllama", "clip_vision_model, mllama_text_model"),
    ],
)
def test_other_configs_are_refused(language: Path, change: dict[str, Any], what: str, found: str) -> None:
    with pytest.raises(ModelError, match=what) as caught:
        composed({**models_new.mllama(language), **change})
    assert caught.value.found == found


def test_a_tokenizer_that_does_not_fit_is_refused(language: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit the language model") as caught:
        composed(models_new.mllama(language, vocab_size=100))
    assert caught.value.expected == "at most 100 words, and a chat template"
    bare = models.bytes_tokenizer()
    bare.chat_template = None
    bare.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="does not fit the language model") as caught:
        composed(models_new.mllama(tmp_path))
    assert caught.value.found == f"{len(bare)} words, no chat template"


@pytest.mark.parametrize("vision", [models_new.CLIP, models.SIGLIP], ids=["clip", "siglip"])
def test_any_tower_sees_a_picture_in_tiles(language: Path, vision: dict[str, Any]) -> None:
    made = composed(models_new.llava_next(language, vision=vision))
    leading = {"clip_vision_model": 1, "siglip_vision_model": 0}[vision["model_type"]]
    assert made.model.config.leading == leading
    assert made.model.config.image_grid_pinpoints == [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
    # The picture as a whole, 4 patches; 1 x 2 tiles of which 2 x 4 patches stay, and an end for each of their lines.
    assert len(made.words(made.preprocess.grid(40, 90))) == 4 + 2 * (4 + 1)
    assert states(made, 1).shape[-1] == 32


def test_any_connector_that_takes_one_image_joins_them(language: Path) -> None:
    made = composed(models_new.llava_next(language, connector="mlp3x_gelu"))
    assert len([m for m in made.model.model.multi_modal_projector if isinstance(m, torch.nn.Linear)]) == 3
    with pytest.raises(ModelError, match="compares two images of one size"):
        composed(models_new.llava_next(language, connector={"name": "temporal", "heads": 2}))


def test_without_a_config_of_the_tower_a_folder_is_asked_for(language: Path) -> None:
    for family in ("mllama", "llava_next"):
        with pytest.raises(ModelError, match="opened, not composed"):
            composed({"family": family, "language": str(language)})


def test_a_new_siglip_is_the_one_that_its_folder_opens_as(language: Path, tmp_path: Path) -> None:
    section = Encoder.model_validate(models_new.siglip(language)).model_dump()
    made, other = compose_encoder(section, 0), compose_encoder(section, 1)
    made.model.save_pretrained(tmp_path)
    made.tokenize.tokenizer.save_pretrained(tmp_path)
    made.preprocess.processor.save_pretrained(tmp_path)
    opened = compose_encoder(models_encoders.section("siglip", path=str(tmp_path)), 0)
    pictures, texts = models_encoders.embed(made)
    assert pictures.shape == texts.shape == (3, 16)
    for mine, theirs in zip((pictures, texts), models_encoders.embed(opened), strict=True):
        assert torch.equal(mine, theirs)
    assert (pictures - models_encoders.embed(other)[0]).abs().max() > 0.01
    assert set(made.tokenize(["No effusion."])) == {"input_ids"}
    assert made.tokenize(["No effusion."])["input_ids"].shape == (1, 16)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ({"vocab_size": 100}, "100 in the text tower; its output 16 wide, that of the vision tower 16"),
        ({"projection_size": 8}, "in the text tower; its output 8 wide, that of the vision tower 16"),
    ],
)
def test_towers_that_do_not_fit_are_refused(language: Path, text: dict[str, Any], found: str) -> None:
    section = models_new.siglip(language)
    section["text"] |= text
    with pytest.raises(ModelError, match="these two towers do not fit") as caught:
        compose_encoder(section, 0)
    assert caught.value.found.endswith(found)


def test_the_tokenizer_of_a_config(language: Path, tmp_path: Path) -> None:
    assert tokenizer_folder({"tokenizer": str(language)}, "model.text") == language
    for source, where in (({}, "model.text"), ({"tokenizer": str(tmp_path)}, "model.text.tokenizer")):
        with pytest.raises(ModelError, match="tokenizer") as caught:
            tokenizer_folder(source, "model.text")
        assert caught.value.where == where


def test_old_encoder_sections_read_as_before() -> None:
    assert Encoder().model_dump() == {
        "encoder": "kit",
        "path": None,
        "name": None,
        "size": None,
        "width": 256,
    }
    for wrong in (
        {"encoder": "siglip", "vision": {}},
        {"encoder": "clip", "vision": {}, "text": {}},
        {"encoder": "siglip", "vision": {}, "text": {}, "path": "models/siglip"},
    ):
        with pytest.raises(ValueError, match="configs"):
            Encoder.model_validate(wrong)
