"""Ranks by hand, ties, equal texts, chance, and intervals."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from sightline import stats
from sightline.errors import DataError
from sightline.metrics.measure import Measure
from sightline.metrics.recall import later, measures, median, ranks

EYE = np.eye(3)


def named(images: np.ndarray, texts: np.ndarray, groups: str, patients: str = "") -> dict[str, Measure]:
    keys = [(f"s{i}", 0) for i in range(len(groups))]
    found = measures(images, texts, list(groups), keys, list(patients or groups))
    return {m.name: m for m in found}


def chance(measure: Measure) -> float:
    value = measure.parts["chance"]
    assert isinstance(value, float)
    return value


def test_a_rank_counts_the_wrong_ones_in_front() -> None:
    similarity = np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5], [0.9, 0.1, 0.5]])
    assert ranks(similarity, "abc", "abc").tolist() == [1, 3, 2]


def test_the_nearest_right_one_counts() -> None:
    similarity = np.array([[0.2, 0.9, 0.5, 0.8]])
    assert ranks(similarity, "a", "abac").tolist() == [3]
    assert ranks(similarity, "b", "abac").tolist() == [1]


def test_a_tie_counts_against_the_model_also_up_to_rounding() -> None:
    assert ranks(np.array([[0.5, 0.5, 0.4]]), "a", "abc").tolist() == [2]
    assert ranks(np.array([[0.5, 0.5 - 1e-9, 0.4]]), "a", "abc").tolist() == [2]
    assert ranks(np.array([[0.5, 0.5 - 1e-5, 0.4]]), "a", "abc").tolist() == [1]


def test_what_is_not_a_number_counts_against_the_model() -> None:
    assert ranks(np.full((1, 3), np.nan), "a", "abc").tolist() == [3]


def test_a_query_without_a_right_candidate_is_refused() -> None:
    with pytest.raises(DataError, match="no right candidate") as caught:
        ranks(np.zeros((2, 2)), "ax", "ab")
    assert caught.value.found == "1 of 2 queries"


def test_a_constant_encoder_ranks_last() -> None:
    same = np.full((20, 4), 0.5)
    found = named(same, same, "abcdefghijklmnopqrst")
    for way in ("image_to_text", "text_to_image"):
        assert [found[f"r_at_{k}_{way}"].value() for k in (1, 5, 10)] == [0.0, 0.0, 0.0]
        assert found[f"median_rank_{way}"].value() == 20
        assert found[f"mrr_{way}"].value() == pytest.approx(0.05, abs=1e-15)


def test_a_right_encoder_ranks_first() -> None:
    found = named(EYE, EYE, "abc")
    assert {name: m.value() for name, m in found.items()} == {
        f"{name}_{way}": 1.0
        for way in ("image_to_text", "text_to_image")
        for name in ("r_at_1", "r_at_5", "r_at_10", "median_rank", "mrr")
    }


def test_equal_texts_are_one_candidate_and_any_of_their_images_is_right() -> None:
    # Texts 0 and 2 are equal. Image 1 sees them both in front of its own, which counts once.
    texts = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    images = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]])
    found = named(images, texts, "aba")
    assert found["median_rank_image_to_text"].per_sample is None
    assert found["mrr_image_to_text"].per_sample.tolist() == [1.0, 0.5, 0.5]
    # Text 0 finds image 0 at once; text 1 finds image 2 (a wrong one) first; text 2 is as good as text 0.
    assert found["mrr_text_to_image"].per_sample.tolist() == [1.0, 0.5, 1.0]
    assert found["r_at_1_text_to_image"].value() == pytest.approx(2 / 3)
    assert chance(found["r_at_1_image_to_text"]) == pytest.approx(1 / 2)
    assert chance(found["r_at_1_text_to_image"]) == pytest.approx((2 / 3 + 1 / 3 + 2 / 3) / 3)


def test_the_order_of_rows_does_not_matter() -> None:
    draw = np.random.default_rng(0)
    images, texts = draw.normal(size=(12, 5)), draw.normal(size=(12, 5))
    keys = [(f"s{i:02d}", i % 2) for i in range(12)]
    words, patients = list("abcdabcdefgh"), list("ppqqrrssttuu")
    order = draw.permutation(12).tolist()

    def found(at: list[int]) -> list[tuple[str, float, float]]:
        args = ([words[i] for i in at], [keys[i] for i in at], [patients[i] for i in at])
        made = measures(images[at], texts[at], *args)
        assert all(list(m.keys) == sorted(keys) for m in made)
        return [(m.name, m.value(), stats.score(m, resamples=100).interval[0]) for m in made]

    assert found(order) == found(list(range(12)))


@pytest.mark.parametrize(("right", "total"), [(1, 4), (2, 5), (3, 3)])
def test_chance_is_what_all_orders_give(right: int, total: int) -> None:
    places = [min(order.index(i) for i in range(right)) + 1 for order in permutations(range(total))]
    expected = [np.mean([p > r for p in places]) for r in range(total + 1)]
    assert later(np.array([right]), total) == pytest.approx(expected, abs=1e-12)


def test_chance_of_each_measure() -> None:
    found = named(np.eye(4), np.eye(4), "abcd")
    assert chance(found["r_at_1_image_to_text"]) == pytest.approx(0.25)
    assert chance(found["r_at_5_image_to_text"]) == 1.0
    assert chance(found["median_rank_image_to_text"]) == 2.5
    assert chance(found["mrr_image_to_text"]) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_random_embeddings_are_near_chance() -> None:
    draw = np.random.default_rng(1)
    images, texts = draw.normal(size=(1500, 8)), draw.normal(size=(1500, 8))
    words = [f"t{i % 300}" for i in range(1500)]
    found = measures(images, texts, words, [(f"s{i:04d}", 0) for i in range(1500)], words)
    for measure in found:
        low, high = stats.score(measure, resamples=200).interval
        assert low < chance(measure) < high, measure.name


def test_the_median_is_that_of_repeated_rows() -> None:
    values, draw = np.array([5, 1, 9, 2, 2]), np.random.default_rng(2)
    weights = draw.integers(0, 4, size=(50, 5)).astype(float)
    weights[0] = 0
    found = median(values)(weights)
    expected = [np.median(np.repeat(values, w.astype(int))) for w in weights[1:]]
    assert np.isnan(found[0])
    assert found[1:].tolist() == expected


def test_intervals_are_over_patients() -> None:
    images = np.concatenate([np.eye(4)] * 2)
    found = named(images, np.concatenate([np.eye(4), np.eye(4)[::-1]]), "abcdefgh", "ppppqqqq")
    score = stats.score(found["r_at_1_image_to_text"], resamples=200)
    assert (score.patients, score.n) == (2, 8)
    assert score.interval == (0.0, 0.0), "every text has a twin that is as near: ties count against"


def test_no_pairs_are_refused() -> None:
    with pytest.raises(DataError, match="no pairs"):
        measures(np.zeros((0, 2)), np.zeros((0, 2)), [], [], [])
