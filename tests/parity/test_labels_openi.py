"""The rule labeller against the MeSH terms of 3860 real reports; the figures are those of the docs and of bench/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import openi
from loaded import load_file

ROOT = Path(__file__).parents[2]
pytestmark = openi.needed


@pytest.fixture(scope="module")
def bench() -> Any:
    """`bench/labels.py` as a module."""
    return load_file(ROOT / "bench" / "labels.py")


@pytest.fixture(scope="module")
def measured(bench: Any) -> dict[str, Any]:
    return bench.measure()


def test_macro_f1_on_reports_that_no_rule_was_written_on(measured: dict[str, Any]) -> None:
    assert [measured[name]["reports"] for name in ("held out", "written", "all")] == [1936, 1924, 3860]
    assert measured["held out"]["affirmed"]["macro_f1"] >= 0.70
    assert measured["held out"]["affirmed"]["macro_f1"] == pytest.approx(0.862, abs=0.0005)
    assert min(row["f1"] for row in measured["held out"]["affirmed"]["findings"].values()) > 0.6


def test_docs_and_results_hold_these_figures(bench: Any, measured: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "metrics" / "findings.md").read_text(encoding="utf-8")
    assert bench.table(measured) in page
    kept = json.loads((ROOT / "bench" / "results" / "labels-openi.json").read_text(encoding="utf-8"))
    assert {name: kept[name] for name in measured} == json.loads(json.dumps(measured))


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (["normal"], {"no_finding"}),
        (["Cardiomegaly/mild", "Pleural Effusion/left/small"], {"cardiomegaly", "pleural_effusion"}),
        (["Calcified Granuloma/lung/upper lobe/left"], {"no_finding"}),
        (["Catheters, Indwelling/right"], {"support_devices", "no_finding"}),
        (["Mass/breast/large", "Cicatrix/pleura/right"], {"pleural_other"}),
        (["Opacity/lung/upper lobe/left/round"], {"lung_lesion", "lung_opacity"}),
    ],
)
def test_mesh_terms_stand_for_findings(terms: list[str], expected: set[str]) -> None:
    assert {name for name, has in openi.truth(terms).items() if has} == expected
