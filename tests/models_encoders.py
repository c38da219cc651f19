"""Tiny image-text encoders: folders as their authors publish them, with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

import models
from sightline import runs
from sightline.models import kit
from sightline.models.encoder import DualEncoder
from sightline.models.encoder_checkpoint import compose_encoder, save_encoder
from sightline.settings import Full, Lora, Plan

LORA, FULL = Plan(lora=Lora(r=2, alpha=4, lr=1e-3)), Plan(full=Full(lr=1e-2))

TEXTS = (
    "No effusion.",
    "Left Effusion; the heart is large.",
    "There is a small nodule in the right upper zone, and nothing else that could be called a finding today.",
)
SIZES = ((28, 28), (40, 33), (19, 90))
LAYERS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
}
TOWER = {**LAYERS, "image_size": 28, "patch_size": 14}
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["no", "left", "right", "effusion", "the", "heart", "is", "large", ".", ";"],
)


def pictures(count: int = 3) -> list[np.ndarray]:
    """Random pictures in 8 bits, each of another size."""
    draw = np.random.default_rng(4)
    return [draw.integers(0, 256, (*SIZES[i % 3], 3), dtype=np.uint8) for i in range(count)]


def section(encoder: str, **more: Any) -> dict[str, Any]:
    """A recipe's `model` section of a `contrast` stage as plain values."""
    return {"encoder": encoder, "path": None, "name": None, "size": None, "width": 24, **more}


def write_siglip(folder: Path) -> Path:
    """SigLIP of two layers with 4 patches, 16 positions for words and the byte-level tokenizer."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=models.bytes_tokenizer().backend_tokenizer,
        pad_token="<|endoftext|>",
        model_input_names=["input_ids"],  # as its authors publish it: no mask
    )
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 16,
        "projection_size": 16,
        **ends,
    }
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=dict(TOWER)))
    models.stir(model.parameters(), seed=1, size=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def write_clip(folder: Path) -> Path:
    """CLIP of two layers with 4 patches and a class token, 20 positions for words, a tokenizer of letters."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    every = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(every)}, merges=[])
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = {**LAYERS, "vocab_size": len(every), "max_position_embeddings": 20, "projection_dim": 24, **ends}
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**TOWER, "projection_dim": 24}, projection_dim=24)
    )
    models.stir(model.parameters(), seed=1, size=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        folder
    )
    return folder


OPENCLIP_TEXT = {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
OPENCLIP: dict[str, dict[str, Any]] = {
    "resnet": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
        "text_cfg": OPENCLIP_TEXT,
    },
    "vit": {
        "embed_dim": 16,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": OPENCLIP_TEXT,
    },
    "bert": {
        "embed_dim": 16,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "", "timm_proj": "linear", "image_size": 160},
        "text_cfg": {
            "hf_model_name": "someone/a-bert",
            "hf_tokenizer_name": "someone/a-bert",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 12,
        },
    },
}  # fmt: skip


def write_openclip(folder: Path, kind: str) -> Path:
    """A folder as the hub stores an OpenCLIP model, written with OpenCLIP's own classes."""
    from open_clip.model import CLIP, CustomTextCLIP

    config = json.loads(json.dumps(OPENCLIP[kind]))
    (folder / "text").mkdir(parents=True)
    if kind == "bert":
        bert_config().save_pretrained(folder / "text")
        bert_tokenizer().save_pretrained(folder / "text")
        config["text_cfg"].update(hf_model_name=str(folder / "text"), hf_model_pretrained=False)
    torch.manual_seed(0)
    model = (CustomTextCLIP if kind == "bert" else CLIP)(**config)
    wake(model)
    stored = {"model_cfg": OPENCLIP[kind], "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(stored), encoding="utf-8")
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def wake(model: nn.Module) -> None:
    """Weights and statistics of batch norms that no longer stand where they start."""
    models.stir(model.parameters(), seed=1, size=0.1)
    draw = torch.Generator().manual_seed(2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += torch.randn(module.num_features, generator=draw) * 0.1
            module.running_var *= torch.rand(module.num_features, generator=draw) + 0.5


def bert_config(positions: int = 32) -> BertConfig:
    """Two layers, 16 wide."""
    return BertConfig(vocab_size=len(WORDS), max_position_embeddings=positions, **LAYERS)


def bert_tokenizer() -> BertTokenizer:
    """A vocabulary of 14 words and marks."""
    return BertTokenizer(vocab={word: i for i, word in enumerate(WORDS)})


def write_kit(cache: Path) -> None:
    """A cache that holds the kit's towers with random weights, the text tower a tiny one."""
    from sightline.models.parts.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

    vision = cache / "kit" / f"efficientnet-lite0-{kit.FORMAT}"
    text = cache / "kit" / f"minilm-l6-{kit.FORMAT}"
    torch.manual_seed(0)
    EfficientNetLiteModel(EfficientNetLiteConfig()).eval().save_pretrained(vision)
    CLIPImageProcessor(
        size={"height": 224, "width": 224}, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(vision)
    BertModel(bert_config(), add_pooling_layer=False).save_pretrained(text)
    bert_tokenizer().save_pretrained(text)
    for place in (vision, text):
        runs.seal(place)


def opened(kind: str, root: Path, patch: pytest.MonkeyPatch, **more: Any) -> DualEncoder:
    """A tiny encoder: `siglip`, `clip`, `openclip/KIND` or `kit`; what it is opened from is written to `root`."""
    name, _, which = kind.partition("/")
    if name == "kit":
        pytest.importorskip("efficientnet_lite_pytorch", reason="the kit is not installed")
        patch.setenv("SIGHTLINE_CACHE", str(root))
        if not (root / "kit").is_dir():
            write_kit(root)
        return compose_encoder(section("kit", **more), 0)
    if name == "openclip":
        pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    place = root / (which or name)
    if not place.is_dir():
        {"siglip": write_siglip, "clip": write_clip}.get(name, lambda at: write_openclip(at, which))(place)
    return compose_encoder(section(name, path=str(place), **more), 0)


def embed(encoder: DualEncoder, count: int = 3) -> tuple[Tensor, Tensor]:
    """Unit embeddings of the pictures and of the texts, in evaluation mode and without gradients."""
    encoder.model.eval()
    inputs = [encoder.preprocess(p.astype(np.float32) / 255) for p in pictures(count)]
    with torch.no_grad():
        features = encoder.family.encode_images(encoder.model, inputs, [()] * count)
        return encoder.images(features), encoder.texts(encoder.tokenize(TEXTS[:count]))


def step(encoder: DualEncoder, trained: nn.Module, size: float = 0.01) -> None:
    """One step of AdamW on the SigLIP loss of three pairs, in training mode."""
    inputs = [encoder.preprocess(p.astype(np.float32) / 255) for p in pictures()]
    torch.manual_seed(0)  # for dropout
    trained.train()
    optimizer = torch.optim.AdamW([p for p in encoder.model.parameters() if p.requires_grad], lr=size)
    features = encoder.family.encode_images(encoder.model, inputs, [()] * 3)
    scale, bias = encoder.scale()
    logits = encoder.images(features) @ encoder.texts(encoder.tokenize(TEXTS)).T * scale.exp()
    signs = 2 * torch.eye(3) - 1
    loss = -nn.functional.logsigmoid(signs * (logits if bias is None else logits + bias)).sum(-1).mean()
    loss.backward()
    optimizer.step()


def save(
    folder: Path, encoder: DualEncoder, trained: nn.Module, asked: dict[str, Any], parent: Path | None = None
) -> None:
    """Save what `asked` trained, where it stays."""
    plain = {part: plan.model_dump(mode="json") for part, plan in asked.items()}
    save_encoder(folder, encoder, trained, parent=parent, trained=plain, home=folder)
