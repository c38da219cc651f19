"""Whole recipes in `runs/`, and what they promise. What is up to date there is not run again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VQA_RAD = ROOT.parent / "shared" / "data" / "vqa_rad"
SPELLED = "data.root=../shared/data/vqa_rad"  # as users do: a path spelled otherwise makes the stages anew
BLIND = ("noise", "black", "swapped")
TRAINED_ON = "noise"
ROW = {"model", "image", "metric", "value", "low", "high", "n", "patients"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4000)]


def sightline(*words: str, runs: Path = ROOT / "runs") -> str:
    """Run the command line in the project's folder and return what it printed."""
    command = [sys.executable, "-m", "sightline", *words]
    if words[0] in ("run", "evaluate"):
        command += ["--runs", str(runs)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def rows(stage: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    found = json.loads(sightline("show", str(stage), "--json"))
    assert all(set(row) == ROW for row in found)
    return {(r["model"], r["image"], r["metric"]): r for r in found}


def paired(stage: Path) -> dict[tuple[str, str], dict[str, Any]]:
    found = json.loads((stage / "scores.json").read_text(encoding="utf-8"))["paired"]
    return {(r["question"], r["metric"]): r for r in found}


@pytest.fixture(scope="module")
def quickstart() -> Path:
    said = sightline("run", "recipes/quickstart.yaml")
    assert "runs/quickstart/evaluate/report.html" in said
    return ROOT / "runs" / "quickstart" / "evaluate"


def test_taught_sees_and_is_blind_without_an_image(quickstart: Path) -> None:
    scores = rows(quickstart)
    clean = scores["taught", "clean", "balanced_accuracy"]
    assert clean["patients"] >= 150
    assert clean["value"] >= 0.80
    for image in BLIND:
        blind = scores["taught", image, "balanced_accuracy"]
        assert (blind["high"] - blind["low"]) / 2 <= 0.06
        assert blind["low"] <= 0.55
        assert blind["high"] >= 0.45
        assert paired(quickstart)[f"taught: clean minus {image}", "finding_f1"]["low"] > 0


def test_alignment_ties_answers_to_the_image_and_keeps_accuracy(quickstart: Path) -> None:
    differences = paired(quickstart)
    for image in BLIND:
        if image != TRAINED_ON:
            assert differences[f"rise of clean over {image}, taught to aligned", "margin"]["low"] > 0
    assert differences["aligned minus taught", "balanced_accuracy"]["difference"] >= -0.02
    assert differences["aligned minus taught", "accuracy"]["difference"] >= -0.02


def test_a_second_run_skips_and_another_beta_runs_two_stages(quickstart: Path) -> None:
    start = time.monotonic()
    said = sightline("run", "recipes/quickstart.yaml")
    assert time.monotonic() - start < 15
    names = ["data", "taught", "pairs", "aligned_clean", "aligned", "evaluate"]
    assert [f"{name}: up to date" in said for name in names] == [True] * 6
    plan = sightline("check", "recipes/quickstart.yaml", "aligned.loss.beta=0.2")
    assert [bool(re.search(rf"^ *{n}\b.*up to date", plan, re.MULTILINE)) for n in names] == [True] * 4 + [
        False
    ] * 2


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not beside the project (../shared/data/vqa_rad)")
def test_vqa_rad_finds_the_leak_and_scores_another_folder() -> None:
    sightline("run", "recipes/vqa_rad.yaml", SPELLED)
    home = ROOT / "runs" / "vqa_rad"
    audit = json.loads((home / "data" / "audit.json").read_text(encoding="utf-8"))
    assert [o["images"] for o in audit["official"]["overlaps"]] == [157]
    assert not any(o["images"] or o["patients"] for o in audit["own"]["overlaps"])
    printed = sightline(
        "evaluate", str(home / "taught"), str(VQA_RAD), "--reader", "vqa_rad", "--limit", "40", "--json"
    )
    found = json.loads(printed)
    assert {row["model"] for row in found} == {"taught"}
    assert all(set(row) == ROW for row in found)


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="VQA-RAD is not beside the project (../shared/data/vqa_rad)")
def test_vqa_rad_answers_need_their_own_image() -> None:
    sightline("run", "recipes/vqa_rad.yaml", SPELLED)
    differences = paired(ROOT / "runs" / "vqa_rad" / "evaluate")
    assert differences["taught: clean minus swapped", "exact_match"]["low"] > 0


def test_mmed_rag_on_phantoms_retrieves_and_relies_less_on_reports_after_alignment() -> None:
    sightline("run", "recipes/mmed_rag_phantom.yaml")
    home = ROOT / "runs" / "mmed_rag_phantom"
    found = json.loads(sightline("show", str(home / "encoder"), "--json"))
    (recall,) = [r for r in found if r["metric"] == "r_at_5_image_to_text"]
    assert recall["low"] >= 5 * recall["chance"]
    differences = paired(home / "evaluate")
    assert differences["aligned minus taught", "over_reliance"]["high"] < 0
    assert differences["aligned minus taught", "accuracy"]["difference"] >= 0
    scores = rows(home / "evaluate")
    assert {image for _, image, metric in scores if metric == "accuracy"} >= {"clean", "unaided"}
