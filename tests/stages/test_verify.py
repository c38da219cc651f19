"""`sightline verify`: a changed prediction, metric option, data file or score is found, with its file and its row."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import planted
from commanded import command
from sightline import plugins, runs
from sightline.cli.verify import check
from sightline.metrics import rouge

SHARES = {"base": 0.5, "taught": 0.8}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("verify")
    with pytest.MonkeyPatch.context() as patch:
        split = {"train": 0.2, "valid": 0.3, "test": 0.5}
        data = {**planted.DATA, "split": split}
        planted.evaluation(root, patch, shares=SHARES, data=data, abstain={"alpha": 0.2})
    return root / "runs" / "planted"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "runs" / "planted"))


def seal_again(folder: Path) -> None:
    """Make the hashes of a folder fit its files, as someone would who hides a change."""
    manifest = json.loads((folder / runs.MANIFEST).read_text())
    runs.seal(folder, {k: v for k, v in manifest.items() if k not in ("files", "content")})


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts(folder: Path, **how: Any) -> list[str]:
    return [fault.text() for fault in check(folder, **how).faults]


def test_an_untouched_run_is_sound_and_every_row_is_computed_again(made: Path) -> None:
    found = check(made / "evaluate")
    assert found.faults == []
    assert found.notes == []
    stored = json.loads((made / "evaluate" / "scores.json").read_text())
    assert found.numbers == sum(len(stored[key]) for key in ("rows", "paired", "parts"))
    assert len(stored["rows"]) > 40
    assert len(stored["paired"]) > 10
    assert check(made / "data").faults == []
    assert check(made / "data").numbers is None


def test_a_changed_prediction_is_found_though_its_hash_was_made_anew(run: Path) -> None:
    path = run / "evaluate" / "predictions" / "taught-clean.jsonl"
    rows = lines_of(path)
    rows[0]["text"] = "No" if rows[0]["text"] == "Yes" else "Yes"
    write_lines(path, rows)
    assert texts(run / "evaluate")[0].startswith("predictions/taught-clean.jsonl: found ")
    seal_again(run / "evaluate")
    assert runs.faults(run / "evaluate") == []
    found = texts(run / "evaluate")
    accuracy = [
        t
        for t in found
        if t.startswith("scores.json, rows, model taught, image clean, metric accuracy, value")
    ]
    stored = json.loads((run / "evaluate" / "scores.json").read_text())["rows"]
    value = next(
        r for r in stored if (r["model"], r["image"], r["metric"]) == ("taught", "clean", "accuracy")
    )
    wrong = value["n"] * value["value"]
    (said,) = accuracy
    assert f"found {value['value']}, expected" in said
    assert any(f"expected {(wrong + d) / value['n']}" in said for d in (1, -1))
    assert said.endswith("(as the predictions give it)")
    assert not [t for t in found if "model base, image black" in t and "rows" in t]


def test_a_changed_right_answer_is_told_by_the_data(run: Path) -> None:
    path = run / "evaluate" / "predictions" / "base-black.jsonl"
    rows = lines_of(path)
    before = rows[2]["answer"]
    rows[2]["answer"] = {"Yes": "No", "No": "Yes"}[before]
    write_lines(path, rows)
    seal_again(run / "evaluate")
    place = f"line 3 (sample {rows[2]['sample']}, turn {rows[2]['turn']}), answer"
    wanted = f"predictions/base-black.jsonl, {place}: found {rows[2]['answer']!r}, expected {before!r}"
    assert f"{wanted} (as data/test.parquet has it)" in texts(run / "evaluate")


def test_a_changed_answer_is_told_by_the_ledger_where_no_score_moves(run: Path) -> None:
    folder = run / "evaluate"
    rows = lines_of(folder / "predictions" / "taught-clean.jsonl")
    ledger = run / ".answers" / "abc.jsonl"
    ledger.parent.mkdir(exist_ok=True)
    by_sample: dict[str, list[Any]] = {}
    for row in rows:
        by_sample.setdefault(row["sample"], []).append(row)
    write_lines(ledger, [{"sample": s, "predictions": p} for s, p in by_sample.items()])
    edit(
        folder / "result.json",
        lambda r: r["models"]["taught"]["answers"].update(clean={"key": "abc", "made_with": []}),
    )
    seal_again(folder)
    assert texts(folder) == []
    before = rows[0]["text"]
    rows[0]["text"] = f"{before}."
    write_lines(folder / "predictions" / "taught-clean.jsonl", rows)
    seal_again(folder)
    (said,) = texts(folder)
    assert said == (
        f"predictions/taught-clean.jsonl, line 1 (sample {rows[0]['sample']}, turn 0), text: found '{before}.', "
        f"expected '{before}' (as the answers beside the stages have it)"
    )


def test_a_changed_metric_option_is_found(run: Path) -> None:
    def other(manifest: Any) -> None:
        manifest["section"]["metrics"][1] = {"rouge": {"report": "nodule"}}

    edit(run / "evaluate" / runs.MANIFEST, other)
    found = texts(run / "evaluate")
    assert "manifest.json, key: found settings that it was not made of, expected those of the run" in found
    assert (
        "manifest.json, metric rouge, option report: found 'nodule', expected 'report' (as result.json has it)"
        in found
    )
    assert any(
        t.startswith("manifest.json, section, metrics [1]") and "as recipe.json has it" in t for t in found
    )
    assert any("metric rouge_l" in t and t.startswith("scores.json, rows") for t in found)


def test_other_resamples_and_seed_are_found(run: Path) -> None:
    def other(manifest: Any) -> None:
        manifest["section"]["resamples"] = 200
        manifest["seed"] = 1

    edit(run / "evaluate" / runs.MANIFEST, other)
    found = texts(run / "evaluate")
    assert "manifest.json, resamples: found 200, expected 100 (as result.json has it)" in found
    assert "manifest.json, seed: found 1, expected 0 (as result.json has it)" in found


def test_a_changed_data_file_is_found_from_the_evaluation_alone(run: Path) -> None:
    image = next((run / "data" / "images").rglob("*.png"))
    asked = {r["sample"] for r in lines_of(run / "evaluate" / "predictions" / "base-clean.jsonl")}
    assert asked
    image.write_bytes(image.read_bytes() + b"x")
    name = image.relative_to(run / "data").as_posix()
    assert any(t.startswith(f"data/{name}: found") for t in texts(run / "evaluate"))
    seal_again(run / "data")
    found = texts(run / "evaluate")
    content = json.loads((run / "data" / runs.MANIFEST).read_text())["content"][:16]
    assert any(t.startswith(f"data/manifest.json: found content {content}, expected ") for t in found)


def test_an_image_that_was_asked_about_is_told_by_its_hash(run: Path) -> None:
    from sightline.data import prepare

    data = prepare.load(run / "data")
    ref = data.samples("test")[0].images[0]
    (data.root / ref.path).write_bytes((data.root / ref.path).read_bytes() + b"x")
    seal_again(run / "data")
    now = runs.hash_file(data.root / ref.path)[:16]
    wanted = f"{ref.path}: found SHA-256 {now}, expected {ref.sha256[:16]} (as data/test.parquet has it)"
    assert wanted in texts(run / "evaluate")


def test_a_changed_score_and_a_changed_threshold(run: Path) -> None:
    before: list[float] = []

    def flatter(scores: Any) -> None:
        row = scores["rows"][0]
        before.append(row["value"])
        row["value"] = row["value"] + 0.125
        scores["paired"].pop()

    edit(run / "evaluate" / "scores.json", flatter)
    edit(run / "evaluate" / "abstain.json", lambda a: a["models"]["taught"].update(threshold=0.123456))
    seal_again(run / "evaluate")
    found = texts(run / "evaluate")
    row = json.loads((run / "evaluate" / "scores.json").read_text())["rows"][0]
    assert found[0] == (
        f"scores.json, rows, model {row['model']}, image {row['image']}, metric {row['metric']}, value: "
        f"found {row['value']}, expected {before[0]} (as the predictions give it)"
    )
    assert [
        t
        for t in found
        if t.startswith("scores.json, paired") and t.endswith("found no such row, expected one")
    ]
    assert [
        t for t in found if t.startswith("abstain.json, models, taught, threshold: found 0.123456, expected")
    ]
    assert len(found) == 3


def test_the_tolerance_lets_last_digits_pass(run: Path) -> None:
    def nudge(scores: Any) -> None:
        row = next(r for r in scores["rows"] if r["metric"] == "margin")
        row["value"] *= 1 + 1e-12

    edit(run / "evaluate" / "scores.json", nudge)
    seal_again(run / "evaluate")
    assert len(texts(run / "evaluate")) == 1
    assert texts(run / "evaluate", tolerance=1e-9) == []


def test_a_metric_that_needs_a_model_is_skipped_and_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setattr(rouge, "METRIC", replace(rouge.METRIC, needs_model=True))
    found = check(run / "evaluate")
    assert found.faults == []
    assert found.notes == ["skipped: rouge (needs a model; --models runs it)"]
    edit(run / "evaluate" / "scores.json", lambda s: s["rows"].pop())
    seal_again(run / "evaluate")
    last = [
        r
        for r in json.loads((run / "evaluate" / "scores.json").read_text())["rows"]
        if r["metric"] == "rouge_l"
    ]
    assert len(texts(run / "evaluate", models=True)) == 1 - (len(last) == 4)


def test_a_line_that_is_gone_and_one_that_stands_twice(run: Path) -> None:
    path = run / "evaluate" / "predictions" / "base-clean.jsonl"
    first, *rows = lines_of(path)
    write_lines(path, [*rows, rows[0]])
    seal_again(run / "evaluate")
    found = texts(run / "evaluate")
    name = "predictions/base-clean.jsonl"
    assert (
        f"{name}, sample {first['sample']}, turn {first['turn']}: found no such line, expected one" in found
    )
    assert f"{name}, sample {rows[0]['sample']}, turn {rows[0]['turn']}: found 2 lines, expected one" in found
    assert [t for t in found if t.startswith("scores.json: found two predictions answer the same turn")]


def test_a_missing_or_torn_file_of_predictions(run: Path) -> None:
    path = run / "evaluate" / "predictions" / "taught-black.jsonl"
    path.write_text(path.read_text()[:-30])
    assert any("the line is not sound JSON" in t for t in texts(run / "evaluate"))
    path.unlink()
    assert any("a file of predictions is missing" in t for t in texts(run / "evaluate"))


def test_the_command_its_exit_codes_and_its_json(run: Path, monkeypatch: Any, capsys: Any) -> None:
    code, out, err = command(monkeypatch, capsys, "verify", run)
    assert (code, err) == (0, "")
    assert "rows of scores computed again: as its manifest says" in out
    path = run / "evaluate" / "predictions" / "base-clean.jsonl"
    rows = lines_of(path)
    write_lines(path, [{**row, "text": "Yes", "choices": {}} for row in rows])
    seal_again(run / "evaluate")
    code, out, err = command(monkeypatch, capsys, "verify", run / "evaluate", "--json")
    assert code == 1
    told = json.loads(out)
    assert [each["sound"] for each in told] == [False]
    assert len(told[0]["faults"]) > 20
    assert "scores.json, rows, model base, image clean, metric accuracy" in err
    assert "... and" in err
    assert "--tolerance 1e-09 lets these pass" in err


def test_what_made_the_numbers_is_shown(run: Path, monkeypatch: Any, capsys: Any) -> None:
    _, out, _ = command(monkeypatch, capsys, "show", run / "evaluate")
    assert "decoding  greedy, at most 64 tokens, float32" in out
    vqa = plugins.load("metrics", "vqa").version
    assert f"vqa {vqa}, rouge 1; seed 0, 100 resamples" in out
    told = json.loads(command(monkeypatch, capsys, "show", run / "evaluate", "--how", "--json")[1])
    assert set(told) == {"format", "decoding", "data", "models", "scoring", "predictions"}
    assert told["scoring"]["metrics"]["vqa"]["code"]["metrics/answers.py"]
    assert told["scoring"]["metrics"]["rouge"]["measures"]["rouge_l"]["unit"] == "0-1"
    assert {"numpy", "rouge_score"} <= set(told["scoring"]["libraries"])
    assert "torch" not in told["scoring"]["libraries"]
    assert told["predictions"]["taught-clean.jsonl"]["rows"] == told["data"]["turns"]
    assert told["data"]["content"] == runs.content(run / "data")
    text = command(monkeypatch, capsys, "show", run / "evaluate", "--how")[1]
    assert "normaliser" in text
    assert "what made the numbers" not in command(monkeypatch, capsys, "show", run / "evaluate", "--json")[1]
    page = (run / "evaluate" / "report.html").read_text()
    assert "What made the scores" in page
