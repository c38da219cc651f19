"""Texts that are nearly the same: exactly those whose runs of three words have that Jaccard similarity."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.data import wording

REPORT = "The heart is of normal size and the lungs are clear without effusion or pneumothorax."


def plain(texts: list[str], least: float) -> list[tuple[int, int, float]]:
    """Every pair looked at."""
    runs = [wording.shingles(text) for text in texts]
    found = []
    for i, one in enumerate(runs):
        for j in range(i + 1, len(runs)):
            if one and runs[j] and (value := len(one & runs[j]) / len(one | runs[j])) >= least:
                found.append((i, j, value))
    return found


def test_the_similarity_by_hand() -> None:
    one = "a1 b1 c1 d1 e1 f1 g1 h1 i1 j1"  # eight runs of three
    other = "a1 b1 c1 d1 e1 f1 g1 h1 i1 k1"  # seven of them, and one more
    assert wording.near([one, other], 0.7) == [(0, 1, pytest.approx(7 / 9))]
    assert wording.near([one, other], 0.78) == []
    assert wording.shingles("one two three four five six seven") == frozenset()
    assert len(wording.shingles("one two three four five six seven eight")) == 6


def test_case_points_and_articles_do_not_count() -> None:
    again = REPORT.upper().replace(".", " !").replace("THE HEART", "Heart")
    assert wording.near([REPORT, again], 1.0) == [(0, 1, 1.0)]


def test_chinese_characters_are_words() -> None:
    one, other = "双肺纹理清晰，未见明显实变影及结节。", "双肺纹理清晰，未见明显实变影或结节。"
    ((i, j, alike),) = wording.near([one, other], 0.5)
    assert (i, j) == (0, 1)
    assert 0.6 < alike < 0.8


@pytest.mark.parametrize("least", [0.3, 0.5, 0.8, 1.0])
def test_the_prefix_filter_misses_nothing(least: float) -> None:
    random = np.random.default_rng(7)
    pool = [f"w{i}" for i in range(30)]
    texts = []
    for _ in range(25):
        words = list(random.choice(pool, size=random.integers(8, 30)))
        texts.append(" ".join(words))
        for _ in range(3):
            at = int(random.integers(0, len(words)))
            words = [*words[:at], str(random.choice(pool)), *words[at + int(random.integers(0, 2)) :]]
            texts.append(" ".join(words))
    texts += ["short", "", *texts[:3]]
    wanted = plain(texts, least)
    assert len(wanted) >= 3
    assert wording.near(texts, least) == wanted
