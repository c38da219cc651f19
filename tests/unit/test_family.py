"""The contract of a family: rows that hold several answers, parts by name, and clear refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import models
from sightline.errors import ModelError
from sightline.models import checkpoint
from sightline.models.families.llava import part_folder


def test_splice_puts_image_tokens_in_reading_order(language: Path) -> None:
    made = models.bundle(language)
    ids = torch.tensor([[9, 3, 3, 3, 3, 7], [3, 3, 3, 3, 3, 3]])
    ids = torch.cat([ids, torch.tensor([[8, 8], [3, 3]])], dim=1)
    connected = torch.arange(3 * 4 * 32, dtype=torch.float32).view(3, 4, 32)
    embeds = made.embed(ids, list(connected))
    words = made.model.get_input_embeddings()
    assert torch.equal(embeds[0, 1:5], connected[0])
    assert torch.equal(embeds[1], connected[1:].reshape(8, 32))
    assert torch.equal(embeds[0, [0, 5, 6, 7]], words(torch.tensor([9, 7, 8, 8])))


def test_splice_refuses_a_wrong_number_of_places(language: Path) -> None:
    made = models.bundle(language)
    with pytest.raises(ModelError) as caught:
        made.embed(torch.tensor([[9, 3, 3, 3]]), [torch.zeros(4, 32)])
    assert caught.value.found == "3 places"
    assert caught.value.expected == "1 images with 4 tokens together"


def test_a_module_that_is_not_there_is_named(language: Path) -> None:
    made = models.bundle(language)
    with pytest.raises(ModelError) as caught:
        made.family.module(made.model, "model.no_such")
    assert "expects a module 'model.no_such'" in caught.value.what
    assert "lm_head" in caught.value.found


def test_the_connector_is_a_function_of_the_seed(language: Path) -> None:
    def start(seed: int) -> torch.Tensor:
        return models.bundle(language, seed=seed).model.model.multi_modal_projector.linear_1.weight

    state = torch.random.get_rng_state()
    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_images_start_with_the_spread_of_words(language: Path) -> None:
    made = models.bundle(language)
    features = torch.randn(64, 4, 16, generator=torch.Generator().manual_seed(0))
    connected = made.family.connect(made.model, list(features), [()] * 64)
    spread = float(torch.stack(connected).detach().std())
    words = float(made.model.get_input_embeddings().weight.detach().std())
    assert 0.6 < spread / words < 1.6


def test_composing_never_grows_the_vocabulary(language: Path) -> None:
    made = models.bundle(language)
    assert made.image_token == 3  # <empty_output>: reserved, and no text uses it
    assert (
        len(made.tokenizer)
        == made.model.get_input_embeddings().num_embeddings
        == made.model.lm_head.out_features
    )


def test_tied_embeddings_stay_tied(tied_language: Path) -> None:
    made = models.bundle(tied_language)
    assert made.model.lm_head.weight is made.model.get_input_embeddings().weight


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"connector": "mlp3x"}, "unknown connector 'mlp3x'"),
        ({"language": "some/hub-name"}, "no model folder 'some/hub-name'"),
        ({"language": {"model_type": "llama"}}, "needs a tokenizer"),
        ({"vision": "kit/nothing"}, "the kit holds no 'nothing'"),
    ],
)
def test_parts_that_cannot_be_had_are_refused(language: Path, change: dict[str, object], what: str) -> None:
    with pytest.raises(ModelError) as caught:
        checkpoint.compose({**models.section(language), **change}, 0)
    assert what in caught.value.what


def test_own_code_and_pickles_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="holds no safetensors"):
        part_folder(str(tmp_path))
    (tmp_path / "config.json").write_text('{"auto_map": {"AutoModel": "evil.Model"}}', encoding="utf-8")
    with pytest.raises(ModelError, match="run code of its own"):
        part_folder(str(tmp_path))


def test_a_vocabulary_without_an_unused_token_is_refused(language: Path) -> None:
    from sightline.models.families.llava import _image_token

    tokenizer = models.bytes_tokenizer()
    assert _image_token(tokenizer) == 3

    plain = SimpleNamespace(
        added_tokens_decoder={0: ""}, get_vocab=lambda: {"<|endoftext|>": 0, "<image>": 7}
    )
    with pytest.raises(ModelError) as caught:
        _image_token(plain)
    assert "never grows a vocabulary" in caught.value.remedy
