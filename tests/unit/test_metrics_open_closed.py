"""Open and closed questions, as SLAKE and VQA-RAD divide them: by hand, and on rows of the real files' layout."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import plugins
from sightline.metrics.open_closed import covered, open_closed
from sightline.types import Prediction


def turn(i: int, question: str, answer: str, text: str, **attributes: str) -> Prediction:
    return Prediction(
        sample=f"s{i}",
        patient=f"p{i}",
        turn=0,
        question=question,
        answer=answer,
        text=text,
        attributes=attributes,
    )


ROWS = [
    turn(
        0, "Is this a CT?", "Yes", "Yes, it is.", answer_type="CLOSED", language="en", content_type="Modality"
    ),
    turn(1, "Which side?", "Left", "left.", answer_type="CLOSED", language="en", content_type="Position"),
    turn(2, "Which side?", "Right", "left", answer_type="CLOSED", language="en", content_type="Position"),
    turn(
        3,
        "What is seen?",
        "Liver, Spleen",
        "the liver",
        answer_type="OPEN",
        language="en",
        content_type="Organ",
    ),
    turn(4, "图中有肝脏吗？", "有", "没有", answer_type="CLOSED", language="zh", content_type="Organ"),
    turn(5, "这是什么器官？", "肝脏", "肝脏和脾脏", answer_type="OPEN", language="zh", content_type="Organ"),
]


def values(measures) -> dict[str, float]:
    return {m.name: m.value() for m in measures}


def test_five_numbers_by_hand():
    found = values(open_closed(ROWS))
    assert found == pytest.approx(
        {
            "closed_accuracy": 2 / 4,  # yes, left; not right, not "there is"
            "open_recall": (1 / 2 + 1) / 2,
            "open_f1": (2 / 3 + 2 * 2 / (5 + 2)) / 2,
            "open_accuracy": 0.0,
            "overall_accuracy": 2 / 6,
        }
    )


def test_who_divides():
    by_answer = values(open_closed(ROWS, division="answer"))
    assert by_answer["closed_accuracy"] == pytest.approx(1 / 2)  # only the two yes/no questions
    assert by_answer["open_accuracy"] == pytest.approx(1 / 4)
    bare = [
        Prediction(**{**{f: getattr(p, f) for f in p.__dataclass_fields__}, "attributes": {}}) for p in ROWS
    ]
    assert values(open_closed(bare)) == by_answer


def test_parts_by_language_content_and_both():
    (shut,) = [m for m in open_closed(ROWS) if m.name == "closed_accuracy"]
    parts = {name: float(part(np.ones((1, len(shut.keys))))[0]) for name, part in shut.parts.items()}
    assert parts == {
        "language en": pytest.approx(2 / 3), "language zh": 0.0,
        "content_type Modality": 1.0, "content_type Position": 0.5, "content_type Organ": 0.0,
        "language and content_type en, Modality": 1.0, "language and content_type en, Position": 0.5,
        "language and content_type zh, Organ": 0.0,
    }  # fmt: skip


def test_a_question_of_two_types_counts_for_both():
    rows = [
        turn(0, "Is it large?", "Yes", "Yes", answer_type="CLOSED", question_type="SIZE, PRES"),
        turn(1, "Is it there?", "Yes", "No", answer_type="CLOSED", question_type="PRES"),
    ]
    (shut,) = [m for m in open_closed(rows) if m.name == "closed_accuracy"]
    parts = {name: float(part(np.ones((1, 2)))[0]) for name, part in shut.parts.items()}
    assert parts == {"question_type PRES": 0.5, "question_type SIZE": 1.0}
    (other,) = [m for m in open_closed(rows, by=["answer_type"]) if m.name == "closed_accuracy"]
    assert list(other.parts) == ["answer_type CLOSED"]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("a liver and a spleen", "liver, spleen", 1.0), ("liver", "liver, spleen", 0.5), ("", "liver", 0.0),
        ("liver liver", "liver, spleen", 0.5), ("lung", "lung lung", 0.5), ("two", "2", 1.0),
    ],
)  # fmt: skip
def test_recall_counts_each_word_as_often_as_it_is_said(text, reference, expected):
    assert covered(text, reference) == expected


def test_reports_are_left_out_and_the_metric_says_what_it_reads():
    report = Prediction(
        sample="r", patient="r", turn=0, topic="report", question="Report.", answer="Clear.", text="Clear."
    )
    assert open_closed([report]) == []
    assert len(open_closed([*ROWS, report])[-1].keys) == 6
    assert plugins.load("metrics", "open_closed").attributes == (
        "answer_type", "language", "content_type", "question_type"
    )  # fmt: skip
