"""Retrieval between images and texts: recall at k, median rank and mean reciprocal rank, both ways.

The rule. A candidate is right if its text equals the query's word for word, whoever it belongs to: no one could tell
such candidates apart, and an index keeps one of them. Looking for a text, equal texts are one candidate; looking for
an image, each image is one. The rank is 1 + the number of wrong candidates that are as similar as the best right one
or more so, up to rounding: **a tie counts against the model**. An encoder that makes everything alike thus ranks
last, not first.

Chance is what a random order of the same candidates gives: of m candidates with s right ones, the rank is above r
with probability (m-s)/m * (m-s-1)/(m-1) * ... (r factors).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .measure import Key, Measure, Statistic, average

KS = (1, 5, 10)
BLOCK = 1024
ROUNDING = 1e-12
TIE = 1e-6
"""Similarities of unit vectors closer than this are equal: float32 knows no better."""


@dataclass(frozen=True)
class Ranked:
    """Ranks of the queries of one direction.

    Args:
        ranks: [n] whole numbers from 1.
        later: [m + 1] chance, averaged over the queries, that a random order puts the rank above 0, 1, ... m.
    """

    ranks: np.ndarray
    later: np.ndarray


def ranks(similarity: np.ndarray, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
    """The rank of the best right candidate of each query.

    Args:
        similarity: [n, m], larger is nearer.
        queries: [n] texts, or keys of texts: what a right candidate's equals.
        candidates: [m] the same of the candidates.

    Returns:
        [n] whole numbers from 1. A similarity that is not a number counts against the model too.

    Raises:
        DataError: a query without a right candidate.
    """
    _, codes = np.unique(np.array([*queries, *candidates]), return_inverse=True)
    right = codes[: len(queries), None] == codes[None, len(queries) :]  # [n, m]
    if not right.any(axis=1).all():
        raise DataError(
            "a query has no right candidate",
            found=f"{int((~right.any(axis=1)).sum())} of {len(right)} queries",
            expected="candidates that hold the text of every query",
        )
    best = np.where(right, similarity, -np.inf).max(axis=1, keepdims=True)  # [n, 1]
    worse = similarity <= best - TIE
    return 1 + (~worse & ~right).sum(axis=1)


def text_to_image(images: np.ndarray, texts: np.ndarray, groups: Sequence[str]) -> Ranked:
    """Each text looks for an image. See `measures`."""
    found = [ranks(texts[at] @ images.T, groups[at], groups) for at in _blocks(len(texts))]
    _, place, sizes = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    return Ranked(np.concatenate(found), later(sizes[place], len(groups)))


def image_to_text(images: np.ndarray, texts: np.ndarray, groups: Sequence[str]) -> Ranked:
    """Each image looks for a text; equal texts are one candidate. See `measures`."""
    first = {group: i for i, group in reversed(list(enumerate(groups)))}
    names = list(first)
    kept = texts[list(first.values())]  # [texts that differ, width]
    found = [ranks(images[at] @ kept.T, groups[at], names) for at in _blocks(len(images))]
    return Ranked(np.concatenate(found), later(np.ones(len(groups), dtype=int), len(names)))


def later(rights: np.ndarray, candidates: int) -> np.ndarray:
    """The chance that a random order puts the rank above r.

    Args:
        rights: [n] right candidates of each query, from 1.
        candidates: m, how many there are.

    Returns:
        [m + 1], for r = 0 to m, averaged over the queries.
    """
    mean = np.zeros(candidates + 1)
    gone = np.arange(candidates)
    for count, queries in zip(*np.unique(rights, return_counts=True), strict=True):
        factors = np.clip((candidates - count - gone) / (candidates - gone), 0, None)
        mean += queries / len(rights) * np.concatenate([[1.0], np.cumprod(factors)])
    return mean


def measures(
    images: np.ndarray, texts: np.ndarray, groups: Sequence[str], keys: Sequence[Key], patients: Sequence[str]
) -> list[Measure]:
    """All measures of retrieval both ways, ready to be resampled by patient; the part `chance` is beside each.

    Under resampling, queries are drawn and the candidates stay.

    Args:
        images: [n, width], unit embeddings.
        texts: [n, width], the same; row i of both is pair i.
        groups: [n] texts, or keys of texts; equal ones are right for each other.
        keys: [n] what names each pair: its sample and the image's number in it.
        patients: [n] the patient of each pair.

    Returns:
        `r_at_1`, `r_at_5`, `r_at_10`, `median_rank` and `mrr`, each `_image_to_text` and `_text_to_image`.

    Raises:
        DataError: there are no pairs.
    """
    if not len(groups):
        raise DataError("there are no pairs to rank", found="0 pairs", expected="at least one")
    order = sorted(range(len(keys)), key=lambda i: keys[i])
    images, texts = images[order].astype(np.float64), texts[order].astype(np.float64)
    names = [groups[i] for i in order]
    rows = (tuple(keys[i] for i in order), tuple(patients[i] for i in order))
    ways = {"image_to_text": image_to_text, "text_to_image": text_to_image}
    return [each for way, find in ways.items() for each in _of(way, find(images, texts, names), *rows)]


def _of(way: str, found: Ranked, keys: tuple[Key, ...], patients: tuple[str, ...]) -> list[Measure]:
    """The measures of one direction."""
    asked, wanted = way.split("_to_")
    least = "ties count against"

    def measure(name: str, values: np.ndarray, chance: float, doc: str) -> Measure:
        return Measure(
            name=f"{name}_{way}", statistic=average(values), keys=keys, patients=patients, per_sample=values,
            parts={"chance": chance}, doc=f"{doc}; {least}.",
        )  # fmt: skip

    out = []
    for k in KS:
        chance = 1 - found.later[min(k, len(found.later) - 1)]
        doc = f"Share of {asked}s whose right {wanted} is among the {k} most similar"
        out.append(measure(f"r_at_{k}", (found.ranks <= k).astype(float), float(chance), doc))
    middle = [np.argmax(found.later <= level) for level in (0.5 + ROUNDING, 0.5 - ROUNDING)]
    rank = Measure(
        name=f"median_rank_{way}", statistic=median(found.ranks), keys=keys, patients=patients,
        parts={"chance": float(np.mean(middle))}, higher_is_better=False, unit="rank",
        doc=f"Median rank of the right {wanted} of each {asked}; {least}.",
    )  # fmt: skip
    exactly = found.later[:-1] - found.later[1:]  # [m], the chance of each rank
    chance = float((exactly / np.arange(1, len(found.later))).sum())
    doc = f"Mean of 1 / rank of the right {wanted} of each {asked}"
    return [*out, rank, measure("mrr", 1 / found.ranks, chance, doc)]


def median(values: np.ndarray) -> Statistic:
    """The weighted median of one value per row; between two middle values, their mean."""
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, dtype=float)[order]

    def statistic(weights: np.ndarray) -> np.ndarray:
        sums = weights[:, order].cumsum(axis=1)  # [R, n]
        total = sums[:, -1:]
        low, high = (sums >= total / 2).argmax(axis=1), (sums > total / 2).argmax(axis=1)
        return np.where(total[:, 0] > 0, (ordered[low] + ordered[high]) / 2, np.nan)

    return statistic


def _blocks(rows: int) -> list[slice]:
    """Rows a block at a time: the whole similarity matrix need not fit."""
    return [slice(i, i + BLOCK) for i in range(0, rows, BLOCK)]
