"""How many reports are shown: both of MMed-RAG's rules by hand, and laws for thousands of random lists."""

from __future__ import annotations

import math
import random

import pytest

from sightline.errors import RecipeError
from sightline.retrieval.choose import kept

RULES = ("top", "ratio", "gap")


def cases(count: int = 3000) -> list[tuple[list[float], int]]:
    """Falling similarities, with ties and negatives among them, and a k."""
    source = random.Random(5)
    made = []
    for _ in range(count):
        low = source.choice([-1.0, -0.2, 0.0, 0.3])
        values = [
            round(source.uniform(low, 1.0), source.choice([1, 2, 6])) for _ in range(source.randint(1, 12))
        ]
        made.append((sorted(values, reverse=True), source.randint(1, 10)))
    return made


@pytest.mark.parametrize(
    ("similarities", "gamma", "expected"),
    [
        ([0.9, 0.8, 0.6, 0.59, 0.3], 1.5, 2),  # ratios 1, 1.125, 1.5, 1.525, 3: strictly below 1.5
        ([0.9, 0.8, 0.61, 0.59, 0.3], 1.5, 3),  # 0.9 / 0.61 = 1.475
        ([0.9, 0.8, 0.61, 0.59, 0.3], 4.0, 5),
        ([0.9, 0.5, -0.1], 4.0, 2),  # the original keeps the third: 0.9 / -0.1 = -9 < 4
        ([-0.1, -0.2, -0.3], 1.5, 1),
        ([0.0, 0.0], 1.5, 1),
        ([0.7, 0.7, 0.7, 0.2], 1.5, 3),
        ([0.9, 0.8], 0.5, 1),  # the original keeps none
    ],
)
def test_ratio_by_hand(similarities: list[float], gamma: float, expected: int) -> None:
    assert kept(similarities, "ratio", 5, gamma=gamma) == expected


@pytest.mark.parametrize(
    ("similarities", "gamma", "expected"),
    [
        ([0.9, 0.8, 0.4, 0.39], 0.5, 2),  # log(0.9 / 0.8) = 0.118, log(0.8 / 0.4) = 0.693
        ([0.9, 0.8, 0.4, 0.39], 0.7, 4),
        ([0.9, 0.45, 0.3, 0.29], 0.1, 1),
        (
            [0.9, 0.6, 0.4, 0.27],
            0.41,
            4,
        ),  # log 1.5 = 0.405 each time: the ratio rule would stop at the second
        ([0.9, 0.8, 0.0, -0.5], 9.0, 2),
        ([-0.1, -0.2], 9.0, 1),
        ([0.5, 0.5, 0.5], 0.01, 3),
    ],
)
def test_gap_by_hand(similarities: list[float], gamma: float, expected: int) -> None:
    assert kept(similarities, "gap", 5, gamma=gamma) == expected


def test_the_rules_differ_where_similarity_falls_slowly() -> None:
    slow = [0.9, 0.7, 0.55, 0.42]
    assert kept(slow, "ratio", 4) == 2
    assert kept(slow, "gap", 4) == 4
    assert kept(slow, "top", 3) == 3


def test_floor() -> None:
    assert kept([0.9, 0.5, 0.2], "top", 3, floor=0.5) == 2
    assert kept([0.9, 0.5, 0.2], "top", 3, floor=0.95) == 1
    assert kept([0.9, 0.85, 0.2], "ratio", 3, gamma=9.0, floor=0.86) == 1


@pytest.mark.parametrize("rule", RULES)
def test_never_none_never_more_than_k(rule: str) -> None:
    for values, k in cases():
        for gamma in (0.01, 0.4, 1.0, 1.5, 50.0):
            for floor in (None, -0.5, 0.4, 2.0):
                count = kept(values, rule, k, gamma=gamma, floor=floor)
                assert 1 <= count <= min(k, len(values))
    assert kept([], rule, 5) == 0


@pytest.mark.parametrize("rule", ["ratio", "gap"])
def test_a_greater_gamma_never_shows_fewer(rule: str) -> None:
    for values, k in cases():
        counts = [kept(values, rule, k, gamma=g) for g in (0.01, 0.1, 0.5, 1.0, 1.2, 1.5, 3.0, 100.0)]
        assert counts == sorted(counts)


@pytest.mark.parametrize("rule", ["ratio", "gap"])
def test_what_is_not_similar_is_never_added(rule: str) -> None:
    for values, k in cases():
        count = kept(values, rule, k, gamma=1e9)
        assert count == max(1, min(k, sum(v > 0 for v in values)))


@pytest.mark.parametrize("rule", ["ratio", "gap"])
def test_ties_are_shown_together_and_scale_does_not_matter(rule: str) -> None:
    for values, _ in cases(1000):
        count = kept(values, rule, len(values), gamma=0.4 if rule == "gap" else 1.5)
        if values[count - 1] > 0 and count < len(values):
            assert values[count] < values[count - 1]
        scaled = [v * 64 for v in values]  # a power of two changes no quotient
        assert kept(scaled, rule, len(values), gamma=0.4 if rule == "gap" else 1.5) == count


def test_defaults_and_unknown_rules() -> None:
    assert kept([0.9, 0.61, 0.59], "ratio", 3) == 2
    assert kept([0.9, 0.61, 0.40], "gap", 3) == 2
    assert math.log(0.9 / 0.61) < math.log(1.5) < math.log(0.61 / 0.40)
    with pytest.raises(RecipeError, match="no rule 'best'"):
        kept([1.0], "best", 3)
