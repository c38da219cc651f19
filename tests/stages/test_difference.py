"""`sightline diff`: settings first, then paired differences on the same records; other data are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planted
from commanded import command
from sightline import runs
from sightline.cli.diff import stage
from sightline.errors import DataError, RunError
from sightline.stages import kept
from sightline.stages.difference import Wish, difference, same

SPLIT = {"train": 0.1, "valid": 0.1, "test": 0.8}
DATA = {**planted.DATA, "patients": 22, "split": SPLIT}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Evaluations: `old` and `new` of the same data, `few` of another part of it."""
    root = tmp_path_factory.mktemp("diff")
    ways: dict[str, dict[str, Any]] = {
        "old": {"shares": {"base": 0.5, "taught": 0.6}},
        "new": {"shares": {"base": 0.5, "better": 0.9}, "generate": {"max_new_tokens": 32}},
        "few": {"shares": {"base": 0.5, "taught": 0.6}, "limit": 5},
        "other": {"shares": {"taught": 0.6}, "metrics": [{"rouge": {"report": "nodule"}}, "vqa"]},
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, how in ways.items():
            planted.evaluation(root, patch, name=name, data=DATA, **how)
    return {name: root / "runs" / name / "evaluate" for name in ways}


def test_the_better_model_is_better_on_the_same_records(made: dict[str, Path]) -> None:
    found = difference(made["old"], made["new"], Wish(resamples=200))
    rows = {row["metric"]: row for row in found["rows"]}
    accuracy = rows["accuracy"]
    assert accuracy["model"] == "taught and better"
    assert accuracy["difference"] == pytest.approx(accuracy["second"] - accuracy["first"])
    assert accuracy["low"] > 0.05
    assert accuracy["verdict"] == "better"
    assert rows["unparsed"]["verdict"] == "undecided"
    assert not [name for name in rows if name.startswith("majority_")]
    assert "base, clean: the same answers in both" in found["notes"]
    read = [kept.read(made[n], [m], ["clean"])[m, "clean"] for n, m in (("old", "taught"), ("new", "better"))]
    shut = [[p for p in each if p.topic != "report"] for each in read]
    right = [np.mean([p.text == p.answer for p in each]) for each in shut]
    assert accuracy["first"] == pytest.approx(right[0])
    assert accuracy["second"] == pytest.approx(right[1])


def test_p_values_are_corrected_after_holm(made: dict[str, Path]) -> None:
    from sightline import plugins, stats

    found = difference(made["old"], made["new"], Wish(metrics=("vqa",), resamples=100))
    sides = [
        kept.read(made[n], [m], ["clean"])[m, "clean"] for n, m in (("old", "taught"), ("new", "better"))
    ]
    first, second = ({m.name: m for m in plugins.load("metrics", "vqa").score(each)} for each in sides)
    names = [row["metric"] for row in found["rows"]]
    plain = [stats.paired(second[n], first[n], seed=0, resamples=100).p for n in names]
    kept_p = [p for p in plain if p is not None]
    assert len(kept_p) > 5
    assert [r["p"] for r in found["rows"] if r["p"] is not None] == stats.holm(kept_p)


def test_settings_that_differ_and_no_others(made: dict[str, Path]) -> None:
    found = difference(made["old"], made["new"], Wish(resamples=100))
    settings = {row["setting"]: (row["first"], row["second"]) for row in found["settings"]}
    assert settings["generate.max_new_tokens"] == settings["decoding.max_new_tokens"] == (64, 32)
    assert "models" in settings
    assert "model base" not in settings
    assert {"metric vqa, code", "statistics", "data asked", "seed", "library numpy"} & set(settings) == set()
    assert difference(made["old"], made["old"], Wish())["settings"] == []


def test_two_named_models_and_other_images(made: dict[str, Path]) -> None:
    found = difference(
        made["old"], made["new"], Wish(of=("base", "better"), images=("clean", "black"), resamples=100)
    )
    assert {(r["model"], r["image"]) for r in found["rows"]} == {
        ("base and better", "clean"), ("base and better", "black"),
    }  # fmt: skip
    with pytest.raises(RunError, match="no model 'taught' in this evaluation"):
        difference(made["old"], made["new"], Wish(of=("taught", "taught")))
    with pytest.raises(RunError, match="no answers of 'base' to noise images"):
        difference(made["old"], made["new"], Wish(images=("noise",)))


def test_other_data_are_refused_with_the_records_of_one_only(made: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="did not ask the same") as caught:
        difference(made["old"], made["few"], Wish())
    asked = {
        n: {p.sample for p in kept.read(made[n], ["base"], ["clean"])["base", "clean"]}
        for n in ("old", "few")
    }
    lonely = sorted(asked["old"] - asked["few"])
    assert len(lonely) > 5
    assert (
        caught.value.found
        == f"{len(lonely)} record(s) in the first only ({', '.join(lonely[:5])}, ...); 0 record(s) in the second only"
    )


def test_the_same_ids_with_another_question_are_refused(made: dict[str, Path]) -> None:
    read = kept.read(made["old"], ["base"], ["clean"])["base", "clean"]
    changed = [replace(read[0], question="Something else?"), *read[1:]]
    with pytest.raises(DataError, match="same ids and are not the same") as caught:
        same(read, changed)
    assert caught.value.where == f"sample {read[0].sample}, turn {read[0].turn}"
    same(read, list(reversed(read)))


def test_metrics_with_other_options_are_left_out(made: dict[str, Path]) -> None:
    found = difference(made["old"], made["other"], Wish(of=("base", "taught"), resamples=100))
    assert [n for n in found["notes"] if n.startswith("rouge is not compared: its options differ")]
    assert "rouge_l" not in {row["metric"] for row in found["rows"]}
    named = difference(
        made["old"], made["other"], Wish(of=("base", "taught"), metrics=("rouge",), resamples=100)
    )
    assert {row["metric"] for row in named["rows"]} == {"rouge_l"}


def trained(folder: Path, lr: float, losses: list[float], stage: str = "sft") -> Path:
    section = {"stage": stage, "data": "data", "train": {"lr": lr, "steps": len(losses)}}
    with runs.start(folder, section=section, seed=0, version=1, parents={}) as run:
        curve = [{"step": i + 1, "loss": loss, "note": "x"} for i, loss in enumerate(losses)]
        runs.write_json(run.work / "curve.json", curve)
    return folder


def test_two_trainings(tmp_path: Path) -> None:
    one, other = trained(tmp_path / "a", 1e-3, [3.0, 2.0]), trained(tmp_path / "b", 1e-4, [3.0, 2.75, 2.5])
    found = difference(one, other, Wish())
    assert found["settings"] == [
        {"setting": "train.lr", "first": 1e-3, "second": 1e-4},
        {"setting": "train.steps", "first": 2, "second": 3},
    ]
    assert {"value": "loss", "first": 2.0, "second": 2.5, "difference": 0.5} in found["final"]
    with pytest.raises(RunError, match="different kinds"):
        difference(one, trained(tmp_path / "c", 1e-3, [1.0], stage="align"), Wish())


def test_the_command(made: dict[str, Path], monkeypatch: Any, capsys: Any) -> None:
    assert stage(made["old"].parent) == made["old"]
    words = ("diff", made["old"].parent, made["new"].parent, "--resamples", 100)
    code, out, _ = command(monkeypatch, capsys, *words)
    assert code == 0
    lines = out.splitlines()
    assert lines[3].split() == ["setting", "first", "second"]
    assert any(line.split()[:1] == ["generate.max_new_tokens"] for line in lines)
    assert any(
        line.startswith("taught and better  clean  accuracy") and line.endswith("better") for line in lines
    )
    assert "difference: second minus first" in out
    told = json.loads(command(monkeypatch, capsys, *words, "--json")[1])
    assert set(told) == {"kind", "first", "second", "settings", "rows", "notes"}
    code, _, err = command(monkeypatch, capsys, "diff", made["old"], made["few"])
    assert code == 1
    assert "record(s) in the first only" in err
