"""The map of embeddings: components by hand, its points, its file, and UMAP where it is installed."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sightline.report import scatter

CROSS = np.array([[3.0, 0.0, 0.0], [-3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])


def cloud(count: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32) + np.float32(shift)


def names(count: int) -> list[str]:
    return [f"s{i:04d}" for i in range(count)]


def test_components_are_the_axes_of_the_cloud() -> None:
    places, shares = scatter.components(CROSS)
    assert places == pytest.approx(np.array([[3, 0], [-3, 0], [0, 1], [0, -1]]), abs=1e-12)
    assert shares == [0.9, 0.1]


def test_an_axis_is_turned_the_same_way_whatever_the_library_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    places, _ = scatter.components(CROSS)
    svd = np.linalg.svd

    def mirrored(*args: Any, **kwargs: Any) -> Any:
        u, s, v = svd(*args, **kwargs)
        return -u, s, -v

    monkeypatch.setattr(np.linalg, "svd", mirrored)
    assert np.array_equal(scatter.components(CROSS)[0], places)


def test_one_pair_and_one_dimension_have_a_place() -> None:
    assert scatter.components(np.zeros((2, 3)))[1] == [0.0, 0.0]
    places, shares = scatter.components(np.array([[1.0], [-1.0]]))
    assert places.tolist() == [[1.0, 0.0], [-1.0, 0.0]]
    assert shares == [1.0, 0.0]


def test_the_gap_between_both_sides_is_taken_out() -> None:
    near = scatter.layout(cloud(8), cloud(9)[:8], names(8), [{}] * 8)
    far = scatter.layout(cloud(8, shift=50), cloud(9)[:8], names(8), [{}] * 8)
    for a, b in zip(near["points"], far["points"], strict=True):
        assert (a["x"], a["y"]) == pytest.approx((b["x"], b["y"]), abs=1e-3)


def test_every_pair_is_an_image_and_a_report_with_its_label() -> None:
    labels = [{"nodule": 1, "rare": 0}, {"nodule": 0, "rare": 0}, {"rare": 1}, {"rare": 0}]
    found = scatter.layout(cloud(4), cloud(4), names(4), labels)
    assert found["label"] == "nodule"
    assert [(p["id"], p["side"], p["value"]) for p in found["points"]] == [
        (f"s000{i}", side, value)
        for side in ("image", "report")
        for i, value in enumerate((1, 0, None, None))
    ]
    assert found["method"] == "pca"
    assert len(found["explained"]) == 2


def test_the_label_that_divides_best_colours() -> None:
    assert scatter.dividing([{"a": 1, "b": 1}, {"a": 1, "b": 0}]) == "b"
    assert scatter.dividing([{"b": 1, "a": 0}, {"b": 0, "a": 1}]) == "a"
    assert scatter.dividing([{}, {}]) == ""


class Tags(HTMLParser):
    """Counts elements by class, and the words in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.classes: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.classes += [value or "" for name, value in attrs if name == "class"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_file_shows_images_filled_and_reports_hollow(tmp_path: Path) -> None:
    labels = [{"effusion_left": i % 2} for i in range(6)]
    scatter.write(tmp_path, cloud(6), cloud(6), names(6), labels)
    drawn = Tags((tmp_path / "map.svg").read_text(encoding="utf-8"))
    assert drawn.classes.count("mark") == 6 + 2 + 1
    assert drawn.classes.count("mark hollow") == 6 + 1
    assert "effusion left present" in drawn.words
    assert "effusion left absent" in drawn.words
    assert "Embeddings of 6 images and their reports" in drawn.words
    assert any(word.startswith("Principal components: ") for word in drawn.words)
    text = (tmp_path / "map.svg").read_text(encoding="utf-8")
    assert ".s1 .mark{fill:#0072b2}" in text
    assert "var(" not in text


def test_hostile_names_stay_text() -> None:
    found = scatter.layout(cloud(2), cloud(2), names(2), [{"<b>&": 1}, {"<b>&": 0}])
    assert "&lt;b&gt;&amp; present" in scatter.draw(found)


def test_of_many_pairs_a_hash_chooses(tmp_path: Path) -> None:
    count = scatter.MOST + 40
    for name, order in (("a", range(count)), ("b", range(count - 1, -1, -1))):
        at, folder = list(order), tmp_path / name
        folder.mkdir()
        images, ids = cloud(count)[at], [names(count)[i] for i in at]
        scatter.write(folder, images, images, ids, [{}] * count, seed=1)
    found = [json.loads((tmp_path / name / "map.json").read_text()) for name in "ab"]
    assert [f["of"] for f in found] == [count, count]
    shown = [{p["id"] for p in f["points"]} for f in found]
    assert shown[0] == shown[1]
    assert len(shown[0]) == scatter.MOST


def test_umap_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    class Fake:
        def __init__(self, **options: Any) -> None:
            asked.append(options)

        def fit_transform(self, points: np.ndarray) -> np.ndarray:
            return points[:, :2]

    module = SimpleNamespace(UMAP=Fake, __spec__=SimpleNamespace(name="umap"), __name__="umap")
    monkeypatch.setitem(sys.modules, "umap", module)
    found = scatter.layout(cloud(20), cloud(20), names(20), [{}] * 20, seed=5)
    assert (found["method"], found["explained"]) == ("umap", None)
    assert asked == [{"n_neighbors": 15, "random_state": 5}]
    assert "UMAP, each side centred" in scatter.draw(found)
    assert scatter.layout(cloud(4), cloud(4), names(4), [{}] * 4)["method"] == "pca", "too few for neighbours"
