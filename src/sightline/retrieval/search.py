"""The best reports for a query: exact whatever is filtered, never the asker's own, one of each group.

FAISS finds candidates in float32. A float32 score is wrong by at most `vectors.error`, so what may belong to the best
k lies within twice that of the k-th candidate; just these are scored again in float64. Where candidates that FAISS
left out could still belong, because filters took many away or scores are too close, it is asked for more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import vectors
from .store import Store

SPARE = 16  # candidates beyond those asked for
OWN = 64  # and for at most so many of the asker's own
BLOCK = 2**22  # scores of candidates held at a time
MORE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Whose reports are not shown.

    Args:
        patient: of the sample that asks; "" for nobody.
        pictures: SHA-256 of its images: a report of the same image is its own, whatever the patient is called.
    """

    patient: str = ""
    pictures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """One report found: its row in the store, its similarity, and how many reports say the same, itself included."""

    row: int
    similarity: float
    behind: int


@dataclass(frozen=True)
class _Question:
    """One query with all that decides what may be found."""

    vector: np.ndarray  # [width], float64
    may: np.ndarray  # [rows]
    own: np.ndarray  # rows that are never shown to it
    k: int


@dataclass(frozen=True)
class _Candidates:
    """What FAISS found for some queries.

    Args:
        scores: [q, candidates], falling.
        cards: [q, candidates]; -1 where there are fewer.
        bounds: [q] no card that was looked at and left out has a greater score.
        all: whether no card was left out.
    """

    scores: np.ndarray
    cards: np.ndarray
    bounds: np.ndarray
    all: bool


def search(
    store: Store,
    queries: np.ndarray,
    askers: Sequence[Asker],
    k: int,
    *,
    splits: Sequence[str] = (),
    domain: str = "",
) -> list[list[Hit]]:
    """The k most similar groups of reports for each query, fewer only where fewer may be shown.

    Of a group the most similar report that may be shown stands for it. Equal similarities are ordered by id.

    Args:
        store: what is searched.
        queries: unit vectors [n, width].
        askers: [n] whose reports each must not see.
        k: at least 1.
        splits: only reports of these; () for all.
        domain: only reports of this; "" for all.
    """
    asked = vectors.unit(queries, "queries")  # [n, width]
    may = store.mask(splits, domain)
    by_patient = store.patients.of_each([[a.patient] for a in askers])
    by_picture = store.pictures.of_each([a.pictures for a in askers])
    own = [np.union1d(*pair) for pair in zip(by_patient, by_picture, strict=True)]
    found: list[list[Hit]] = [[] for _ in askers]
    usable = int(np.count_nonzero(np.logical_or.reduceat(may, store.starts[:-1])))
    if not usable or not found:
        return found
    spare = SPARE + min(OWN, max(map(len, own)))
    cards, todo, effort = len(store.group), list(range(len(askers))), 1
    fetch = min(cards, math.ceil((k + spare) * cards / usable))
    while todo:
        step, undone = max(1, min(1024, BLOCK // fetch)), []
        for part in (todo[i : i + step] for i in range(0, len(todo), step)):
            candidates = _nearest(store, asked[part], fetch, effort)
            for place, number in enumerate(part):
                question = _Question(asked[number].astype(np.float64), may, own[number], k)
                hits = _settle(store, question, candidates, place)
                if hits is None:
                    undone.append(number)
                else:
                    found[number] = hits
        todo, fetch, effort = undone, min(cards, fetch * MORE), effort * 2
    return found


def _nearest(store: Store, queries: np.ndarray, fetch: int, effort: int) -> _Candidates:
    """Candidates of all shards."""
    made = [s.nearest(queries, min(fetch, len(s)), effort) for s in store.shards]
    bounds = np.max([bound for _, _, bound in made], axis=0)
    everything = fetch == len(store.group) and all(s.whole(effort) for s in store.shards)
    if len(made) == 1:
        return _Candidates(made[0][0], made[0][1], bounds, everything)
    shifted = [np.where(p < 0, p, p + o) for (_, p, _), o in zip(made, store.offsets[:-1], strict=True)]
    scores, cards = np.concatenate([s for s, _, _ in made], axis=1), np.concatenate(shifted, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, cards = np.take_along_axis(scores, order, axis=1), np.take_along_axis(cards, order, axis=1)
    return _Candidates(scores, cards, bounds, everything)


def _settle(store: Store, question: _Question, candidates: _Candidates, place: int) -> list[Hit] | None:
    """The hits of one query, or None where a card that is no candidate could be among them."""
    count = np.count_nonzero(candidates.cards[place] >= 0)
    cards, scores = candidates.cards[place, :count], candidates.scores[place, :count]
    rows, owner = store.rows(cards)
    shown = _shown(question, rows)
    usable, first = np.unique(owner[shown], return_index=True)
    row = rows[shown][first]  # of each usable card the first report by id
    cards, scores = cards[usable], scores[usable]
    group = store.group[cards]
    tops = np.sort(scores[np.unique(group, return_index=True)[1]])[::-1]  # the best of each group
    line = -np.inf
    if len(tops) >= question.k:
        line = tops[question.k - 1] - 2 * vectors.error(store.about["width"])
    if not candidates.all and candidates.bounds[place] >= line:
        return None
    near = np.flatnonzero(scores >= line)
    exact = (store.at(cards[near]).astype(np.float64) * question.vector).sum(axis=1)
    hits: dict[int, Hit] = {}
    for at in np.lexsort((store.rank[row[near]], -exact)):
        number = int(group[near[at]])
        if number not in hits:
            hits[number] = Hit(int(row[near[at]]), float(exact[at]), _behind(store, question, number))
        if len(hits) == question.k:
            break
    return list(hits.values())


def _shown(question: _Question, rows: np.ndarray) -> np.ndarray:
    """Which of some rows may be shown."""
    shown = question.may[rows]
    return shown & ~np.isin(rows, question.own) if len(question.own) else shown


def _behind(store: Store, question: _Question, group: int) -> int:
    """How many reports of a group may be shown."""
    rows, _ = store.rows(store.of_group(group))
    return int(np.count_nonzero(_shown(question, rows)))
