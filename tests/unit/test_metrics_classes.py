"""Classes and grades: every number equals scikit-learn's; reading of answers; the confusion matrix."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from sightline import plugins
from sightline.metrics.classes import UNREAD, classes, named
from sightline.types import Prediction

KNEE = ["Normal", "Doubtful", "Mild", "Moderate", "Severe"]
SKIN = ["Actinic keratosis", "Basal cell carcinoma", "Melanoma", "Nevus", "Squamous cell carcinoma"]


def answers(gold, said, names, topic, graded=True) -> list[Prediction]:
    return [
        Prediction(
            sample=f"s{i:03d}", patient=f"p{i // 3:03d}", turn=0, topic=topic, question="Which class is shown?",
            answer=names[g], text="I cannot tell." if s < 0 else f"{names[s]}.",
            attributes={"grade": str(g)} if graded else {},
        )
        for i, (g, s) in enumerate(zip(gold, said, strict=True))
    ]  # fmt: skip


def drawn(seed: int, silent: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 5, 200)
    said = np.clip(gold + rng.integers(-2, 3, 200), 0, 4)
    said[rng.random(200) < 0.1] = -1 if silent else 0
    return gold, said


def score(made, **options) -> dict[str, float]:
    return {m.name: m.value() for m in classes(made, **options)}


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_number_is_that_of_scikit_learn(seed, silent):
    gold, said = drawn(seed, silent)
    found = score(answers(gold, said, KNEE, "grade"))
    far = np.where(gold >= 2, 0, 4)  # an answer without a class counts as the grade that is farthest
    instead = np.where(said < 0, far, said)
    assert found == pytest.approx(
        {
            "grade_accuracy": sk.accuracy_score(gold, said),
            "grade_balanced_accuracy": sk.recall_score(
                gold, said, labels=range(5), average="macro", zero_division=0
            ),
            "grade_macro_f1": sk.f1_score(gold, said, labels=range(5), average="macro"),
            "grade_kappa": sk.cohen_kappa_score(gold, instead, weights="quadratic"),
            "grade_unread": (said < 0).mean(),
            "majority_grade_accuracy": np.bincount(gold).max() / 200,
        },
        abs=1e-12,
    )
    if not silent:
        assert found["grade_balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(gold, said))


def test_resampled_numbers_are_those_of_repeated_rows():
    gold, said = drawn(3, False)
    times = np.random.default_rng(4).integers(0, 4, 200)
    repeated = np.repeat(gold, times), np.repeat(said, times)
    found = {
        m.name: m.statistic(times[None].astype(float))[0] for m in classes(answers(gold, said, KNEE, "grade"))
    }
    assert found["grade_macro_f1"] == pytest.approx(sk.f1_score(*repeated, average="macro"))
    assert found["grade_kappa"] == pytest.approx(sk.cohen_kappa_score(*repeated, weights="quadratic"))
    assert found["grade_balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(*repeated))


def test_the_table_is_the_confusion_matrix_in_the_order_of_the_grades():
    gold, said = drawn(5, True)
    (accuracy,) = [m for m in classes(answers(gold, said, KNEE, "grade")) if m.name == "grade_accuracy"]
    table = accuracy.tables["confusion"]
    assert table["rows"] == KNEE
    assert table["columns"] == [*KNEE, UNREAD]
    expected = sk.confusion_matrix(gold, np.where(said < 0, 5, said), labels=range(6))[:5]
    assert table["counts"] == expected.tolist()


def test_classes_without_an_order_have_no_kappa_and_one_can_be_given():
    gold, said = drawn(6, False)
    made = answers(gold, said, SKIN, "diagnosis", graded=False)
    found = score(made)
    assert set(found) == {
        "diagnosis_accuracy", "diagnosis_balanced_accuracy", "diagnosis_macro_f1", "diagnosis_unread",
        "majority_diagnosis_accuracy",
    }  # fmt: skip
    assert found["diagnosis_macro_f1"] == pytest.approx(sk.f1_score(gold, said, average="macro"))
    told = score(made, order=SKIN)
    assert told["diagnosis_kappa"] == pytest.approx(sk.cohen_kappa_score(gold, said, weights="quadratic"))


def test_both_tasks_of_a_merged_data_set_and_another_topic():
    gold, said = drawn(7, False)
    both = answers(gold, said, KNEE, "grade") + [
        Prediction(**{**{f: getattr(p, f) for f in p.__dataclass_fields__}, "sample": f"t{i}"})
        for i, p in enumerate(answers(gold, said, SKIN, "diagnosis", graded=False))
    ]
    assert {name.split("_")[0] for name in score(both)} == {"grade", "majority", "diagnosis"}
    assert "stage_accuracy" in score(answers(gold, said, KNEE, "stage"), topic="stage")
    assert score(answers(gold, said, KNEE, "stage")) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Melanoma", 2), ("melanoma.", 2), ("This is a melanoma, most likely.", 2), ("squamous cell carcinoma", 4),
        ("Melanoma or nevus", None), ("A carcinoma", None), ("", None), ("It shows a Basal Cell Carcinoma", 1),
        ("melanomas", None),
    ],
)  # fmt: skip
def test_reading_of_names(text, expected):
    assert named(text, [name.lower() for name in SKIN]) == expected


def test_names_within_names_and_chinese_names():
    assert named("moderate to severe stenosis", ["stenosis", "severe stenosis"]) == 1
    assert named("图中是黑色素瘤。", ["黑色素瘤", "色素痣"]) == 0
    assert named("色素痣还是黑色素瘤", ["黑色素瘤", "色素痣"]) is None


@pytest.mark.parametrize(
    ("text", "right"), [("Grade 3", True), ("KL 3.", True), ("3", True), ("grade 2 or 3", False)]
)
def test_a_grade_may_be_given_as_its_number(text, right):
    made = answers([0, 1, 2, 3, 4], [0, 1, 2, 3, 4], KNEE, "grade")
    fourth = Prediction(**{**{f: getattr(made[3], f) for f in made[3].__dataclass_fields__}, "text": text})
    found = score([*made[:3], fourth, made[4]])
    assert found["grade_accuracy"] == pytest.approx(1.0 if right else 0.8)
    assert plugins.load("metrics", "classes").attributes == ("grade",)
