"""Right answers before each question, tokens by chance, and reports that only the model reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from sightline.data.chat import Chat
from sightline.images.seen import Seen
from sightline.inference import Answer, Manner, ask, items, predictions
from sightline.models.chance import Chance
from sightline.models.family import Bundle
from sightline.settings import Generate
from sightline.types import ImageRef, Message, Sample, View

PICTURES = tuple(ImageRef(path=f"{i}.png", sha256=str(i)) for i in range(4))
RIGHT = Manner(right=True)


@pytest.fixture(scope="module")
def made(language: Path) -> Bundle:
    return models.bundle(language)


def look(view: View) -> Seen:
    return Seen(torch.randn(4, 16, generator=torch.Generator().manual_seed(int(view.image.path[0]))))


def told(
    bundle: Bundle, samples: list[Sample], manner: Manner, tokens: int = 5, batch: int = 4
) -> dict[str, list[Answer]]:
    found: dict[str, list[Answer]] = {}
    todo = items(samples, Chat.of(bundle), lambda s, i: View(s.images[i], s.id))
    settings = Generate(max_new_tokens=tokens, batch=batch)
    ask(bundle, todo, look, settings, lambda item, answers: found.update({item.sample.id: answers}), manner)
    return found


def study(number: int, *turns: tuple[str, str]) -> Sample:
    return models.sample(f"s{number}", turns, [PICTURES[number % 4]])


def mixed() -> list[Sample]:
    return [
        study(
            i,
            ("Is it?" + " so" * i, "Yes"),
            ("Where" + "e" * i, "Left" * i),
            ("Is it old?", "No"),
            ("Why?", "So"),
        )
        for i in range(1, 5)
    ]


def up_to(sample: Sample, place: int) -> Sample:
    """The conversation that ends with the answer at this place."""
    return replace(sample, id=f"{sample.id}-{place}", messages=sample.messages[: place + 1])


def test_each_turn_follows_right_answers_only(made: Bundle) -> None:
    """The answer to turn k is what the last turn of the conversation cut behind k gets, right answers before it."""
    whole = told(made, mixed(), RIGHT)
    for sample in mixed():
        for turn in range(4):
            cut = up_to(sample, 2 * turn + 1)
            alone = told(made, [cut], RIGHT)[cut.id][turn]
            asked = items([cut], Chat.of(made), lambda s, i: View(s.images[i], s.id))[0]
            single = replace(
                asked,
                encoded=replace(asked.encoded, turns=asked.encoded.turns[-1:]),
                closed=asked.closed[-1:],
            )
            last: list[Answer] = []
            ask(
                made,
                [single],
                look,
                Generate(max_new_tokens=5),
                lambda _, answers, out=last: out.extend(answers),
            )
            found = whole[sample.id][turn]
            assert found.text == alone.text == last[0].text
            for choice, value in found.choices.items():
                assert value == pytest.approx(last[0].choices[choice], abs=1e-4)


def test_own_answers_lead_elsewhere(made: Bundle) -> None:
    own, right = told(made, mixed(), Manner()), told(made, mixed(), RIGHT)
    assert [a[0].text for a in own.values()] == [a[0].text for a in right.values()]
    first = [[a.choices for a in each] for each in (*own.values(), *right.values())]
    assert first[:4] != first[4:]


def test_conversations_with_other_right_answers_are_not_taken_for_one(made: Bundle) -> None:
    one = study(1, ("Is it?", "Yes"), ("Is it old?", "Yes"))
    other = replace(study(1, ("Is it?", "No"), ("Is it old?", "Yes")), id="other")
    both = told(made, [one, other], RIGHT)
    assert both["s1"][0].choices == both["other"][0].choices
    assert both["s1"][1].choices != both["other"][1].choices
    plain = told(made, [one, other], Manner())
    assert plain["s1"][1].choices == plain["other"][1].choices


def test_chance_is_a_function_of_names_and_not_of_the_batch(made: Bundle) -> None:
    samples = [study(i, ("Describe", "All is well.")) for i in range(4)]
    drawn = [
        told(made, samples, Manner(chance=Chance(seed=3, attempt=attempt, temperature=2.0)), batch=batch)
        for attempt, batch in ((0, 4), (0, 1), (1, 4))
    ]
    texts = [{name: answers[0].text for name, answers in each.items()} for each in drawn]
    assert texts[0] == texts[1]
    assert all(texts[0][name] != texts[2][name] for name in texts[0])
    greedy = {name: answers[0].text for name, answers in told(made, samples, Manner()).items()}
    assert greedy != texts[0]
    cold = told(made, samples, Manner(chance=Chance(seed=3, temperature=1e-4)))
    assert {name: answers[0].text for name, answers in cold.items()} == greedy


def test_equal_questions_of_two_samples_get_draws_of_their_own(made: Bundle) -> None:
    one = study(1, ("Describe", "All is well."))
    both = told(made, [one, replace(one, id="twin")], Manner(chance=Chance(seed=0, temperature=3.0)))
    assert both["s1"][0].text != both["twin"][0].text


def test_draws_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([0.1, 0.0, 0.6, 0.3]))
    counts = [0, 0, 0, 0]
    for i in range(2000):
        counts[Chance(seed=1).pick((str(i),), logits)] += 1
    assert counts[1] == 0
    for count, share in zip(counts, (0.1, 0.0, 0.6, 0.3), strict=True):
        assert count / 2000 == pytest.approx(share, abs=0.04)
    sharp = [Chance(seed=1, temperature=0.25).pick((str(i),), logits) for i in range(500)]
    assert sharp.count(2) / 500 == pytest.approx(0.6**4 / (0.1**4 + 0.6**4 + 0.3**4), abs=0.03)


def test_what_the_model_reads_is_not_what_is_told_of_it(made: Bundle) -> None:
    sample = study(1, ("What is seen?", "No effusion"), ("Is it old?", "Yes"))

    def read(one: Sample) -> Sample:
        first = replace(one.messages[0], parts=(0, "Reports: Yes. Question: What is seen?"))
        return replace(one, messages=(first, *one.messages[1:]))

    chat = Chat.of(made)
    plain, longer = (
        items([sample], chat, lambda s, i: View(s.images[i], s.id), read=each)[0] for each in (None, read)
    )
    assert len(longer.encoded.ids) > len(plain.encoded.ids)
    assert longer.closed == plain.closed == (False, True)
    (first, second) = predictions(longer, [Answer("Clear"), Answer("Yes")])
    assert (first.question, second.question) == ("What is seen?", "Is it old?")
    assert isinstance(longer.sample.messages[0], Message)
