"""Preference pairs from samples: functions of the seed and the sample's id."""

from __future__ import annotations

import pytest

import models
from sightline.data import pairs
from sightline.types import Degrade, ImageRef, Message, Sample

PICTURE = ImageRef(path="one.png", sha256="1")
NOISE = Degrade(kind="replace", seed=5)


def study(name: str, *answers: str) -> Sample:
    """Answers to the topics `topic0`, `topic1` ... about one image."""
    return models.sample(name, [(f"question {i}", a) for i, a in enumerate(answers)], [PICTURE])


STUDIES = [study(f"s{i}", "Yes", "No", f"in place {i % 3}", "Yes") for i in range(12)]


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("Yes", "No"),
        ("no", "yes"),
        ("Yes.", "No."),
        (" No ", "Yes"),
        ("no.", "yes."),
        ("left", None),
        ("", None),
        ("Yes, on the left", None),
        ("None", None),
    ],
)
def test_flip_keeps_the_spelling(answer: str, other: str | None) -> None:
    assert pairs.flip(answer) == other


def test_wrong_turns_one_answer_and_keeps_the_gold_before_it() -> None:
    made = pairs.wrong(STUDIES, 0, (), {})
    assert [p.id for p in made] == [f"s{i}/wrong_finding" for i in range(12)]
    for pair, sample in zip(made, STUDIES, strict=True):
        place = len(pair.prompt)
        assert pair.prompt == sample.messages[:place]
        assert pair.prompt[-1].role == "user"
        assert pair.chosen == sample.messages[place].text != pair.rejected
        assert pair.chosen_images is None
        assert pair.rejected_images is None
        assert (pair.why, pair.patient, pair.images) == ("wrong_finding", sample.patient, sample.images)
        if pair.chosen in ("Yes", "No"):
            assert pair.rejected == {"Yes": "No", "No": "Yes"}[pair.chosen]
        else:
            assert pair.rejected in {"in place 0", "in place 1", "in place 2"}
    assert len({len(p.prompt) for p in made}) > 1


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_depend_on_seed_and_id_and_not_on_order_or_company(seed: int) -> None:
    forward = {p.id: p for p in pairs.wrong(STUDIES, seed, (), {})}
    backward = {p.id: p for p in pairs.wrong(STUDIES[::-1], seed, (), {})}
    assert forward == backward
    spoiled = {p.id: p for p in pairs.degraded(STUDIES, seed, (), NOISE)}
    alone = pairs.degraded(STUDIES[3:4], seed, (), NOISE)[0]
    assert spoiled[alone.id] == alone


def test_another_seed_asks_other_turns() -> None:
    places = [[len(p.prompt) for p in pairs.wrong(STUDIES, seed, (), {})] for seed in range(3)]
    assert places[0] != places[1] != places[2]


def test_every_turn_is_drawn_about_equally_often() -> None:
    many = [study(f"n{i}", "Yes", "No", "Yes", "No") for i in range(400)]
    counts = [0, 0, 0, 0]
    for pair in pairs.wrong(many, 0, (), {}):
        counts[len(pair.prompt) // 2] += 1
    assert min(counts) > 70


def test_degraded_pairs_differ_in_their_images_only() -> None:
    for pair in pairs.degraded(STUDIES, 0, (), NOISE):
        assert pair.chosen == pair.rejected
        assert pair.chosen_images is None
        assert pair.rejected_images == NOISE
        assert pair.why == "degraded"


def test_topics_choose_the_turns() -> None:
    for pair in [*pairs.wrong(STUDIES, 0, ("topic1",), {}), *pairs.degraded(STUDIES, 0, ("topic1",), NOISE)]:
        assert len(pair.prompt) == 3
    assert pairs.wrong(STUDIES, 0, ("nothing",), {}) == []
    assert pairs.degraded(STUDIES, 0, ("nothing",), NOISE) == []


def test_the_hardest_turn_is_used_where_a_model_was_asked() -> None:
    made = pairs.wrong(STUDIES, 0, (), {s.id: 3 for s in STUDIES[:6]})
    assert [len(p.prompt) for p in made[:6]] == [3] * 6
    assert made[6:] == pairs.wrong(STUDIES, 0, (), {})[6:]


def test_no_wrong_answer_is_made_up() -> None:
    assert pairs.wrong([study("a", "liver"), study("b", "liver")], 0, (), {}) == []
    made = pairs.wrong([study("a", "liver"), study("b", "spleen")], 0, (), {})
    assert [(p.chosen, p.rejected) for p in made] == [("liver", "spleen"), ("spleen", "liver")]


def test_reports_are_degraded_but_never_turned_wrong() -> None:
    report = Sample(
        id="r",
        patient="p",
        images=(PICTURE,),
        messages=(
            Message(role="user", parts=(0, "Describe.")),
            Message(role="assistant", parts=("All well.",), topic="report"),
        ),
    )
    assert pairs.wrong([report, study("s", "Yes")], 0, ("report",), {}) == []
    assert [p.chosen for p in pairs.degraded([report], 0, (), NOISE)] == ["All well."]
