"""Pairs from four answer sets: a hand-made case whose every pair and count is written down here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sightline.data import reliance
from sightline.data.reliance import Made, Study, build, compare, cut, sets_of
from sightline.settings import Judge
from sightline.types import Degrade, ImageRef, Message, Sample

PICTURE = ImageRef(path="one.png", sha256="1")
NOISE = Degrade(kind="replace", seed=5)
Y, N = "Yes", "No"


def question(name: str, *answers: str, references: tuple[str, ...] = ("Clear.",)) -> Sample:
    """Closed questions over one picture, whose right answers are given."""
    messages: list[Message] = []
    for i, answer in enumerate(answers):
        shown: tuple[str | int, ...] = (0, f"Is it {i}?") if i == 0 else (f"Is it {i}?",)
        messages += [
            Message(role="user", parts=shown),
            Message(role="assistant", parts=(answer,), topic=f"topic{i}"),
        ]
    return Sample(
        id=name, patient=f"p-{name}", images=(PICTURE,), messages=tuple(messages), references=references
    )


def report(name: str, text: str) -> Sample:
    turns = (
        Message(role="user", parts=(0, "Describe.")),
        Message(role="assistant", parts=(text,), topic="report"),
    )
    return Sample(id=name, patient=f"p-{name}", images=(PICTURE,), messages=turns, references=("Clear.",))


def aided(sample: Sample) -> Sample:
    """Reports in front of the first question, in a wording of this test."""
    first = sample.messages[0]
    words = f"Reports: {' '.join(sample.references)} {first.text}"
    return replace(sample, messages=(replace(first, parts=(0, words)), *sample.messages[1:]))


def study(samples: list[Sample], answers: dict[tuple[str, int], tuple[str, ...]], **more: Any) -> Study:
    """Answers as (unaided, unaided_degraded, aided, aided_degraded) for each (sample, turn)."""
    said = {name: {key: each[at] for key, each in answers.items()} for at, name in enumerate(reliance.SETS)}
    return Study(samples=samples, said=said, aided=aided, unaided=lambda s: s, degrade=NOISE, **more)


CASE = [question("a", Y, N, Y), question("b", N), question("c", Y), question("d", N), question("e", Y)]
ANSWERS = {
    # right answer, then what was said: unaided, unaided and degraded, aided, aided and degraded
    ("a", 0): (Y, N, Y, Y),  # Yes: noised; cross_modality
    ("a", 1): ("No.", N, Y, N),  # No: over_reliance
    ("a", 2): (N, Y, "yes", N),  # Yes: under_use
    ("b", 0): (N, "Lungs", N, N),  # No: noised, for words that say nothing are wrong; cross_modality
    ("c", 0): (N, N, N, N),  # Yes: nothing is right
    ("d", 0): (N, N, "", N),  # No: over_reliance, but nothing was said
    ("e", 0): (N, N, Y, Y),  # Yes: under_use; cross_modality
}
ALL = dict.fromkeys(reliance.RULES, 1.0)


def test_the_hand_made_case_gives_these_pairs_and_no_other() -> None:
    made = build(study(CASE, ANSWERS), ALL)
    shown = {
        kind: [(p.id, p.chosen, p.rejected, p.rejected_images) for p in each.pairs]
        for kind, each in made.items()
    }
    assert shown == {
        "noised": [("a/noised-0", Y, N, NOISE), ("b/noised-0", N, "Lungs", NOISE)],
        "over_reliance": [("a/over_reliance-1", "No.", Y, None)],
        "under_use": [("a/under_use-2", "yes", N, None), ("e/under_use-0", Y, N, None)],
        "cross_modality": [shown["cross_modality"][0]],  # int(0.5 * (1 + 2)) of three
    }
    assert shown["cross_modality"][0] in [
        ("a/cross_modality-0", Y, Y, NOISE),
        ("b/cross_modality-0", N, N, NOISE),
        ("e/cross_modality-0", Y, Y, NOISE),
    ]
    assert {kind: dict(each.counts) for kind, each in made.items()} == {
        "noised": {"turns": 7, "made": 2},
        "cross_modality": {"unhelped": 0, "turns": 7, "made": 1, "cut": 2},
        "over_reliance": {"unhelped": 0, "turns": 7, "empty": 1, "made": 1},
        "under_use": {"unhelped": 0, "turns": 7, "made": 2},
    }


def test_a_pair_stands_on_its_own_turn_with_right_answers_before_it() -> None:
    made = build(study(CASE, ANSWERS), ALL)
    (pair,) = made["over_reliance"].pairs
    assert [m.text for m in pair.prompt] == ["Reports: Clear. Is it 0?", "Yes", "Is it 1?"]
    assert (pair.patient, pair.images, pair.why) == ("p-a", (PICTURE,), "over_reliance")
    assert pair.chosen_images is None
    assert made["noised"].pairs[0].prompt[0].parts == (0, "Is it 0?")
    (third, alone) = made["under_use"].pairs
    assert [m.text for m in third.prompt] == ["Reports: Clear. Is it 0?", "Yes", "Is it 1?", "No", "Is it 2?"]
    assert [m.text for m in alone.prompt] == ["Reports: Clear. Is it 0?"]


def test_reports_are_right_from_the_mean_of_both_sets_on() -> None:
    """Agreements by ROUGE-L: good 1, half 2/3, bad 0. Mean of (1, 2/3, 0) and (0, 1, 0): 4/9."""
    true = "left effusion"
    samples = [report(name, true) for name in "xyz"]
    good, half, bad = true, "left", "normal"
    answers = {
        ("x", 0): (good, "", bad, ""),
        ("y", 0): (half, "", good, ""),
        ("z", 0): (bad, "", bad, ""),
    }
    judge = Judge(metric="rouge_l")
    made = build(study(samples, answers, judge=judge), {"over_reliance": 1, "under_use": 1})
    (over,) = made["over_reliance"].pairs
    assert (over.id, over.chosen, over.rejected) == ("x/over_reliance-0", true, bad)
    assert made["under_use"].pairs == []
    strict = replace(study(samples, answers), judge=Judge(metric="rouge_l", threshold=0.9))
    made = build(strict, {"over_reliance": 1, "under_use": 1})
    (under,) = made["under_use"].pairs
    assert (under.id, under.chosen, under.rejected) == (
        "y/under_use-0",
        true,
        half,
    )  # the truth, not its answer


def test_the_mean_of_equal_answers_is_reached_by_all() -> None:
    samples = [report(f"r{i}", "one two three four five six seven") for i in range(3)]
    same = {
        (s.id, 0): ("one two three four five",) * 4 for s in samples
    }  # six times 5/6: a mean that rounds up
    made = compare(study(samples, same, judge=Judge(metric="rouge_l")), "cross_modality", samples)
    assert len(made.pairs) == 3


def test_reports_and_open_answers_have_means_of_their_own() -> None:
    asked = question("q", "liver")
    answers = {
        ("q", 0): ("a liver", "", "spleen", ""),
        ("r", 0): ("effusion and some more words that say nothing", "", "normal", ""),
    }
    samples = [asked, report("r", "left effusion")]
    made = build(study(samples, answers, judge=Judge(metric="rouge_l")), {"over_reliance": 1})
    assert [(p.id, p.chosen) for p in made["over_reliance"].pairs] == [
        ("q/over_reliance-0", "a liver"),  # a question's right answer is the model's own
        ("r/over_reliance-0", "left effusion"),
    ]


def test_equal_answers_under_one_image_are_counted_and_left_out() -> None:
    samples = [report("r", "left effusion"), report("s", "left effusion")]
    answers = {
        ("r", 0): ("left effusion", "", "left effusion", ""),
        ("s", 0): ("left effusion today", "", "left", ""),
    }
    asked = study(samples, answers, judge=Judge(metric="rouge_l", threshold=1.5))
    assert compare(asked, "over_reliance", samples).pairs == []
    flip = {("r", 0): (True, False), ("s", 0): (True, False)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reliance, "rightness", lambda *_: flip)
        made = compare(asked, "over_reliance", samples)
    assert [p.id for p in made.pairs] == ["s/over_reliance-0"]
    assert made.counts["same"] == 1


def test_pairs_with_reports_need_reports() -> None:
    samples = [question("a", Y, references=()), question("b", Y)]
    answers = {("a", 0): (Y, N, N, N), ("b", 0): (Y, N, N, N)}
    made = build(study(samples, answers), ALL)
    assert [p.id for p in made["over_reliance"].pairs] == ["b/over_reliance-0"]
    assert made["over_reliance"].counts["unhelped"] == 1
    assert [p.id for p in made["noised"].pairs] == ["a/noised-0", "b/noised-0"]


def test_shares_and_topics_choose_the_turns() -> None:
    made = build(study(CASE, ANSWERS), {"under_use": 0.2, "noised": 0.4})
    assert [p.id for p in made["under_use"].pairs] == ["a/under_use-2"]
    assert made["noised"].counts["turns"] == 4
    one = build(study(CASE, ANSWERS, topics=("topic2",)), {"under_use": 1})
    assert [p.id for p in one["under_use"].pairs] == ["a/under_use-2"]
    assert one["under_use"].counts["turns"] == 1


def test_the_cut_depends_on_seed_and_id_alone() -> None:
    samples = [question(f"s{i:02}", Y) for i in range(40)]
    answers = {(s.id, 0): (Y, Y, Y, Y) for s in samples}
    whole = compare(study(samples, answers), "cross_modality", samples)
    assert len(whole.pairs) == 40
    kept = {seed: {p.id for p in cut(whole, 10, seed).pairs} for seed in (0, 1)}
    assert len(kept[0]) == len(kept[1]) == 10
    assert kept[0] != kept[1]
    assert {p.id for p in cut(Made(whole.pairs[::-1]), 10, 0).pairs} == kept[0]
    assert {p.id for p in cut(whole, 5, 0).pairs} < kept[0]
    alone = build(study(samples, answers), {"cross_modality": 1})
    assert len(alone["cross_modality"].pairs) == 40  # nothing to stand in proportion to


def test_even_pairs_prefer_yes_as_often_as_no() -> None:
    timid = {f"s{i:02}": Y for i in range(9)} | {f"s{i:02}": N for i in range(9, 12)}
    samples = [question(name, right) for name, right in timid.items()]
    samples += [report("r0", "Left effusion. No nodule."), report("r1", "No effusion. No nodule.")]
    answers = {(name, 0): (right, right, N if right == Y else Y, right) for name, right in timid.items()}
    answers |= {("r0", 0): ("Left effusion. No nodule.",) * 2 + ("Clear.",) * 2}
    answers |= {("r1", 0): ("No effusion. No nodule.",) * 2 + ("Left.",) * 2}
    asked = study(samples, answers, judge=Judge(threshold=0.5))
    every = build(asked, {"over_reliance": 1})["over_reliance"]
    assert [p.chosen for p in every.pairs[:-2]] == [Y] * 9 + [N] * 3
    even = build(replace(asked, even=True), {"over_reliance": 1})["over_reliance"]
    assert [p.chosen for p in even.pairs] == [Y] * 3 + [N] * 3 + [p.chosen for p in every.pairs[-2:]]
    assert even.counts == {"unhelped": 0, "turns": 14, "made": 8, "uneven": 6}
    assert {p.id for p in even.pairs} < {p.id for p in every.pairs}
    other = build(replace(asked, even=True, seed=3), {"over_reliance": 1})["over_reliance"]
    assert [p.chosen for p in other.pairs] == [p.chosen for p in even.pairs]
    assert {p.id for p in other.pairs} != {p.id for p in even.pairs}


def test_a_kind_asks_for_its_two_sets_only() -> None:
    assert sets_of(["noised", "degraded"]) == ["unaided", "unaided_degraded"]
    assert sets_of(["over_reliance"]) == ["unaided", "aided"]
    assert sets_of(["under_use", "cross_modality"]) == ["unaided", "aided", "aided_degraded"]
    assert sets_of(["wrong_finding", "judged"]) == []
