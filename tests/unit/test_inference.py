"""Batched answers equal those of one conversation at a time, read whole, without a cache."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from sightline import inference
from sightline.data.chat import Chat
from sightline.images.seen import Seen
from sightline.inference import Answer, Item, Ledger, ask, items, predictions
from sightline.models.family import Bundle
from sightline.settings import Generate
from sightline.types import ImageRef, Message, Prediction, Sample, View

SETTINGS = Generate(max_new_tokens=6, batch=4)
PICTURES = tuple(ImageRef(path=f"{i}.png", sha256=str(i)) for i in range(4))


def first_tokens(tokenizer: Any, forms: Sequence[str]) -> list[int]:
    """First tokens of a word's spellings, each once."""
    return list(dict.fromkeys(tokenizer(f, add_special_tokens=False)["input_ids"][0] for f in forms))


@pytest.fixture(scope="module")
def made(language: Path) -> Bundle:
    return models.bundle(language)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the vocabulary ends an answer, so that rows of a batch end at different steps."""
    monkeypatch.setattr(inference, "end_tokens", lambda bundle: set(range(0, 288, 3)))


def look(view: View) -> Seen:
    """Features of a view, made up: a function of its image's path. [4, 16]."""
    return Seen(torch.randn(4, 16, generator=torch.Generator().manual_seed(int(view.image.path[0]))))


def study(number: int, *turns: tuple[str, str]) -> Sample:
    return models.sample(f"s{number}", turns, [PICTURES[number % 4]])


def mixed() -> list[Sample]:
    """Conversations of uneven lengths with closed and open turns in several patterns."""
    closed = [("Is there a line?", "Yes"), ("Is it broken, and if so is it the left one?", "No")]
    return [
        *(study(i, ("Is it?" + " so" * i, "Yes"), closed[i % 2], closed[0]) for i in range(5)),
        *(
            study(5 + i, ("What is seen" + "?" * (1 + 3 * i), "A line"), closed[1], ("Where?", "Left" * i))
            for i in range(3)
        ),
        *(study(8 + i, closed[0], ("Where" + "e" * i, "Above " * (i + 1))) for i in range(3)),
        study(11, ("Describe", "All is well.")),
    ]


def told(bundle: Bundle, samples: Sequence[Sample], settings: Generate = SETTINGS) -> dict[str, list[Answer]]:
    """Answers by the code under test."""
    found: dict[str, list[Answer]] = {}
    todo = items(samples, Chat.of(bundle), lambda s, i: View(s.images[i], s.id))
    ask(bundle, todo, look, settings, lambda item, answers: found.update({item.sample.id: answers}))
    return found


@torch.no_grad()
def plainly(bundle: Bundle, item: Item, settings: Generate = SETTINGS) -> list[Answer]:
    """The same by whole forward passes over one growing row."""
    family, tokenizer, ends = bundle.family, bundle.tokenizer, inference.end_tokens(bundle)
    images = bundle.tokens([look(v).values for v in item.views], [()] * len(item.views), "features")
    yes, no = (first_tokens(tokenizer, forms) for forms in (("Yes", "yes", "YES"), ("No", "no", "NO")))

    def after(ids: list[int]) -> Tensor:
        embeds = bundle.embed(torch.tensor([ids]), images)
        return bundle.head(family.hidden(bundle.model, embeds, use_cache=False).last_hidden_state)[0, -1]

    ids, at, out = [], 0, []
    for turn, closed in zip(item.encoded.turns, item.closed, strict=True):
        ids += list(item.encoded.ids[at : turn.start])
        at = turn.stop
        if closed:
            logps = after(ids).log_softmax(-1)
            choices = {"yes": float(logps[yes].logsumexp(0)), "no": float(logps[no].logsumexp(0))}
            own = yes if choices["yes"] >= choices["no"] else no
            ids.append(own[int(logps[own].argmax())])
            out.append(Answer(tokenizer.decode([ids[-1]]).strip(), choices))
            continue
        spoken: list[int] = []
        while len(spoken) < settings.max_new_tokens:
            token = int(after(ids + spoken).argmax())
            if token in ends:
                break
            spoken.append(token)
        ids += spoken
        out.append(Answer(tokenizer.decode(spoken, skip_special_tokens=True).strip()))
    return out


def compare(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    assert [a.text for a in found] == [a.text for a in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.choices.keys() == other.choices.keys()
        assert all(one.choices[k] == pytest.approx(other.choices[k], abs=1e-4) for k in one.choices)


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_batched_answers_equal_plain_forward_passes(made: Bundle, often: None, batch: int) -> None:
    samples = mixed()
    found = told(made, samples, SETTINGS.model_copy(update={"batch": batch}))
    assert found.keys() == {s.id for s in samples}
    for item in items(samples, Chat.of(made), lambda s, i: View(s.images[i], s.id)):
        compare(found[item.sample.id], plainly(made, item))
    lengths = {len(a.text) for answers in found.values() for a in answers if not a.choices}
    assert len(lengths) > 2  # rows did end at different steps


def test_answers_that_reach_the_limit_are_read_whole_before_the_next_turn(
    made: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "end_tokens", lambda bundle: set())
    samples = [study(i, ("Where?" * (i + 1), "Left"), ("Is it?", "Yes")) for i in range(3)]
    found = told(made, samples)
    for item in items(samples, Chat.of(made), lambda s, i: View(s.images[i], s.id)):
        compare(found[item.sample.id], plainly(made, item))


def test_answers_that_end_at_once_are_empty(made: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "end_tokens", lambda bundle: set(range(288)))
    samples = [study(0, ("Where?", "Left"), ("Is it?", "Yes"))]
    found = told(made, samples)["s0"]
    assert found[0].text == ""
    compare(found, plainly(made, items(samples, Chat.of(made), lambda s, i: View(s.images[i], s.id))[0]))


def test_later_images_are_seen_when_their_turn_comes(made: Bundle, often: None) -> None:
    inline = replace(made, family=replace(made.family, placement="inline"))
    talk = (
        Message(role="user", parts=(0, "Is it?")),
        Message(role="assistant", parts=("Yes",)),
        Message(role="user", parts=("And", 1, "here?")),
        Message(role="assistant", parts=("Left",)),
    )
    samples = [
        Sample(id=f"m{i}", patient="p", images=(PICTURES[i], PICTURES[i + 1]), messages=talk)
        for i in range(3)
    ]
    found = told(inline, samples)
    for item in items(samples, Chat.of(inline), lambda s, i: View(s.images[i], s.id)):
        assert len(item.views) == 2

        @torch.no_grad()
        def second(item: Item = item) -> None:
            prompt = list(item.encoded.ids[: item.encoded.turns[0].start])
            family = made.family
            image = made.tokens([look(item.views[0]).values], [()], "features")
            embeds = made.embed(torch.tensor([prompt]), image)
            logps = made.head(family.hidden(made.model, embeds).last_hidden_state)[0, -1].log_softmax(-1)
            yes = first_tokens(made.tokenizer, ("Yes", "yes", "YES"))
            expected = float(logps[yes].logsumexp(0))
            assert found[item.sample.id][0].choices["yes"] == pytest.approx(expected, abs=1e-4)

        second()
    assert len({found[f"m{i}"][1].text for i in range(3)}) > 1


def test_the_model_s_own_answers_stand_in_its_context_not_the_gold(made: Bundle) -> None:
    questions = ["Is there a line?", "Is it broken?", "Is it so?"]

    def with_gold(answers: Sequence[str]) -> Sample:
        return study(0, *zip(questions, answers, strict=True))

    spoken = [a.text for a in told(made, [with_gold(["Yes"] * 3)])["s0"]]
    opposite = [{"yes": "No", "no": "Yes"}[t.lower()] if t.lower() in ("yes", "no") else "No" for t in spoken]
    other = told(made, [with_gold(opposite)])["s0"]
    compare(other, told(made, [with_gold(["Yes"] * 3)])["s0"])

    item = items([with_gold(opposite)], Chat.of(made), lambda s, i: View(s.images[i], s.id))[0]
    forced = forced_choice(made, item)
    assert abs(forced - other[2].choices["yes"]) > 1e-3  # the gold would have led elsewhere


@torch.no_grad()
def forced_choice(made: Bundle, item: Item) -> float:
    """log p(yes) at the last turn with the gold answers before it."""
    ids = torch.tensor([item.encoded.ids[: item.encoded.turns[-1].start]])
    images = made.tokens([look(v).values for v in item.views], [()] * len(item.views), "features")
    embeds = made.embed(ids, images)
    logits = made.head(made.family.hidden(made.model, embeds).last_hidden_state)[0, -1]
    return float(logits.log_softmax(-1)[first_tokens(made.tokenizer, ("Yes", "yes", "YES"))].logsumexp(0))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many conversations each batch held."""
    sizes: list[int] = []
    real: Callable[..., list[list[Answer]]] = inference._converse

    def counted(bundle: Bundle, batch: Sequence[Item], *rest: object) -> list[list[Answer]]:
        sizes.append(len(batch))
        return real(bundle, batch, *rest)

    monkeypatch.setattr(inference, "_converse", counted)
    return sizes


def test_equal_inputs_are_computed_once(made: Bundle, asked: list[int]) -> None:
    same = [
        models.sample(f"t{i}", [("Is it?", gold)], [PICTURES[0]])
        for i, gold in enumerate(["Yes", "No", "Yes"])
    ]
    other_image = models.sample("u", [("Is it?", "Yes")], [PICTURES[1]])
    other_words = models.sample("v", [("Is it so?", "Yes")], [PICTURES[0]])
    found = told(made, [*same, other_image, other_words])
    assert sum(asked) == 3
    assert found["t0"] == found["t1"] == found["t2"]
    assert found["t0"][0].choices != found["u"][0].choices
    assert found["t0"][0].choices != found["v"][0].choices


def test_a_batch_holds_one_pattern_of_turns(made: Bundle, asked: list[int]) -> None:
    told(made, mixed())
    assert max(asked) <= SETTINGS.batch
    assert sum(asked) == 12


def test_reports_are_never_closed(made: Bundle) -> None:
    report = Message(role="assistant", parts=("No effusion.",), topic="report")
    sample = Sample(
        id="r",
        patient="p",
        images=PICTURES[:1],
        messages=(Message(role="user", parts=(0, "Is there fluid?")), report),
    )
    assert items([sample], Chat.of(made), lambda s, i: View(s.images[i], s.id))[0].closed == (False,)


def test_predictions_carry_the_right_answers_and_topics() -> None:
    sample = study(1, ("Is it?", "Yes"), ("Where?", "Left"))
    item = Item(sample, None, (), (True, False))  # type: ignore[arg-type]
    made = predictions(item, [Answer("No", {"yes": -2.0, "no": -0.1}), Answer("Right")])
    assert made[0] == Prediction(
        sample="s1",
        patient="patient-s1",
        turn=0,
        question="Is it?",
        answer="Yes",
        text="No",
        topic="topic0",
        choices={"yes": -2.0, "no": -0.1},
    )
    assert (made[1].turn, made[1].question, made[1].answer, made[1].text) == (1, "Where?", "Left", "Right")


def prediction(name: str) -> Prediction:
    return Prediction(
        sample=name, patient="p", turn=0, question="q", answer="a", text="t\n\u2028", choices={"yes": -0.5}
    )


def test_the_ledger_drops_a_torn_last_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first = Ledger(path)
    first.add("a", [prediction("a")])
    first.add("b", [prediction("b")])
    whole = path.read_bytes()
    for cut in range(1, len(whole.split(b"\n")[1]) + 1, 17):
        path.write_bytes(whole[:-cut])
        again = Ledger(path)
        assert set(again.known) == {"a"}
        again.add("b", [prediction("b")])
        assert path.read_bytes() == whole
    assert Ledger(path).all(["b", "a"]) == [prediction("b"), prediction("a")]
    assert [json.loads(line)["sample"] for line in path.read_text(encoding="utf-8").split("\n")[:-1]] == [
        "a",
        "b",
    ]


def test_an_empty_or_absent_ledger_is_a_start(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none.jsonl").known == {}
    (tmp_path / "torn.jsonl").write_bytes(b'{"sam')
    assert Ledger(tmp_path / "torn.jsonl").known == {}
    assert (tmp_path / "torn.jsonl").read_bytes() == b""


def test_precision_leaves_the_tower_alone(language: Path) -> None:
    own = models.bundle(language)
    inference.in_precision(own, Generate(precision="bfloat16"))
    assert next(own.model.model.vision_tower.parameters()).dtype == torch.float32
    rest = [own.model.model.multi_modal_projector, own.model.model.language_model, own.model.lm_head]
    assert {p.dtype for module in rest for p in module.parameters()} == {torch.bfloat16}
    told(own, mixed()[:1], Generate(precision="bfloat16", max_new_tokens=2))
