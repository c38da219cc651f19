"""The question-answering metric: what it measures, leaves out and refuses."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.metrics.vqa import vqa
from sightline.types import Prediction


def said(sample, answer, text, topic="nodule", question="Is there a nodule?", **more):
    return Prediction(
        sample=sample, patient=f"p{sample}", turn=more.pop("turn", 0), question=question, answer=answer,
        text=text, topic=topic, **more,
    )  # fmt: skip


def measures(predictions, **options):
    return {m.name: m for m in vqa(predictions, **options)}


FOUR = [said("a", "Yes.", "Yes"), said("b", "Yes.", "No"), said("c", "No.", "No."), said("d", "No.", "No")]


def test_values_by_hand():
    found = measures(FOUR)
    assert found["accuracy"].value() == 0.75
    assert found["balanced_accuracy"].value() == 0.75
    assert found["vqa_f1"].value() == pytest.approx(2 / 3)
    assert found["exact_match"].value() == 0.75
    assert found["majority_accuracy"].value() == 0.5
    assert found["majority_balanced_accuracy"].value() == 0.5
    assert found["majority_exact_match"].value() == 0.5
    assert set(found) == {
        "accuracy", "unparsed", "balanced_accuracy", "vqa_f1", "exact_match", "majority_accuracy",
        "majority_balanced_accuracy", "majority_exact_match",
    }  # fmt: skip


def test_an_empty_answer_is_wrong_and_counted_as_unparsed():
    silent = [replace(p, text="") for p in FOUR]
    found = measures(silent)
    assert found["accuracy"].value() == 0.0
    assert found["balanced_accuracy"].value() == 0.0
    assert found["vqa_f1"].value() == 0.0
    assert found["unparsed"].value() == 1.0
    assert not found["unparsed"].higher_is_better


def test_topics_with_one_class_are_left_out_and_named():
    found = measures([*FOUR, said("e", "Yes", "Yes", topic="device"), said("f", "No", "Yes", topic="mass")])
    assert found["balanced_accuracy"].left_out == ("device", "mass")
    assert found["balanced_accuracy"].value() == 0.75
    assert set(found["balanced_accuracy"].parts) == {"nodule"}
    assert found["vqa_f1"].left_out == ("mass",)
    assert set(found["accuracy"].parts) == {"device", "mass", "nodule"}


def test_a_constant_yes_does_not_beat_the_baselines():
    many = [said(str(i), "yes" if i % 7 else "no", "yes") for i in range(70)]
    found = measures(many)
    assert found["accuracy"].value() == found["majority_accuracy"].value() == pytest.approx(60 / 70)
    assert found["balanced_accuracy"].value() == 0.5


def test_margin_and_auc_come_from_choices():
    pairs = [("yes", 2.0), ("yes", -1.0), ("no", -1.0), ("no", -3.0)]
    turns = [
        said(str(i), gold, gold, choices={"yes": math.log(0.5) + lead, "no": math.log(0.5)})
        for i, (gold, lead) in enumerate(pairs)
    ]
    found = measures(turns)
    assert found["margin"].value() == pytest.approx((2 - 1 + 1 + 3) / 4)
    assert found["margin"].unit == "nats"
    assert found["auc"].value() == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_a_log_probability_that_is_not_finite_names_its_turn():
    broken = said("scan-7", "yes", "yes", choices={"yes": -math.inf, "no": -math.inf}, turn=3)
    with pytest.raises(DataError) as caught:
        vqa([broken])
    assert "sample scan-7, turn 3, field choices" in str(caught.value)
    assert "yes=-inf" in str(caught.value)


def test_open_questions_and_reports():
    turns = [
        said("a", "left lung", "the left lobe", topic="organ", question="Where is it?"),
        said("b", "liver", "Liver.", topic="organ", question="Which organ?"),
        said("a", "Left effusion. No nodule.", "Left effusion. Nodule.", topic="report", turn=1),
        said("b", "No effusion. Nodule.", "Right effusion. Nodule.", topic="report", turn=1),
    ]
    found = measures(turns)
    assert "accuracy" not in found
    assert "margin" not in found
    assert found["exact_match"].value() == 0.5
    assert len(found["exact_match"].keys) == 2
    assert found["token_f1"].value() == pytest.approx((0.5 + 1) / 2)
    f1 = found["finding_f1"]
    assert f1.value() == pytest.approx((1.0 + 2 / 3) / 2)
    assert f1.left_out == ("effusion_right", "cardiomegaly", "pneumothorax", "device")
    parts = {name: float(part(np.ones((1, 2)))[0]) for name, part in f1.parts.items()}
    assert parts == {"effusion_left": 1.0, "nodule": pytest.approx(2 / 3)}


def test_the_report_topic_is_an_option():
    turns = [said("a", "Left effusion.", "Left effusion.", topic="impression")]
    assert "finding_f1" in measures(turns, report="impression")
    assert "finding_f1" not in measures(turns)


def test_per_sample_values_average_to_the_measure():
    random = np.random.default_rng(3)
    turns = [
        said(f"{i:03d}", random.choice(["yes", "no"]), random.choice(["yes", "no", ""]), topic=f"t{i % 3}")
        for i in range(90)
    ]
    averaged = [m for m in vqa(turns) if m.per_sample is not None]
    assert {"balanced_accuracy", "accuracy", "exact_match"} <= {m.name for m in averaged}
    for measure in averaged:
        assert np.mean(measure.per_sample) == pytest.approx(measure.value(), abs=1e-12)


def test_two_answers_to_one_turn_are_refused():
    with pytest.raises(DataError) as caught:
        vqa([FOUR[0], replace(FOUR[0], image="black", model="taught")])
    assert "sample a, turn 0" in str(caught.value)
    assert "one image condition at a time" in str(caught.value)
