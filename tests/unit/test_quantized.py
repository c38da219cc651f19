"""A language model in 4 and 8 bits under LoRA: trained a step, saved, opened, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import models
import small
from sightline import recipe, runs, stages
from sightline.errors import MissingExtra, ModelError
from sightline.models import checkpoint, quantized, trainable
from sightline.settings import Full, Lora, Model, Plan
from sightline.train import sharding
from sightline.train.processes import Place

LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 320, "initializer_range": 0.2,
}  # fmt: skip
LORA = {"language": Plan(lora=Lora(r=2, alpha=4, lr=1e-2))}


@pytest.fixture
def bits() -> None:
    pytest.importorskip("bitsandbytes")


@pytest.fixture
def section(language: Path) -> Callable[[str], dict[str, Any]]:
    """A `model` section by how its weights are held: rows of whole blocks, as real models have."""
    own = {**models.section(language), "language": {**LLAMA, "tokenizer": str(language)}}
    return lambda load: {**own, "load": load}


Section = Callable[[str], dict[str, Any]]


def logits(bundle: Any) -> torch.Tensor:
    ids = torch.arange(4, 24)[None]
    with torch.no_grad():
        return bundle.head(bundle.forward({"input_ids": ids, "images": []}, given="pixels"))


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize(("load", "near", "bits_"), [("4bit", 0.16, 4), ("8bit", 0.005, 8)])
def test_only_linear_layers_of_the_language_model_are_rounded(
    section: Section, load: str, near: float, bits_: int
) -> None:
    plain = checkpoint.compose(section("float32"), 0)
    made = checkpoint.compose(section(load), 0)
    own = {n: m for n, m in made.model.named_modules() if type(m).__name__ in quantized.LOADS.values()}
    assert len(own) == 7 * made.model.config.text_config.num_hidden_layers
    assert all(".language_model.layers." in name for name in own)
    for name, module in own.items():
        before = plain.model.get_submodule(name).weight
        assert module.weight.numel() * module.weight.element_size() * 8 == before.numel() * bits_
        assert quantized.count(module.weight) == before.numel()
        away = (quantized.values(module) - before).abs().max() / before.abs().max()
        assert 0 < away < near
    assert torch.equal(made.model.lm_head.weight, plain.model.lm_head.weight)
    total = {row.part: row.total for row in trainable.table(made, {})}
    assert total == {row.part: row.total for row in trainable.table(plain, {})}


@pytest.mark.usefixtures("bits")
def test_back_in_float32_it_says_the_same(section: Section) -> None:
    made = checkpoint.compose(section("4bit"), 0)
    rounded = logits(made)
    assert (rounded - logits(checkpoint.compose(section("float32"), 0))).abs().max() > 1e-3
    quantized.dequantize(made)
    assert not quantized.is_rounded(made.model)
    assert torch.allclose(logits(made), rounded, atol=1e-5)


@pytest.mark.usefixtures("bits")
@pytest.mark.parametrize("load", ["4bit", "8bit"])
def test_a_step_is_trained_saved_and_opened(
    section: Section, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: str
) -> None:
    made = small.only(Path(), "data", "taught")
    made["stages"]["taught"]["model"] = section(load)
    last: list[Any] = []
    save = checkpoint.save

    def seen(folder: Path, bundle: Any, model: Any, **how: Any) -> None:
        bundle.model.train()  # the way it computed while it learned; there is no dropout
        last.append(logits(bundle))
        save(folder, bundle, model, **how)

    monkeypatch.setattr(checkpoint, "save", seen)
    folder = stages.execute(recipe.check(made, "test"), tmp_path, say=lambda line: None)["taught"]
    assert len(small.curve(folder)) == 2
    assert small.curve(folder)[1]["loss"] < small.curve(folder)[0]["loss"]
    assert runs.read_json(folder / "model" / "sightline.json")["base"]["model"]["load"] == load
    opened = checkpoint.load(folder / "model")
    assert (logits(opened) - last[0]).abs().max() < 1e-4
    start = logits(checkpoint.compose(section(load), 0))
    assert (logits(opened) - start).abs().max() > 1e-2
    assert not quantized.is_rounded(opened.model)


@pytest.mark.usefixtures("bits")
def test_gradients_pass_rounded_layers(section: Section) -> None:
    """The adapters' gradients are those over the rounded weights in float32."""
    found = []
    for back in (False, True):
        made = checkpoint.compose(section("4bit"), 0)
        if back:
            quantized.dequantize(made)
        trainable.apply(made, LORA, 0)
        states = made.forward({"input_ids": torch.arange(4, 24)[None], "images": []}, given="pixels")
        (states * torch.linspace(-1, 1, states.numel()).view_as(states)).sum().backward()
        found.append({n: p.grad for n, p in made.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert len(found[0]) == 28
    assert max(g.abs().max() for g in found[0].values()) > 1e-3
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-5), name


@pytest.mark.usefixtures("bits")
def test_autocast_is_followed(section: Section) -> None:
    made = checkpoint.compose(section("4bit"), 0)
    linear = made.model.model.language_model.layers[0].mlp.gate_proj
    with torch.autocast("cpu", torch.bfloat16):
        logits(made)
    assert linear.compute_dtype == torch.bfloat16
    logits(made)
    assert linear.compute_dtype == torch.float32


@pytest.mark.usefixtures("bits")
def test_what_rounded_weights_cannot(section: Section) -> None:
    made = checkpoint.compose(section("4bit"), 0)
    with pytest.raises(ModelError) as error:
        trainable.apply(made, {"language": Plan(full=Full(lr=1e-3))}, 0)
    assert error.value.where == "trainable.language"
    with pytest.raises(ModelError) as error:
        sharding.refuse_rounded(made.model, Place(0, 2, 0, "fsdp2", {}))
    assert error.value.expected == "ddp"
    sharding.refuse_rounded(made.model, Place(0, 2, 0, "ddp", {}))


@pytest.mark.usefixtures("bits")
def test_rows_that_are_no_whole_blocks_stay(section: Section) -> None:
    """The kernel for CPUs reads scales as if every row began a block."""
    narrow = {**section("4bit")["language"], "hidden_size": 32}
    made = checkpoint.compose({**section("4bit"), "language": narrow}, 0)
    own = [n for n, m in made.model.named_modules() if type(m).__name__ == "Linear4bit"]
    assert [name.rpartition(".")[2] for name in own] == ["down_proj", "down_proj"]
    with pytest.raises(ModelError, match="4 bits"):
        checkpoint.compose({**section("4bit"), "language": {**narrow, "intermediate_size": 96}}, 0)


def test_without_the_package_it_is_named(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    with pytest.raises(MissingExtra) as error:
        checkpoint.compose(section("4bit"), 0)
    assert error.value.remedy == "pip install 'sightline[quantized]'"


def test_the_key_of_an_old_recipe_stays() -> None:
    assert "load" not in Model().model_dump()
    assert Model(load="4bit").model_dump()["load"] == "4bit"


def test_nobody_is_told_of_kernels_that_could_be_fetched() -> None:
    """Importing what opens models says nothing, whatever else is installed."""
    code = "import sightline.models.checkpoint, sightline.models.quantized"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (said.stdout, said.stderr) == ("", "")
