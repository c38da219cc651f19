"""Four bits by GPTQ and AWQ: calibrated on what the model was taught on, opened by transformers alone, gated."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaModel

import models
import models_export
import small
from sightline import recipe, runs, stages
from sightline.data import prepare
from sightline.data.chat import Chat
from sightline.data.prepare import Prepared
from sightline.errors import MissingExtra, ModelError, RecipeError, RunError
from sightline.export import calibration, opened, packed
from sightline.models import checkpoint
from sightline.recipe import Calibrate
from sightline.settings import Model
from sightline.stages import export as stage

command = importlib.import_module("sightline.cli.export")  # the package has the function under that name
KINDS = {"gptq": "W4A16", "awq": "W4A16_ASYM"}
ASKED = ["samples=6", "max_tokens=2048"]
LAYERS = 7 * 2  # linear layers of the language model


@pytest.fixture(scope="module")
def ran(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small recipe's folder, with its data and a taught model."""
    return small.taught(language, tmp_path_factory.mktemp("runs")).parent


def needed() -> None:
    if importlib.util.find_spec("llmcompressor") is None:
        pytest.skip("llmcompressor is not installed")


def export(ran: Path, kind: str, to: Path, gate: tuple[str, ...] = ()) -> dict[str, Any]:
    section = command.parse(kind, "float32", ran / "data", list(gate), "vqa", None, ASKED)
    told: dict[str, Any] = command.write(str(ran / "taught"), to, section)
    return told


@pytest.fixture(scope="module")
def made(ran: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An export of each kind; that by AWQ behind a gate."""
    needed()
    root = tmp_path_factory.mktemp("exports")
    export(ran, "gptq", root / "gptq")
    export(ran, "awq", root / "awq", ("exact_match=1",))
    return {kind: root / kind for kind in KINDS}


def taken(data: Prepared, seed: int, count: int) -> list[Any]:
    """The samples that calibrate, found in another way."""
    keyed = {runs.digest(str(seed), "calibrate", s.id): s for s in data.samples("train")}
    return [keyed[key] for key in sorted(keyed)][:count]


@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_in_transformers_and_says_the_same(kind: str, made: dict[str, Path], tmp_path: Path) -> None:
    told = models_export.agree("compressed_tensors", made[kind], tmp_path, 4)
    assert 1e-3 < told["answers"]["moved"] < 1.0
    assert told["opens_with"] == ["transformers"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_layers_of_the_language_model_are_held_in_four_bits(kind: str, made: dict[str, Path]) -> None:
    weights = load_file(made[kind] / "model.safetensors")
    narrow = [name for name, tensor in weights.items() if name.endswith(".weight_packed")]
    assert len(narrow) == LAYERS
    assert all(".layers." in name and "language_model" in name for name in narrow)
    up = next(
        name.removesuffix("_packed") for name in narrow if name.endswith("layers.0.mlp.up_proj.weight_packed")
    )
    assert (weights[f"{up}_packed"].shape, weights[f"{up}_packed"].dtype) == ((64, 32 // 8), torch.int32)
    assert weights[f"{up}_scale"].shape == (64, 1)
    assert (f"{up}_zero_point" in weights) == (kind == "awq")
    config = json.loads((made[kind] / "config.json").read_text())["quantization_config"]
    (group,) = config["config_groups"].values()
    assert (config["quant_method"], group["weights"]["num_bits"]) == ("compressed-tensors", 4)
    assert (group["weights"]["group_size"], group["weights"]["symmetric"]) == (32, kind == "gptq")
    for name in ("lm_head", "model.multi_modal_projector.linear_1"):
        assert name in config["ignore"]


def test_what_is_not_a_layer_of_the_language_model_stays(ran: Path, made: dict[str, Path]) -> None:
    whole, four = checkpoint.load(ran / "taught" / "model"), opened.load(made["gptq"])
    wanted, found = whole.model.state_dict(), four.model.state_dict()
    inside = [name for name in wanted if ".language_model.layers." in name and name.endswith("_proj.weight")]
    assert len(inside) == LAYERS
    for name in wanted:
        assert torch.equal(wanted[name], found[name]) == (name not in inside), name


@pytest.mark.parametrize("kind", KINDS)
def test_an_export_says_what_it_was_calibrated_on(kind: str, ran: Path, made: dict[str, Path]) -> None:
    data = prepare.load(ran / "data")
    samples = taken(data, 0, 6)
    chat = Chat.of(checkpoint.load(ran / "taught" / "model"))
    text = (made[kind] / "export.json").read_text()
    assert json.loads(text)["calibration"] == {
        "scheme": KINDS[kind], "group": 32, "split": "train", "seed": 0, "samples": 6, "too_long": 0,
        "data": runs.hash_file(ran / "data" / "train.parquet"), "patients": len({s.patient for s in samples}),
        "images": len({ref.sha256 for s in samples for ref in s.images}),
        "tokens": sum(len(chat.encode(s.messages, [()] * len(s.images)).ids) for s in samples),
        "chosen": runs.digest(*(s.id for s in samples)),
    }  # fmt: skip
    readme = (made[kind] / "README.md").read_text()
    assert f"({KINDS[kind]}, one scale for 32 weights), calibrated on 6 samples of the train split" in readme
    for sample in samples:
        assert sample.id not in text + readme
        assert sample.patient not in text + readme


def test_the_gate_works_with_it(made: dict[str, Path]) -> None:
    told = opened.report(made["awq"])
    assert told["gate"]["allow"] == {"exact_match": 1}
    assert told["calibration"]["samples"] == 6
    assert [row["passed"] for row in told["gate"]["rows"] if row["metric"] == "exact_match"] == [True]
    assert opened.report(made["gptq"])["gate"] is None


def test_the_same_bytes_every_time(ran: Path, made: dict[str, Path], tmp_path: Path) -> None:
    export(ran, "gptq", tmp_path / "again")
    assert runs.hash_file(tmp_path / "again" / "model.safetensors") == runs.hash_file(
        made["gptq"] / "model.safetensors"
    )


def test_a_stage_of_a_recipe_calibrates_by_its_seed(ran: Path, language: Path) -> None:
    needed()
    document = small.only(language, "data", "taught")
    asked = {"samples": 4, "max_tokens": 2048, "group": 32}
    document["stages"]["out"] = {
        "stage": "export", "model": "taught", "to": "gptq", "data": "data", "calibrate": asked,
    }  # fmt: skip
    folder = stages.execute(recipe.check(document, "test"), ran.parent, say=lambda line: None)["out"]
    told = opened.report(folder / "export")["calibration"]
    data = prepare.load(ran / "data")
    assert (told["seed"], told["samples"]) == (3, 4)
    assert told["chosen"] == runs.digest(*(s.id for s in taken(data, 3, 4)))
    assert told["chosen"] != runs.digest(*(s.id for s in taken(data, 0, 4)))
    assert runs.faults(folder) == []


def held(ran: Path, **asked: Any) -> calibration.Calibration:
    data = prepare.load(ran / "data")
    return calibration.of(data, Calibrate(**{"max_tokens": 2048, **asked}), lambda sample: sample, 0)


def test_no_other_split_is_ever_read(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    own = Prepared.samples
    monkeypatch.setattr(Prepared, "samples", lambda self, split: asked.append(split) or own(self, split))
    found = held(ran)
    assert asked == ["train"]
    data = prepare.load(ran / "data")
    assert {s.id for s in found.samples} == {s.id for s in data.samples("train")}
    assert not {s.patient for s in found.samples} & {s.patient for s in data.samples("test")}


def test_the_language_model_is_given_what_training_gives_it(
    ran: Path, language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of the stage `sft` on all samples: its rows are those that calibrate, picture and all."""
    taught: list[Tensor] = []
    own = LlamaModel.forward

    def watched(self: LlamaModel, **given: Any) -> Any:
        taught.append(given["inputs_embeds"].detach().clone())
        return own(self, **given)

    count = prepare.load(ran / "data").counts["train"]
    document = small.only(language, "data", "taught")
    document["stages"]["step"] = {
        **document["stages"]["taught"], "model": "taught", "train": {"steps": 1, "batch": count},
    }  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(LlamaModel, "forward", watched)
        stages.execute(recipe.check(document, "test"), ran.parent, say=lambda line: None)
    (rows,) = [embeds for embeds in taught if len(embeds) == count]
    bundle = checkpoint.load(ran / "taught" / "model")
    four = held(ran, samples=4)
    for made in calibration.take(bundle, four).inputs:
        assert sorted(made) == ["attention_mask", "inputs_embeds", "position_ids"]
        assert int((made["attention_mask"] == 0).sum()) == sum(range(made["inputs_embeds"].shape[1] + 1))
        (one,) = made["inputs_embeds"]
        near = [
            row for row in rows if len(row) >= len(one) and torch.allclose(row[: len(one)], one, atol=1e-5)
        ]
        assert len(near) == 1
    first, other = four.samples[0], next(s for s in four.samples if s.patient != four.samples[0].patient)
    shown = [replace(first, images=each.images) for each in (first, other)]
    right, wrong = (
        calibration.take(bundle, replace(four, samples=[s])).inputs[0]["inputs_embeds"] for s in shown
    )
    moved = (right - wrong).abs().amax(-1)[0] > 1e-3
    assert int(moved.sum()) == bundle.tokens_per_image


def test_without_images_nothing_is_calibrated(ran: Path) -> None:
    blind = [models.sample(f"s{i}", [("Is it?", "Yes")], []) for i in range(3)]
    there = held(ran)
    bundle = checkpoint.load(ran / "taught" / "model")
    with pytest.raises(ModelError, match="shows an image") as error:
        calibration.take(bundle, replace(there, samples=blind))
    assert error.value.found == "3 without, 0 that do not fit"
    with pytest.raises(ModelError) as error:
        calibration.take(bundle, held(ran, max_tokens=16))
    assert error.value.found == f"0 without, {len(there.samples)} that do not fit"


def test_data_that_cannot_calibrate(ran: Path, tmp_path: Path) -> None:
    data = prepare.load(ran / "data")
    for wrong, found in (
        ({"kind": "preferences"}, "preferences"),
        ({"counts": {"test": 2}}, "splits test"),
        ({"counts": {"train": 0, "test": 2}}, "splits train, test"),
    ):
        with pytest.raises(RunError, match="nothing to calibrate on") as error:
            calibration.of(replace(data, **wrong), Calibrate(), lambda sample: sample, 0)
        assert error.value.found == found
    with pytest.raises(RunError) as error:
        held(ran, where={"site": "nowhere"})
    assert error.value.where == "calibrate.where"
    with pytest.raises(ModelError, match="there is nothing to calibrate on") as refused:
        stage.make(
            stage.Order(place=ran / "taught" / "model", kind="gptq", to=tmp_path / "a", home=tmp_path / "a")
        )
    assert "nf4" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"to": "gptq"}, "gptq is calibrated: name the `data`"),
        ({"to": "int8", "calibrate": {}}, "calibrate: of gptq and awq alone, int8 is not calibrated"),
        (
            {"to": "awq", "data": "data", "gate": {"allow": {"exact_match": 1}, "split": "train"}},
            "gate.split: the train split is what it is calibrated on",
        ),
        ({"to": "awq", "data": "data", "calibrate": {"group": 48}}, "out.calibrate.group"),
        ({"to": "awq", "data": "data", "calibrate": {"sampels": 3}}, "did you mean 'samples'"),
    ],
)
def test_recipes_that_do_not_fit(asked: dict[str, Any], found: str, language: Path) -> None:
    document = small.only(language, "data", "taught")
    document["stages"]["out"] = {"stage": "export", "model": "taught", **asked}
    with pytest.raises(RecipeError) as error:
        recipe.check(document, "test")
    assert found in error.value.what


def test_other_exports_stay_up_to_date(language: Path) -> None:
    """The new key is no part of a section that does not use it, nor is an empty one of what it calibrates."""
    document = small.only(language, "data", "taught")
    document["stages"]["out"] = {"stage": "export", "model": "taught", "to": "int8"}
    plain = recipe.check(document, "test").stages["out"].model_dump(mode="json")
    assert plain == {
        "stage": "export", "model": "taught", "to": "int8", "precision": "float32", "data": None, "gate": None,
    }  # fmt: skip


def test_a_command_without_data_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as error:
        command.parse("awq", "float32", None, [], "vqa", None)
    assert "awq is calibrated: name the `data` that the model was taught on" in error.value.found
    section = command.parse("awq", "float32", tmp_path, [], "vqa", None, ["samples=9", "group=64"])
    assert section.calibrate == Calibrate(samples=9, group=64)
    assert section.gate is None


def test_a_group_divides_every_layer(language: Path) -> None:
    inner = models.bundle(language).model.get_submodule("model.language_model")
    assert packed.group(inner, None) == 32  # 32 and 64 wide
    with pytest.raises(ModelError) as error:
        packed.group(inner, 64)
    assert error.value.found == "layers.0.self_attn.q_proj has 32 inputs"
    assert error.value.expected == "a multiple of 64"
    section = {**models.section(language), "language": {**models_export.WIDE, "tokenizer": str(language)}}
    wide = checkpoint.compose(section, 0).model.get_submodule("model.language_model")
    assert packed.group(wide, None) == 64
    inner.get_submodule("layers.1.mlp").down_proj = torch.nn.Linear(48, 32)
    with pytest.raises(ModelError, match="groups of 128 or 64 or 32 weights") as error:
        packed.group(inner, None)
    assert error.value.found == "layers.1.mlp.down_proj has 48 inputs"
    assert "nf4" in error.value.remedy


def test_without_the_package_it_is_named(ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llmcompressor", None)
    with pytest.raises(MissingExtra) as error:
        packed.check(checkpoint.load(ran / "taught" / "model"), "gptq", held(ran))
    assert error.value.remedy == "pip install 'sightline[fp8]'"


@pytest.mark.slow
def test_the_kits_model(tmp_path: Path) -> None:
    """Rows of 576 and 1536 inputs, in groups of 64; its tower is no class of transformers, so Sightline opens it."""
    needed()
    parts = {"family": "llava", "vision": "kit/efficientnet-lite0", "language": "kit/smollm2-135m"}
    section = Model.model_validate({**parts, "connector": "mlp2x_gelu"}).model_dump()
    saved = models_export.save(checkpoint.compose(section, 0), tmp_path / "saved", size=1e-3)
    four = calibration.Calibration(
        root=tmp_path, samples=models_export.samples(tmp_path, 8), read=lambda sample: sample,
        asked=Calibrate(samples=8), seed=0, data="",
    )  # fmt: skip
    to = tmp_path / "gptq"
    told = stage.make(stage.Order(place=saved, kind="gptq", to=to, home=to, calibration=four))
    assert (told["calibration"]["group"], told["opens_with"]) == (64, ["sightline"])
    weights = load_file(to / "model.safetensors")
    assert len([name for name in weights if name.endswith(".weight_packed")]) == 7 * 30
    assert sum(told["bytes"]["files"].values()) < 0.45 * told["bytes"]["float32"]
    assert told["answers"]["moved"] < 1
