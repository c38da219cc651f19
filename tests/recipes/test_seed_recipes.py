"""The recipes of the seeds as they are shipped, on small files in the layouts that they read, with tiny models."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

import models_encoders
import models_llava_next
import models_mllama
import small
import small_amber
import small_seeds
from sightline import recipe, stages
from sightline.data import prepare
from sightline.models import checkpoint
from sightline.settings import Generate
from sightline.stages.consultation import Shelf, consult

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = {"max_new_tokens": 4, "batch": 32}
FEW = {"steps": 2, "epochs": 1}


def shipped(name: str) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8"))
    return made


def execute(document: dict[str, Any], root: Path) -> dict[str, Path]:
    return stages.execute(recipe.check(document, "test"), root, say=lambda line: None)


def scores(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    rows = json.loads((folder / "scores.json").read_text(encoding="utf-8"))["rows"]
    return {(r["model"], r["image"], r["metric"]): r for r in rows}


@pytest.fixture(scope="module")
def siglip_mllama(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    raw, made = tmp_path_factory.mktemp("raw"), shipped("siglip_mllama")
    roots = {
        "knee": small_seeds.knees(raw / "knee"),
        "skin": small_seeds.skin(raw / "skin"),
        "slake": small_seeds.slake(raw / "slake"),
    }
    for name, source in made["stages"]["data"]["sources"].items():
        source["root"] = str(roots[name.partition("_")[0]])
    encoder, taught = made["stages"]["encoder"], made["stages"]["taught"]
    made["stages"]["data"]["split"] = {"train": 0.6, "valid": 0.2, "test": 0.2, "by": "patient"}
    encoder["model"]["path"] = str(models_encoders.write_siglip(raw / "siglip"))
    encoder["train"] |= {**FEW, "batch": 8}
    taught["model"]["path"] = str(models_mllama.write(raw / "llama"))
    taught["train"] |= FEW
    taught["max_tokens"] = 2048  # of bytes
    made["stages"]["evaluate"] |= {"generate": SHORT, "resamples": 100}
    return execute(made, tmp_path_factory.mktemp("runs"))


def test_knees_skin_and_slake_are_one_data_set_with_captions(siglip_mllama: dict[str, Path]) -> None:
    data = prepare.load(siglip_mllama["data"])
    every = [s for split in data.counts for s in data.samples(split)]
    assert Counter(s.attributes["source_set"] for s in every) == {
        "knee": 20, "knee_captions": 20, "skin": 24, "skin_captions": 12, "slake": 54 + 36
    }  # fmt: skip
    captions = {s.id: s.messages[1].text for s in every if s.messages[1].topic == "report"}
    assert len(captions) == 20 + 12 + 36
    assert (
        captions["knee_captions/MedicalExpert-I/4Severe/SevereG4 (1).png"]
        == "Knee X-ray, osteoarthritis: Severe."
    )
    assert captions["skin_captions/PAT_4_4_1-caption"] == "Nevus on the neck."
    assert captions["slake/slake-train-en-imgs/xmlab0/source.jpg"] == "CT of the abdomen: Axial."
    assert captions["slake/slake-train-zh-imgs/xmlab0/source.jpg"] == "CT：肝脏。"
    homes: dict[str, set[str]] = {}
    for split in data.counts:
        for s in data.samples(split):
            homes.setdefault(s.images[0].sha256, set()).add(split)
    assert {len(splits) for splits in homes.values()} == {1}  # both readings of a picture stand in one split


def test_captions_of_the_training_split_are_found_and_taught(siglip_mllama: dict[str, Path]) -> None:
    data = prepare.load(siglip_mllama["data"])
    train = {s.id for s in data.samples("train") if s.messages[1].topic == "report"}
    lines = (siglip_mllama["retrieved"] / "retrieved.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    assert {r["id"] for row in found for r in row["reports"]} <= train
    assert {len(row["reports"]) for row in found} == {3}
    curve = json.loads((siglip_mllama["taught"] / "curve.json").read_text(encoding="utf-8"))
    assert len(curve) == 2
    measured = scores(siglip_mllama["evaluate"])
    images = {image for model, image, _ in measured if model == "taught"}
    assert images == {"clean", "unaided", "black", "swapped"}
    assert measured["taught", "clean", "accuracy"]["n"] > 0


def test_one_call_answers_with_what_the_encoder_finds(siglip_mllama: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "knee.png"
    small_seeds.picture(9).save(place)
    bundle = checkpoint.load(siglip_mllama["taught"] / "model")
    reply = consult(
        bundle, [place], "How severe is it?", Shelf.open(siglip_mllama["retrieved"]),
        generate=Generate(max_new_tokens=4),
    )  # fmt: skip
    assert bundle.family.name == "mllama"
    assert len(reply.reports) == 3
    assert reply.reports[0].similarity >= reply.reports[1].similarity >= reply.reports[2].similarity
    assert reply.logp is not None
    assert reply.logp < 0


def test_llava_next_from_slake_and_rlaif_v_to_amber(tmp_path: Path) -> None:
    made = shipped("llava_next")
    lives = made["stages"]
    queries = small_amber.write(
        tmp_path / "amber", small_amber.described(["sky"], ["cat"]), small_amber.asked("relation", "yes")
    )
    small_amber.pictures(queries, small_amber.DESCRIBE, "Is the man near?")
    lives["lessons"]["root"] = str(small_seeds.slake(tmp_path / "slake"))
    lives["pairs"] |= {
        "root": str(small_seeds.rlaif_v(tmp_path / "rlaif")),
        "split": {"train": 1, "valid": 0, "test": 0},
    }
    lives["queries"]["root"] = str(queries)
    lives["taught"]["model"]["path"] = str(models_llava_next.write(tmp_path / "llava"))
    for name in ("taught", "aligned"):
        lives[name]["train"] |= {**FEW, "accumulate": 2}
    lives["amber"] |= {"metrics": [{"amber": {"similarity": "trigram", "nouns": "plain"}}]}
    for name in ("amber", "evaluate"):
        lives[name] |= {"generate": SHORT, "resamples": 100}
    folders = execute(made, tmp_path / "runs")
    assert {s.attributes["language"] for s in prepare.load(folders["lessons"]).samples("train")} == {"en"}
    first = small.curve(folders["aligned"])[0]
    assert {"loss", "margin"} <= set(first)
    lineage = [info["parent"] for _, info in checkpoint.lineage(folders["aligned"] / "model")]
    assert [parent is None for parent in lineage] == [True, False]
    measured = scores(folders["amber"])
    assert {(model, image) for model, image, metric in measured if metric == "amber_hal"} == {
        (model, image) for model in ("base", "taught", "aligned") for image in ("clean", "black")
    }
    asked = (
        (folders["amber"] / "predictions" / "aligned-clean.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert [json.loads(line)["question"] for line in asked] == [
        small_amber.DESCRIBE, "Is the man near? Answer with Yes or No."
    ]  # fmt: skip
    assert ("aligned", "clean", "accuracy") in scores(folders["evaluate"])
