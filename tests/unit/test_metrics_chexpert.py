"""Errors planted one at a time into reports of generated pictures: each is counted in its own column alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from sightline.data.readers.phantom import phantom
from sightline.data.source import Source
from sightline.metrics.chexpert import chexpert
from sightline.metrics.label_f1 import f1_measures
from sightline.metrics.labels.errors import KINDS, errors
from sightline.metrics.labels.reading import read
from sightline.types import Prediction, Sample

LIKE = 8  # pictures that each kind of error must fit on, at least
Edit = Callable[[list[str]], tuple[list[str], list[str]] | None]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Studies of generated pictures, each with its report."""
    return studies(tmp_path_factory.mktemp("pictures"))


@lru_cache(maxsize=1)
def studies(folder: Path) -> list[Sample]:
    source = Source(root=None, images=folder, seed=4)
    read_ = [sample for sample, _, _ in phantom(source, patients=80, studies=1, size=64)]
    return [sample for sample in read_ if sample.id.endswith("-report")]


def report(sample: Sample) -> list[str]:
    """The sentences of a sample's report."""
    return [f"{part}." for part in sample.messages[-1].text.rstrip(".").split(". ")]


def swap(old: str, new: str) -> Edit:
    """Another sentence in the place of one that the report has."""
    return lambda lines: (lines, [new if line == old else line for line in lines]) if old in lines else None


def lose(old: str) -> Edit:
    """A sentence less."""
    return lambda lines: (lines, [line for line in lines if line != old]) if old in lines else None


def both(first: str, second: str) -> Edit:
    """A sentence in the reference, and another one in its place in the answer; "" is none."""
    return lambda lines: ([*lines, *([first] if first else [])], [*lines, *([second] if second else [])])


def instead(old: str, first: str, second: str) -> Edit:
    """A sentence of the report replaced on both sides."""

    def edit(lines: list[str]) -> tuple[list[str], list[str]] | None:
        if old not in lines:
            return None
        return [first if x == old else x for x in lines], [second if x == old else x for x in lines]

    return edit


PLANTED: dict[str, tuple[str, Edit]] = {
    "invented": ("fracture", both("", "Right rib fracture.")),
    "contradicted": ("cardiomegaly", swap("No cardiomegaly.", "Cardiomegaly.")),
    "omitted": ("lung_lesion", lose("Left nodule.")),
    "denied": ("pneumothorax", swap("Right pneumothorax.", "No pneumothorax.")),
    "hedged": ("lung_lesion", swap("Left nodule.", "Possible left nodule.")),
    "overstated": ("edema", both("Possible edema.", "Edema.")),
    "suspected": ("pneumonia", both("", "Pneumonia cannot be excluded.")),
    "doubt_dropped": ("edema", both("Possible edema.", "")),
    "side_swapped": ("pneumothorax", swap("Left pneumothorax.", "Right pneumothorax.")),
    "side_added": ("lung_lesion", instead("Right nodule.", "Nodule.", "Right nodule.")),
    "side_dropped": ("lung_lesion", swap("Right nodule.", "Nodule.")),
    "side_widened": ("pneumothorax", swap("Left pneumothorax.", "Bilateral pneumothoraces.")),
    "side_narrowed": ("atelectasis", both("Bibasilar atelectasis.", "Left basilar atelectasis.")),
    "degree_raised": ("cardiomegaly", instead("Cardiomegaly.", "Mild cardiomegaly.", "Severe cardiomegaly.")),
    "degree_lowered": (
        "pneumothorax", instead("Left pneumothorax.", "Large left pneumothorax.", "Small left pneumothorax."),
    ),
    "degree_added": ("cardiomegaly", swap("Cardiomegaly.", "Moderate cardiomegaly.")),
    "degree_dropped": ("lung_lesion", instead("Right nodule.", "Small right nodule.", "Right nodule.")),
    "device_invented": ("endotracheal_tube", swap("No device.", "Endotracheal tube in place.")),
    "device_omitted": ("other_device", lose("Device in place.")),
    "device_mistaken": ("chest_tube", instead("Device in place.", "Pacemaker in place.", "Chest tube in place.")),
    "prior_invented": ("report", both("", "Comparison is made with the previous radiograph.")),
    "change_mistaken": (
        "lung_opacity",
        both("The opacity has increased since the prior study.", "The opacity has decreased since the prior study."),
    ),
}  # fmt: skip


def planted(kind: str, pictures: list[Sample]) -> list[tuple[str, str]]:
    """(reference, answer) of every picture whose report takes this error."""
    found = [PLANTED[kind][1](report(sample)) for sample in pictures]
    return [(" ".join(right), " ".join(said)) for pair in found if pair is not None for right, said in [pair]]


def turns(pairs: list[tuple[str, str]]) -> list[Prediction]:
    return [
        Prediction(
            sample=f"s{i:03d}", patient=f"p{i}", turn=0, question="Describe the findings.", answer=right, text=said,
            topic="report",
        )
        for i, (right, said) in enumerate(pairs)
    ]  # fmt: skip


def test_every_kind_is_planted() -> None:
    assert set(PLANTED) == set(KINDS)
    assert len(KINDS) == 22


@pytest.mark.parametrize("kind", KINDS)
def test_each_error_is_counted_in_its_own_column_and_in_no_other(kind: str, pictures: list[Sample]) -> None:
    pairs = planted(kind, pictures)
    assert len(pairs) >= LIKE
    for right, said in pairs:
        assert errors(read(right), read(said)) == {kind: [PLANTED[kind][0]]}
    measures = {m.name: m for m in chexpert(turns(pairs))}
    ones = np.ones((1, len(pairs)))
    parts = {name: float(part(ones)[0]) for name, part in measures["report_errors"].parts.items()}
    assert parts == {name: float(name == kind) for name in KINDS}
    assert measures["report_errors"].value() == 1.0


@pytest.mark.parametrize(
    ("kind", "moved"),
    [
        ("invented", {"finding_hallucination", "hallucinated_reports"}),
        ("omitted", {"finding_omission"}),
        ("hedged", {"finding_doubt_errors"}),
        ("side_swapped", {"side_errors"}),
        ("degree_raised", {"degree_errors"}),
        ("device_mistaken", {"device_errors"}),
        ("prior_invented", {"prior_invented"}),
        ("change_mistaken", {"change_errors"}),
    ],
)
def test_groups_of_errors_move_alone(kind: str, moved: set[str], pictures: list[Sample]) -> None:
    measures = [m for m in chexpert(turns(planted(kind, pictures))) if not m.higher_is_better]
    assert {m.name for m in measures if m.value() > 0} == moved | {"report_errors"}


def test_a_known_prior_may_be_spoken_of() -> None:
    pair = turns([("Left effusion.", "Left effusion, unchanged.")])
    told = {m.name: m.value() for m in chexpert(pair)}
    assert told["prior_invented"] == 1.0
    asked = [
        Prediction(**{**turn_fields(p), "question": "What changed since the prior study?"}) for p in pair
    ]
    assert {m.name: m.value() for m in chexpert(asked)}["prior_invented"] == 0.0


def turn_fields(turn: Prediction) -> dict[str, object]:
    return {
        name: getattr(turn, name)
        for name in ("sample", "patient", "turn", "question", "answer", "text", "topic")
    }


def test_shares_and_f1_on_four_reports() -> None:
    measures = {
        m.name: m
        for m in chexpert(
            turns(
                [
                    ("Left effusion. Cardiomegaly.", "Left effusion."),  # one found, one omitted
                    ("No effusion.", "Left effusion."),  # one contradicted
                    ("Cardiomegaly.", "Cardiomegaly. Edema."),  # one found, one invented
                    ("Left effusion.", ""),  # empty: all omitted
                ]
            )
        )
    }
    assert measures["finding_hallucination"].value() == pytest.approx(2 / 4)
    assert measures["finding_omission"].value() == pytest.approx(2 / 4)
    assert measures["hallucinated_reports"].value() == 0.5
    ones = np.ones((1, 4))
    f1 = {name: float(part(ones)[0]) for name, part in measures["chexpert_f1"].parts.items()}
    assert f1 == pytest.approx({"no_finding": 0.0, "cardiomegaly": 2 / 3, "pleural_effusion": 0.5})
    assert measures["chexpert_f1"].value() == pytest.approx((0 + 2 / 3 + 1 / 2) / 3)
    assert measures["chexpert_f1_5"].value() == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert "edema" in measures["chexpert_f1"].left_out


def test_doubt_may_count_as_presence() -> None:
    pair = turns([("Possible edema.", "Edema."), ("Edema.", "Edema.")])
    f1 = {
        doubt: {m.name: m.value() for m in chexpert(pair, doubt=doubt)}["chexpert_f1_5"]
        for doubt in ("absent", "present")
    }
    assert f1 == pytest.approx({"absent": 2 / 3, "present": 1.0})


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
def test_f1_is_scikit_learns(average: str) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the dev extra")
    random = np.random.default_rng(2)
    gold, said = random.random((50, 5)) < 0.3, random.random((50, 5)) < 0.4
    rows = turns([("", "")] * 50)
    measures = {m.name: m for m in f1_measures(rows, gold, said, list("abcde"), prefix="x", by="no one")}
    weights = random.integers(0, 3, size=50)
    expected = sklearn.f1_score(
        np.repeat(gold, weights, axis=0), np.repeat(said, weights, axis=0), average=average
    )
    name = {"macro": "x_f1", "micro": "x_f1_micro", "weighted": "x_f1_weighted"}[average]
    assert measures[name].statistic(weights[None].astype(float))[0] == pytest.approx(expected)


def test_answers_that_are_no_reports_are_left_alone() -> None:
    assert (
        chexpert([Prediction(sample="s", patient="p", turn=0, question="Where?", answer="lung", text="lung")])
        == []
    )
