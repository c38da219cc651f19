"""What a batch has read: where pieces stand, what is masked, what a family is told, and what is read anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
import models_idefics3
import models_mllama
from sightline.errors import ModelError
from sightline.images.seen import Seen
from sightline.inference import choices_of
from sightline.models import checkpoint
from sightline.models.context import Context
from sightline.models.family import Bundle


@pytest.fixture(scope="module")
def made(language: Path) -> Bundle:
    return models.bundle(language)


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return models_mllama.bundle(tmp_path_factory.mktemp("parts") / "language")


def shown(bundle: Bundle, seed: int) -> Seen:
    """Tokens of one image, made up."""
    shape = (bundle.tokens_per_image, 32)
    return Seen(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), (2, 2))


def spied(bundle: Bundle, calls: list[dict[str, Any]]) -> Bundle:
    """The same model, and a list of what its family was told to tell of."""

    def tell(
        own: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Any], dtype: torch.dtype
    ) -> dict[str, Any]:
        told = bundle.told(batch, tokens, grids, dtype)
        calls.append({**batch, "tokens": len(tokens), "grids": len(grids), "told": told})
        return told

    return replace(bundle, family=replace(bundle.family, tell=tell))


def test_pieces_stand_behind_one_another_and_padding_is_masked(made: Bundle) -> None:
    """The picture at the file's head: four tokens of an image in one row, five words in the other."""
    calls: list[dict[str, Any]] = []
    i = made.image_token
    context = Context(spied(made, calls), 2)
    context.read([[9, i, i, i, i], [9, 8, 7, 6]], [[shown(made, 0)], []])
    context.read([[5], [4]])
    context.read([[5], []])
    context.read([[], [6, 6]])
    assert [call["read"] for call in calls] == [0, 5, 6, 7]
    assert context.ids.tolist() == [[9, i, i, i, i, 5, 5, 0, 0], [9, 8, 7, 6, 0, 4, 0, 6, 6]]
    assert context.mask.tolist() == [[1, 1, 1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 1, 0, 1, 1]]
    assert [call["told"]["position_ids"].tolist() for call in calls] == [
        [[0, 1, 2, 3, 4], [0, 1, 2, 3, 3]], [[5], [4]], [[6], [4]], [[6, 6], [5, 6]]
    ]  # fmt: skip
    assert [(call["tokens"], call["grids"]) for call in calls] == [(1, 1), (0, 1), (0, 1), (0, 1)]
    assert context.length == context.cache.get_seq_length() == 9


@torch.no_grad()
def test_a_row_in_pieces_is_the_row_in_one_piece(made: Bundle) -> None:
    i = made.image_token
    whole = Context(made, 1).read([[9, i, i, i, i, 8, 7, 6, 5]], [[shown(made, 0)]])
    context = Context(made, 2)
    context.read([[9, i, i, i, i, 8], [4]], [[shown(made, 0)], []])
    context.read([[7, 6], [4, 4, 4, 4]])
    parts = context.read([[5], [4, 4]])
    assert float((parts[0] - whole[0]).abs().max()) <= 1e-5
    assert float(whole.std()) > 0.1


@torch.no_grad()
def test_what_is_taken_back_was_never_read(made: Bundle) -> None:
    wanted = Context(made, 1).read([[9, 8, 7]])
    context = Context(made, 1)
    context.read([[9, 8]])
    length = context.length
    for token in (5, 4, 6):
        context.read([[token]])
    context.rewind(length)
    assert float((context.read([[7]]) - wanted).abs().max()) <= 1e-5


@torch.no_grad()
def test_an_image_that_stands_beside_is_seen_by_the_words_in_front_of_it(beside: Bundle) -> None:
    """So where one is shown later, everything is read anew, without the padding that stood between."""
    i, calls = beside.image_token, list[dict[str, Any]]()
    context = Context(spied(beside, calls), 2)
    context.read([[9, i, 8], [9]], [[shown(beside, 0)], []])
    context.read([[7], [6, 5]])
    found = context.read([[4], [i, 3]], [[], [shown(beside, 1)]])
    assert [call["read"] for call in calls] == [0, 3, 0]
    assert [(call["tokens"], call["grids"]) for call in calls] == [(1, 1), (0, 1), (2, 2)]
    assert context.ids.tolist() == [[9, i, 8, 7, 4], [9, 6, 5, i, 3]]
    assert bool(context.mask.all())
    for row, seed in ((0, 0), (1, 1)):
        alone = Context(beside, 1).read([context.ids[row].tolist()], [[shown(beside, seed)]])
        assert float((found[row] - alone[0]).abs().max()) <= 1e-5
    assert ["cross_attention_states" in call["told"] for call in calls] == [True, False, True]


@torch.no_grad()
def test_padding_is_no_image_where_the_first_word_stands_for_images(made: Bundle) -> None:
    """As in vocabularies that have `<unk>` alone to spare."""
    own = replace(made, image_token=0)
    context = Context(own, 2)
    found = context.read([[9, 0, 0, 0, 0, 8], [7]], [[shown(made, 0)], []])
    assert context.ids.tolist() == [[9, 0, 0, 0, 0, 8], [7, 1, 1, 1, 1, 1]]
    assert float((found[1] - Context(own, 1).read([[7]])[0]).abs().max()) <= 1e-5


def test_images_and_places_must_match(made: Bundle) -> None:
    with pytest.raises(ModelError, match="image places and image tokens do not match"):
        Context(made, 1).read([[9, made.image_token]], [[shown(made, 0)]])


def test_yes_and_no_are_read_as_an_answer_opens(tmp_path: Path) -> None:
    """Idefics3 writes a blank in front of answers: its " Yes" is one token, and " yes" begins as " no" does."""
    bundle = checkpoint.compose(models_idefics3.section(models_idefics3.write(tmp_path)), 0)
    words = bundle.tokenizer.convert_ids_to_tokens
    assert {w: words(ids) for w, ids in choices_of(bundle).items()} == {"yes": ["ĠYes"], "no": ["ĠNo"]}


def test_yes_and_no_of_another_family_open_without_a_blank(made: Bundle) -> None:
    words = made.tokenizer.convert_ids_to_tokens
    found = {word: words(ids) for word, ids in choices_of(made).items()}
    assert found == {"yes": ["Yes", "yes", "Y"], "no": ["No", "no", "N"]}


def test_words_that_begin_alike_are_refused(tmp_path: Path) -> None:
    place = models_idefics3.write(tmp_path)
    bundle = checkpoint.compose(models_idefics3.section(place), 0)
    bundle.tokenizer = models.bytes_tokenizer()
    bundle.tokenizer.chat_template = (
        models_idefics3.TEMPLATE.replace("message['content'][0]['type'] == 'image'", "false")
        .replace(
            "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
            "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}",
            "{{ message['content'] }}",
        )
        .replace("<end_of_utterance>", "<|im_end|>")
    )
    with pytest.raises(ModelError, match="tells them not apart"):
        choices_of(bundle)
