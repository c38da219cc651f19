"""Tiny checkpoints in the layouts of LLaVA, LLaVA-Med and Libra, written from tiny models by literal tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import gelu
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    LlamaForCausalLM,
)

import models
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.settings import Model

# Names as the releases have them, beside those of today's modules.
LANGUAGE = (
    "embed_tokens.weight", "norm.weight",
    "layers.0.self_attn.q_proj.weight", "layers.0.self_attn.k_proj.weight", "layers.0.self_attn.v_proj.weight",
    "layers.0.self_attn.o_proj.weight", "layers.0.mlp.gate_proj.weight", "layers.0.mlp.up_proj.weight",
    "layers.0.mlp.down_proj.weight", "layers.0.input_layernorm.weight", "layers.0.post_attention_layernorm.weight",
    "layers.1.self_attn.q_proj.weight", "layers.1.self_attn.k_proj.weight", "layers.1.self_attn.v_proj.weight",
    "layers.1.self_attn.o_proj.weight", "layers.1.mlp.gate_proj.weight", "layers.1.mlp.up_proj.weight",
    "layers.1.mlp.down_proj.weight", "layers.1.input_layernorm.weight", "layers.1.post_attention_layernorm.weight",
)  # fmt: skip
CONNECTOR = {
    "model.mm_projector.0.weight": (32, 16), "model.mm_projector.0.bias": (32,),
    "model.mm_projector.2.weight": (32, 32), "model.mm_projector.2.bias": (32,),
}  # fmt: skip
TAC_ATTENTIONS = ("cur_self_attention", "prior_self_attention", "cros_attention")

COMMON: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "rms_norm_eps": 1e-6, "hidden_act": "silu",
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "initializer_range": 0.02, "use_cache": True,
    "tie_word_embeddings": False, "transformers_version": "4.31.0", "torch_dtype": "float16", "rope_scaling": None,
    "mm_hidden_size": 16, "mm_use_im_start_end": False, "mm_use_im_patch_token": False,
    "mm_vision_select_feature": "patch", "mm_vision_select_layer": -2, "tune_mm_mlp_adapter": False,
    "freeze_mm_mlp_adapter": False, "use_mm_proj": True, "tokenizer_model_max_length": 2048,
}  # fmt: skip
LLAVA = {
    **COMMON, "_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava", "mm_projector_type": "mlp2x_gelu", "image_aspect_ratio": "pad",
    "mm_vision_tower": "openai/clip-vit-large-patch14-336",
}  # fmt: skip
LIBRA = {
    **COMMON, "_name_or_path": "epfl-llm/meditron-7b", "architectures": ["LibraLlamaForCausalLM"],
    "model_type": "libra", "mm_projector_type": "TAC", "mm_vision_select_layer": "all",
    "mm_vision_tower": "microsoft/rad-dino",
}  # fmt: skip


WORDS = [70, 71, 72]
BEHIND = [80, 81, 82, 83]
VOCABULARY = len(models.bytes_tokenizer())
PIXELS = np.random.default_rng(0).random((28, 28, 3)).astype(np.float32)
PRIOR = np.random.default_rng(1).random((28, 28, 3)).astype(np.float32)


def randoms(shapes: Mapping[str, tuple[int, ...]], seed: int, size: float = 0.2) -> dict[str, Tensor]:
    """Random tensors by name."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) * size for name, shape in shapes.items()}


def language(tokens: int, seed: int = 0) -> tuple[LlamaForCausalLM, dict[str, Tensor]]:
    """A tiny Llama, and its tensors as the releases name them."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(models.llama(tokens)).eval()
    own = model.state_dict()
    state = {f"model.{name}": own[f"model.{name}"].clone() for name in LANGUAGE}
    return model, state | {"lm_head.weight": own["lm_head.weight"].clone()}


def clip(folder: Path, seed: int = 0) -> tuple[CLIPVisionModel, dict[str, Tensor]]:
    """A tiny CLIP tower as a folder with its processor, and its tensors as LLaVA-1.6 and LLaVA-Med name them."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(**{k: v for k, v in models.CLIP.items() if k != "model_type"})
    tower = CLIPVisionModel(config).eval()
    models.stir(tower.parameters(), seed + 1)
    tower.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder
    )
    prefix = "model.vision_tower.vision_tower.vision_model."
    state = {prefix + name.removeprefix("vision_model."): v.clone() for name, v in tower.state_dict().items()}
    return tower, state


def dino(folder: Path, seed: int = 0) -> Dinov2Model:
    """A tiny Dinov2 of four layers as a folder with its processor."""
    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=2, image_size=28, patch_size=14
    )
    tower = Dinov2Model(config).eval()
    models.stir(tower.parameters(), seed + 1)
    tower.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder
    )
    return tower


def tac(depth: int = 4, width: int = 16, hidden: int = 32, seed: int = 7) -> dict[str, Tensor]:
    """Libra's connector under its own names (originals.md 2.2), for a tower of four layers."""
    half, quarter = depth // 2, depth // 4
    shapes: dict[str, tuple[int, ...]] = {"LFE_prior_bias": ()}
    for at, into, out in ((0, depth, half), (2, half, quarter), (4, quarter, 1)):
        shapes |= {
            f"LFE.{at}.fc1.weight": (out, into, 1, 1), f"LFE.{at}.fc1.bias": (out,),
            f"LFE.{at}.fc2.weight": (into, out, 1, 1), f"LFE.{at}.fc2.bias": (into,),
            f"LFE.{at + 1}.weight": (out, into, 1, 1),
        }  # fmt: skip
    for name in TAC_ATTENTIONS:
        shapes |= {
            f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,),
            f"{name}.bias_k": (1, 1, width), f"{name}.bias_v": (1, 1, width),
            f"{name}.out_proj.weight": (width, width), f"{name}.out_proj.bias": (width,),
        }  # fmt: skip
    for at in (1, 2, 3, 4):
        shapes |= {f"norm{at}.weight": (width,), f"norm{at}.bias": (width,)}
    for at in (0, 3):
        shapes |= {f"mlp_attn.{at}.weight": (width, width), f"mlp_attn.{at}.bias": (width,)}
    for at in (0, 2, 4, 6):
        shapes |= {
            f"mlp_final.{at}.weight": (hidden, hidden if at else width),
            f"mlp_final.{at}.bias": (hidden,),
        }
    return {f"model.mm_projector.{name}": value for name, value in randoms(shapes, seed).items()}


def write(folder: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], *, shards: int = 1) -> Path:
    """A release: config.json, tokenizer, and `.bin` files, with an index where there are several."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = models.bytes_tokenizer()
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(tokenizer)}))
    names = list(state)
    if not names:
        return folder
    if shards == 1:
        torch.save(dict(state), folder / "pytorch_model.bin")
        return folder
    where = {}
    for at in range(shards):
        file = f"pytorch_model-{at + 1:05d}-of-{shards:05d}.bin"
        torch.save({name: state[name] for name in names[at::shards]}, folder / file)
        where |= dict.fromkeys(names[at::shards], file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def plain_language(folder: Path, seed: int = 0) -> Path:
    """A language model as its own authors release it, to stand on; safetensors."""
    tokenizer = models.bytes_tokenizer()
    model, _ = language(len(tokenizer), seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def opened(to: Path) -> Bundle:
    """What a recipe with the written `model` section would train."""
    section = yaml.safe_load((to / "model.yaml").read_text())["model"]
    return checkpoint.compose(Model(**section).model_dump(), 0)


@torch.no_grad()
def logits(bundle: Bundle, *images: Tensor, grid: tuple[int, ...] = ()) -> Tensor:
    """[T, vocabulary] of words, an image, and words; two images are a current one and its prior."""
    bundle.model.eval()
    shown = torch.stack(images) if len(images) > 1 else images[0]
    words = bundle.words(grid)
    ids = torch.tensor([[*WORDS, *words, *BEHIND]])
    hidden = bundle.forward({"input_ids": ids, "images": [shown], "grids": [grid]}, given="pixels")
    return bundle.head(hidden)[0]


@torch.no_grad()
def originals(language: Any, tokens: Tensor) -> Tensor:
    """The same, the originals' way: -200 stands for the image and is replaced by its tokens [N, hidden]."""
    line = [*WORDS, -200, *BEHIND]
    at = line.index(-200)
    table = language.get_input_embeddings()
    before, behind = (table(torch.tensor(part)) for part in (line[:at], line[at + 1 :]))
    embeds = torch.cat([before, tokens, behind])[None]
    return language(inputs_embeds=embeds).logits[0]


@torch.no_grad()
def tokens(tower: Any, pixels: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """CLIP's second last layer without its class token, through LLaVA's two matrices."""
    states = tower(pixels[None], output_hidden_states=True).hidden_states[-2][0, 1:]
    first, second = (
        (weights[f"model.mm_projector.{at}.weight"], weights[f"model.mm_projector.{at}.bias"])
        for at in (0, 2)
    )
    return gelu(states @ first[0].T + first[1]) @ second[0].T + second[1]


def libra(tmp_path: Path) -> tuple[dict[str, Tensor], Path]:
    dino(tmp_path / "dino")
    weights = tac()
    return weights, plain_language(tmp_path / "meditron")


def adapted(tmp_path: Path, base: Path) -> tuple[dict[str, Tensor], dict[str, Any], Tensor]:
    """PEFT's own adapter on the base: its tensors, its config, and what the merged model says of some words."""
    plain, _ = language(VOCABULARY)
    linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules=linear))
    models.stir((p for n, p in model.named_parameters() if "lora_" in n), seed=2, size=0.3)
    state = {
        name.replace(".default", ""): p.detach().clone()
        for name, p in model.named_parameters()
        if "lora_" in name
    }
    config = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": linear, "bias": "none", "lora_dropout": 0.05,
        "fan_in_fan_out": False, "modules_to_save": None, "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "epfl-llm/meditron-7b", "inference_mode": True,
    }  # fmt: skip
    with torch.no_grad():
        said = model.merge_and_unload()(torch.tensor([WORDS])).logits[0]
    return state, config, said


def release(
    folder: Path, state: dict[str, Tensor], config: dict[str, Any], beside: dict[str, Tensor], kind: Any
) -> Path:
    write(folder, kind, {})
    torch.save(state, folder / "adapter_model.bin")
    torch.save(beside, folder / "non_lora_trainables.bin")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def whole(tmp_path: Path) -> dict[str, Tensor]:
    clip(tmp_path / "clip")
    return {**language(VOCABULARY)[1], **randoms(CONNECTOR, 3)}
