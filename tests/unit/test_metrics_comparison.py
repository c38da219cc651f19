"""Comparisons with a reference scan: what an answer says, and how it is scored."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.metrics.comparison import comparison, same, sex
from sightline.types import Prediction


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Classification: Male. Like the reference male scan.", "male"),
        ("Compared with the female reference scan, this is a male subject.", "male"),
        ("Based on comparison with the male reference scan, this appears to be a female subject.", "female"),
        ("Unlike the reference, a man, ...; a woman", "female"),
        ("The subject is a girl.", "female"),
        ("Probably not male", "female"),
        ("This is not a female brain.", "male"),
        ("female", "female"),
        ("The scan shows a brain.", None),
        ("humane", None),
        ("", None),
    ],
)
def test_the_sex_that_is_named(text: str, said: str | None) -> None:
    assert sex(text) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Same", "same"),
        ("different.", "different"),
        ("The same sex as the reference", "same"),
        ("They are of the opposite sex.", "different"),
        ("They are not of the same sex.", "different"),
        ("The subjects have different biological sexes.", "different"),
        ("Both show different regional volumes.", None),
        ("", None),
    ],
)
def test_same_or_different(text: str, said: str | None) -> None:
    assert same(text) == said


def answer(number: int, topic: str, gold: str, text: str) -> Prediction:
    return Prediction(
        sample=f"s{number}",
        patient=f"p{number}",
        turn=1,
        question="Which?",
        answer=gold,
        text=text,
        topic=topic,
    )


ANSWERS = [
    answer(0, "sex_same", "Male.", "Male."),  # right: same
    answer(1, "sex_same", "Male.", "Female."),  # wrong: says different
    answer(2, "sex_same", "Female.", "Female."),  # right
    answer(3, "sex_different", "Male.", "Male."),  # right
    answer(4, "sex_different", "Male.", "I cannot tell."),  # says nothing
    answer(5, "report", "A brain.", "A brain."),
    answer(6, "sex_different", "different", "Same"),  # only a comparison, wrong
]


def test_one_answer_is_scored_as_classification_and_as_comparison() -> None:
    measures = {m.name: m for m in comparison(ANSWERS)}
    assert {name: round(m.value(), 4) for name, m in measures.items()} == {
        "sex_accuracy": 0.6,
        "sex_unparsed": 0.2,
        "sex_balanced_accuracy": 0.75,  # male 2 of 4, female 1 of 1
        "comparison_accuracy": 0.5,
        "comparison_unparsed": 0.1667,
        "comparison_balanced_accuracy": 0.5,  # same 2 of 3, different 1 of 3
    }
    whole = np.ones((1, 6))
    parts = measures["comparison_balanced_accuracy"].parts
    assert {k: float(p(whole)[0]) for k, p in parts.items()} == pytest.approx(  # type: ignore[operator]
        {"same": 2 / 3, "different": 1 / 3}
    )
    for m in measures.values():
        assert m.per_sample is not None
        assert m.per_sample.mean() == pytest.approx(m.value())


def test_a_constant_answer_has_a_balanced_accuracy_of_one_half() -> None:
    made = [answer(i, "sex_same", ("Male", "Female")[i > 6], "Male") for i in range(10)]
    values = {m.name: m.value() for m in comparison(made)}
    assert values["sex_balanced_accuracy"] == 0.5
    assert values["sex_accuracy"] == 0.7
    assert "comparison_balanced_accuracy" not in values  # every pair is the same


def test_other_topics_are_not_scored_and_bad_truths_are_errors() -> None:
    assert comparison([ANSWERS[5]]) == []
    assert [m.name for m in comparison([answer(0, "pair_same", "same", "same")], topic="pair")] == [
        "comparison_accuracy",
        "comparison_unparsed",
    ]
    with pytest.raises(DataError, match="names no sex") as caught:
        comparison([answer(3, "sex", "A brain.", "Male")])
    assert caught.value.where == "sample s3, turn 1"
