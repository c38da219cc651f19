"""contrast on a few phantom patients with a toy encoder: what is trained, kept, scored, repeated and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import models_encoders
import small
from sightline import recipe, runs, stages
from sightline.cli.listing import shown
from sightline.data import prepare
from sightline.errors import RecipeError
from sightline.losses.siglip import siglip
from sightline.models.encoder_checkpoint import load_encoder
from sightline.models.features import Pixels
from sightline.train.captions import CaptionCollator, captioned
from sightline.train.contrast import Towers
from sightline.train.examination import Examination

HEADS = {"text": {"full": {"lr": 2e-2}}, "heads": {"full": {"lr": 2e-2}}}
DATA = {
    "stage": "prepare", "reader": "phantom", "patients": 40, "size": 64,
    "split": {"train": 0.5, "valid": 0.25, "test": 0.25},
}  # fmt: skip
ENCODER = {
    "stage": "contrast", "data": "data", "model": {"encoder": "models_contrast:toy", "width": 8},
    "trainable": {"vision": "frozen", **HEADS}, "validate_every": 5,
    "train": {"steps": 24, "batch": 8, "save_every": 8, "warmup": 0.1},
}  # fmt: skip


def document(**encoder: Any) -> dict[str, Any]:
    return {"name": "tiny", "seed": 3, "stages": {"data": dict(DATA), "encoder": {**ENCODER, **encoder}}}


def run(root: Path, tree: dict[str, Any] | None = None, **encoder: Any) -> dict[str, Path]:
    made = recipe.check(tree or document(**encoder), "test")
    return stages.execute(made, root, say=lambda line: None)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return run(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def world(done: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of runs in which the data is ready."""
    place = tmp_path / "tiny"
    place.mkdir()
    (place / "data").symlink_to(done["data"])
    return tmp_path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "full.safetensors")


def test_the_loss_falls(done: dict[str, Path]) -> None:
    curve = small.curve(done["encoder"])
    assert [e["step"] for e in curve] == list(range(1, 25))
    losses = [e["loss"] for e in curve]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_best_validated_step_is_the_result(done: dict[str, Path]) -> None:
    found = read(done["encoder"], "validation.json")
    assert [e["step"] for e in found["history"]] == [5, 10, 15, 20, 24]

    def rank(entry: dict[str, float]) -> tuple[float, float]:
        return entry["r_at_5_image_to_text"] + entry["r_at_5_text_to_image"], -entry["loss"]

    assert found["best"] == max(found["history"], key=rank)["step"]
    assert set(found["history"][0]) == {"step", "loss"} | {
        f"{name}_{way}"
        for name in ("r_at_1", "r_at_5", "r_at_10", "median_rank", "mrr")
        for way in ("image_to_text", "text_to_image")
    }
    told = small.events(done["encoder"], "validation")
    assert [e["step"] for e in told] == [5, 10, 15, 20, 24]
    kept = next(e for e in found["history"] if e["step"] == found["best"])
    scores = {row["metric"]: row for row in found["scores"]}
    assert set(scores) == set(kept) - {"step", "loss"}
    for name, row in scores.items():
        assert row["value"] == pytest.approx(kept[name], abs=1e-6)
        assert row["low"] <= row["value"] <= row["high"]
    assert scores["r_at_5_image_to_text"]["low"] < scores["r_at_5_image_to_text"]["high"]


def test_the_best_weights_are_saved_and_not_the_last(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the order turned round an early step is the best one, and the saved encoder has its loss."""
    monkeypatch.setattr("sightline.stages.contrast.order", lambda figures: (figures["loss"],))
    folder = run(world, train={"steps": 8, "batch": 8, "warmup": 0}, validate_every=1)["encoder"]
    found = read(folder, "validation.json")
    assert found["best"] < 4
    best, last = (next(e for e in found["history"] if e["step"] == step) for step in (found["best"], 8))
    data = prepare.load(world / "tiny" / "data")
    encoder = load_encoder(folder / "model")
    collate = CaptionCollator(encoder.tokenize, Pixels(encoder, data.root))
    asked = Examination(captioned(data.samples("valid"), "report")[0], collate, 8)
    again = asked.validate(Towers(encoder, encoder.model, given="pixels"), siglip)
    assert again["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert again["loss"] != pytest.approx(last["loss"], rel=1e-2)


def test_scores_have_intervals_and_chance(done: dict[str, Path]) -> None:
    found = read(done["encoder"], "scores.json")
    assert [row["metric"] for row in found["rows"]] == [
        f"{name}_{way}"
        for way in ("image_to_text", "text_to_image")
        for name in ("r_at_1", "r_at_5", "r_at_10", "median_rank", "mrr")
    ]
    for row in found["rows"]:
        assert (row["model"], row["image"]) == ("encoder", "clean")
        assert row["low"] <= row["value"] <= row["high"]
        assert row["n"] >= row["patients"] >= 8
    texts = {p["id"] for p in read(done["encoder"], "map.json")["points"]}
    assert found["rows"][0]["n"] == len(texts) == 13
    assert found["rows"][0]["chance"] == pytest.approx(1 / 13), "13 different reports"
    table = shown(done["encoder"], as_json=False, paired=False)
    assert "r_at_5_image_to_text" in table


def test_the_saved_encoder_opens_and_was_trained_where_it_was_asked_to(done: dict[str, Path]) -> None:
    import models_contrast

    opened = load_encoder(done["encoder"] / "model").model
    base = models_contrast.toy({"width": 8}, 3).model
    for part, changed in (("vision", False), ("text", True), ("image_head", True), ("text_head", True)):
        pairs = zip(getattr(opened, part).parameters(), getattr(base, part).parameters(), strict=True)
        assert any(not torch.equal(a, b) for a, b in pairs) == changed, part
    assert float(opened.logit_bias) < -9, "it began at -10"
    stored = weights(done["encoder"])
    assert all(torch.equal(dict(opened.named_parameters())[name], value) for name, value in stored.items())


def test_the_map_shows_every_pair_twice(done: dict[str, Path]) -> None:
    found = read(done["encoder"], "map.json")
    assert (found["method"], found["of"]) == ("pca", len(found["points"]) // 2)
    assert found["label"] in (
        "effusion_left",
        "effusion_right",
        "cardiomegaly",
        "nodule",
        "pneumothorax",
        "device",
    )
    assert {p["side"] for p in found["points"]} == {"image", "report"}
    text = (done["encoder"] / "map.svg").read_text(encoding="utf-8")
    assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert text.count("<path") == len(found["points"]) + 4


def test_the_same_seed_gives_the_same_bytes_and_features_are_read_again(
    done: dict[str, Path], world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (world / "tiny" / ".features").symlink_to(done["encoder"].parent / ".features")
    calls: list[int] = []
    monkeypatch.setattr("sightline.models.features.Features._fill", lambda *a: calls.append(1))
    again = run(world)["encoder"]
    assert calls == []
    assert runs.content(again) == runs.content(done["encoder"])


def test_a_killed_run_ends_with_the_same_bytes(done: dict[str, Path], world: Path) -> None:
    """SIGKILL between a checkpoint and a later validation; the same command goes on."""
    (world / "recipe.json").write_text(json.dumps(document()), encoding="utf-8")
    script = (
        "import json, os, pathlib, signal, sys\n"
        "from sightline import recipe, stages\n"
        "from sightline.train.contrast import ContrastTrainer\n"
        "whole = ContrastTrainer.compute_loss\n"
        "def cut(self, *args, **kwargs):\n"
        "    if self.state.global_step == 18:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return whole(self, *args, **kwargs)\n"
        "ContrastTrainer.compute_loss = cut\n"
        "tree = json.loads(pathlib.Path('recipe.json').read_text())\n"
        "stages.execute(recipe.check(tree, 'test'), pathlib.Path('.'))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=world, env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ended.returncode == -9, ended.stderr[-2000:]
    held = runs.numbered(world / "tiny" / ".encoder.work" / "checkpoints")
    assert sorted(p.name for p in held) == ["checkpoint-16", "checkpoint-8"]
    folder = run(world)["encoder"]
    assert [e["resumed_at"] for e in small.events(folder, "training")] == [0, 16]
    assert runs.content(folder) == runs.content(done["encoder"])


def test_without_a_valid_split_the_last_step_is_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = document(train={"steps": 3, "batch": 4})
    tree["stages"]["data"].update(patients=12, split={"train": 1.0, "valid": 0.0, "test": 0.0})
    folder = run(tmp_path, tree)["encoder"]
    said = capsys.readouterr().out
    assert "the valid split has no such pairs: nothing is validated, and the last step is the result" in said
    assert "the test split has no such pairs: nothing is scored" in said
    assert read(folder, "validation.json") == {"best": None, "history": []}
    assert read(folder, "scores.json")["rows"] == []
    assert not (folder / "map.svg").exists()
    assert (folder / "model" / "full.safetensors").is_file()


def test_a_warm_up_that_never_ends_is_refused_with_its_numbers(world: Path) -> None:
    with pytest.raises(RecipeError, match="the learning rate never leaves its warm-up") as caught:
        run(world, train={"epochs": 2, "batch": 8, "warmup": 10_000})
    total = caught.value.found.removeprefix("10000 of ")
    assert total == "7 steps"
    assert caught.value.expected == "at most 6 of 7"


def test_a_topic_that_no_answer_has_is_refused(world: Path) -> None:
    with pytest.raises(RecipeError, match="no answer of the training samples is about 'summary'") as caught:
        run(world, topic="summary")
    assert "'effusion_left'" in caught.value.found
    assert "'report'" in caught.value.found


def test_an_encoder_trains_on_from_a_saved_one_with_its_own_factor(world: Path) -> None:
    tree = document(train={"steps": 4, "batch": 8}, validate_every=4)
    tree["stages"]["further"] = {
        **tree["stages"]["encoder"], "model": "encoder", "loss": {"name": "clip"}, "chunk": 3,
        "trainable": {"text": {"full": {"lr": 1e-3}}},
    }  # fmt: skip
    folders = run(world, tree)
    info = read(folders["further"] / "model", "sightline.json")
    assert info["parent"]["path"] == "../../encoder/model"
    one, two = (load_encoder(folders[name] / "model").model for name in ("encoder", "further"))
    assert torch.equal(one.logit_scale, two.logit_scale)
    assert not torch.equal(one.text.weight, two.text.weight)


def test_a_stock_siglip_trains_with_adapters_and_pixels(world: Path) -> None:
    place = models_encoders.write_siglip(world / "siglip")
    lora = {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}
    asked = {"vision": lora, "text": lora, "heads": {"full": {"lr": 1e-2}}}
    model = {"encoder": "siglip", "path": str(place)}
    folder = run(world, model=model, trainable=asked, train={"steps": 12, "batch": 8}, chunk=4)["encoder"]
    losses = [e["loss"] for e in small.curve(folder)]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert not (world / "tiny" / ".features").exists()
    opened = load_encoder(folder / "model")
    assert opened.family.name == "siglip"
    stored = weights(folder)
    assert set(stored) == {"logit_scale", "logit_bias"}
