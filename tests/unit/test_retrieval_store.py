"""The store and its search: exact against float64, filters that never starve a query, duplicates, damage."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import models_retrieval as made
from sightline import runs
from sightline.errors import DataError, RunError
from sightline.retrieval import store, vectors
from sightline.retrieval.report import Report
from sightline.retrieval.search import Asker, Hit, search
from sightline.retrieval.store import Store
from sightline.types import ImageRef

NOBODY = Asker()


def build(folder: Path, reports: Sequence[Report], rows: np.ndarray, **options: object) -> Store:
    store.write(folder, reports, made.embedder(rows), **options)  # type: ignore[arg-type]
    return Store.open(folder)


def best(rows: np.ndarray, query: np.ndarray, k: int, allowed: Sequence[int]) -> list[int]:
    """The reference: float64, ties by number."""
    scores = rows.astype(np.float64) @ query.astype(np.float64)
    return sorted(allowed, key=lambda i: (-scores[i], i))[:k]


def ids(opened: Store, hits: Sequence[Hit]) -> list[str]:
    return [r.id for r in opened.reports([h.row for h in hits])]


def names(numbers: Sequence[int]) -> list[str]:
    return [f"r{n:05d}" for n in numbers]


@pytest.mark.parametrize("shard", [10_000, 700])
def test_equal_to_a_float64_reference(tmp_path: Path, shard: int) -> None:
    rows, queries = made.rows(2000), made.rows(60, seed=1)
    opened = build(tmp_path, [made.report(i) for i in range(2000)], rows, shard=shard)
    assert len(opened.shards) == -(-2000 // shard)
    found = search(opened, queries, [NOBODY] * 60, 10)
    for query, hits in zip(queries, found, strict=True):
        expected = best(rows, query, 10, range(2000))
        assert ids(opened, hits) == names(expected)
        scores = rows[expected].astype(np.float64) @ query.astype(np.float64)
        np.testing.assert_allclose([h.similarity for h in hits], scores, atol=1e-12)
        assert {h.behind for h in hits} == {1}


def test_scores_closer_than_float32_can_tell_are_told_apart(tmp_path: Path) -> None:
    """Five hundred vectors whose similarities lie within a millionth, where float32 confuses their order."""
    source = np.random.default_rng(2)
    centre = made.rows(1, 256)
    rows = (centre + 3e-7 * source.standard_normal((500, 256))).astype(np.float32)
    queries = (centre + 1e-4 * source.standard_normal((40, 256))).astype(np.float32)
    opened = build(tmp_path, [made.report(i) for i in range(500)], rows)
    expected = [best(rows, query, 7, range(500)) for query in queries]
    found = search(opened, queries, [NOBODY] * 40, 7)
    assert [ids(opened, hits) for hits in found] == [names(each) for each in expected]
    _, rough, _ = opened.shards[0].nearest(queries, 7, 1)
    assert sum(set(a) != set(b) for a, b in zip(rough.tolist(), expected, strict=True)) > 10


def test_equal_vectors_are_ordered_by_id_whatever_the_order_of_writing(tmp_path: Path) -> None:
    rows = np.stack([made.rows(1)[0]] * 300)
    reports = [made.report(i) for i in range(300)]
    random.Random(0).shuffle(reports)
    opened = build(tmp_path / "a", reports, rows, shard=64)
    (hits,) = search(opened, rows[:1], [NOBODY], 5)
    assert ids(opened, hits) == names(range(5))
    build(tmp_path / "b", sorted(reports, key=lambda r: r.id), rows, shard=64)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_fifty_reports_of_the_asker_are_planted_and_none_is_found(tmp_path: Path) -> None:
    rows, queries = made.rows(400), made.rows(20, seed=1)
    planted = {best(rows, q, 60, range(400))[i] for q in queries[:1] for i in range(50)}
    reports = [made.report(i, **({"patient": "own"} if i in planted else {})) for i in range(400)]
    opened = build(tmp_path, reports, rows)
    assert opened.table["patient"].to_pylist().count("own") == 50
    found = search(opened, queries, [Asker(patient="own")] * 20, 10)
    allowed = [i for i in range(400) if i not in planted]
    for query, hits in zip(queries, found, strict=True):
        assert ids(opened, hits) == names(best(rows, query, 10, allowed))
    assert not {"own"} & {r.patient for hits in found for r in opened.reports([h.row for h in hits])}
    (plain,) = search(opened, queries[:1], [NOBODY], 10)
    assert {r.patient for r in opened.reports([h.row for h in plain])} == {
        "own"
    }  # they would have been found


def test_a_report_of_the_same_image_is_the_askers_own(tmp_path: Path) -> None:
    rows = made.rows(30)
    image = ImageRef(path="a.png", sha256="abc")
    other = ImageRef(path="b.png", sha256="def")
    reports = [made.report(i, images=(other, image) if i in (3, 4) else ()) for i in range(30)]
    opened = build(tmp_path, reports, rows)
    (hits,) = search(opened, rows[3:4], [Asker(patient="x", pictures=("", "abc"))], 28)
    assert len(hits) == 28
    assert not {"r00003", "r00004"} & set(ids(opened, hits))
    assert opened.reports([3])[0] == reports[3]


@pytest.mark.parametrize(("share", "approximate"), [(0.01, False), (0.5, False), (0.01, True)])
def test_filters_leave_k_wherever_there_are_k(tmp_path: Path, share: float, approximate: bool) -> None:
    """One report in a hundred is of the domain, and they are the least similar ones."""
    rows, query = made.rows(3000), made.rows(1, seed=1)
    order = best(rows, query[0], 3000, range(3000))
    rare = set(order[-int(3000 * share) :])
    reports = [
        made.report(i, domain="fundus" if i in rare else "xray", split="valid" if i % 2 else "train")
        for i in range(3000)
    ]
    above = 100 if approximate else 10**9
    opened = build(tmp_path, reports, rows, approximate_above=above)
    (hits,) = search(opened, query, [NOBODY], 10, domain="fundus")
    assert ids(opened, hits) == names(best(rows, query[0], 10, sorted(rare)))
    (hits,) = search(opened, query, [NOBODY], 5, domain="fundus", splits=("valid",))
    assert ids(opened, hits) == names(best(rows, query[0], 5, [i for i in rare if i % 2]))
    (hits,) = search(opened, query, [NOBODY], len(rare) + 7, domain="fundus")
    assert len(hits) == len(rare)
    assert search(opened, query, [NOBODY], 10, domain="dermatology") == [[]]


def test_equal_reports_collapse_and_say_how_many_they_are(tmp_path: Path) -> None:
    rows = made.rows(40)
    same = {5: "Clear lungs.", 9: "clear  lungs", 30: "CLEAR LUNGS. ", 31: "Clear lungs, no effusion."}
    reports = [made.report(i, **({"text": same[i]} if i in same else {})) for i in range(40)]
    opened = build(tmp_path, reports, rows)
    assert (opened.about["reports"], opened.about["cards"]) == (40, 38)
    (hits,) = search(opened, rows[5:6], [NOBODY], 3)
    assert (ids(opened, hits)[0], hits[0].behind) == ("r00005", 3)
    assert hits[0].similarity == pytest.approx(1.0)
    (hits,) = search(opened, rows[5:6], [Asker(patient="p5")], 3)
    assert (ids(opened, hits)[0], hits[0].behind) == ("r00009", 2)  # others wrote it too
    (hits,) = search(opened, rows[5:6], [NOBODY], 40)
    assert len(hits) == 38


LONG = (
    "The lungs are clear and the heart is of normal size with sharp margins on both sides of the chest today"
)


def test_nearly_equal_reports_are_one_group_of_which_the_best_is_shown(tmp_path: Path) -> None:
    rows = made.rows(30)
    texts = {2: LONG, 4: f"{LONG} again", 7: LONG.replace("today", "now"), 8: f"{LONG} with a nodule"}
    reports = [made.report(i, **({"text": texts[i]} if i in texts else {})) for i in range(30)]
    opened = build(tmp_path / "near", reports, rows, collapse=0.8)
    assert (opened.about["cards"], opened.about["groups"]) == (30, 28)  # the nodule stays apart
    (hits,) = search(opened, rows[4:5], [NOBODY], 28)
    assert (ids(opened, hits)[0], hits[0].behind) == ("r00004", 3)
    assert len({"r00002", "r00004", "r00007"} & set(ids(opened, hits))) == 1
    assert "r00008" in ids(opened, hits)
    (hits,) = search(opened, rows[4:5], [Asker(patient="p4")], 28)
    assert {h.behind for h in hits} == {1, 2}
    far = build(tmp_path / "far", reports, rows)
    assert far.about["groups"] == 30


def test_a_large_group_takes_one_place(tmp_path: Path) -> None:
    """Forty reports of one group are the nearest forty; two more groups are found behind them."""
    centre = made.rows(1)
    near = centre + 0.01 * made.rows(40, seed=2)
    rows = np.concatenate([near / np.linalg.norm(near, axis=1, keepdims=True), made.rows(60, seed=3)])
    reports = [made.report(i, **({"text": f"{LONG} again {i}"} if i < 40 else {})) for i in range(100)]
    opened = build(tmp_path, reports, rows.astype(np.float32), collapse=0.8)
    assert opened.about["groups"] == 61
    (hits,) = search(opened, centre, [NOBODY], 3)
    expected = [best(rows, centre[0], 1, range(40))[0], *best(rows, centre[0], 2, range(40, 100))]
    assert ids(opened, hits) == names(expected)
    assert [h.behind for h in hits] == [40, 1, 1]


def test_approximate_search_finds_nearly_all_in_clusters(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    centres = made.rows(40, 32, seed=4)
    rows = centres[source.integers(0, 40, 4000)] + 0.1 * made.rows(4000, 32, seed=5)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    reports = [made.report(i) for i in range(4000)]
    opened = build(tmp_path / "a", reports, rows, approximate_above=4000)
    assert opened.about["search"] == "approximate"
    assert opened.shards[0].lists > 100
    queries = rows[:50]
    found = search(opened, queries, [NOBODY] * 50, 10)
    right = [
        len(set(ids(opened, hits)) & set(names(best(rows, q, 10, range(4000)))))
        for q, hits in zip(queries, found, strict=True)
    ]
    assert np.mean(right) > 9.5
    assert build(tmp_path / "b", reports, rows, approximate_above=4001).about["search"] == "exact"
    again = build(tmp_path / "c", reports, rows, approximate_above=4000)
    for entry, other in zip(opened.about["files"], again.about["files"], strict=True):
        assert entry == other


def test_what_is_stored_is_read_back_and_unchanged_by_opening(tmp_path: Path) -> None:
    image = ImageRef(path="x/a.png", sha256="ab", kind="xray", when="prior")
    whole = made.report(
        0, study="s1", date="2020-01-02", domain="xray", images=(image,), labels={"nodule": 1}, attributes={"age": "7"},
        text="  Ünïcode\nreport. ",
    )  # fmt: skip
    opened = build(tmp_path, [whole, made.report(1)], made.rows(2))
    assert opened.reports([0, 1]) == [whole, made.report(1)]
    before = {p.name: runs.hash_file(p) for p in tmp_path.iterdir()}
    search(Store.open(tmp_path), made.rows(1), [NOBODY], 2)
    assert {p.name: runs.hash_file(p) for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["reports-00000.arrow", "vectors-00000.faiss"])
@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_damage_is_found_before_it_is_searched(tmp_path: Path, name: str, how: str) -> None:
    build(tmp_path, [made.report(i) for i in range(50)], made.rows(50))
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data if how == "flipped" else data[:-7])
    with pytest.raises(RunError, match="missing or damaged") as caught:
        Store.open(tmp_path)
    assert caught.value.where == str(path)
    assert "run the `index` stage again" in caught.value.remedy


def test_other_versions_and_nothing_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="missing"):
        Store.open(tmp_path)
    build(tmp_path, [made.report(0)], made.rows(1))
    about = json.loads((tmp_path / "store.json").read_text())
    (tmp_path / "store.json").write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(RunError, match="no store of reports of this version"):
        Store.open(tmp_path)


def test_what_may_not_be_stored(tmp_path: Path) -> None:
    rows = made.rows(3)
    with pytest.raises(DataError, match="never stored"):
        build(tmp_path, [made.report(0), made.report(1, split="test")], rows)
    with pytest.raises(DataError, match="two reports have the same id"):
        build(tmp_path, [made.report(1), made.report(1, patient="other")], rows)
    with pytest.raises(DataError, match="no report to store"):
        build(tmp_path, [], rows)
    with pytest.raises(DataError, match="1 of 3 embeddings of reports are not unit vectors"):
        build(tmp_path, [made.report(i) for i in range(3)], rows * np.array([[1], [np.nan], [1]], np.float32))
    assert not list(tmp_path.iterdir())


def test_float32_scores_are_within_the_bound() -> None:
    for width in (32, 512):
        rows, queries = made.rows(3000, width), made.rows(20, width, seed=1)
        exact = queries.astype(np.float64) @ rows.astype(np.float64).T
        assert np.abs(queries @ rows.T - exact).max() < vectors.error(width)
        assert vectors.error(width) < 1e-4


@pytest.mark.slow
def test_two_hundred_thousand(tmp_path: Path) -> None:
    """1,000 queries' top 10 of 200,000 x 512 random vectors equal a float64 reference, neighbours and order."""
    rows, queries = made.rows(200_000, 512), made.rows(1000, 512, seed=1)
    opened = build(tmp_path, [made.report(i, id=f"r{i:06d}") for i in range(200_000)], rows)
    found = search(opened, queries, [NOBODY] * 1000, 10)
    ranked: list[list[int]] = []
    for start in range(0, len(queries), 50):
        scores = np.empty((50, len(rows)))
        for first in range(0, len(rows), 20_000):
            part = slice(first, first + 20_000)
            scores[:, part] = queries[start : start + 50].astype(np.float64) @ rows[part].astype(np.float64).T
        for row in scores:
            top = np.argpartition(-row, 10)[:11]
            ranked.append([int(i) for i in sorted(top, key=lambda i, row=row: (-row[i], i))[:10]])
    assert [[h.row for h in hits] for hits in found] == ranked
