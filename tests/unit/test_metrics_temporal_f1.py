"""Temporal F1 against numbers that Libra's README prints, and against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import plugins
from sightline.metrics.measure import Measure
from sightline.metrics.temporal_f1 import WORDS, agreement, words
from sightline.types import Prediction


def said(*pairs: tuple[str, str], topic: str = "report") -> dict[str, Measure]:
    made = [
        Prediction(
            sample=f"s{i}",
            patient=f"p{i}",
            turn=0,
            topic=topic,
            question="Describe.",
            answer=right,
            text=text,
        )
        for i, (right, text) in enumerate(pairs)
    ]
    return {m.name: m for m in plugins.load("metrics", "temporal_f1").score(made)}


def test_the_numbers_of_libras_readme() -> None:
    """Its example gives 0.500000000075 for these two reports."""
    found = said(
        (
            "Compare with prior scan, pleural effusion has worsened.",
            "The pleural effusion has progressively worsened since previous scan.",
        ),
        (
            "Pleural effusion has worsened.",
            "The pleural effusion is noted again on the current scan.",
        ),
    )
    assert found["temporal_f1"].value() == pytest.approx(0.500000000075, abs=1e-15)
    assert found["temporal_f1"].value() != 0.5


def test_the_list_has_44_words() -> None:
    """originals.md 2.6 counts about 44; the first and the last of each letter stand for the rest."""
    assert len(WORDS) == 44
    assert {
        "bigger",
        "change",
        "growing",
        "larger",
        "new",
        "stably",
        "unaltered",
        "unfolded",
        "worsen",
    } <= WORDS
    assert not {"progressively", "prior", "again", "size"} & WORDS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Left effusion is UNCHANGED; heart enlarged.", {"unchanged", "enlarged"}),
        ("Ill-defined, non_resolving opacity. Re-expanded lung.", {"resolving", "expanded"}),
        ("Stable/unchanged.", set()),  # the original drops the slash, and the two words become one
        ("Renewed. Instability. Worsens.", set()),
        ("", set()),
    ],
)
def test_words_are_whole_words(text: str, found: set[str]) -> None:
    assert words(text) == found


def test_sets_by_hand() -> None:
    assert agreement({"new", "stable"}, {"new", "worse", "larger"})[0] == pytest.approx(
        2 * 0.5 / 3 / (0.5 + 1 / 3)
    )
    assert agreement(set(), set()) == (1.0, 1.0, 1.0)
    assert agreement({"new"}, set()) == (1e-10, 1e-10, 1e-10)
    assert agreement(set(), {"new"})[0] == pytest.approx(2e-10)


def test_silence_is_told_apart() -> None:
    """Of four reports three name no change: silence scores 0.75, and 0 where a change is named."""
    found = said(
        ("New nodule.", "Nodule."),
        ("Clear.", "Clear."),
        ("No effusion.", "No effusion, unchanged."),
        ("Normal.", "Normal heart."),
    )
    measure = found["temporal_f1"]
    ones = np.ones((1, 4))
    assert measure.value() == pytest.approx(0.5)
    assert measure.per_sample == pytest.approx([0, 1, 0, 1], abs=1e-9)
    assert measure.parts["silent"](ones)[0] == pytest.approx(0.75)
    assert measure.parts["named"](ones)[0] == pytest.approx(0.0, abs=1e-9)
    assert found["temporal_f1_named"].value() == pytest.approx(0.0, abs=1e-9)
    assert found["temporal_f1_named"].keys == (("s0", 0),)


def test_open_answers_stand_in_for_reports() -> None:
    found = said(("worse", "improved"), ("new", "new"), topic="change_nodule")
    assert found["temporal_f1"].value() == pytest.approx(0.5)
