"""align on eight patients: the parent merged below, the reference fixed, computed once, and kept."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sightline.models import checkpoint
from small import curve, events, run

ROUNDING = 1e-4  # nats: the reference's batches are padded to other lengths than the training's


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def done(language: Path, root: Path) -> dict[str, Path]:
    return run(language, root)


def test_training_starts_at_margin_zero_and_moves_up(done: dict[str, Path]) -> None:
    entries = curve(done["aligned"])
    for name in ("chosen", "rejected", "margin"):
        assert abs(entries[0][name]) < ROUNDING
    assert entries[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert entries[-1]["margin"] > 0.5
    assert entries[-1]["loss"] < entries[0]["loss"]
    assert entries[-1]["accuracy"] > 0.5


def test_dropout_is_off_in_policy_and_reference(done: dict[str, Path], language: Path, root: Path) -> None:
    calm = {"language": {"lora": {"r": 2, "alpha": 4, "dropout": 0.0, "lr": 1e-2}}}
    again = run(language, root, trainable=calm)
    one, other = (load_file(again[n] / "model" / "adapter_model.safetensors") for n in ("aligned", "again"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[n], other[n]) for n in one)


def test_the_saved_model_stands_on_its_parent(done: dict[str, Path]) -> None:
    info = json.loads((done["aligned"] / "model" / "sightline.json").read_text(encoding="utf-8"))
    assert info["parent"]["path"] == "../../taught/model"
    assert info["parent"]["content"] == checkpoint.fingerprint(done["taught"] / "model")
    taught, aligned = (checkpoint.load(done[n] / "model").model for n in ("taught", "aligned"))
    for part, changed in (
        ("model.vision_tower", False),
        ("model.multi_modal_projector", False),
        ("model.language_model", True),
    ):
        pairs = zip(
            taught.get_submodule(part).parameters(), aligned.get_submodule(part).parameters(), strict=True
        )
        assert any(not torch.equal(a, b) for a, b in pairs) == changed, part


def test_only_pairs_of_the_kind_asked_for_are_used(done: dict[str, Path]) -> None:
    kinds = json.loads((done["pairs"] / "dataset.json").read_text(encoding="utf-8"))["kinds"]
    assert events(done["aligned"], "training")[0]["rows"] == kinds["degraded"]
    told = events(done["aligned"], "reference")[0]
    assert (told["computed"], told["known"]) == (kinds["degraded"], 0)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"loss": {"name": "dpo", "beta": 0.5}}, True),
        ({"train": {"steps": 1, "batch": 4}}, True),
        ({"train": {"steps": 1, "batch": 2}}, False),
        ({"where": {"kind": "wrong_finding"}}, False),
        ({"reference": "base"}, False),
    ],
    ids=["beta", "steps", "batch", "pairs", "reference"],
)
def test_references_are_read_where_nothing_they_depend_on_changed(
    done: dict[str, Path], language: Path, root: Path, change: dict[str, Any], known: bool
) -> None:
    again = run(language, root, **{"train": {"steps": 1, "batch": 4}, **change})["again"]
    told = events(again, "reference")[0]
    assert (told["computed"] == 0) == known
    assert (told["known"] > 0) == known
    margin = abs(curve(again)[0]["margin"])
    assert margin > 0.01 if change.get("reference") == "base" else margin < ROUNDING


def test_the_same_recipe_gives_the_same_bits(done: dict[str, Path], language: Path, tmp_path: Path) -> None:
    first = run(language, tmp_path / "one")
    second = run(language, tmp_path / "two")
    one, two = (load_file(f["aligned"] / "model" / "adapter_model.safetensors") for f in (first, second))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[n], two[n]) for n in one)
    assert [e["margin"] for e in curve(first["aligned"])] == [e["margin"] for e in curve(second["aligned"])]
    assert any(float(v.abs().sum()) > 0 for n, v in one.items() if "lora_B" in n)


def test_a_connector_aligned_in_full_leaves_the_reference_alone(
    language: Path, root: Path, done: dict[str, Path]
) -> None:
    asked = {"connector": {"full": {"lr": 1e-2}}, "language": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}}
    again = run(language, root, trainable=asked, train={"steps": 4, "batch": 4, "warmup": 0.0})
    assert events(again["again"], "reference")[0]["known"] == 0  # its images come from before the connector
    assert abs(curve(again["again"])[0]["margin"]) < ROUNDING
    assert curve(again["again"])[-1]["margin"] > 0
    taught, aligned = (
        checkpoint.load(again[n] / "model").model.model.multi_modal_projector for n in ("taught", "again")
    )
    assert not torch.equal(taught.linear_1.weight, aligned.linear_1.weight)
