"""Which reports say the same: against all pairs, and never where findings differ."""

from __future__ import annotations

import random

import pytest

from sightline.metrics.findings import findings
from sightline.retrieval.collapse import cosine, groups, shingles
from sightline.retrieval.report import normalise

WORDS = [
    "lungs",
    "clear",
    "heart",
    "normal",
    "no",
    "effusion",
    "left",
    "small",
    "nodule",
    "seen",
    "sharp",
    "device",
]


def texts(count: int, seed: int) -> list[str]:
    """Random reports, many of them an earlier one with a word changed; all different."""
    source = random.Random(seed)
    made: list[str] = []
    while len(made) < count:
        words = source.choices(WORDS, k=source.randint(2, 25))
        if made and source.random() < 0.6:
            words = source.choice(made).split()
            words[source.randrange(len(words))] = source.choice(WORDS)
        if (text := " ".join(words)) not in made:
            made.append(text)
    return made


def by_all_pairs(given: list[str], threshold: float) -> list[int]:
    found: list[int] = []
    for place, text in enumerate(given):
        leaders = sorted(set(found))
        alike = [
            n
            for n in leaders
            if cosine(shingles(given[n]), shingles(text)) >= threshold
            and findings(given[n]) == findings(text)
        ]
        found.append(alike[0] if alike else place)
    return found


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.9])
def test_nothing_is_missed(threshold: float) -> None:
    joined = 0
    for seed in range(5):
        given = texts(120, seed)
        found = groups(given, threshold)
        assert found == by_all_pairs(given, threshold)
        joined += len(given) - len(set(found))
    assert joined > 0


def test_one_keeps_them_apart_and_one_word_of_denial_does_too() -> None:
    assert groups(["a b c", "a b c d"], 1.0) == [0, 1]
    long = "the heart is of normal size and the lungs are clear on both sides with"
    assert groups([f"{long} left effusion", f"{long} no left effusion"], 0.7) == [0, 1]
    assert cosine(shingles(f"{long} left effusion"), shingles(f"{long} no left effusion")) > 0.8
    assert groups([f"{long} left effusion", f"{long} a left effusion"], 0.7) == [0, 0]


def test_cosine_by_hand() -> None:
    """a b c d: abc, bcd. a b c e: abc, bce. One of two shared: 1/2."""
    assert cosine(shingles("a b c d"), shingles("a b c e")) == pytest.approx(0.5)
    assert cosine(shingles("a b"), shingles("a b")) == pytest.approx(1.0)
    assert cosine(shingles("a b c"), shingles("c b a")) == 0.0


def test_normalise_keeps_what_matters() -> None:
    assert normalise("  No\tEffusion.\n") == normalise("no effusion") == "no effusion"
    assert normalise("ﬁne") == "fine"
    assert normalise("No effusion. Nodule.") != normalise("No effusion, nodule.")
