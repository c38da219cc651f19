"""Intervals over patients, paired comparisons, and their repeatability."""

from dataclasses import replace

import numpy as np
import pytest

from sightline import stats
from sightline.errors import DataError
from sightline.metrics.measure import Measure, average
from sightline.metrics.vqa import vqa
from sightline.types import Prediction


def measure(values, patients=None, *, name="accuracy", prefix="s"):
    values = np.asarray(values, dtype=float)
    owners = patients if patients is not None else [f"p{i}" for i in range(len(values))]
    return Measure(
        name=name, statistic=average(values), per_sample=values, patients=tuple(map(str, owners)),
        keys=tuple((f"{prefix}{i:05d}", 0) for i in range(len(values))),
    )  # fmt: skip


def answers(seed, skill=0.7, count=60):
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        for turn, topic in enumerate(("effusion", "nodule")):
            gold = random.choice(["yes", "no"], p=[0.3, 0.7])
            right = random.random() < skill
            said = gold if right else {"yes": "no", "no": "yes"}[gold]
            lead = float(random.normal(1 if said == "yes" else -1))
            made.append(
                Prediction(
                    sample=f"s{i:03d}", patient=f"p{i % 25}", turn=turn, topic=topic, question="Is it?",
                    answer=gold, text=said, choices={"yes": lead, "no": 0.0},
                )
            )  # fmt: skip
    return made


def test_the_bootstrap_equals_scoring_the_repeated_rows():
    turns = answers(0)
    for one in vqa(turns):
        if one.name.startswith("majority_"):
            continue
        (weights,) = stats.resample(one.patients, seed=4, name=one.name, resamples=15)
        draws = stats.bootstrap(one, seed=4, resamples=15)
        chosen = dict(zip(one.keys, range(len(one.keys)), strict=True))
        for row, value in zip(weights, draws, strict=True):
            again = [
                replace(t, sample=f"{t.sample}-{copy}")
                for t in turns
                if (t.sample, t.turn) in chosen
                for copy in range(int(row[chosen[t.sample, t.turn]]))
            ]
            expected = {m.name: m.value() for m in vqa(again)}[one.name]
            assert value == pytest.approx(expected, abs=1e-12)


def test_resamples_draw_whole_patients_as_many_as_there_are():
    patients = ["a", "b", "a", "c", "b"]
    (weights,) = stats.resample(patients, seed=0, name="x", resamples=200)
    assert weights.shape == (200, 5)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert weights.mean() == pytest.approx(1.0, abs=0.15)


def test_chunks_bound_memory_and_hold_all_resamples():
    sizes = [
        w.nbytes for w in stats.resample([str(i) for i in range(20_000)], seed=0, name="x", resamples=250)
    ]
    assert sum(sizes) == 250 * 20_000 * 8
    assert max(sizes) <= 16_000_000


def test_same_seed_same_numbers_and_another_seed_others():
    turns = answers(1)
    one, two = vqa(turns), vqa(turns[::-1])
    for a, b in zip(one, two, strict=True):
        assert stats.score(a, seed=3, resamples=200) == stats.score(b, seed=3, resamples=200)
    assert not np.array_equal(stats.bootstrap(one[0], seed=3), stats.bootstrap(one[0], seed=4))
    renamed = replace(one[0], name="other")
    assert not np.array_equal(stats.bootstrap(one[0]), stats.bootstrap(renamed))


def test_the_numbers_do_not_change_between_versions():
    (weights,) = stats.resample(["a", "b", "c", "d"], seed=0, name="accuracy", resamples=3)
    assert weights.astype(int).tolist() == [[2, 1, 1, 0], [1, 0, 3, 0], [1, 0, 1, 2]]


def test_a_score_counts_rows_and_patients_and_evaluates_parts():
    found = stats.score({m.name: m for m in vqa(answers(2))}["balanced_accuracy"], resamples=300)
    assert found.n == 120
    assert found.patients == 25
    assert set(found.parts) == {"effusion", "nodule"}
    assert found.value == pytest.approx(np.mean(list(found.parts.values())))
    low, high = found.interval
    assert 0.4 < low < found.value < high < 1.0
    assert np.mean(found.per_sample) == pytest.approx(found.value)


def test_parts_have_intervals_of_their_own():
    one = {m.name: m for m in vqa(answers(2))}["balanced_accuracy"]
    parts = stats.score_parts(one, resamples=300)
    whole = stats.score(one, resamples=300)
    for name, part in parts.items():
        assert part.value == whole.parts[name]
        assert part.interval[0] <= part.value <= part.interval[1]
        assert part.interval[1] - part.interval[0] > whole.interval[1] - whole.interval[0]


def test_clusters_widen_the_interval():
    random = np.random.default_rng(0)
    values = np.repeat(random.integers(0, 2, 30), 10)
    apart = stats.score(measure(values)).interval
    together = stats.score(measure(values, np.repeat(np.arange(30), 10))).interval
    assert together[1] - together[0] > 2 * (apart[1] - apart[0])


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    random = np.random.default_rng(7)
    covered = 0
    for run in range(200):
        skill = random.beta(7, 3, size=50)  # mean 0.7, one for each patient
        values = random.random((50, 4)) < skill[:, None]
        one = measure(values.ravel(), np.repeat(np.arange(50), 4))
        low, high = stats.score(one, seed=run, resamples=200).interval
        covered += low <= 0.7 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_measure_that_never_varies_has_an_interval_without_width():
    assert stats.score(measure([0.3] * 20)).interval == (pytest.approx(0.3), pytest.approx(0.3))
    low, high = stats.score(measure([0.1] * 7)).interval
    assert low == high


def test_one_patient_gives_no_interval():
    assert stats.score(measure([0, 1, 1], ["p", "p", "p"])).interval is None
    alone = stats.paired(measure([0, 1], ["p", "p"]), measure([1, 1], ["p", "p"]))
    assert (alone.low, alone.high) == (None, None)


def test_undefined_resamples_are_dropped_and_counted():
    def rare(weights):
        return np.where(weights[:, 0] > 0, 1.0, np.nan)

    found = stats.score(replace(measure([1, 0, 0, 0]), statistic=rare), resamples=400)
    assert found.interval == (1.0, 1.0)
    assert found.parts[stats.DROPPED] == pytest.approx(400 * (3 / 4) ** 4, abs=45)
    never = replace(measure([1, 0]), statistic=lambda weights: np.full(len(weights), np.nan))
    assert stats.score(never, resamples=10).interval is None


def test_identical_predictions_differ_by_exactly_nothing():
    for one, two in zip(vqa(answers(5)), vqa(answers(5)[::-1]), strict=True):
        found = stats.paired(one, two, resamples=200, permutations=200)
        assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)
        assert (found.p, found.effect, found.patients_needed) == (1.0, None, None)


def test_a_clear_difference_is_found_and_noise_is_not():
    random = np.random.default_rng(2)
    base = (random.random(200) < 0.6).astype(float)
    better = np.where(random.random(200) < 0.4, 1.0, base)
    clear = stats.paired(measure(better), measure(base))
    assert clear.difference == pytest.approx(better.mean() - base.mean())
    assert 0 < clear.low < clear.difference < clear.high
    assert clear.p < 0.001
    noise = stats.paired(measure(base), measure(random.permutation(base)))
    assert noise.low < 0 < noise.high
    assert noise.p > 0.05


def test_permutation_p_is_right_for_a_case_counted_by_hand():
    ones, zeros = measure([1, 1, 1, 1]), measure([0, 0, 0, 0])
    assert stats.paired(ones, zeros, permutations=20_000).p == pytest.approx(2 / 2**4, abs=0.01)
    split = measure([1, 0]), measure([0, 1])
    assert stats.paired(*split).p == 1.0


def test_permutation_p_values_are_uniform_where_there_is_no_difference():
    random = np.random.default_rng(11)
    owners = np.repeat(np.arange(40), 3)
    p_values = [
        stats.paired(
            measure(random.normal(size=120), owners), measure(random.normal(size=120), owners), seed=run,
            resamples=1, permutations=400,
        ).p
        for run in range(200)
    ]  # fmt: skip
    assert 0.01 <= np.mean(np.array(p_values) < 0.05) <= 0.1
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.07)


def test_permutation_exchanges_patients_not_turns():
    owners = np.repeat(["a", "b"], 50)
    found = stats.paired(measure(np.ones(100), owners), measure(np.zeros(100), owners))
    assert found.p == pytest.approx(0.5, abs=0.03)


def test_rows_are_matched_by_key_not_by_place():
    values = np.random.default_rng(0).random(30)
    one = measure(values)
    order = np.random.default_rng(1).permutation(30)
    two = Measure(
        name="accuracy", statistic=average(values[order]), per_sample=values[order],
        keys=tuple(one.keys[i] for i in order), patients=tuple(one.patients[i] for i in order),
    )  # fmt: skip
    found = stats.paired(one, two, resamples=100)
    assert (found.difference, found.p) == (pytest.approx(0.0, abs=1e-12), 1.0)
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12)


def test_unmatched_rows_are_named():
    with pytest.raises(DataError) as caught:
        stats.paired(measure([1, 0, 1]), measure([1, 0]))
    assert "('s00002', 0)" in str(caught.value)
    assert "1 turn(s) on one side only" in str(caught.value)
    assert "same split" in caught.value.remedy


def test_one_turn_of_two_patients_is_refused():
    with pytest.raises(DataError, match="different patients") as caught:
        stats.paired(measure([1, 0]), measure([1, 0], ["p0", "else"]))
    assert "('s00001', 0)" in str(caught.value)


def test_difference_of_differences():
    random = np.random.default_rng(0)
    seeing, blind = random.normal(2, 1, 150), random.normal(0, 1, 150)
    small = random.normal(0.2, 1, 150)
    terms = [measure(v, name="margin") for v in (seeing, blind, small, blind)]
    found = stats.difference_of_differences(*terms)
    assert found.difference == pytest.approx((seeing - small).mean())
    assert 0 < found.low < found.difference < found.high
    assert found.p < 0.001
    assert (found.n, found.patients) == (150, 150)
    again = stats.difference_of_differences(terms[2], terms[3], terms[0], terms[1])
    assert again.difference == pytest.approx(-found.difference)
    none = stats.difference_of_differences(terms[0], terms[1], terms[0], terms[1])
    assert (none.difference, none.low, none.high, none.p) == (0.0, 0.0, 0.0, 1.0)


def test_holm():
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([0.5, 0.9]) == [1.0, 1.0]
    assert stats.holm([]) == []
