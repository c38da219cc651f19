"""Sizes from configs against models of those configs on the meta device, and what a step is said to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlavaConfig,
    LlavaNextConfig,
    MllamaConfig,
)
from transformers.models.mllama.modeling_mllama import MllamaVisionModel

from sightline import recipe
from sightline.cli import memory, published, sizes
from sightline.cli.plan import KIT, KIT_CONFIGS, step_of, steps

SMOLLM2 = KIT_CONFIGS["kit/smollm2-135m"]
GEMMA2 = {"model_type": "gemma2"}
CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip
SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "image_size": 384, "patch_size": 14,
}  # fmt: skip
RAD_DINO = {"model_type": "dinov2", "image_size": 518}
LLAMA, MISTRAL = {"model_type": "llama"}, {"model_type": "mistral"}


def counted(config: dict[str, Any], kind: Any) -> int:
    """Parameters of the model that transformers makes of a config."""
    own = {k: v for k, v in config.items() if k != "model_type"}
    with torch.device("meta"):
        made = kind.from_config(AutoConfig.for_model(config["model_type"], **own))
    return sum(p.numel() for p in made.parameters())


@pytest.mark.parametrize(
    "config", [LLAMA, MISTRAL, SMOLLM2, GEMMA2, {"model_type": "qwen2"}, {"model_type": "phi3"}]
)
def test_language_models_are_as_large_as_they_are_made(config: dict[str, Any]) -> None:
    found = sizes.parts(config)["language"]
    assert found.weights == pytest.approx(counted(config, AutoModelForCausalLM), rel=0.002)


@pytest.mark.parametrize("config", [CLIP_L, SIGLIP, RAD_DINO])
def test_towers_are_as_large_as_they_are_made(config: dict[str, Any]) -> None:
    found = sizes.parts(config)
    assert list(found) == ["vision"]
    assert found["vision"].weights == pytest.approx(counted(config, AutoModel), rel=0.005)


def test_the_tower_of_tiles_is_as_large_as_it_is_made() -> None:
    found = sizes.parts({"model_type": "mllama_vision_model", "image_size": 560})["vision"]
    with torch.device("meta"):
        made = MllamaVisionModel(MllamaConfig(vision_config={"image_size": 560}).vision_config)
    assert found.weights == pytest.approx(sum(p.numel() for p in made.parameters()), rel=0.002)
    assert (found.layers, found.output) == (40, 7680)


def test_adapters_of_large_models_to_the_digit() -> None:
    assert sizes.parts(LLAMA)["language"].lora(128) == 319_815_680
    assert sizes.parts(MISTRAL)["language"].lora(128) == 335_544_320
    assert sizes.parts(LLAMA)["language"].weights == 6_738_149_376  # 6,738,415,616 with its norms
    assert sizes.parts(SMOLLM2)["language"].weights == pytest.approx(KIT["kit/smollm2-135m"], rel=0.001)


def test_a_folder_of_two_parts_and_one_that_is_not_known() -> None:
    both = sizes.parts({"text_config": MISTRAL, "vision_config": CLIP_L})
    assert both["language"].layer.key == 1024
    assert both["vision"].layers == 24
    assert sizes.parts({"model_type": "efficientnet_lite"}) == {}
    assert sizes.parts("no/such/folder") == {}


def step(**changed: Any) -> memory.Step:
    size = sizes.parts(LLAMA)["language"]
    own = {"weights": size.weights, "trained": size.lora(128), "language": size, "tokens": 1024, **changed}
    return memory.Step(**own)


def test_what_a_step_of_seven_billion_holds() -> None:
    plain = memory.need(step())
    assert plain.weights == pytest.approx(4 * (6_738_149_376 + 319_815_680))
    assert plain.gradients == 4 * 319_815_680
    assert plain.optimizer == 8 * 319_815_680
    # 32 layers x 1024 tokens x (4 bytes x (2 + 3 + 2) x 4096 + 16 x 11008 + 16 x 4096), and the head's logits
    assert plain.activations == 32 * 1024 * (4 * 7 * 4096 + 16 * 11008 + 16 * 4096) + 3 * 4 * 8192 * 1024
    half = memory.need(step(half=True, again=True))
    assert half.weights == plain.weights
    assert half.activations < plain.activations / 5
    four = memory.need(step(half=True, again=True, load="4bit"))
    assert plain.weights - four.weights == pytest.approx(6_476_005_376 * (4 - 0.5625))
    assert memory.need(step(tokens=2048)).activations == pytest.approx(2 * plain.activations, rel=0.02)


def test_the_devices_that_it_fits_on() -> None:
    told = memory.Need(weights=28e9, gradients=1e9, optimizer=2e9, activations=5.5e9).text()
    assert told == (
        "about 36.5 GB (weights 28.0, gradients 1.0, optimizer 2.0, activations 5.5); fits on 48, 80, 141 GB"
    )
    assert memory.Need(22.1e9, 0, 0, 0).text().endswith("fits on 48, 80, 141 GB")  # 24 GB is never all there
    assert memory.Need(130e9, 0, 0, 0).text().endswith("does not fit on 141 GB")


def recipe_of(model: dict[str, Any], **train: Any) -> recipe.Recipe:
    data = {"stage": "prepare", "reader": "phantom", "patients": 4}
    asked = {"connector": {"full": {"lr": 1e-3}}, "language": {"lora": {"r": 128, "alpha": 256, "lr": 1e-4}}}
    taught = {"stage": "sft", "data": "data", "model": model, "trainable": asked, "train": train}
    return recipe.check({"name": "r", "stages": {"data": data, "taught": taught}}, "here")


def test_a_recipe_of_seven_billion() -> None:
    made = recipe_of({"vision": CLIP_L, "language": LLAMA}, batch=2, precision="bfloat16")
    found = step_of(made.stages["taught"], made)
    assert found is not None
    assert found.trained == 319_815_680 + 1024 * 4096 + 4096**2
    assert (found.tokens, found.half, found.again) == (2048, True, False)
    line = steps(made)[0]
    assert line.startswith("a step of taught: about ")
    assert line.endswith("fits on 80, 141 GB")


def test_the_kit_is_known() -> None:
    made = recipe_of({}, batch=1)
    assert steps(made)[0].endswith("fits on 24, 48, 80, 141 GB")


@pytest.mark.parametrize(("half", "again"), [(False, False), (True, False), (False, True)])
def test_activations_against_what_autograd_keeps(half: bool, again: bool) -> None:
    """A language model under LoRA: bytes of all tensors that its forward pass saves, weights left out."""
    config = {
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50,
    }  # fmt: skip
    own = {k: v for k, v in config.items() if k != "model_type"}
    torch.manual_seed(0)
    base = AutoModel.from_config(AutoConfig.for_model("llama", **own), attn_implementation="sdpa")
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear"))
    if again:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    embeds = torch.randn(2, 128, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), torch.autocast("cpu", enabled=half):
        alive = model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    assert alive.requires_grad
    size = sizes.parts(config)["language"]
    if again:
        told = 256 * size.layers * 4 * 64  # inputs of layers; what one layer needs comes in the backward pass
    else:
        told = memory.transformer(size, 256, half=half, again=False) + (2 * size.inside if half else 0)
    assert told == pytest.approx(sum(kept.values()), rel=0.15)


RECIPES = Path(__file__).parents[2] / "recipes"
# What `sightline check` says of the five systems where none of their models is at hand.
TOLD = {
    ("mmed_rag", "taught"):
        "about 47.8 GB (weights 29.6, gradients 1.4, optimizer 2.7, activations 14.1); "
        "fits on 80, 141 GB",
    ("mmed_rag", "aligned_image"):
        "about 40.6 GB (weights 29.5, gradients 1.3, optimizer 2.6, activations 7.2); "
        "fits on 48, 80, 141 GB",
    ("mmed_rag", "aligned"):
        "about 40.6 GB (weights 29.5, gradients 1.3, optimizer 2.6, activations 7.2); "
        "fits on 48, 80, 141 GB",
    ("siglip_mllama", "taught"):
        "about 44.5 GB (weights 42.9, gradients 0.2, optimizer 0.4, activations 0.9); "
        "fits on 80, 141 GB",
    ("llava_next", "taught"):
        "about 37.2 GB (weights 31.0, gradients 0.8, optimizer 1.5, activations 3.9); "
        "fits on 48, 80, 141 GB",
    ("llava_next", "aligned"):
        "about 40.3 GB (weights 30.9, gradients 0.7, optimizer 1.3, activations 7.4); "
        "fits on 48, 80, 141 GB",
    ("umbrella", "taught"):
        "about 16.4 GB (weights 3.6, gradients 0.1, optimizer 0.1, activations 12.6); "
        "fits on 24, 48, 80, 141 GB",
    ("libra", "aligned"):
        "about 56.3 GB (weights 27.8, gradients 0.2, optimizer 0.5, activations 27.7); "
        "fits on 80, 141 GB",
    ("libra", "taught"):
        "about 60.4 GB (weights 28.8, gradients 1.3, optimizer 2.6, activations 27.7); "
        "fits on 80, 141 GB",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({name for name, _ in TOLD}))
def test_the_recipes_of_the_five_systems_say_what_they_fit_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = steps(recipe.load(RECIPES / f"{name}.yaml"))
    assert lines == [f"a step of {stage}: {said}" for (own, stage), said in TOLD.items() if own == name]


KINDS: dict[str, Any] = {"llava": LlavaConfig, "llava_next": LlavaNextConfig, "mllama": MllamaConfig}


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("llava-1.5-7b-hf", "llava", 7_063_427_072),
        ("llava-v1.6-mistral-7b-hf", "llava_next", 7_566_747_648),
        ("llava-interleave-qwen-0.5b-hf", "llava", 864_031_264),
        ("Llama-3.2-11B-Vision-Instruct", "mllama", 10_670_220_835),
    ],
)
def test_published_models_are_as_large_as_they_are_made(name: str, kind: str, count: int) -> None:
    told = published.config(f"models/{name}")
    assert not isinstance(told, str)
    with torch.device("meta"):
        made = AutoModelForImageTextToText.from_config(KINDS[kind](**told))
    assert sum(p.numel() for p in made.parameters()) == count
    found = step_of(*stage_of({"family": kind, "path": f"models/{name}"}))
    assert found is not None
    assert found.weights == pytest.approx(count, rel=0.002)


def stage_of(model: dict[str, Any]) -> tuple[Any, recipe.Recipe]:
    made = recipe_of(model)
    return made.stages["taught"], made


def test_a_folder_goes_before_the_published_model_of_its_name(tmp_path: Path) -> None:
    place = tmp_path / "meditron-7b"
    assert published.config(str(place))["vocab_size"] == 32017  # type: ignore[index]
    place.mkdir()
    assert published.config(str(place)) == str(place)
    assert published.config("models/no-such") == "models/no-such"


def test_patches_of_volumes_count_and_their_gradient_passes_the_tower() -> None:
    made = recipe.load(RECIPES / "umbrella.yaml")
    found = step_of(made.stages["taught"], made)
    assert found is not None
    assert found.trained == 18_140_544
    assert found.vision is not None
    assert (found.vision.layers, found.patches) == (26, 2 * 2048)
