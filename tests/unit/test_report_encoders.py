"""The report's part on encoders: scores with chance, the map, and what a calibrated number of reports promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report_scatter import Tags

from sightline import runs
from sightline.report import Page, render, scatter
from sightline.report.encoders import encoders
from sightline.retrieval.calibrate import calibrate
from sightline.stages import searched

WAYS = ("image_to_text", "text_to_image")
HOSTILE = "<script>alert(1)</script>"


def row(metric: str, value: float, chance: float) -> dict[str, Any]:
    return {"metric": metric, "value": value, "low": value - 0.1, "high": value + 0.1, "chance": chance}


ROWS = [
    row(f"{name}_{way}", value, chance)
    for way in WAYS
    for name, value, chance in (("r_at_5", 0.62, 0.04), ("median_rank", 4.0, 57.5), ("mrr", 0.41, 0.05))
]


def layout(label: str = "nodule") -> dict[str, Any]:
    cloud = np.random.default_rng(0).normal(size=(5, 4))
    return scatter.layout(cloud, cloud, [f"s{i}" for i in range(5)], [{label: i % 2} for i in range(5)])


def made(name: str = "encoder") -> dict[str, Any]:
    return {"name": name, "rows": ROWS, "map": layout()}


def test_each_way_has_its_value_interval_and_chance() -> None:
    shown = encoders(Page(title="t", encoders=[made()]))
    tags = Tags(shown)
    assert shown.count("<tr>") == 1 + 3
    for text in ("Image looks for its report", "Among the first 5 (R@5)", "[0.52, 0.72]", "chance 57.5"):
        assert text in tags.words
    assert "Among the first 1 (R@1)" not in tags.words, "not measured"
    assert tags.classes.count("mark") == 5 + 2 + 1
    assert tags.classes.count("mark hollow") == 5 + 1
    assert 'aria-label="Embeddings of 5 images and their reports"' in shown
    assert "xmlns" not in shown
    assert "<style" not in shown


def test_a_map_in_the_page_is_the_file_without_its_colours() -> None:
    found = layout()
    inner = scatter.inline(found)
    assert inner.partition(">")[2].removesuffix("</svg>") in scatter.draw(found)


def test_what_a_calibrated_number_promises() -> None:
    kept = calibrate([[0.0, 0.0]] * 38 + [[1.0, 1.0]], [f"p{i}" for i in range(39)], alpha=0.05)
    none = calibrate([[0.5, 0.5]] * 9, [str(i) for i in range(9)], alpha=0.3)
    page = Page(
        title="t", calibrated=[{"name": "found", **kept.to_dict()}, {"name": "other", **none.to_dict()}]
    )
    shown = encoders(page)
    assert (
        "At most 2 reports are shown: of a further patient&#x27;s reports an expected share of at most 0.05 "
        "contradicts the image; calibrated on 39 patients of the valid split (39 samples)." in shown
    )
    assert "One report is shown, and nothing is promised about it" in shown
    assert [shown.count(word) for word in (">holds<", ">too high<")] == [2, 2]


def test_hostile_names_stay_text_and_nothing_is_shown_of_nothing(tmp_path: Path) -> None:
    page = Page(title="t", encoders=[{**made(HOSTILE), "map": layout(HOSTILE)}])
    render(page, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert HOSTILE not in text
    assert 'id="encoders"' in text
    assert 'href="#encoders"' in text
    render(Page(title="t"), tmp_path / "bare.html")
    assert 'id="encoders"' not in (tmp_path / "bare.html").read_text(encoding="utf-8")
    assert encoders(Page(title="t")) == ""


@pytest.fixture
def line(tmp_path: Path) -> dict[str, Path]:
    """Folders of stages as they are left: an encoder with a map, one that was not scored, others."""
    kinds = {
        "data": "prepare",
        "encoder": "contrast",
        "second": "contrast",
        "found": "retrieve",
        "taught": "sft",
    }
    for name, kind in kinds.items():
        (tmp_path / name).mkdir()
        runs.write_json(tmp_path / name / runs.MANIFEST, {"stage": kind})
    runs.write_json(tmp_path / "encoder" / "scores.json", {"rows": ROWS})
    runs.write_json(tmp_path / "encoder" / "map.json", layout())
    runs.write_json(
        tmp_path / "encoder" / "validation.json", {"best": 2, "history": [{"step": 2, "loss": 1.0}]}
    )
    runs.write_json(tmp_path / "second" / "scores.json", {"rows": []})
    runs.write_json(tmp_path / "second" / "validation.json", {"best": None, "history": []})
    runs.write_json(tmp_path / "found" / "calibration.json", {"k": 2})
    runs.write_json(tmp_path / "taught" / "validation.json", {"history": [{"step": 1, "loss": 2.0}]})
    return {name: tmp_path / name for name in kinds}


def test_what_the_stages_left_is_found(line: dict[str, Path]) -> None:
    (found,) = searched.encoders(line)
    assert (found["name"], found["rows"], len(found["map"]["points"])) == ("encoder", ROWS, 10)
    assert searched.calibrated(line) == [{"name": "found", "k": 2}]
    assert searched.validations(line) == {
        "encoder, valid split": [{"step": 2, "loss": 1.0}], "taught, valid split": [{"step": 1, "loss": 2.0}]
    }  # fmt: skip
    (line["encoder"] / "map.json").unlink()
    assert searched.encoders(line)[0]["map"] is None
