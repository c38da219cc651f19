"""Blinded reading: what is asked, in which order, and which answer is A."""

from __future__ import annotations

import pytest

from sightline.errors import DataError
from sightline.report import reading
from sightline.types import Prediction


def said(model: str, texts: dict[str, str]) -> list[Prediction]:
    return [
        Prediction(
            sample=s, patient=f"p{s}", turn=0, question="Where?", answer="left", text=text, model=model
        )
        for s, text in texts.items()
    ]


MANY = {f"s{i:03d}": "left" for i in range(400)}
OTHER = {name: "right" for name in MANY}


def test_only_questions_with_two_answers_are_asked() -> None:
    before = said("before", {"a": "The left.", "b": "left", "c": "right"})
    after = said("after", {"a": "left", "b": "both", "c": "nowhere"})
    found = reading(before, after, seed=0)
    assert sorted(i.sample for i in found.items) == ["b", "c"], "articles and stops are no difference"
    assert (found.differ, found.turns) == (2, 3)
    item = next(i for i in found.items if i.sample == "c")
    assert (item.before, item.after, item.patient) == ("right", "nowhere", "pc")
    assert item.texts == (("nowhere", "right") if item.after_first else ("right", "nowhere"))


def test_a_coin_of_seed_and_question_decides() -> None:
    found = reading(said("b", MANY), said("a", OTHER), seed=0, most=400)
    heads = {i.key: i.after_first for i in found.items}
    assert sum(heads.values()) == 197, "a fair coin"
    other = reading(said("b", MANY), said("a", OTHER), seed=1, most=400)
    assert 150 < sum(heads[i.key] != i.after_first for i in other.items) < 250
    fewer = reading(said("b", MANY)[:50], said("a", OTHER)[:50], seed=0)
    assert all(heads[i.key] == i.after_first for i in fewer.items), "others asked beside it change nothing"


def test_order_is_shuffled_and_the_same_every_time() -> None:
    found = reading(said("b", MANY), said("a", OTHER), seed=0)
    assert len(found.items) == 100
    assert found.differ == 400
    names = [i.sample for i in found.items]
    assert names != sorted(names)
    back = reading(said("b", MANY)[::-1], said("a", OTHER), seed=0)
    assert back == found
    shown = reading(said("b", MANY), said("a", OTHER), seed=0, most=100)
    assert shown.items[:10] == found.items[:10]


def test_the_name_holds_seed_questions_and_answers() -> None:
    names = {
        reading(said("b", {"a": "left"}), said("a", {"a": "right"}), seed=0).name,
        reading(said("b", {"a": "left"}), said("a", {"a": "right"}), seed=1).name,
        reading(said("b", {"a": "left"}), said("a", {"a": "both"}), seed=0).name,
        reading(said("b", {"b": "left"}), said("a", {"b": "right"}), seed=0).name,
    }
    assert len(names) == 4
    assert all(len(name) == 12 for name in names)


def test_two_models_must_have_been_asked_the_same() -> None:
    with pytest.raises(DataError, match="were not asked the same"):
        reading(said("b", {"a": "left"}), said("a", {"b": "left"}), seed=0)
