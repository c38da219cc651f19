"""Which reports say the same: groups of texts whose words are alike.

Alike is the cosine of the counts of word triples ("shingles", Broder 1997, doi:10.1109/SEQUEN.1997.666900). Pairs are
found without comparing all: a text is looked up only by its rarest shingles, as many as leave a rest too short to
reach the threshold by itself (prefix filtering, Bayardo et al. 2007, doi:10.1145/1242572.1242591); nothing is missed.

Two reports that differ in one word may be alike and contradict each other, so texts in which the rule labeller reads
different findings are never joined.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..metrics.findings import findings

WORDS = 3

Vector = dict[str, float]


def groups(texts: Sequence[str], threshold: float) -> list[int]:
    """The group of each text, numbered by the place of its first text.

    A text joins the first group whose first text is at least that alike to it, so that a group never drifts away from
    what it began with.

    Args:
        texts: normalised and different from each other.
        threshold: least cosine; 1 keeps every text alone.
    """
    if threshold >= 1:
        return list(range(len(texts)))
    counts = [shingles(t) for t in texts]
    common = Counter(s for vector in counts for s in vector)
    leaders: dict[str, list[int]] = defaultdict(list)
    found: list[int] = []
    said: list[tuple[int | None, ...]] = []
    for place, vector in enumerate(counts):
        rare = _rarest(vector, common, threshold)
        said.append(tuple(findings(texts[place]).values()))
        near = sorted({leader for s in rare for leader in leaders[s]})
        alike = (n for n in near if said[n] == said[place] and cosine(counts[n], vector) >= threshold)
        group = next(alike, place)
        found.append(group)
        if group == place:
            for s in rare:
                leaders[s].append(place)
    return found


def shingles(text: str) -> Vector:
    """How often each triple of words stands in a text, scaled to length 1; shorter texts are one shingle."""
    words = text.split()
    triples = [" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1))]
    counts = Counter(triples)
    length = math.sqrt(sum(c * c for c in counts.values()))
    return {s: c / length for s, c in counts.items()}


def cosine(one: Vector, other: Vector) -> float:
    """Of two vectors of length 1."""
    small, large = sorted((one, other), key=len)
    return math.fsum(v * large[s] for s, v in small.items() if s in large)


def _rarest(vector: Vector, common: Counter[str], threshold: float) -> list[str]:
    """The shingles, rarest first, without which the rest is shorter than the threshold."""
    order = sorted(vector, key=lambda s: (common[s], s))
    rest = 1.0
    for count, shingle in enumerate(order):
        if rest < threshold * threshold - 1e-9:
            return order[:count]
        rest -= vector[shingle] ** 2
    return order
