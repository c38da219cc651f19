"""RadEval's labellers behind our measures: a stand-in for the package, and what is said where something lacks."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from sightline.errors import MissingExtra, SightlineError
from sightline.metrics.radeval import radeval
from sightline.types import Prediction
from small_turns import turns

PAIRS = [("edema effusion", "edema"), ("nothing", "effusion"), ("effusion", "")]
NAMES = ["Edema", "Pleural Effusion", "No Finding"]


def install(monkeypatch: pytest.MonkeyPatch, labeller: type, scorer: type | None = None) -> None:
    """A package `radeval` with these classes."""
    for name in (
        "radeval",
        "radeval.metrics",
        "radeval.metrics.f1chexbert",
        "radeval.metrics.f1chexbert.f1chexbert",
    ):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(
        sys.modules["radeval.metrics.f1chexbert.f1chexbert"], "F1CheXbert", labeller, raising=False
    )
    monkeypatch.setattr(sys.modules["radeval"], "RadEval", scorer, raising=False)


class Words:
    """Labels a text by the words that it holds, as F1CheXbert would be asked."""

    TARGET_NAMES = NAMES

    def __init__(self, device: str) -> None:
        assert device == "cpu"

    def get_labels(self, texts: list[str]) -> list[list[int]]:
        found = [[int("edema" in t), int("effusion" in t)] for t in texts]
        return [[*each, int(not any(each))] for each in found]


class Levels:
    """Scores pairs as RadEval would be asked for RadGraph."""

    def __init__(self, **options: Any) -> None:
        assert options == {"metrics": ["radgraph"], "per_sample": True, "show_progress": False}

    def __call__(self, refs: list[str], hyps: list[str]) -> dict[str, list[float]]:
        assert all(refs)
        assert all(hyps)
        return {
            f"radgraph_{level}": [x] * len(refs)
            for level, x in (("simple", 0.6), ("partial", 0.5), ("complete", 0.4))
        }


def test_labels_become_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Words)
    found = {m.name: m for m in radeval(turns(*PAIRS))}
    assert list(found) == ["chexbert_f1", "chexbert_f1_5", "chexbert_f1_micro", "chexbert_f1_weighted"]
    assert found["chexbert_f1_5"].value() == pytest.approx(
        (1 + 0) / 2
    )  # edema found, effusions missed and invented
    assert found["chexbert_f1"].value() == pytest.approx((1 + 0 + 0) / 3)
    assert "CheXbert" in found["chexbert_f1"].doc


def test_radgraph_keeps_one_value_for_each_report_and_none_for_empty_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch, Words, Levels)
    found = {m.name: m for m in radeval(turns(*PAIRS), scorer="radgraph")}
    assert found["radgraph_simple"].per_sample == pytest.approx([0.6, 0.6, 0.0])
    assert found["radgraph_complete"].value() == pytest.approx(0.8 / 3)


def test_an_absent_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "radeval", None)
    with pytest.raises(MissingExtra, match="radeval") as caught:
        radeval(turns(*PAIRS))
    assert "clinical" in caught.value.remedy


@pytest.mark.parametrize("scorer", ["chexbert", "radgraph"])
def test_absent_weights_are_named(monkeypatch: pytest.MonkeyPatch, scorer: str) -> None:
    class Lost:
        def __init__(self, **_: Any) -> None:
            raise OSError("We couldn't connect to the hub\nand more")

    install(monkeypatch, Lost, Lost)
    with pytest.raises(SightlineError, match=f"could not run {scorer}") as caught:
        radeval(turns(*PAIRS), scorer=scorer)
    assert "couldn't connect" in caught.value.found
    assert "chexpert" in caught.value.remedy


def test_without_reports_there_is_nothing() -> None:
    assert (
        radeval([Prediction(sample="s", patient="p", turn=0, question="Where?", answer="a", text="a")]) == []
    )
