"""Measures of reliance against numbers counted by hand, their intervals, and how two models are compared on them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sightline import judging, stats
from sightline.errors import DataError
from sightline.metrics.reliance import NAMES, copying, reliance
from sightline.metrics.sentence import agreement
from sightline.types import Prediction

Y, N = "Yes", "No"


def said(texts: str, right: str = Y, patients: int = 100, **more: Any) -> list[Prediction]:
    """One answer a letter: y or n to a yes/no question."""
    return [
        Prediction(
            sample=f"s{i:03}",
            patient=f"p{i % patients}",
            turn=0,
            topic="nodule",
            question="Is there a nodule?",
            answer=right,
            text={"y": Y, "n": N, "-": ""}[letter],
            **more,
        )
        for i, letter in enumerate(texts)
    ]


#                   right answer yes throughout
AIDED = "yyyynnnnyn"
UNAIDED = "yynnyynyyn"  # of the 5 errors with reports 3 were right before; 6 were right before
NOISE = "ynyynnnyyy"  # of the 5 right answers with reports 4 stay right


def test_rates_and_counts_by_hand() -> None:
    over, harm, help_ = reliance(said(AIDED), said(UNAIDED))
    assert [m.name for m in (over, harm, help_)] == ["over_reliance", "harm", "help"]
    assert over.value() == pytest.approx(3 / 5)
    assert harm.value() == pytest.approx(3 / 6)
    assert help_.value() == pytest.approx(2 / 4)
    assert over.parts == {"right_to_wrong": 3, "wrong_to_right": 2, "wrong_aided": 5, "right_unaided": 6}
    assert (over.higher_is_better, harm.higher_is_better, help_.higher_is_better) == (False, False, True)
    (copied,) = copying(said(AIDED), {"noise": said(NOISE), "black": said("n" * 10)})
    assert copied.value() == pytest.approx(4 / 5)
    assert not copied.higher_is_better
    ones = [[1.0] * 10]
    assert {k: float(v(np.array(ones))[0]) for k, v in copied.parts.items() if callable(v)} == {
        "noise": pytest.approx(0.8),
        "black": 0.0,
    }
    assert {over.name, harm.name, help_.name, copied.name} == set(NAMES)


def test_silence_is_no_yes_and_order_does_not_count() -> None:
    over, *_ = reliance(said("--yy")[::-1], said("ynyn"))
    assert over.value() == pytest.approx(1 / 2)


def test_open_answers_count_by_their_normal_form_and_reports_do_not() -> None:
    where = replace(
        said("y")[0], question="Where is it?", answer="the left lung", topic="place", text="Left lung."
    )
    told = replace(said("y")[0], turn=1, question="Describe.", answer="A.", topic="report", text="B.")
    over, harm, _ = reliance([replace(where, text="right lung"), told], [where, told])
    assert (over.value(), harm.value(), len(over.keys)) == (1.0, 1.0, 1)
    assert reliance([told], [told]) == []
    assert copying([told], {"noise": [told]}) == []
    assert copying([where], {}) == []


def test_a_rate_among_none_is_undefined_and_has_no_row() -> None:
    over, harm, help_ = reliance(said("yyyy"), said("yyyn"))
    assert math.isnan(over.value())
    assert (harm.value(), help_.value()) == (0.0, 1.0)
    measures = judging.measure_reliance({("m", "clean"): said("yyyy"), ("m", "unaided"): said("yyyn")})
    rows, _ = judging.rows(measures, 0, 100)
    assert {row["metric"] for row in rows} == {"harm", "help"}


def test_sets_about_other_turns_are_refused() -> None:
    with pytest.raises(DataError, match="not about the same turns"):
        reliance(said("yy"), said("yyy"))


def test_the_interval_is_over_patients_and_covers_the_truth() -> None:
    """200 answers of 20 patients that always err alike: the interval is far wider than that of 200 strangers."""
    aided, unaided = "n" * 200, ("y" * 10 + "n" * 10) * 10
    clustered, *_ = reliance(said(aided, patients=20), said(unaided, patients=20))
    alone, *_ = reliance(said(aided, patients=200), said(unaided, patients=200))
    wide, narrow = (stats.score(m, seed=0, resamples=2000) for m in (clustered, alone))
    assert wide.value == narrow.value == 0.5
    assert wide.interval is not None
    assert narrow.interval is not None
    assert wide.interval[0] < 0.5 < wide.interval[1]
    # standard errors: sqrt(0.25 / 20) = 0.112, sqrt(0.25 / 200) = 0.035
    assert wide.interval[1] - wide.interval[0] == pytest.approx(2 * 1.96 * 0.112, abs=0.06)
    assert narrow.interval[1] - narrow.interval[0] == pytest.approx(2 * 1.96 * 0.0354, abs=0.02)


def test_two_models_are_compared_in_pairs() -> None:
    """Before alignment all 60 errors come from reports, after it 6 of 33."""
    unaided = "y" * 60 + "n" * 40
    before, after = "n" * 60 + "y" * 40, "n" * 6 + "y" * 54 + "n" * 27 + "y" * 13
    made = {
        ("taught", "clean"): said(before),
        ("taught", "unaided"): said(unaided),
        ("aligned", "clean"): said(after),
        ("aligned", "unaided"): said(unaided),
    }
    measures = judging.measure(made, ["vqa"])
    for side, named in judging.measure_reliance(made).items():
        measures[side] |= named
    rows, parts = judging.rows(measures, 0, 500)
    values = {(r["model"], r["metric"]): r["value"] for r in rows if r["image"] == "clean"}
    assert values["taught", "over_reliance"] == 1.0
    assert values["aligned", "over_reliance"] == pytest.approx(6 / 33)
    assert {
        "model": "aligned",
        "image": "clean",
        "metric": "over_reliance",
        "part": "right_to_wrong",
        "value": 6.0,
    } in parts
    paired = {
        (r["question"], r["metric"]): r for r in judging.comparisons(measures, ["taught", "aligned"], 0, 500)
    }
    fall = paired["aligned minus taught", "over_reliance"]
    assert fall["difference"] == pytest.approx(6 / 33 - 1)
    assert fall["high"] < 0
    assert fall["test"] == "influence"
    assert fall["p"] < 0.01
    gain = paired["aligned: clean minus unaided", "accuracy"]
    assert gain["difference"] == pytest.approx(0.67 - 0.60)
    assert ("taught: clean minus unaided", "accuracy") in paired
    assert not [question for question, _ in paired if question.startswith("rise of clean over unaided")]


def test_copying_is_measured_with_noise_first_whatever_the_order() -> None:
    made = {("m", i): said(t) for i, t in (("clean", AIDED), ("swapped", "n" * 10), ("noise", NOISE))}
    found = judging.measure_reliance(made)["m", "clean"]
    assert set(found) == {"copy_reference"}
    assert found["copy_reference"].value() == pytest.approx(0.8)
    assert list(found["copy_reference"].parts) == ["noise", "swapped"]


@pytest.mark.parametrize(
    ("metric", "text", "value"),
    [
        ("bleu", "Small left effusion. No nodule.", 1.0),
        ("bleu", "", 0.0),
        ("rouge_l", "small effusion", 4 / 7),
        ("finding_f1", "Left effusion. Nodule.", 2 / 3),
        ("finding_f1", "No effusion.", 0.0),
    ],
)
def test_agreement_of_one_answer(metric: str, text: str, value: float) -> None:
    assert agreement(metric, text, "Small left effusion. No nodule.") == pytest.approx(value)


def test_two_reports_without_findings_agree() -> None:
    assert agreement("finding_f1", "No nodule.", "No effusion.") == 1.0
