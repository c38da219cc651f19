"""The whole life of a tiny model: prepare, sft, prefer, align, evaluate; then what may and may not run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from sightline import recipe, runs, stages
from sightline.cli.verify import check as verified
from sightline.data import prepare
from sightline.errors import RunError
from sightline.models import checkpoint

IMAGES = ["clean", "noise", "black", "swapped"]
ROW = {"model", "image", "metric", "value", "low", "high", "n", "patients"}


def document(language: Path) -> dict[str, Any]:
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    lora = {"language": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}}
    return {
        "name": "life",
        "seed": 3,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": 10, "size": 64,
                     "split": {"train": 0.6, "valid": 0, "test": 0.4}},
            "taught": {"stage": "sft", "data": "data", "model": part, "max_tokens": 2048,
                       "trainable": {"connector": {"full": {"lr": 1e-2}}, **lora}, "train": {"steps": 2, "batch": 2}},
            "pairs": {"stage": "prefer", "data": "data", "model": "taught",
                      "kinds": {"wrong_finding": 1, "degraded": 0.5}},
            "aligned": {"stage": "align", "data": "pairs", "model": "taught", "max_tokens": 2048, "trainable": lora,
                        "loss": {"name": "dpo", "beta": 0.1}, "train": {"steps": 2, "batch": 2}},
            "evaluate": {"stage": "evaluate", "data": "data", "models": ["base", "taught", "aligned"], "images": IMAGES,
                         "metrics": ["vqa", "bleu", "rouge"], "generate": {"max_new_tokens": 4, "batch": 8},
                         "resamples": 100},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def life(language: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    root = tmp_path_factory.mktemp("runs")
    said: list[str] = []
    own = document(language)
    stages.execute(recipe.check(own, "test"), root, say=said.append)
    return root, own, said


def scores(root: Path) -> dict[str, list[dict[str, Any]]]:
    return json.loads((root / "life" / "evaluate" / "scores.json").read_text(encoding="utf-8"))


def test_every_model_meets_every_image(life: tuple[Path, dict[str, Any], list[str]]) -> None:
    rows = scores(life[0])["rows"]
    assert all(set(row) == ROW for row in rows)
    sides = {(row["model"], row["image"]) for row in rows}
    assert sides == {(m, i) for m in ("base", "taught", "aligned") for i in IMAGES}
    for row in rows:
        if row["metric"] == "balanced_accuracy":
            assert row["low"] <= row["value"] <= row["high"]
            assert row["patients"] == 4
            assert row["n"] % 6 == 0


def test_comparisons_name_models_blind_images_and_the_rise(
    life: tuple[Path, dict[str, Any], list[str]],
) -> None:
    asked = {row["question"] for row in scores(life[0])["paired"]}
    assert {"taught minus base", "aligned minus taught"} <= asked
    assert {f"taught: clean minus {i}" for i in IMAGES[1:]} <= asked
    assert {f"rise of clean over {i}, taught to aligned" for i in IMAGES[1:]} <= asked


def test_a_black_image_gives_everybody_the_same_answers(life: tuple[Path, dict[str, Any], list[str]]) -> None:
    path = life[0] / "life" / "evaluate" / "predictions" / "taught-black.jsonl"
    made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_topic: dict[str, set[str]] = {}
    for prediction in made:
        assert (prediction["model"], prediction["image"]) == ("taught", "black")
        by_topic.setdefault(prediction["topic"], set()).add(prediction["text"])
    assert len(by_topic) == 7
    assert all(len(texts) == 1 for texts in by_topic.values())


def test_the_report_shows_models_and_pictures(life: tuple[Path, dict[str, Any], list[str]]) -> None:
    page = (life[0] / "life" / "evaluate" / "report.html").read_text(encoding="utf-8")
    for word in ("base", "taught", "aligned", "data:image/webp;base64", "research", "swapped"):
        assert word in page
    assert "http://" not in page
    assert "https://" not in page


def test_its_scores_follow_from_its_answers_and_it_says_what_made_them(
    life: tuple[Path, dict[str, Any], list[str]],
) -> None:
    root = life[0]
    folder = root / "life" / "evaluate"
    found = verified(folder)
    assert found.faults == []
    assert found.notes == []
    told = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert told["decoding"]["method"] == "greedy"
    assert told["decoding"]["max_new_tokens"] == 4
    models_ = told["models"]
    assert {name: len(each["line"]) for name, each in models_.items()} == {
        "base": 0,
        "taught": 1,
        "aligned": 2,
    }
    assert models_["aligned"]["line"][0] == models_["taught"]["line"][0]
    assert (
        len({each["base"] for each in models_.values()})
        == len({e["template"]["sha256"] for e in models_.values()})
        == 1
    )
    for each in models_.values():
        assert set(each["answers"]) == set(IMAGES)
        assert all(a["made_with"] == [runs.versions()] for a in each["answers"].values())
    ledger = root / "life" / ".answers" / f"{models_['taught']['answers']['clean']['key']}.jsonl"
    text = ledger.read_text(encoding="utf-8")
    line, rest = text.split("\n", 1)
    first = json.loads(line)
    said = first["predictions"][0]["text"]
    first["predictions"][0]["text"] = f"{said}?"
    try:
        ledger.write_text(f"{json.dumps(first)}\n{rest}", encoding="utf-8")
        (fault,) = verified(folder).faults
        assert fault.by == "as the answers beside the stages have it"
        assert (fault.found, fault.expected) == (repr(said), repr(f"{said}?"))
    finally:
        ledger.write_text(text, encoding="utf-8")


def test_a_second_run_does_nothing(life: tuple[Path, dict[str, Any], list[str]]) -> None:
    root, own, _ = life
    said: list[str] = []
    stages.execute(recipe.check(own, "test"), root, say=said.append)
    assert said == [f"{name}: up to date" for name in own["stages"]]


def test_another_metric_needs_no_model(
    life: tuple[Path, dict[str, Any], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, own, _ = life

    def refuse(*_: Any) -> None:
        raise AssertionError("a model was composed")

    monkeypatch.setattr(checkpoint, "load", refuse)
    monkeypatch.setattr(checkpoint, "compose", refuse)
    stage = {**own["stages"]["evaluate"], "metrics": ["vqa"]}
    changed = {**own, "stages": {**own["stages"], "evaluate": stage}}
    said: list[str] = []
    stages.execute(recipe.check(changed, "test"), root, say=said.append)
    assert said[-1] == "evaluate: evaluate"
    assert {row["metric"] for row in scores(root)["rows"]}.isdisjoint({"bleu", "rouge_l"})


def test_another_beta_runs_what_depends_on_it(life: tuple[Path, dict[str, Any], list[str]]) -> None:
    root, own, _ = life
    aligned = {**own["stages"]["aligned"], "loss": {"name": "dpo", "beta": 0.2}}
    changed = {**own, "stages": {**own["stages"], "aligned": aligned}}
    said: list[str] = []
    stages.execute(recipe.check(changed, "test"), root, say=said.append)
    assert [line for line in said if "up to date" in line] == [
        "data: up to date", "taught: up to date", "pairs: up to date",
    ]  # fmt: skip
    assert "aligned: align" in said
    assert "evaluate: evaluate" in said


def test_where_chooses_what_is_asked(life: tuple[Path, dict[str, Any], list[str]]) -> None:
    root, own, _ = life
    data = prepare.load(root / "life" / "data")
    views = {s.attributes["severity_effusion_left"] for s in data.samples("test")}
    assert len(views) >= 1
    chosen = sorted(views)[0]
    wanted = {s.id for s in data.samples("test") if s.attributes["severity_effusion_left"] == chosen}
    some = {
        **own["stages"]["evaluate"],
        "where": {"severity_effusion_left": [chosen, "nobody"]},
        "models": ["taught"],
    }
    stages.execute(
        recipe.check({**own, "stages": {**own["stages"], "some": some}}, "test"), root, say=lambda _: None
    )
    lines = (
        (root / "life" / "some" / "predictions" / "taught-clean.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    assert {json.loads(line)["sample"] for line in lines} == wanted
    none = {**some, "where": {"severity_effusion_left": "nobody"}}
    with pytest.raises(RunError, match="there is nothing to ask"):
        stages.execute(
            recipe.check({**own, "stages": {**own["stages"], "none": none}}, "test"), root, say=lambda _: None
        )
