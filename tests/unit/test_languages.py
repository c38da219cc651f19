"""Language models for composition: which token stands for images, equal to the stock model, clear refusals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import models
import models_languages
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.models import checkpoint, conversations, languages
from sightline.models.family import Bundle
from sightline.types import Message

RESERVED = {
    "llama": "<unk>", "mistral": "<unk>", "qwen2": None, "qwen3": "<|image_pad|>", "phi3": "<|placeholder1|>",
    "gemma2": "<unused0>", "smollm2": "<empty_output>",
}  # fmt: skip
TEMPLATE = {"llama": "v1", "mistral": "mistral_instruct"}


def composed(name: str, place: Path, **more: Any) -> Bundle:
    """A tiny LLaVA with this kind of language model, from configs alone."""
    language = models_languages.config(name, place)
    asked = {"template": TEMPLATE.get(name), "language": language, **more}
    return checkpoint.compose({**models.section(place), **asked}, 0)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_the_token_that_stands_for_images(name: str, tmp_path: Path) -> None:
    made = composed(name, tmp_path)
    vocabulary = made.tokenizer.get_vocab()
    word = RESERVED[name]
    assert made.image_token == (len(vocabulary) if word is None else vocabulary[word])
    assert made.image_token < made.model.get_input_embeddings().num_embeddings
    assert Chat.of(made).pad != made.image_token
    typed = [word or "x", f"a{word}b", "\U000f1234 \u6f22"]
    rows = [
        Chat.of(made).encode([Message(role="user", parts=(text,)), Message(role="assistant", parts=(text,))])
        for text in typed
    ]
    assert [row.ids.count(made.image_token) for row in rows] == [0, 0, 0]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_text_is_read_as_the_stock_model_reads_it(name: str, tmp_path: Path) -> None:
    made = composed(name, tmp_path)
    language, _ = languages.open_language(models_languages.config(name, tmp_path), 0, TEMPLATE.get(name))
    language.eval().set_attn_implementation("eager")
    ids = torch.randint(8, 100, (2, 150), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = made.head(made.forward({"input_ids": ids, "images": []}, given="features"))
        stock = language(input_ids=ids).logits
    torch.testing.assert_close(ours, stock, rtol=0, atol=2e-5)


def test_scores_are_capped_by_eager_attention_alone(tmp_path: Path) -> None:
    made = composed("gemma2", tmp_path)
    assert made.model.model.language_model.config._attn_implementation == "eager"
    made.attend("sdpa")
    assert made.model.model.language_model.config._attn_implementation == "eager"
    assert float(made.head(torch.ones(1, 32) * 100).detach().abs().max()) <= 3.0
    other = composed("llama", tmp_path)
    other.attend("sdpa")
    assert other.model.model.language_model.config._attn_implementation == "sdpa"


def test_random_weights_are_a_function_of_the_seed(tmp_path: Path) -> None:
    one, two = (composed("llama", tmp_path).model.lm_head.weight for _ in range(2))
    language = models_languages.config("llama", tmp_path)
    other, _ = languages.open_language(language, 1, "v1")
    assert torch.equal(one, two)
    assert not torch.equal(one, other.lm_head.weight)


def test_a_token_can_be_named(tmp_path: Path) -> None:
    assert composed("qwen2", tmp_path, image_token="<|endoftext|>").image_token == 0
    assert composed("qwen2", tmp_path, image_token=261).image_token == 261
    assert composed("gemma2", tmp_path, image_token="<unused1>").image_token == 6


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ("<image>", "the vocabulary does not hold this word"),
        ("x", "texts can become this token"),
        (300, "this number cannot stand for images"),
        (100, "this number cannot stand for images"),
    ],
)
def test_a_token_that_cannot_stand_for_images_is_refused(asked: str | int, what: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        composed("qwen2", tmp_path, image_token=asked)
    assert caught.value.what == what
    assert caught.value.where == "model.image_token"


def test_unknown_words_are_no_place_for_images() -> None:
    plain = SimpleNamespace(
        added_tokens_decoder={0: "<unk>"},
        get_vocab=lambda: {"<unk>": 0, "a": 1},
        add_special_tokens=lambda *_, **__: 0,
    )

    class Words(SimpleNamespace):
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [1 if letter == "a" else 0 for letter in text]}

    with pytest.raises(ModelError, match="no unused token for images") as caught:
        languages.image_token(Words(**vars(plain)))
    assert "`image_token: WORD`" in caught.value.remedy
    assert languages.image_token(Words(**vars(plain)), rows=3) == 2


def test_more_words_than_rows_are_refused(tmp_path: Path) -> None:
    language = {**models_languages.config("llama", tmp_path), "vocab_size": 40}
    with pytest.raises(ModelError, match="knows more words than the language model") as caught:
        languages.open_language(language, 0, "v1")
    assert caught.value.expected == "at most 40"


def test_a_model_without_a_conversation_format_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no chat template") as caught:
        languages.open_language(models_languages.config("llama", tmp_path), 0)
    assert "libra_v1" in caught.value.remedy


def test_a_tokenizer_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer in"):
        languages.open_language({"model_type": "llama", "tokenizer": str(tmp_path / "none")}, 0)


def test_a_folder_s_template_can_be_replaced(language: Path, tmp_path: Path) -> None:
    made = models.bundle(language, template="libra_v1")
    assert made.tokenizer.chat_template == conversations.FORMATS["libra_v1"].jinja
    assert Chat.of(made).opening == " "
    stock = tmp_path / "language"
    AutoModelForCausalLM.from_pretrained(language).save_pretrained(stock)
    made.tokenizer.save_pretrained(stock)
    assert models.bundle(stock).tokenizer.chat_template == conversations.FORMATS["libra_v1"].jinja
