"""index and retrieve on phantoms: whose reports are shown, what is written, how K and the domain are chosen."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models_retrieval as made
from sightline import plugins, recipe, runs, stages
from sightline.data import prepare
from sightline.data.prompts import with_reports
from sightline.data.source import Source
from sightline.errors import RecipeError, RunError
from sightline.metrics.findings import findings
from sightline.settings import Template
from sightline.stages import index as stages_index
from sightline.stages import retrieve as stages_retrieve

SPLITS = ("train", "valid", "test")
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stands for a saved encoder; what is opened in its place is `models_retrieval.encoder`."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "sightline.json").write_text("{}")
    runs.seal(folder)
    return folder


@pytest.fixture
def run(root: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run prepare, index and retrieve in one shared folder; returns the folder of `found`."""
    for stage in (stages_index, stages_retrieve):
        monkeypatch.setattr(stage, "load_encoder", lambda folder: made.encoder())

    def execute(
        *, reports: dict[str, Any] | None = None, more: dict[str, Any] | None = None, index: Any = "reports",
        **found: Any,
    ) -> Path:  # fmt: skip
        document = {
            "name": "tiny",
            "seed": 3,
            "stages": {
                "data": {
                    "stage": "prepare", "reader": "phantom", "patients": 30, "size": 64,
                    "split": {"train": 0.6, "valid": 0.2, "test": 0.2},
                },
                "reports": {"stage": "index", "data": "data", "model": str(saved), **(reports or {})},
                **(more or {}),
                "found": {"stage": "retrieve", "data": "data", "index": index, "choose": {"k": 4}, **found},
            },
        }  # fmt: skip
        return stages.execute(recipe.check(document, "test"), root, say=lambda line: None)["found"]

    return execute


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def told(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def test_every_sample_gets_reports_of_others(run: Run, root: Path) -> None:
    folder = run()
    data, plain = prepare.load(folder), prepare.load(root / "tiny" / "data")
    texts = {s.id: s.messages[1].text for s in plain.samples("train") if s.messages[1].topic == "report"}
    assert told(root / "tiny" / "reports", "index.json")["reports"] == len(texts) > 15
    found = {row["id"]: row for row in lines(folder / "retrieved.jsonl")}
    total = 0
    for split in SPLITS:
        assert data.counts[split] == plain.counts[split]
        for after, before in zip(data.samples(split), plain.samples(split), strict=True):
            row = found[after.id]
            assert replace(after, references=()) == before
            assert (row["patient"], row["split"], row["rule"], row["kept"]) == (
                after.patient,
                split,
                "top",
                4,
            )
            assert [texts[r["id"]] for r in row["reports"]] == list(after.references)
            assert after.patient not in {r["patient"] for r in row["reports"]}
            scores = [r["similarity"] for r in row["reports"]]
            assert scores == sorted(scores, reverse=True)
            total += 1
    assert total == len(found)
    assert data.root.resolve() == plain.root.resolve()
    assert data.template == {"name": "mmed_rag", "role": "radiologist", "image": "X-ray"}
    assert plain.template is None
    first = data.samples("train")[0]
    assert first.references[0] in with_reports(first, Template.model_validate(data.template)).messages[0].text
    assert told(folder, "audit.json")["index and test"]["patients"] == {"in_both": 0, "test_samples": 0}
    assert not (folder / "calibration.json").exists()


def test_the_original_files_are_read_back(run: Run, tmp_path: Path) -> None:
    folder = run()
    asked = lines(folder / "original" / "test-vqa.jsonl")
    reports = lines(folder / "original" / "test-report.jsonl")
    assert [list(row) for row in reports] == [
        ["id", "report", "reference_reports", "retrieve_k", "image"] for _ in reports
    ]
    assert {"question_id", "question", "answer", "image", "reference_reports", "retrieve_k"} == set(asked[0])
    assert len(asked) == 6 * len(reports)  # six questions a study
    assert asked[0]["question"] == "Is there a left effusion?\n<image>"
    assert len({row["question_id"] for row in asked}) == len(asked)
    reader = plugins.load("readers", "llava_json")
    source = Source(root=folder / "original", seed=0, images=tmp_path)
    again = [sample for sample, _, _ in reader.read(source, file="test-report.jsonl")]
    assert source.rejected == []
    assert [list(s.references) for s in again] == [row["reference_reports"] for row in reports]
    assert [s.messages[1].text for s in again] == [row["report"] for row in reports]


def test_twice_gives_the_same_bytes(run: Run, root: Path) -> None:
    first = {name: runs.content(root / "tiny" / name) for name in ("reports", "found") if run()}
    for name in ("reports", "found"):
        (root / "tiny" / name / "manifest.json").unlink()
    run()
    assert {name: runs.content(root / "tiny" / name) for name in ("reports", "found")} == first


def test_adaptive_rules_show_fewer_and_at_least_one(run: Run) -> None:
    everything = {row["id"]: row for row in lines(run() / "retrieved.jsonl")}
    for rule, gamma in (("ratio", 1.1), ("gap", 0.05)):
        rows = lines(run(choose={"rule": rule, "k": 4, "gamma": gamma}) / "retrieved.jsonl")
        kept = [row["kept"] for row in rows]
        assert {1} < set(kept) <= {1, 2, 3, 4}
        assert all(row["reports"] == everything[row["id"]]["reports"] for row in rows)
        for row in rows:
            scores = [max(r["similarity"], 0) for r in row["reports"]]
            if rule == "ratio" and row["kept"] < 4 and scores[row["kept"]] > 0:
                assert scores[0] / scores[row["kept"]] > 1.0999


def test_calibrated_k_is_calibrated_on_the_valid_split(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(choose={"rule": "calibrated", "k": 4, "alpha": 0.999})
    made_of = told(folder, "calibration.json")
    data = prepare.load(folder)
    rows = [row for row in lines(folder / "retrieved.jsonl") if row["split"] == "valid"]
    assert (made_of["samples"], made_of["patients"]) == (len(rows), len({row["patient"] for row in rows}))
    by_id = {s.id: s for s in data.samples("valid")}
    texts = {s.id: s.messages[1].text for s in data.samples("train")}
    wrong: dict[str, list[float]] = {}
    for row in rows:
        sample = by_id[row["id"]]
        said = [findings(texts[r["id"]]) for r in row["reports"]]
        flags = [any(v not in (None, sample.labels[f]) for f, v in s.items()) for s in said]
        wrong.setdefault(sample.patient, []).append(float(flags[0]))
    expected = np.mean([np.mean(values) for values in wrong.values()])
    assert made_of["table"][0]["share"] == pytest.approx(expected)
    n = made_of["patients"]
    assert made_of["table"][0]["bound"] == pytest.approx(n / (n + 1) * expected + 1 / (n + 1))
    assert {row["kept"] for row in lines(folder / "retrieved.jsonl")} == {made_of["k"]}
    strict = run(choose={"rule": "calibrated", "k": 4, "alpha": 0.01})
    assert told(strict, "calibration.json")["promised"] is False
    assert {len(s.references) for split in SPLITS for s in prepare.load(strict).samples(split)} == {1}
    assert "WARNING: no K has a bound of at most 0.01" in capsys.readouterr().out


def test_k_is_not_calibrated_on_indexed_reports(run: Run) -> None:
    with pytest.raises(RecipeError, match="cannot be calibrated on the valid split while an index holds"):
        run(reports={"split": ["train", "valid"]}, choose={"rule": "calibrated", "alpha": 0.5})


def test_two_indexes_and_a_router(run: Run, root: Path, saved: Path) -> None:
    """Dark pictures and others as two domains: each sample asks one index, and nearly always its own."""
    others = {
        "stage": "index",
        "data": "data",
        "model": str(saved),
        "where": {"exposure": ["bright", "middle"]},
    }
    folder = run(
        reports={"where": {"exposure": "dark"}},
        more={"others": others},
        index={"dark": "reports", "lit": "others"},
    )
    assert told(folder, "domain.json")["names"] == ["dark", "lit"]
    assert 0 <= told(folder, "domain.json")["held_out_accuracy"] <= 1
    rows = {row["id"]: row for row in lines(folder / "retrieved.jsonl")}
    samples = {s.id: s for split in SPLITS for s in prepare.load(folder).samples(split)}
    right = []
    for name, row in rows.items():
        shown = {samples[r["id"]].attributes["exposure"] for r in row["reports"]}
        assert shown == {"dark"} if row["index"] == "dark" else shown <= {"bright", "middle"}
        if row["split"] == "train":
            right.append((samples[name].attributes["exposure"] == "dark") == (row["index"] == "dark"))
    assert np.mean(right) > 0.9
    assert {row["index"] for row in rows.values()} == {"dark", "lit"}


def test_an_index_of_the_test_patients_is_told_and_shows_them_nothing_of_their_own(
    run: Run, saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every patient is in the index, the test patients too: their own reports stay hidden, and the audit counts."""
    everyone = {
        "stage": "prepare",
        "reader": "phantom",
        "patients": 30,
        "size": 64,
        "split": {"train": 1, "valid": 0, "test": 0},
    }
    whole = {"stage": "index", "data": "everyone", "model": str(saved)}
    folder = run(more={"everyone": everyone, "whole": whole}, index="whole")
    test = list(prepare.load(folder).samples("test"))
    patients, images = {s.patient for s in test}, {s.images[0].sha256 for s in test}
    audit = told(folder, "audit.json")["index and test"]
    assert audit["patients"] == {"in_both": len(patients), "test_samples": len(test)}
    assert audit["images"] == {"in_both": len(images), "test_samples": len(test)}
    assert audit["texts"]["in_both"] == len({s.messages[1].text for s in test if s.id.endswith("report")})
    assert (
        f"the index holds {len(patients)} patients and {len(images)} images of the test split"
        in audit["warning"]
    )
    assert audit["warning"] in capsys.readouterr().out
    rows = lines(folder / "retrieved.jsonl")
    assert len(rows) > 60
    assert all(row["patient"] not in {r["patient"] for r in row["reports"]} for row in rows)
    assert all(len(row["reports"]) == 4 for row in rows)


def test_an_index_without_reports_is_refused(run: Run) -> None:
    with pytest.raises(RunError, match="no report to index") as caught:
        run(reports={"topic": "impression"})
    assert "none with an answer of topic 'impression'" in caught.value.found


def test_an_encoder_that_has_changed_is_refused(run: Run, saved: Path) -> None:
    run()
    (saved / "sightline.json").write_text('{"another": 1}')
    try:
        with pytest.raises(RunError, match="the encoder of an index has changed since"):
            run(choose={"k": 2})
    finally:
        (saved / "sightline.json").write_text("{}")
