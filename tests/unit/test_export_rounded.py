"""Exports with rounded weights: smaller, opened by transformers alone, and saying there what they say here."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

import models
import models_export
from sightline.errors import MissingExtra, ModelError, RecipeError
from sightline.export import fp8, opened, rounded
from sightline.stages import export as stage

command = importlib.import_module("sightline.cli.export")  # the package has the function under that name
PACKAGES = {"int8": "bitsandbytes", "nf4": "bitsandbytes", "fp8": "llmcompressor"}
LAYERS = 7 * 2  # linear layers of the language model


@pytest.fixture(scope="module")
def saved(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model with rows of whole blocks, as real ones have."""
    section = {**models.section(language), "language": {**models_export.WIDE, "tokenizer": str(language)}}
    from sightline.models import checkpoint

    return models_export.save(checkpoint.compose(section, 0), tmp_path_factory.mktemp("saved"))


def export(place: Path, kind: str, to: Path) -> Path:
    pytest.importorskip(PACKAGES[kind])
    stage.make(stage.Order(place=place, kind=kind, to=to, home=to))
    return to


@pytest.mark.parametrize(("kind", "near"), [("int8", 0.1), ("nf4", 1.0), ("fp8", 0.5)])
def test_it_opens_in_transformers_and_says_the_same(
    kind: str, near: float, saved: Path, tmp_path: Path
) -> None:
    place = export(saved, kind, tmp_path / kind)
    told = models_export.agree(PACKAGES[kind], place, tmp_path, 3)
    assert 1e-3 < told["answers"]["moved"] < near
    assert told["opens_with"] == ["transformers"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "nf4", "fp8"])
def test_fifty_samples(kind: str, saved: Path, tmp_path: Path) -> None:
    models_export.agree(PACKAGES[kind], export(saved, kind, tmp_path / kind), tmp_path, 50)


@pytest.mark.parametrize(("kind", "size"), [("int8", 1), ("nf4", 0.5), ("fp8", 1)])
def test_only_layers_of_the_language_model_are_rounded(
    kind: str, size: float, saved: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    weights = load_file(export(saved, kind, tmp_path / kind) / "model.safetensors")
    narrow = {
        name for name, tensor in weights.items() if name.endswith(".weight") and tensor.element_size() == 1
    }
    assert len(narrow) == LAYERS
    assert all(".layers." in name and "language_model" in name for name in narrow)
    gate = next(tensor for name, tensor in weights.items() if name.endswith("layers.0.mlp.gate_proj.weight"))
    assert gate.numel() * gate.element_size() == 64 * 128 * size
    config = json.loads((tmp_path / kind / "config.json").read_text())["quantization_config"]
    methods = {"int8": "bitsandbytes", "nf4": "bitsandbytes", "fp8": "compressed-tensors"}
    assert config["quant_method"] == methods[kind]


def test_names_that_stay(language: Path) -> None:
    """In 4 bits rows of 32 stay too: no whole block of 64."""
    bundle = models.bundle(language)
    eight, four = (rounded.kept(bundle, kind) for kind in ("int8", "nf4"))
    assert "lm_head" in eight
    assert "model.multi_modal_projector.linear_1" in eight
    assert not [name for name in eight if ".language_model." in name]
    wide = {f"model.language_model.layers.{i}.mlp.down_proj" for i in range(2)}
    assert {n for n, m in bundle.model.named_modules() if isinstance(m, torch.nn.Linear)} - set(four) == wide
    narrow = bundle.model.model.language_model.layers  # type: ignore[union-attr]
    for layer in narrow:  # type: ignore[union-attr]
        layer.mlp.down_proj = torch.nn.Linear(48, 32)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="nf4"):
        rounded.kept(bundle, "nf4")


def test_other_parts_are_rounded_where_they_are_asked_for(saved: Path, tmp_path: Path) -> None:
    pytest.importorskip("llmcompressor")
    from safetensors.torch import load_file

    to = tmp_path / "all"
    stage.make(stage.Order(place=saved, kind="fp8", to=to, home=to, also=fp8.PARTS))
    assert opened.report(to)["also"] == ["connector", "head", "vision"]
    weights = load_file(to / "model.safetensors")
    narrow = {n for n, tensor in weights.items() if n.endswith(".weight") and tensor.element_size() == 1}
    bundle = opened.load(to)
    linears = [n for n, m in bundle.model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert len(narrow) == len(linears) > LAYERS + 3
    # Not word for word: a sum in another order may round a tower's outputs to the next of few numbers.
    asked, root = models_export.samples(tmp_path / "asked", 2), tmp_path / "asked"
    found = models_export.elsewhere(
        models_export.TRANSFORMERS, to, asked, root, models_export.found_at("llmcompressor")
    )
    assert found["type"] == "transformers.models.llava.modeling_llava"
    assert [len(ids) > 0 for ids in found["ids"]] == [True, True]


def test_parts_that_cannot_be_rounded_say_why(language: Path, tied_language: Path) -> None:
    with pytest.raises(ModelError, match="table of words"):
        fp8.layers(models.bundle(tied_language), "head")
    bundle = models.bundle(language)
    assert fp8.layers(bundle, "head") == ["lm_head"]
    assert len(fp8.layers(bundle, "connector")) == 2
    bundle.model.model.vision_tower = torch.nn.Identity()
    with pytest.raises(ModelError, match="no linear layer"):
        fp8.layers(bundle, "vision")


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch, language: Path) -> None:
    for package in ("bitsandbytes", "llmcompressor"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra) as error:
        rounded.config("nf4", [], torch.float32)
    assert error.value.remedy == "pip install 'sightline[quantized]'"
    with pytest.raises(MissingExtra) as error:
        fp8.write(models.bundle(language), Path("a"), Path("b"), "float32")
    assert error.value.remedy == "pip install 'sightline[fp8]'"


def test_the_command_names_parts() -> None:
    assert command.parse("fp8", "float32", None, [], "vqa", None, (), ["head"]).round == ("head",)
    for kind, part, told in (("int8", "head", "round: of fp8 alone"), ("fp8", "language", "round.0")):
        with pytest.raises(RecipeError) as error:
            command.parse(kind, "float32", None, [], "vqa", None, (), [part])
        assert told in str(error.value.found)
