"""Best and worst of several answers, judged sentence by sentence."""

from __future__ import annotations

import pytest

from sightline.data import judged
from sightline.types import ImageRef, Message, Sample

PICTURES = (ImageRef(path="a.png", sha256="a"), ImageRef(path="b.png", sha256="b"))


def study(name: str) -> Sample:
    turns = (
        Message(role="user", parts=(0, 1, "Describe.")),
        Message(role="assistant", parts=("Clear.",), topic="report"),
        Message(role="user", parts=("And the heart?",)),
        Message(role="assistant", parts=("Large.",), topic="heart"),
    )
    return Sample(id=name, patient="p", images=PICTURES, messages=turns)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Small effusion. No nodule.", ["Small effusion", "No nodule"]),
        ("A 1.5 cm nodule! Is it new?\nNo", ["A 1.5 cm nodule", "Is it new", "No"]),
        ("  ", []),
        ("...", []),
    ],
)
def test_a_claim_is_a_sentence(text: str, found: list[str]) -> None:
    assert judged.claims(text) == found


def test_each_claim_is_asked_once_about_all_images() -> None:
    tried = {("s", 0): ["Effusion. Nodule.", "Nodule."], ("s", 1): ["Large. Effusion."]}
    asked = judged.questions([study("s")], tried)
    assert [(s.id, s.messages[0].parts) for s in asked] == [
        ("s/0", (0, 1, "Does the image show: Effusion?")),
        ("s/1", (0, 1, "Does the image show: Nodule?")),
        ("s/2", (0, 1, "Does the image show: Large?")),
    ]
    assert {s.messages[1].text for s in asked} == {"Yes"}


def test_best_and_worst_by_the_mean_over_sentences() -> None:
    """Effusion +2, nodule -1, device 0: answers score 2, 0.5, -0.5 and -1."""
    tried = {("s", 0): ["Effusion. Nodule.", "Nodule.", "Effusion.", "Device. Nodule.", ""]}
    leads = {"s/0": 2.0, "s/1": -1.0, "s/2": 0.0}
    made = judged.build([study("s")], tried, leads, lambda s: s)
    (pair,) = made.pairs
    assert (pair.id, pair.chosen, pair.rejected, pair.why) == ("s/judged-0", "Effusion.", "Nodule.", "judged")
    assert [m.text for m in pair.prompt] == ["Describe."]
    assert dict(made.counts) == {"turns": 1, "made": 1}


def test_the_second_turn_follows_the_right_first_answer() -> None:
    made = judged.build(
        [study("s")], {("s", 1): ["Large.", "Small."]}, {"s/0": -1.0, "s/1": 1.0}, lambda s: s
    )
    (pair,) = made.pairs
    assert [m.text for m in pair.prompt] == ["Describe.", "Clear.", "And the heart?"]
    assert (pair.chosen, pair.rejected) == ("Small.", "Large.")


def test_ties_and_silence_are_counted() -> None:
    samples = [study(name) for name in "abc"]
    tried = {("a", 0): ["Nodule.", "Device."], ("b", 0): ["", " "], ("c", 0): ["Nodule.", "Nodule."]}
    made = judged.build(samples, tried, {"a/0": 1.0, "a/1": 1.0, "c/0": 3.0}, lambda s: s)
    assert made.pairs == []
    assert dict(made.counts) == {"turns": 3, "same": 2, "empty": 1, "made": 0}
