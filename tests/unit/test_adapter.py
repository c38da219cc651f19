"""Adapters of other programs: on top of a model they give PEFT's own logits, or are refused with what does not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

import models
import models_export
from sightline.errors import ModelError
from sightline.export import opened, probe
from sightline.models import adapter, foreign, quantized
from sightline.models.family import Bundle
from sightline.stages import export as stage

BASE = "llava-hf/tiny-llava"
# How transformers up to 4.51 called the modules.
OLD = (
    ("base_model.model.model.language_model.", "base_model.model.language_model.model."),
    ("base_model.model.model.vision_tower.", "base_model.model.vision_tower.vision_model."),
    ("base_model.model.model.multi_modal_projector.", "base_model.model.multi_modal_projector."),
)
LANGUAGE = r".*language_model.*\.(q_proj|down_proj)"


@pytest.fixture(scope="module")
def base(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA as on a hub: without anything that Sightline writes beside it."""
    root = tmp_path_factory.mktemp("tiny-llava")
    place = models_export.save(models.bundle(language), root)
    made = root / "tiny-llava"
    stage.make(stage.Order(place=place, kind="merged", to=made, home=made))
    for name in ("model.yaml", "export.json", "README.md"):
        (made / name).unlink()
    return made


def train(base: Path, to: Path, **how: Any) -> Path:
    """An adapter as PEFT writes it, with weights that do something."""
    torch.manual_seed(0)
    plain = LlavaForConditionalGeneration.from_pretrained(base)
    asked = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **how}
    model: Any = get_peft_model(plain, LoraConfig(**asked))
    model.peft_config["default"].base_model_name_or_path = BASE
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                size = 0.05 if "magnitude" in name or ".modules_to_save." in name else 0.2
                parameter.add_(torch.randn(parameter.shape, generator=draw) * size)
    model.save_pretrained(to, save_embedding_layers=False)
    return to


def wanted(base: Path, place: Path, bundle: Bundle) -> Tensor:
    """PEFT's own logits of the probe."""
    model = PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(base), place).eval()
    batch = probe.probe(bundle)
    with torch.no_grad():
        made = model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"],
            pixel_values=torch.stack(batch["images"]),
        ).logits[0]  # fmt: skip
    made[:, bundle.image_token] = 0
    return made


def change(place: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]], **told: Any) -> Path:
    """The same adapter with other tensors and settings."""
    weights = load_file(place / adapter.WEIGHTS)
    save_file(edit(weights), place / adapter.WEIGHTS)
    config = json.loads((place / adapter.CONFIG).read_text())
    (place / adapter.CONFIG).write_text(json.dumps({**config, **told}))
    return place


def same(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights


def older(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    made = {}
    for name, tensor in weights.items():
        new = next((name.replace(today, before) for today, before in OLD if name.startswith(today)), name)
        made[new] = tensor
    return made


def put(base: Path, place: Path, *, merge: bool = True) -> Bundle:
    bundle = foreign.open_folder(base)
    adapter.add(bundle, adapter.look(place), base=base.name, merge=merge)
    return bundle


def away(base: Path, place: Path, reference: Path, bundle: Bundle) -> float:
    """How far its logits are from PEFT's; and that they are far from those of the base."""
    made = probe.logits(bundle, probe.probe(bundle))
    plain = foreign.open_folder(base)
    assert probe.distance(probe.logits(plain, probe.probe(plain)), made) > 0.01
    return probe.distance(made, wanted(base, reference, bundle))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"use_rslora": True, "target_modules": LANGUAGE},
        {"use_dora": True, "target_modules": ["o_proj", "linear_1"]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {r"layers\.1\.self_attn\.v_proj": 32}},
        {"exclude_modules": r".*vision_tower.*", "modules_to_save": ["multi_modal_projector"]},
        {"target_modules": ["k_proj"], "layers_to_transform": [1]},
    ],
    ids=["plain", "rslora", "dora", "patterns", "saved", "layers"],
)
@pytest.mark.parametrize("merge", [True, False])
def test_logits_are_those_of_peft(how: dict[str, Any], merge: bool, base: Path, tmp_path: Path) -> None:
    place = train(base, tmp_path / "adapter", **how)
    assert away(base, place, place, put(base, place, merge=merge)) < 1e-5


@pytest.mark.parametrize("targets", [["q_proj", "fc1"], r"(language_model|vision_tower).*\.(q_proj|fc1)"])
def test_names_of_earlier_versions(targets: Any, base: Path, tmp_path: Path) -> None:
    place = train(base, tmp_path / "adapter", target_modules=["q_proj", "fc1"])
    before = train(base, tmp_path / "before", target_modules=["q_proj", "fc1"])
    change(before, older, target_modules=targets)
    assert any("vision_tower.vision_model." in key for key in load_file(before / adapter.WEIGHTS))
    assert away(base, before, place, put(base, before)) < 1e-5


def test_every_layer_is_named_as_it_was() -> None:
    assert list(adapter.spellings("model.language_model.layers.0.q_proj", "llava")) == [
        "model.language_model.layers.0.q_proj",
        "language_model.model.layers.0.q_proj",
    ]
    assert "model.layers.0.q_proj" in list(
        adapter.spellings("model.language_model.layers.0.q_proj", "qwen3_vl")
    )
    for name in (
        "model.vision_tower.encoder.layers.0.fc1",
        "lm_head",
        "model.language_model.layers.0.q_proj",
    ):
        for family in ("llava", "qwen3_vl"):
            assert {adapter.today(older, family) for older in adapter.spellings(name, family)} == {name}
    assert adapter.today("model.visual.blocks.0.qkv", "qwen3_vl") == "model.visual.blocks.0.qkv"
    assert list(adapter.spellings("lm_head", "llava")) == ["lm_head", "language_model.lm_head"]


def fails(base: Path, place: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        put(base, place)
    return caught.value


def test_keys_that_do_not_fit_are_named(base: Path, tmp_path: Path) -> None:
    place = train(base, tmp_path / "adapter")
    lost = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_B.weight"
    change(place, lambda w: {k: v for k, v in w.items() if k != lost})
    error = fails(base, place)
    assert error.found == f"0 unexpected keys, 1 missing; missing: {lost}"
    assert error.expected == f"the model that it was trained on: {BASE}"
    assert error.where == "adapter on tiny-llava"
    strange = "base_model.model.model.language_model.layers.9.self_attn.q_proj.lora_A.weight"
    change(place, lambda w: {**w, lost: torch.zeros(32, 4), strange: torch.zeros(4, 32)})
    assert fails(base, place).found == f"1 unexpected keys, 0 missing; unexpected: {strange}"
    change(place, lambda w: {k: v for k, v in w.items() if k != strange} | {lost: torch.zeros(16, 4)})
    assert fails(base, place).found.startswith(f"1 of other shapes: {lost} (16, 4)")
    change(place, same, target_modules=["nothing"])
    assert "no layer of the model is named ['nothing']" in fails(base, place).found


def test_an_adapter_of_the_language_model_alone_does_not_fit(base: Path, tmp_path: Path) -> None:
    place = train(base, tmp_path / "adapter", target_modules=LANGUAGE)
    change(
        place, lambda w: {k.replace("model.model.language_model.", "model.model."): v for k, v in w.items()}
    )
    assert "unexpected keys" in fails(base, place).found


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({"peft_type": "LOHA"}, "no LoRA"),
        ({"bias": "all"}, "bias: 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa'"),
        ({"megatron_config": {"a": 1}}, "megatron_config"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"something_new": 3}, "something_new: 3"),
    ],
)
def test_what_is_not_plain_lora_is_refused(
    told: dict[str, Any], what: str, base: Path, tmp_path: Path
) -> None:
    place = change(train(base, tmp_path / "adapter"), same, **told)
    assert what in fails(base, place).block()


def test_pickles_and_saved_models_are_no_adapters(base: Path, language: Path, tmp_path: Path) -> None:
    place = train(base, tmp_path / "adapter")
    (place / adapter.WEIGHTS).rename(place / "adapter_model.bin")
    assert "pickle" in fails(base, place).remedy
    own = models_export.save(models.bundle(language), tmp_path / "own")
    assert "saved model of Sightline" in fails(base, own).what


def test_whether_the_base_may_be_this_one() -> None:
    def named(base: str, folder: str) -> bool:
        return adapter.is_named(adapter.Adapter(Path("a"), {"base_model_name_or_path": base}), folder)

    assert named("llava-hf/llava-1.5-7b-hf", "llava-1.5-7b-hf")
    assert named("/data/models/llava-1.5-7b-hf/", "llava-1.5-7b-hf")
    assert named("", "anything")
    assert not named("llava-hf/llava-1.5-7b-hf", "Qwen2.5-VL-7B")


@pytest.mark.parametrize("load", ["4bit", "8bit"])
def test_beside_rounded_weights(load: str, language: Path, tmp_path: Path) -> None:
    """The adapter acts on the weights as they were rounded, and is not rounded with them."""
    pytest.importorskip("bitsandbytes")
    section = {**models.section(language), "language": {**models_export.WIDE, "tokenizer": str(language)}}
    from sightline.models import checkpoint

    saved = models_export.save(checkpoint.compose(section, 0), tmp_path)
    wide = tmp_path / "wide"
    stage.make(stage.Order(place=saved, kind="merged", to=wide, home=wide))
    place = train(wide, tmp_path / "adapter", target_modules=LANGUAGE)
    bundle, reference = opened.load(wide), opened.load(wide)
    quantized.quantize(bundle, load)
    adapter.add(bundle, adapter.look(place), base="wide", merge=False)
    assert quantized.is_rounded(bundle.model)
    quantized.quantize(reference, load)
    quantized.dequantize(reference)
    adapter.add(reference, adapter.look(place), base="wide", merge=True)
    bundle.model.train()  # otherwise bitsandbytes computes in bfloat16 on some CPUs; there is no dropout
    made, there = (probe.logits(each, probe.probe(each)) for each in (bundle, reference))
    assert probe.distance(made, there) < (1e-4 if load == "4bit" else 0.05)


def test_folders_that_no_family_opens(base: Path, tmp_path: Path) -> None:
    assert foreign.family_of(base) == "llava"
    for told, what in (({"model_type": "llama"}, "no family opens"), ({"auto_map": {}}, "code of its own")):
        (tmp_path / "config.json").write_text(json.dumps(told))
        (tmp_path / "a.safetensors").write_bytes(b"")
        with pytest.raises(ModelError, match=what):
            foreign.family_of(tmp_path)
