"""`sightline evaluate` on VQA-RAD ends with a report that a browser opens silently; `verify` knows its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import small
from browser import CHROMIUM, Tab
from commanded import command
from sightline.cli import measure
from sightline.cli.verify import check

VQA_RAD = Path(__file__).parents[3] / "shared" / "data" / "vqa_rad"
LIMIT = 24
SHOWN = 12  # cases, which are images, that the page lays out at first
IMAGES = {"clean", "noise", "black", "swapped"}
pytestmark = pytest.mark.skipif(
    not VQA_RAD.is_dir(), reason="VQA-RAD is not beside the project (../shared/data/vqa_rad)"
)


@pytest.fixture(scope="module")
def taught(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that was taught two steps on generated pictures."""
    return small.taught(language, tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="module")
def evaluation(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `sightline evaluate taught VQA_RAD --reader vqa_rad` leaves behind."""
    home = tmp_path_factory.mktemp("runs")
    return measure.measure(str(taught), str(VQA_RAD), "vqa_rad", [], runs=home, limit=LIMIT)


def lines(evaluation: Path) -> list[dict[str, Any]]:
    """The answers to clean images."""
    path = evaluation / "predictions" / "taught-clean.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_question_is_scored(evaluation: Path) -> None:
    found = json.loads((evaluation / "scores.json").read_text(encoding="utf-8"))["rows"]
    assert {row["image"] for row in found} == IMAGES
    made = lines(evaluation)
    assert len({row["sample"] for row in made}) == LIMIT
    (exact,) = [r for r in found if (r["image"], r["metric"]) == ("clean", "exact_match")]
    assert exact["n"] == len(made) == LIMIT
    assert exact["low"] <= exact["value"] <= exact["high"]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("window", "width", "height"), [("laptop", 1280, 800), ("phone", 390, 844)])
def test_the_browser_says_nothing_and_asks_for_nothing(
    browser: Tab, evaluation: Path, window: str, width: int, height: int
) -> None:
    browser.events.clear()
    browser("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=window == "phone")  # fmt: skip
    try:
        browser.open((evaluation / "report.html").as_uri(), "true")
        shown = "[...document.querySelectorAll('#cases .cards > .card')].length"
        assert browser.run(shown) == min(SHOWN, len({row["patient"] for row in lines(evaluation)})) > 3
        first = "document.querySelector('#cases img')"
        browser.run(f"{first}.scrollIntoView(); 0")
        browser.until(f"{first}.complete && {first}.naturalWidth >= 64")
        assert browser.run("document.documentElement.scrollWidth") <= width
        browser.run("document.querySelector('#cases .zoom').click()")
        assert browser.run("document.getElementById('viewer').open")
        browser.run("document.getElementById('close').click()")
        told = browser.text("#cases")
        assert sum(row["question"] in told for row in lines(evaluation)) > 3
    finally:
        browser("Emulation.clearDeviceMetricsOverride")
    assert browser.complaints() == []
    outside = [each for each in browser.asked() if not each.startswith(("file:", "data:", "blob:", "about:"))]
    assert outside == []
    assert any(each.endswith("report.html") for each in browser.asked())


def test_verify_finds_it_sound_and_a_changed_answer_not(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found = check(evaluation)
    assert found.faults == []
    assert found.numbers is not None
    assert found.numbers > 40
    path = evaluation / "predictions" / "taught-black.jsonl"
    before = path.read_text(encoding="utf-8")
    first, *rest = before.splitlines()
    path.write_text(
        "\n".join([json.dumps({**json.loads(first), "text": "a spleen"}), *rest]) + "\n", encoding="utf-8"
    )
    try:
        code, _, err = command(monkeypatch, capsys, "verify", evaluation)
    finally:
        path.write_text(before, encoding="utf-8")
    assert code == 1
    assert "predictions/taught-black.jsonl" in err
