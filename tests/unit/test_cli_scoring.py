"""`sightline score`: any metric on a file of answers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sightline import cli
from sightline.cli import scoring
from sightline.errors import DataError, RecipeError
from sightline.types import Prediction, to_plain
from small_amber import asked, described, write


def predictions(path: Path, *texts: str) -> Path:
    """Two patients of two turns each, about nodules."""
    rows = [
        Prediction(
            sample=f"s{i}", patient=f"p{i // 2}", turn=0, topic="nodule", question="Is there a nodule?",
            answer="yes" if i % 2 else "no", text=text,
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(to_plain(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["sightline", "score", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    out = capsys.readouterr()
    return int(caught.value.code or 0), out.out, out.err


def test_predictions_by_any_metric(tmp_path: Path, monkeypatch: Any, capsys: Any):
    path = predictions(tmp_path / "a.jsonl", "no", "yes", "no", "no")
    code, out, _ = run(monkeypatch, capsys, "vqa", path, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["metric"], found["answers"], found["options"]) == ("vqa", 4, {"report": "report"})
    assert found["scores"]["accuracy"] == 0.75
    assert found["notes"] == []
    rows = {(row["metric"], row["part"]): row for row in found["rows"]}
    assert rows["accuracy", ""] == {
        "metric": "accuracy", "part": "", "value": 0.75, "low": 0.5, "high": 1.0, "n": 4, "patients": 2,
    }  # fmt: skip
    assert rows["balanced_accuracy", "nodule"]["value"] == 0.75
    code, out, _ = run(monkeypatch, capsys, "vqa", path)
    assert code == 0
    assert out.splitlines()[0].split() == ["metric", "part", "value", "low", "high", "n", "patients"]
    assert out.splitlines()[1].split() == ["accuracy", "0.75", "0.5", "1", "4", "2"]


def test_the_seed_decides_the_intervals(tmp_path: Path):
    path = predictions(tmp_path / "a.jsonl", *["no", "yes", "no", "no", "yes", "yes"] * 5)
    first, again, other = (scoring.score("vqa", path, [], seed=s, resamples=100)["rows"] for s in (0, 0, 1))
    assert first == again != other


def test_a_file_in_the_layout_of_the_metric(tmp_path: Path, monkeypatch: Any, capsys: Any):
    write(
        tmp_path,
        described(["sky"], ["cat"]),
        asked("relation", "no"),
        asked("discriminative-hallucination", "no"),
    )
    path = tmp_path / "answers.json"
    path.write_text(
        json.dumps(
            [{"id": 1, "response": "sky, cat"}, {"id": 2, "response": "No"}, {"id": 3, "response": "Yes"}]
        )
    )
    words = (path, f"data={tmp_path}", "similarity=trigram", "nouns=plain")
    code, out, _ = run(monkeypatch, capsys, "amber", *words, "mode=exact", "--json")
    assert code == 0
    assert json.loads(out)["scores"] == {
        "generative": {"chair": 50.0, "cover": 99.9, "hal": 100.0, "cog": 99.9},
        "discriminative": {"accuracy": 50.0, "precision": 99.9, "recall": 50.0, "f1": 66.6},
        "existence": {"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        "relation": {"accuracy": 99.9, "precision": 99.9, "recall": 99.9, "f1": 99.9},
    }
    code, out, _ = run(monkeypatch, capsys, "amber", *words)
    assert code == 0
    assert "corrected: Cog divides by the nouns of the description, as the paper" in out
    assert "exact would print for relation: accuracy 99.9, precision 99.9, recall 99.9, f1 99.9" in out
    code, out, _ = run(monkeypatch, capsys, "amber", *words, "--json")
    assert json.loads(out)["scores"]["existence"] == {
        "accuracy": 0.0,
        "precision": None,
        "recall": 0.0,
        "f1": 0.0,
    }


def test_a_mistake_is_one_block(tmp_path: Path, monkeypatch: Any, capsys: Any):
    code, out, err = run(monkeypatch, capsys, "amber", tmp_path / "absent.json")
    assert (code, out) == (1, "")
    assert "no such file of answers" in err
    code, _, err = run(monkeypatch, capsys, "vqaa", predictions(tmp_path / "a.jsonl", "no"))
    assert "did you mean 'vqa'?" in err
    code, _, err = run(monkeypatch, capsys, "amber", tmp_path / "a.jsonl", "mode=other")
    assert "mode: Input should be 'corrected' or 'exact'" in err


def test_answers_that_cannot_be_scored(tmp_path: Path):
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(DataError, match="reads predictions only"):
        scoring.score("vqa", tmp_path / "a.json", [], seed=0, resamples=100)
    with pytest.raises(DataError, match="finds nothing to score"):
        scoring.score("rouge", predictions(tmp_path / "a.jsonl", "no"), [], seed=0, resamples=100)
    with pytest.raises(RecipeError, match="reads key=value"):
        scoring.score("vqa", tmp_path / "a.jsonl", ["report"], seed=0, resamples=100)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"turn": "0"}, "has another type in turn"),
        ({"turn": True}, "has another type in turn"),
        ({"text": None}, "has another type in text"),
        ({"choices": {"yes": "much"}}, "has another type in choices"),
        ({"prompt": ""}, "does not know prompt"),
        ({"patient": ...}, "lacks patient"),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, change: dict[str, Any], found: str):
    path = predictions(tmp_path / "a.jsonl", "no", "yes")
    lines = path.read_text().splitlines()
    row = {k: v for k, v in (json.loads(lines[1]) | change).items() if v is not ...}
    path.write_text(lines[0] + "\n\n" + json.dumps(row))
    with pytest.raises(DataError, match="the line is no prediction") as caught:
        scoring.predictions(path)
    assert caught.value.where == "a.jsonl, line 3"
    assert caught.value.found == found
    path.write_text("{")
    with pytest.raises(DataError, match="not sound JSON"):
        scoring.predictions(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="no prediction"):
        scoring.predictions(path)
