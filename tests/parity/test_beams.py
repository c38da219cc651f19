"""The best of several beams is what the stock model's own beam search finds, id by id, turn by turn, in any batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

import models
from sightline import inference
from sightline.data.chat import Chat
from sightline.images.seen import Seen
from sightline.inference import Answer, Item, ask, items
from sightline.models import beams
from sightline.models.context import Context
from sightline.models.family import Bundle
from sightline.settings import Generate
from sightline.types import Sample, View

STEPS = 7
ENDS = set(range(7, 288, 40))


@pytest.fixture(scope="module")
def made(language: Path) -> Bundle:
    return models.bundle(language)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several words end an answer, so that beams end at different steps."""
    monkeypatch.setattr(inference, "end_tokens", lambda bundle: ENDS)


def look(view: View) -> Seen:
    """Features of a view, made up: a function of its image's path. [4, 16]."""
    return Seen(torch.randn(4, 16, generator=torch.Generator().manual_seed(int(view.image.path[0]))))


def talks() -> list[Sample]:
    """Conversations of uneven lengths: open and closed turns."""
    first = [
        "What is seen?",
        "Describe the findings, and all of them.",
        "Where",
        "Tell me more about this one.",
    ]
    return [
        models.sample(
            f"s{i}", [(text, "A line"), ("Is it so?", "Yes"), ("And where is it?", "Left")], [models.PICTURES[i]]
        )
        for i, text in enumerate(first)
    ]  # fmt: skip


def told(made: Bundle, batch: int, how: Generate) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    todo = items(talks(), Chat.of(made), lambda s, i: View(s.images[i], s.id))
    settings = how.model_copy(update={"batch": batch})
    ask(made, todo, look, settings, lambda item, said: found.update({item.sample.id: said}))
    return found


def embedded(made: Bundle, item: Item, ids: Sequence[int]) -> torch.Tensor:
    """What the model reads, [1, T, hidden]."""
    tokens = made.tokens([look(view).values for view in item.views], [()] * len(item.views), "features")
    return made.embed(torch.tensor([ids]), tokens)


@torch.no_grad()
def stock(made: Bundle, item: Item, ids: Sequence[int], how: Generate) -> list[int]:
    """The stock model's own answer, its end left out. It bans repetitions among its own words only."""
    read = embedded(made, item, ids)
    more = {"no_repeat_ngram_size": how.no_repeat} if how.no_repeat else {}
    said = made.model.generate(
        inputs_embeds=read, attention_mask=torch.ones(read.shape[:2], dtype=torch.long), do_sample=False,
        max_new_tokens=how.max_new_tokens, num_beams=how.beams, length_penalty=how.length_penalty,
        early_stopping=False, eos_token_id=sorted(ENDS), pad_token_id=0, suppress_tokens=[made.image_token], **more,
    )[0].tolist()  # fmt: skip
    ended = next((place for place, word in enumerate(said) if word in ENDS), len(said))
    return [int(word) for word in said[:ended]]


@pytest.mark.parametrize(
    "how",
    [
        Generate(max_new_tokens=STEPS, beams=2),
        Generate(max_new_tokens=STEPS, beams=10, length_penalty=2),
        Generate(max_new_tokens=STEPS, beams=4, length_penalty=-1),
        Generate(max_new_tokens=12, beams=5, length_penalty=2, no_repeat=2),
    ],
    ids=["2", "10, long", "4, short", "5, no word pair twice"],
)
def test_answers_equal_the_stock_model_s(made: Bundle, how: Generate) -> None:
    alone = told(made, 1, how)
    for item in items(talks(), Chat.of(made), lambda s, i: View(s.images[i], s.id)):
        ids, at = list[int](), 0
        for turn, closed, answer in zip(item.encoded.turns, item.closed, alone[item.sample.id], strict=True):
            ids += item.encoded.ids[at : turn.start]
            at = turn.stop
            if not closed:
                assert list(answer.ids) == stock(made, item, ids, how)
            ids += answer.ids
    together = told(made, 4, how)
    assert {n: [a.ids for a in said] for n, said in together.items()} == {
        n: [a.ids for a in said] for n, said in alone.items()
    }


def test_a_search_ends_where_no_answer_can_get_better(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    read, lengths = Context.read, list[int]()

    def counted(self: Context, *given: Any) -> torch.Tensor:
        lengths.append(self.length)
        return read(self, *given)

    monkeypatch.setattr(Context, "read", counted)
    monkeypatch.setattr(inference, "end_tokens", lambda bundle: set(range(7, 288, 5)))
    told(made, 4, Generate(max_new_tokens=60, beams=2, length_penalty=-1))
    assert 3 + 2 * 2 < len(lengths) < 60  # three questions, and some words of two answers


def test_beams_find_likelier_answers_than_greed(made: Bundle) -> None:
    greedy, best = (
        told(made, 4, Generate(max_new_tokens=STEPS, beams=n)) for n in (1, 10)
    )  # fmt: skip
    pairs = [(greedy[name][0], best[name][0]) for name in greedy]
    assert any(one.ids != other.ids for one, other in pairs)
    assert sum(other.logp or 0 for _, other in pairs) > sum(one.logp or 0 for one, _ in pairs)


@torch.no_grad()
def test_the_context_is_left_as_it_was_and_the_likelihood_is_that_of_the_words(made: Bundle) -> None:
    item = items(talks()[:1], Chat.of(made), lambda s, i: View(s.images[i], s.id))[0]
    prompt = item.encoded.ids[: item.encoded.turns[0].start]
    context = Context(made, 1)
    tokens = made.tokens([look(item.views[0]).values], [()], "features")
    logits = context.read([prompt], [[Seen(tokens[0])]])
    how = Generate(max_new_tokens=5, beams=3)
    ((ids, logp),) = beams.search(context, logits, how, (), made.image_token)
    assert context.length == len(prompt)
    assert len(ids) == 5
    read = embedded(made, item, [*prompt, *ids])
    states = made.family.hidden(made.model, read).last_hidden_state[0, len(prompt) - 1 : -1]
    scores = made.head(states).float().log_softmax(-1)
    mean = float(scores[torch.arange(5), list(ids)].mean())
    assert abs(logp - mean) < 1e-5
    again = context.read([[ids[0]]])[0]
    torch.testing.assert_close(again.float().log_softmax(-1), scores[1], rtol=0, atol=1e-4)


def test_settings_of_greedy_answers_keep_their_key_and_take_no_penalty() -> None:
    plain = {"max_new_tokens": 64, "batch": 64, "precision": "float32"}
    assert Generate().model_dump(mode="json") == plain
    assert Generate(beams=10, length_penalty=2, no_repeat=3).model_dump(mode="json") == {
        **plain, "beams": 10, "length_penalty": 2.0, "no_repeat": 3,
    }  # fmt: skip
    for more in ({"length_penalty": 2}, {"no_repeat": 3}):
        with pytest.raises(ValidationError, match="belong to `beams`"):
            Generate.model_validate(more)
