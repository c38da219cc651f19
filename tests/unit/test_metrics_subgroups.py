"""Groups of a measure against the same numbers worked out by hand, and the equity-scaled score by its formula."""

from __future__ import annotations

import numpy as np
import pytest

from sightline import plugins, stats
from sightline.metrics.measure import Measure, average, mean
from sightline.metrics.subgroups import band, grouped
from sightline.types import Prediction


def answers(rights: dict[str, list[int]], topic: str = "nodule") -> tuple[list[Prediction], dict[str, str]]:
    """Yes/no answers of patients by group, one each: 1 is right; right answers take turns."""
    made, groups = [], {}
    for group, each in rights.items():
        for i, right in enumerate(each):
            gold = "Yes" if i % 2 else "No"
            name = f"{group}{i:03d}"
            groups[name] = group
            made.append(
                Prediction(
                    sample=name, patient=name, turn=0, topic=topic, question="Is there a nodule?", answer=gold,
                    text=gold if right else {"Yes": "No", "No": "Yes"}[gold],
                )
            )  # fmt: skip
    return made, groups


def measured(rights: dict[str, list[int]], name: str = "accuracy", least: int = 10):
    made, groups = answers(rights)
    (measure,) = [m for m in plugins.load("metrics", "vqa").score(made) if m.name == name]
    return measure, grouped(measure, [groups[sample] for sample, _ in measure.keys], least=least)


def test_each_group_scores_as_if_it_were_alone():
    rights = {"A": [1] * 15 + [0] * 5, "B": [1] * 6 + [0] * 6, "C": [1] * 10}
    for name in ("accuracy", "balanced_accuracy", "vqa_f1"):
        measure, found = measured(rights, name)
        for group, each in rights.items():
            alone, _ = answers({group: each})
            (own,) = [m for m in plugins.load("metrics", "vqa").score(alone) if m.name == name]
            assert found.groups[group].value() == pytest.approx(own.value())
            assert found.groups[group].keys == own.keys
        assert measure.value() == pytest.approx(measured(rights, name)[0].value())


def test_gap_worst_and_equity_by_hand():
    measure, found = measured({"A": [1] * 15 + [0] * 5, "B": [1] * 6 + [0] * 6, "C": [1] * 10})
    assert (found.worst, found.best) == ("B", "C")
    assert found.gap is not None
    assert found.equity is not None
    assert found.gap.value() == pytest.approx(0.5)
    overall = 31 / 42
    away = abs(0.75 - overall) + abs(0.5 - overall) + abs(1 - overall)
    assert measure.value() == pytest.approx(overall)
    assert found.equity.value() == pytest.approx(overall / (1 + away))
    assert (found.gap.name, found.equity.name) == ("accuracy_gap", "accuracy_equity")
    assert (found.gap.higher_is_better, found.equity.higher_is_better) == (False, True)


def test_of_errors_the_highest_is_worst_and_nothing_is_scaled():
    made, groups = answers({"A": [1] * 12, "B": [1] * 6 + [0] * 6})
    wrong = np.array([float(p.text != p.answer) for p in made])
    errors = mean("report_errors", made, wrong, higher_is_better=False)
    found = grouped(errors, [groups[p.sample] for p in made])
    assert (found.worst, found.best) == ("B", "A")
    assert found.gap is not None
    assert found.gap.value() == pytest.approx(0.5)
    assert found.equity is None
    nats = grouped(mean("margin", made, wrong, unit="nats"), [groups[p.sample] for p in made])
    assert nats.equity is None


def test_the_unit_does_not_change_the_share_that_equity_takes():
    made, groups = answers({"A": [1] * 12, "B": [1] * 6 + [0] * 6})
    labels = [groups[p.sample] for p in made]
    right = np.array([float(p.text == p.answer) for p in made])
    plain, hundred = (
        grouped(mean("score", made, right * scale, unit=unit), labels).equity
        for scale, unit in ((1, "0-1"), (100, "0-100"))
    )
    assert plain is not None
    assert hundred is not None
    assert hundred.value() == pytest.approx(100 * plain.value())
    assert plain.value() == pytest.approx(0.75 / 1.5)


def test_small_unknown_and_undefined_groups_are_left_out_and_named():
    rights = {"A": [1] * 20, "B": [1] * 5 + [0] * 5, "C": [0] * 9, "": [1] * 30}
    measure, found = measured(rights)
    assert set(found.groups) == {"A", "B"}
    assert found.gap is not None
    assert found.gap.value() == pytest.approx(0.5)
    assert {name: (each.n, each.patients) for name, each in found.left_out.items()} == {
        "C": (9, 9),
        "": (30, 30),
    }
    assert found.left_out["C"].why == "has 9 patient(s), fewer than 10"
    assert found.left_out[""].why == "whose attribute is not known"
    undefined = Measure(
        name="auc", statistic=lambda w: np.where(w[:, :20].sum(axis=1) > 0, 0.5, np.nan), keys=measure.keys[:40],
        patients=measure.patients[:40],
    )  # fmt: skip
    lone = grouped(undefined, ["A"] * 20 + ["B"] * 20)
    assert list(lone.groups) == ["A"]
    assert lone.left_out["B"].why == "has answers on which the score is not defined"
    assert (lone.gap, lone.equity, lone.worst) == (None, None, "")


def test_the_gap_is_resampled_by_patient():
    """Ten patients with ten equal answers each are ten draws, not a hundred: the interval is as wide."""
    rng = np.random.default_rng(3)
    right = {
        group: (rng.random(40) < share).astype(int).tolist() for group, share in (("A", 0.9), ("B", 0.5))
    }
    _, single = measured(right)
    made, groups = answers(right)
    keys = tuple((p.sample, turn) for p in made for turn in range(10))
    values = np.repeat([float(p.text == p.answer) for p in made], 10)
    many = Measure(
        name="accuracy", statistic=average(values), keys=keys, patients=tuple(sample for sample, _ in keys)
    )
    tenfold = grouped(many, [groups[sample] for sample, _ in keys])
    assert single.gap is not None
    assert tenfold.gap is not None
    one, ten = (stats.score(g, seed=0, resamples=400) for g in (single.gap, tenfold.gap))
    assert one.interval == pytest.approx(ten.interval)
    assert one.interval is not None
    assert one.interval[0] < one.value < one.interval[1]
    assert one.interval[1] - one.interval[0] > 0.2


@pytest.mark.parametrize(
    ("value", "width", "expected"),
    [
        ("37", 20, "20-39"), ("40", 20, "40-59"), ("0", 20, "0-19"), ("37.5", 20, "20-39"), ("", 20, ""),
        ("F", 20, "F"), ("0.34", 0.25, "0.25-0.5"), ("37", 0, "37"), ("nan", 20, "nan"),
    ],
)  # fmt: skip
def test_bands(value, width, expected):
    assert band(value, width) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "studies"), [((0.8, 0.6), 300), ((0.8, 0.75), 300), ((0.7, 0.7), 300)])
def test_the_interval_holds_the_true_gap_of_two_groups(rates, studies):
    """60 patients with 1 to 5 answers each, seeds 0 to 299; percentiles of max - min would never hold a gap of 0."""
    held = 0
    for seed in range(studies):
        rng = np.random.default_rng(seed)
        group = np.repeat([0, 1], 30)
        who = np.repeat(np.arange(60), rng.integers(1, 6, 60))
        own = np.clip(np.array(rates)[group] + rng.normal(0, 0.1, 60), 0, 1)
        right = (rng.random(len(who)) < own[who]).astype(float)
        measure = Measure(
            name="accuracy", statistic=average(right), keys=tuple((f"s{i:05d}", 0) for i in range(len(who))),
            patients=tuple(f"p{i:03d}" for i in who),
        )  # fmt: skip
        gap = grouped(measure, ["AB"[group[i]] for i in who]).gap
        assert gap is not None
        low, high = stats.score(gap, seed=seed, resamples=400).interval or (1.0, 0.0)
        held += low <= rates[0] - rates[1] <= high
    assert 0.93 <= held / studies <= 0.98
