"""Texts that are nearly the same, found exactly: the Jaccard similarity of their runs of three words.

Two sets that share a large part share one of their rarest members, so only those need be looked up (prefix filter of
Bayardo, Ma and Srikant 2007, doi:10.1145/1242572.1242591). Nothing is drawn by chance and nothing is missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil

from ..metrics.answers import tokens

RUN = 3
LEAST_WORDS = 8


def near(texts: Sequence[str], least: float) -> list[tuple[int, int, float]]:
    """All pairs of different texts that are alike.

    Args:
        texts: those with fewer than eight words are left out.
        least: smallest similarity, above 0 and at most 1.

    Returns:
        (i, j, similarity) with i < j, sorted.
    """
    runs = {i: each for i, text in enumerate(texts) if (each := shingles(text))}
    often = Counter(run for each in runs.values() for run in each)
    ordered = {i: sorted(each, key=lambda run: (often[run], run)) for i, each in runs.items()}
    holders: dict[str, list[int]] = {}
    found: list[tuple[int, int, float]] = []
    for i in sorted(runs, key=lambda i: (len(runs[i]), i)):
        own = runs[i]
        met: set[int] = set()
        for run in ordered[i][: len(own) - ceil(least * len(own) - 1e-9) + 1]:
            met.update(holders.get(run, ()))
            holders.setdefault(run, []).append(i)
        for j in met:
            other = runs[j]
            if len(other) < least * len(own) - 1e-9:
                continue
            both = len(own & other)
            similarity = both / (len(own) + len(other) - both)
            if similarity >= least:
                found.append((min(i, j), max(i, j), similarity))
    return sorted(found)


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a text in its normal form; none of a text with fewer than eight words."""
    words = tokens(text)
    if len(words) < LEAST_WORDS:
        return frozenset()
    return frozenset(" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1))
