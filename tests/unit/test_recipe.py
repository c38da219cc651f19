"""Recipes: every fault at once with its dotted place, overrides, and YAML that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline import recipe
from sightline.errors import RecipeError
from sightline.recipe import Align, Prepare, Sft
from sightline.settings import Plan

GOOD = """
name: small
stages:
  data: {stage: prepare, reader: phantom, patients: 4}
  taught:
    stage: sft
    data: data
    model: {family: llava}
    trainable: {vision: frozen, connector: {full: {lr: 1e-3}}, language: {lora: {lr: 5e-4}}}
  pairs: {stage: prefer, data: data, kinds: {degraded: 1}}
  aligned: {stage: align, data: pairs, model: taught, loss: {name: dpo, beta: 0.1}}
  evaluate: {stage: evaluate, data: data, models: [base, taught, aligned], metrics: [vqa]}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(GOOD)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe.load(path, overrides)
    return caught.value.block()


def written(path: Path, text: str) -> str:
    path.write_text(text)
    return refusal(path)


def test_a_good_recipe(good: Path) -> None:
    made = recipe.load(good)
    assert made.reads("evaluate") == ["data", "taught", "aligned"]
    assert isinstance(made.stages["data"], Prepare)
    assert made.stages["data"].options == {"patients": 4}
    taught = made.stages["taught"]
    assert isinstance(taught, Sft)
    assert isinstance(taught.trainable["connector"], Plan)
    assert taught.trainable["connector"].full is not None
    assert taught.trainable["connector"].full.lr == 0.001


def test_overrides_keep_what_stands_right_of_the_first_equals_sign(good: Path) -> None:
    made = recipe.load(
        good, ["seed=7", "aligned.loss.beta=2e-1", "taught.model.system=a=b", "evaluate.models=[taught]"]
    )
    aligned, taught = made.stages["aligned"], made.stages["taught"]
    assert made.seed == 7
    assert isinstance(aligned, Align)
    assert isinstance(taught, Sft)
    assert aligned.loss.options == {"beta": "2e-1"}
    assert isinstance(taught.model, recipe.Model)
    assert taught.model.system == "a=b"
    assert made.reads("evaluate") == ["data", "taught"]


def test_an_override_makes_the_sections_that_it_needs(good: Path) -> None:
    taught = recipe.load(good, ["taught.train.steps=3", "taught.trainable.vision.full.lr=1e-5"]).stages[
        "taught"
    ]
    assert isinstance(taught, Sft)
    assert taught.train.steps == 3
    assert isinstance(taught.trainable["vision"], Plan)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("taught.train", "an override reads stage.key=value"),
        ("=3", "an override reads stage.key=value"),
        ("taught..steps=3", "an override reads stage.key=value"),
        ("tuaght.train.steps=3", "did you mean 'taught'"),
        ("taught.train.steps=[1", "the value of an override is not YAML"),
    ],
)
def test_overrides_that_cannot_be_meant(good: Path, override: str, message: str) -> None:
    assert message in refusal(good, override)


def test_every_fault_is_told_at_once(good: Path) -> None:
    block = refusal(
        good,
        "data.patents=3",
        "taught.trian.steps=4",
        "taught.train.epochs=-1",
        "pairs.data=dta",
        "aligned.loss.betta=1",
        "evaluate.metrics=[vqa,blue]",
        "evaluate.images=[clean,blakc]",
    )
    assert "7 fault(s)" in block
    for said in (
        "data: options of 'phantom' do not fit (data.patents: Extra inputs are not permitted; did you mean",
        "taught.trian: unknown key; did you mean 'train'",
        "taught.train.epochs: Input should be greater than 0, found -1",
        "pairs.data: 'dta' names no stage; did you mean 'data'",
        "aligned.loss.betta",
        "evaluate.metrics: no metrics plug-in 'blue'; did you mean 'bleu'",
        "evaluate.images: no degrade plug-in 'blakc'; did you mean 'black'",
    ):
        assert said in block


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=many", "seed: Input should be a valid integer"),
        ("name=a/b", "name: String should match pattern"),
        ("taught.train.steps=some", "taught.train.steps: Input should be a valid integer"),
        ("taught.trainable.language={}", "taught.trainable.language: say exactly one of"),
        ("taught.trainable.language.full.lr=1e-3", "taught.trainable.language: say exactly one of"),
        ("taught.trainable.language.lora.rank=4", "taught.trainable.language.lora.rank: unknown key"),
        ("data.split.train=0.9", "data.split: train + valid + test = 1.2, expected 1"),
        (
            "data.stage=prepair",
            "data: unknown stage; known: prepare, contrast, index, retrieve, sft, prefer, align, evaluate",
        ),
        ("data.reader=phantm", "data: no readers plug-in 'phantm'; did you mean 'phantom'"),
        ("evaluate.models=[pairs]", "evaluate.models: 'pairs' is a prefer stage, expected sft or align"),
        ("evaluate.images=[black]", "evaluate.images: the list must hold 'clean'"),
        ("aligned.model=aligned", "aligned.model: 'aligned' stands later in the recipe"),
        ("taught.model.family=lava", "taught.model.family: no families plug-in 'lava'; did you mean 'llava'"),
        ("taught.data=", "taught.data: Input should be a valid string"),
    ],
)
def test_one_fault(good: Path, override: str, message: str) -> None:
    block = refusal(good, override)
    assert message in block
    assert "1 fault(s)" in block
    assert str(good) in block


def test_a_saved_model_may_be_named_by_its_folder(good: Path) -> None:
    assert recipe.load(good, ["aligned.model=runs/other/taught"]).reads("aligned") == ["pairs"]


def test_a_fault_in_a_stage_does_not_hide_what_it_names(good: Path) -> None:
    block = refusal(good, "taught.train.epochs=-1", "taught.data=dta", "data.reader=phantm", "data.max_bad=2")
    assert "4 fault(s)" in block
    assert "taught.data: 'dta' names no stage" in block
    assert "data: no readers plug-in 'phantm'" in block


@pytest.mark.parametrize("name", ["base", "seed", "../up", ".hidden", "a/b", ""])
def test_a_stage_name_is_a_folder_name(tmp_path: Path, name: str) -> None:
    text = f"name: x\nstages:\n  '{name}': {{stage: prepare, reader: phantom}}\n"
    block = written(tmp_path / "x.yaml", text)
    assert "a stage cannot be called" in block or "a stage's name is a folder's" in block


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nname: y\nstages: {}\n", "the key 'name' stands twice"),
        ("a: &a [1]\nb: *a\nstages: {}\n", "YAML aliases (*name) are not read"),
        ("[" * 5000, "nested too deeply"),
        ("stages: {a: {[1]: 2}}", "a key is a word"),
        ("stages: [a", "this is not YAML"),
        ("stages: !!python/object:os.system {}", "this is not YAML"),
        ("just words", "a recipe has `name` and `stages`"),
        ("name: x\nstages: {}\n", "stages: Dictionary should have at least 1 item"),
        ("stages: {a: {stage: prepare, reader: phantom}}\n", "name: Field required"),
        ("name: x\nstages: {a: 3}\n", "a: Input should be a valid dictionary"),
    ],
)
def test_yaml_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    assert message in written(tmp_path / "x.yaml", text)


def test_the_line_of_a_yaml_fault_is_told(tmp_path: Path) -> None:
    assert "x.yaml, line 2" in written(tmp_path / "x.yaml", "name: x\nname: y\nstages: {}\n")


def test_files_that_are_none(tmp_path: Path) -> None:
    assert "`sightline ls` lists recipes" in refusal(tmp_path / "absent.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "this is not YAML" in refusal(tmp_path / "bytes.yaml")
    (tmp_path / "large.yaml").write_text("#" * 1_000_001)
    assert "a recipe file is small" in refusal(tmp_path / "large.yaml")


def test_sections_stay_small() -> None:
    for section in (recipe.Split, recipe.Lora, recipe.Generate, recipe.Align):
        assert len(section.model_fields) <= 10
    assert len(recipe.Sft.model_fields) <= 11  # its kind and ten settings
    assert len(recipe.Evaluate.model_fields) <= 12
    assert len(recipe.Model.model_fields) <= 13  # parts, formats, patches: what differs between five systems
