"""The gate of an export: what may fall by how much, on which evidence; and the stage and the command around it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import small
from sightline import recipe, runs, stages
from sightline.cli.plan import plan
from sightline.errors import ModelError, RecipeError, RunError
from sightline.export import gate, opened
from sightline.metrics.measure import Measure, average
from sightline.models.family import Bundle

command = importlib.import_module("sightline.cli.export")  # the package has the function under that name


def measure(name: str, values: list[float], *, higher: bool = True, patients: int = 0) -> Measure:
    """One value a patient, or of so many patients."""
    rows = np.asarray(values, dtype=float)
    owners = [f"p{i % (patients or len(values))}" for i in range(len(values))]
    return Measure(
        name=name, statistic=average(rows), keys=tuple((f"s{i}", 0) for i in range(len(values))),
        patients=tuple(owners), per_sample=rows, higher_is_better=higher,
    )  # fmt: skip


def rows(before: Measure, after: Measure, **allow: float) -> list[dict[str, Any]]:
    return gate.compare({before.name: before}, {after.name: after}, allow, seed=0, resamples=500)


def test_the_lower_end_decides_not_the_difference() -> None:
    """40 patients, of whom 2 are answered worse: a difference of -0.05, whose interval reaches further down."""
    before, after = measure("accuracy", [1.0] * 40), measure("accuracy", [0.0] * 2 + [1.0] * 38)
    (row,) = rows(before, after, accuracy=0.06)
    assert (row["before"], row["after"], row["difference"]) == (1.0, 0.95, pytest.approx(-0.05))
    assert row["low"] < -0.1 < row["difference"] < row["high"]
    assert row["passed"] is False
    assert "accuracy 1 -> 0.95, difference -0.05" in gate.failed([row])[0]
    (wide,) = rows(before, after, accuracy=0.3)
    assert wide["passed"] is True
    assert gate.failed([wide]) == []
    assert wide["low"] == row["low"]


def test_few_patients_do_not_pass_by_knowing_little() -> None:
    many = rows(measure("a", [1, 0] * 100), measure("a", [1, 0] * 99 + [0, 0]), a=0.03)
    few = rows(measure("a", [1, 0] * 10), measure("a", [1, 0] * 9 + [0, 0]), a=0.03)
    assert (many[0]["passed"], few[0]["passed"]) == (True, False)


def test_of_errors_a_rise_counts_as_a_fall() -> None:
    fewer = rows(measure("e", [1.0] * 30, higher=False), measure("e", [0.0] * 30, higher=False), e=0.01)
    more = rows(measure("e", [0.0] * 30, higher=False), measure("e", [1.0] * 30, higher=False), e=0.01)
    assert (fewer[0]["passed"], more[0]["passed"]) == (True, False)


def test_an_equal_export_passes_without_any_allowance() -> None:
    same = measure("a", [1, 0, 1, 1, 0])
    (row,) = rows(same, same, a=0.0)
    assert (row["difference"], row["low"], row["high"], row["passed"]) == (0.0, 0.0, 0.0, True)


def test_what_was_not_asked_is_shown_and_decides_nothing() -> None:
    good, bad = measure("a", [1.0] * 9), measure("b", [1.0] * 9)
    worse = measure("b", [0.0] * 9)
    found = gate.compare({"a": good, "b": bad}, {"a": good, "b": worse}, {"a": 0.0}, seed=0, resamples=200)
    assert [(row["metric"], row["passed"]) for row in found] == [("a", True), ("b", None)]
    told = gate.text(found).splitlines()
    assert told[1].split()[:1] == ["a"]
    assert told[1].endswith("yes")
    assert told[2].split()[0] == "b"
    assert told[2].endswith("-")


def test_a_metric_that_is_not_measured_stops_the_gate() -> None:
    one = measure("a", [1.0, 0.0, 1.0])
    with pytest.raises(RunError, match="not measured: bleu") as error:
        rows(one, one, bleu=0.1)
    assert error.value.found == "a"
    alone = measure("a", [1.0, 0.0, 1.0], patients=1)  # one patient has no interval
    with pytest.raises(RunError, match="not measured: a"):
        rows(alone, alone, a=0.1)


def document(language: Path, **export: Any) -> dict[str, Any]:
    """Data, a taught model, and its export."""
    made = small.only(language, "data", "taught")
    made["stages"]["data"]["split"] = {"train": 0.5, "valid": 0, "test": 0.5}
    ask = {"generate": {"max_new_tokens": 4, "batch": 8}, "resamples": 100}
    made["stages"]["out"] = {"stage": "export", "model": "taught", **export}
    if "gate" in export:
        made["stages"]["out"]["gate"] = {**ask, **export["gate"]}
    return made


@pytest.fixture(scope="module")
def ran(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's folder with the export behind a gate that it passes."""
    root = tmp_path_factory.mktemp("runs")
    made = document(
        language, to="onnx", data="data", gate={"allow": {"exact_match": 0.0}, "metrics": ["vqa", "bleu"]}
    )
    stages.execute(recipe.check(made, "test"), root, say=lambda line: None)
    return root / "tiny"


def test_the_stage_asks_both_and_keeps_the_table(ran: Path) -> None:
    told = opened.report(ran / "out" / "export")
    table = {row["metric"]: row for row in told["gate"]["rows"]}
    assert told["gate"]["allow"] == {"exact_match": 0.0}
    assert table["exact_match"]["passed"] is True
    assert {"exact_match", "bleu"} <= set(table)
    assert all(row["difference"] == 0 for row in table.values() if row["metric"] in ("exact_match", "bleu"))
    assert runs.faults(ran / "out") == []
    assert small.events(ran / "out", "written")[0]["bytes"] > 10_000
    answered = [p.read_text().splitlines() for p in (ran / ".answers").glob("*.jsonl")]
    assert [len(lines) for lines in answered] == [told["gate"]["samples"]] * 2


def test_it_is_up_to_date_then(ran: Path, language: Path) -> None:
    made = document(
        language, to="onnx", data="data", gate={"allow": {"exact_match": 0.0}, "metrics": ["vqa", "bleu"]}
    )
    steps = {step.name: step.state for step in plan(recipe.check(made, "test"), ran.parent)}
    assert steps["out"] == "up to date"


def worsened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports whose head says the opposite of what it learned."""
    load = opened.load

    def turned(place: Path) -> Bundle:
        bundle = load(place)
        with torch.no_grad():
            bundle.model.get_submodule("lm_head").weight.neg_()
        return bundle

    monkeypatch.setattr(opened, "load", turned)


def test_the_command_writes_nothing_that_fails_the_gate(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, metrics = ran / "data", "calibration"
    section = command.parse("merged", "float32", data, ["brier=0.05"], metrics, None)
    good = command.write(str(ran / "taught"), tmp_path / "good", section)
    assert good["gate"]["rows"][0]["difference"] == pytest.approx(0, abs=1e-5)
    monkeypatch.setattr(
        "sightline.export.written.compare", lambda *_: {"moved": 0.0, "same": True, "allowed": None}
    )
    worsened(monkeypatch)
    with pytest.raises(RunError, match="answers worse than the gate allows") as error:
        command.write(
            str(ran / "taught"),
            tmp_path / "bad",
            command.parse("merged", "float32", data, ["brier=0"], metrics, None),
        )
    assert "brier" in error.value.found
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good"]
    with pytest.raises(ModelError, match="something already"):
        command.write(str(ran / "taught"), tmp_path / "good", section)
    assert json.loads((tmp_path / "good" / "export.json").read_text())["gate"]["allow"] == {"brier": 0.05}


def test_words_that_do_not_fit() -> None:
    with pytest.raises(RecipeError, match="of the gate"):
        command.parse("merged", "float32", None, [], "vqa", 3)
    with pytest.raises(RecipeError) as error:
        command.parse("merged", "float32", Path("d"), [], "vqa", None)
    assert "`data` and `gate` belong together" in error.value.found
    with pytest.raises(RecipeError) as error:
        command.parse("onnx", "bfloat16", None, [], "vqa", None)
    assert "graphs are computed in float32" in error.value.found
    with pytest.raises(RecipeError):
        command.parse("merged", "float32", Path("d"), ["exact_match=-1"], "vqa", None)


def test_faults_of_the_section_have_places(language: Path) -> None:
    wrong = document(
        language, to="onnx", data="data", gate={"allow": {"exact_match": 0.1}, "metrics": ["vqaa"]}
    )
    wrong["stages"]["out"]["model"] = "data"
    with pytest.raises(RecipeError) as error:
        recipe.check(wrong, "test")
    assert "out.model: 'data' is a prepare stage" in error.value.what
    assert "out.gate.metrics: no metrics plug-in 'vqaa'" in error.value.what
