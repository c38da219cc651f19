"""evaluate with covered findings, attention, subgroups and an encoder: what is asked, kept, scored and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from sightline import recipe, stages
from sightline.data import prepare
from sightline.errors import RecipeError, RunError
from sightline.models import checkpoint
from sightline.models.encoder_checkpoint import load_encoder
from sightline.retrieval import embed
from sightline.stages import occlusion
from sightline.stages.recount import recount
from sightline.types import Prediction

IMAGES = ["clean", "occluded", "occluded_elsewhere"]
GAP = {
    "attribute", "model", "image", "metric", "higher_is_better", "worst", "best", "gap", "low", "high", "p", "chance",
    "n", "patients", "equity", "equity_low", "equity_high",
}  # fmt: skip


def document(language: Path) -> dict[str, Any]:
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    groups = {"gender": {"F": {}, "M": {}}, "site": {"A": {"share": 30}, "B": {"share": 1}}}
    return {
        "name": "look",
        "seed": 3,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": 28, "size": 64, "regions": True,
                     "subgroups": groups, "split": {"train": 0.1, "valid": 0, "test": 0.9}},
            "tuned": {"stage": "contrast", "data": "data", "model": {"encoder": "models_contrast:toy", "width": 8},
                      "trainable": {"vision": "frozen", "text": {"full": {"lr": 2e-2}}},
                      "train": {"steps": 1, "batch": 2}},
            "taught": {"stage": "sft", "data": "data", "model": part, "max_tokens": 2048,
                       "trainable": {"connector": {"full": {"lr": 1e-2}}}, "train": {"steps": 1, "batch": 2}},
            "evaluate": {"stage": "evaluate", "data": "data", "models": ["base", "taught"], "images": IMAGES,
                         "metrics": ["vqa", "calibration", {"similarity": {"encoder": "tuned"}}],
                         "generate": {"max_new_tokens": 3, "batch": 16},
                         "resamples": 100, "subgroups": ["gender", "site", {"age": 40}]},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def looked(language: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    root, own = tmp_path_factory.mktemp("runs"), document(language)
    stages.execute(recipe.check(own, "test"), root, say=lambda line: None)
    return root, own


def scores(root: Path) -> dict[str, Any]:
    return json.loads((root / "look" / "evaluate" / "scores.json").read_text(encoding="utf-8"))


def predictions(root: Path, image: str, model: str = "taught") -> list[dict[str, Any]]:
    path = root / "look" / "evaluate" / "predictions" / f"{model}-{image}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_findings_with_a_box_are_asked_once_under_each_cover(looked: tuple[Path, dict[str, Any]]) -> None:
    root = looked[0]
    clean = {(p["sample"], p["turn"]): p for p in predictions(root, "clean")}
    here, there = (predictions(root, image) for image in IMAGES[1:])
    assert [(p["sample"], p["turn"]) for p in here] == [(p["sample"], p["turn"]) for p in there]
    assert len(here) > 30
    for one in here:
        asked = clean[one["sample"], one["turn"]]
        assert (one["question"], one["topic"], one["answer"]) == (asked["question"], asked["topic"], "Yes")
        assert set(one["choices"]) == {"yes", "no"}
        assert 0 < float(one["attributes"]["attention_to_image"]) < 1
    assert any(one["choices"] != other["choices"] for one, other in zip(here, there, strict=True))


def test_the_score_stands_in_rows_parts_and_pairs(looked: tuple[Path, dict[str, Any]]) -> None:
    root = looked[0]
    found = scores(root)
    (row,) = [r for r in found["rows"] if r["metric"] == "looks_at_finding" and r["model"] == "taught"]
    here, there = (predictions(root, image) for image in IMAGES[1:])
    drops = [o["choices"]["yes"] - h["choices"]["yes"] for h, o in zip(here, there, strict=True)]
    assert row["image"] == "clean"
    assert row["value"] == pytest.approx(sum(drops) / len(drops))
    assert row["low"] <= row["value"] <= row["high"]
    assert {r["image"] for r in found["rows"]} == {"clean"}
    parts = {p["part"] for p in found["parts"] if p["metric"] == "looks_at_finding"}
    assert parts == {p["topic"] for p in here}
    asked = {(p["question"], p["metric"]) for p in found["paired"]}
    assert {("taught minus base", m) for m in ("looks_at_finding", "ece", "brier", "aurc")} <= asked


def test_attention_is_told_of_every_model_with_its_reason(looked: tuple[Path, dict[str, Any]]) -> None:
    found = scores(looked[0])["attention"]
    assert set(found) == {"base", "taught"}
    for name, each in found.items():
        assert each["told"].startswith(f"{name}: ")
        assert each["shown"] == (each["low"] is not None and each["low"] > 0)
        assert (each["mean"] is not None) == each["shown"]
        assert ("left out" in each["told"]) != each["shown"]
    page = (looked[0] / "look" / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert all(each["told"].split(": ")[1][:30] in page for each in found.values())


def test_subgroups_have_rows_a_gap_and_what_was_left_out(looked: tuple[Path, dict[str, Any]]) -> None:
    root = looked[0]
    data = prepare.load(root / "look" / "data")
    known = {s.id: s.attributes for s in data.samples("test")}
    found = scores(root)["subgroups"]
    accuracy = [
        r
        for r in found["rows"]
        if (r["metric"], r["attribute"], r["model"]) == ("accuracy", "gender", "taught")
    ]
    clean = [p for p in predictions(root, "clean") if p["topic"] != "report"]
    for row in accuracy:
        own = [p for p in clean if known[p["sample"]]["gender"] == row["group"]]
        right = sum(p["answer"].lower() == p["text"].lower() for p in own) / len(own)
        assert (row["value"], row["n"]) == (pytest.approx(right), len(own))
        assert row["patients"] == len({p["patient"] for p in own}) >= 10
    assert {r["group"] for r in accuracy} == {"F", "M"}
    (gap,) = [
        g
        for g in found["gaps"]
        if (g["metric"], g["attribute"], g["model"]) == ("accuracy", "gender", "taught")
    ]
    assert set(gap) == GAP
    values = [r["value"] for r in accuracy]
    assert gap["gap"] == pytest.approx(max(values) - min(values))
    assert 0 < gap["p"] <= 1
    assert gap["chance"] > 0
    (small,) = {(e["group"], e["why"]) for e in found["left_out"] if e["attribute"] == "site"}
    assert small[0] == "B"
    assert "fewer than 10" in small[1]
    assert not any(g["attribute"] == "site" for g in found["gaps"])
    assert {r["group"] for r in found["rows"] if r["attribute"] == "age"} <= {"0-39", "40-79", "80-119"}
    assert {c["question"] for c in found["changes"]} >= {"taught minus base: gap by gender"}
    assert "no such attribute" not in json.dumps(found)


def test_answers_carry_only_what_scores_need(looked: tuple[Path, dict[str, Any]]) -> None:
    for made in predictions(looked[0], "clean"):
        more = {"similarity", "similarity_right"} if made["topic"] == "report" else set()
        assert set(made["attributes"]) == {"age", "gender", "site"} | more


def test_similarities_are_those_of_the_tuned_encoder(looked: tuple[Path, dict[str, Any]]) -> None:
    root = looked[0]
    data = prepare.load(root / "look" / "data")
    images = {s.id: s.images for s in data.samples("test")}
    encoder = load_encoder(checkpoint.folder_of(root / "look" / "tuned"))
    reports = [p for p in predictions(root, "clean") if p["topic"] == "report"]
    seen = embed.pictures(encoder, data.root, root / "features")([images[p["sample"]] for p in reports])
    for name, key in (("similarity", "text"), ("similarity_right", "answer")):
        near = (seen * embed.texts(encoder, [p[key] for p in reports])).sum(axis=1)
        told = [float(p["attributes"][name]) for p in reports]
        assert told == pytest.approx(near.tolist(), abs=2e-6)
    rows = {r["metric"]: r["value"] for r in scores(root)["rows"] if r["model"] == "taught"}
    own = [float(p["attributes"]["similarity"]) for p in reports]
    right = [float(p["attributes"]["similarity_right"]) for p in reports]
    assert rows["image_text_similarity"] == pytest.approx(sum(own) / len(own))
    assert rows["similarity_gap"] == pytest.approx((sum(own) - sum(right)) / len(own))


def test_a_second_evaluation_opens_no_model(
    looked: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, own = looked

    def refuse(*_: Any) -> None:
        raise AssertionError("a model was composed")

    monkeypatch.setattr(checkpoint, "load", refuse)
    monkeypatch.setattr(checkpoint, "compose", refuse)
    before = scores(root)
    stage = {**own["stages"]["evaluate"], "subgroups": ["gender"]}
    changed = {**own, "stages": {**own["stages"], "evaluate": stage}}
    stages.execute(recipe.check(changed, "test"), root, say=lambda line: None)
    after = scores(root)
    assert after["attention"] == before["attention"]
    assert after["rows"] == before["rows"]


def test_covers_without_boxes_are_refused(looked: tuple[Path, dict[str, Any]]) -> None:
    root, own = looked
    data = {k: v for k, v in own["stages"]["data"].items() if k != "regions"}
    named = {
        **own["stages"],
        "data": {**data, "patients": 4},
        "evaluate": {**own["stages"]["evaluate"], "limit": 2},
    }
    with pytest.raises(RunError, match="no question has a box") as caught:
        stages.execute(
            recipe.check({**own, "name": "bare", "stages": named}, "test"), root, say=lambda line: None
        )
    assert "regions: true" in caught.value.remedy


def test_an_answer_finds_its_sample_again() -> None:
    made = Prediction(sample="a#b#2", patient="p", turn=0, question="?", answer="Yes", text="Yes")
    (joined,) = occlusion.joined([made])
    assert (joined.sample, joined.turn) == ("a#b", 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"images": ["clean", "occluded"]}, "belong together"),
        ({"subgroups": [{"age": 0}]}, "subgroups"),
        ({"metrics": [{"similarity": {"encoder": "taught"}}]}, "is a sft stage, expected contrast"),
    ],
)
def test_recipes_that_cannot_be(language: Path, change: dict[str, Any], said: str) -> None:
    own = document(language)
    own["stages"]["evaluate"] |= change
    with pytest.raises(RecipeError, match="fault") as caught:
        recipe.check(own, "test")
    assert said in str(caught.value)


def test_sections_without_the_new_keys_are_what_they_were(language: Path) -> None:
    own = document(language)
    del own["stages"]["evaluate"]["subgroups"]
    plain = recipe.check(own, "test").stages["evaluate"].model_dump(mode="json")
    assert "subgroups" not in plain


def test_every_number_can_be_computed_again_from_the_answers(looked: tuple[Path, dict[str, Any]]) -> None:
    root = looked[0] / "look"
    parents = {name: root / name for name in ("data", "taught", "tuned")}
    found = recount(root / "evaluate", parents)
    assert found.faults == []
    assert found.numbers > 50
    path = root / "evaluate" / "predictions" / "taught-occluded.jsonl"
    text = path.read_text(encoding="utf-8")
    try:
        path.write_text(
            text.replace('"attention_to_image": "0.', '"attention_to_image": "0.9', 1), encoding="utf-8"
        )
        assert recount(root / "evaluate", parents).faults != []
    finally:
        path.write_text(text, encoding="utf-8")
