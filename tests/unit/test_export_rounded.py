"""Exports with rounded weights: smaller, opened by transformers alone, and saying there what they say here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import models
import models_export
from sightline.errors import MissingExtra, ModelError
from sightline.export import fp8, rounded
from sightline.stages import export as stage

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


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch, language: Path) -> None:
    for package in ("bitsandbytes", "llmcompressor"):
        monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra) as error:
        rounded.config("nf4", [], torch.float32)
    assert error.value.remedy == "pip install 'sightline[quantized]'"
    with pytest.raises(MissingExtra) as error:
        fp8.write(models.bundle(language), Path("a"), Path("b"), "fp8", "float32")
    assert error.value.remedy == "pip install 'sightline[fp8]'"
