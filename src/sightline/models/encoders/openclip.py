"""OpenCLIP: an architecture by name, a checkpoint file for it, or a folder as the hub stores one (BiomedCLIP).

Ilharco et al. (repository mlfoundations/open_clip, package `open_clip_torch`); BiomedCLIP: Zhang et al. 2023
(arXiv 2303.00915). Models are OpenCLIP's own classes with its own image transform and tokenizers; its vocabulary
comes with the package. A text tower of transformers is built from its config in the folder: nothing is fetched.

Batch norms always use their running statistics, also in training mode: an image's embedding then does not depend on
the other images of a batch, chunks of a batch equal the whole, and a frozen tower stays as it is to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

from ... import plugins
from ...errors import MissingExtra, ModelError
from ...images.transforms import eight_bits
from ..encoder import DualEncoder, EncoderFamily, Tokens
from ..family import Grid
from .opened import stretch, wanted

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
READ_LENGTH = 77  # tokens, where a config does not say
STRIDE = 32  # pixels per cell of a ResNet's last map


@dataclass(frozen=True)
class Source:
    """What a recipe names.

    Args:
        model: OpenCLIP's config of the architecture.
        look: settings of the image transform that differ from OpenCLIP's own.
        weights: a safetensors file; None starts from random weights.
        place: the folder that holds what a text tower of transformers needs.
    """

    model: dict[str, Any]
    look: dict[str, Any]
    weights: Path | None = None
    place: Path | None = None


@dataclass(frozen=True)
class Picture:
    """One image through OpenCLIP's own transform for inference.

    Args:
        settings: of that transform.
        transform: from a picture to float32 [3, S, S].
    """

    settings: Mapping[str, Any]
    transform: Callable[[Image.Image], Tensor]

    def __call__(self, image: np.ndarray) -> Tensor:
        """Pixels [H, W, 3] in [0, 1] -> float32 [3, S, S]; in 8 bits, as the checkpoint saw them."""
        return self.transform(Image.fromarray(eight_bits(image)))

    def grid(self, height: int, width: int) -> Grid:
        """Nothing: every image becomes one square."""
        return ()

    def key(self) -> str:
        """Changes with any setting of the transform."""
        text = json.dumps(["openclip.1", dict(self.settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Words:
    """Texts to tokens by one of OpenCLIP's tokenizers, always padded up to what the tower reads."""

    tokenizer: Callable[[list[str]], Tensor]

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """`input_ids` [n, T]."""
        return {"input_ids": self.tokenizer(list(texts))}


class Towers(nn.Module):
    """The parts of an OpenCLIP model under OpenCLIP's names, with batch norms that keep their statistics."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual: nn.Module = model.visual
        self.text: nn.Module = model.text
        self.logit_scale: nn.Parameter = model.logit_scale
        self.logit_bias: nn.Parameter | None = model.logit_bias

    def train(self, mode: bool = True) -> Towers:
        """Switch modes, but keep every batch norm on its running statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def compose(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """Build the architecture `name`, with weights from a file (`path`), or open a folder (`path`).

    Random weights are a function of the seed alone.

    Raises:
        MissingExtra: open_clip_torch is not installed.
        ModelError: an unknown name, something to download, a pickle, or weights that do not fit.
    """
    library = _library()
    source = find(section)
    model = build(source, seed)
    if source.weights is not None:
        _load(library, model, source.weights)
    _resize(model.visual, section)
    settings = _look(library, model.visual, source)
    transform = library.transform.image_transform_v2(
        library.transform.PreprocessCfg(**settings), is_train=False
    )
    made = Towers(model).float().eval()
    heads = ("logit_scale",) if made.logit_bias is None else ("logit_scale", "logit_bias")
    return DualEncoder(
        family=replace(ENCODER, parts={**ENCODER.parts, "heads": heads}),
        model=made,
        tokenize=Words(_tokenizer(library, source)),
        preprocess=Picture(settings, transform),
        width=source.model["embed_dim"],
        base={"encoder": dict(section), "seed": seed},
    )


def _library() -> ModuleType:
    """The package open_clip."""
    try:
        import open_clip
    except ImportError:
        raise MissingExtra("open_clip_torch", "encoders") from None
    return open_clip


def find(section: Mapping[str, Any]) -> Source:
    """What a recipe's `name` and `path` lead to.

    Raises:
        ModelError: neither, an unknown name, no such file or folder, or a pickle.
    """
    name, path = section.get("name"), section.get("path")
    if path and Path(path).is_dir():
        return _folder(Path(path))
    if path and not Path(path).is_file():
        raise ModelError(
            f"no checkpoint '{path}'", where="model.path", expected=f"a .safetensors file or a folder with {CONFIG}",
            remedy="download it yourself: Sightline opens no network connection",
        )  # fmt: skip
    if path and Path(path).suffix != ".safetensors":
        raise _pickle(Path(path))
    known = _library().list_models()
    if name not in known:
        near = plugins.nearest(str(name), known)
        raise ModelError(
            f"OpenCLIP has no architecture '{name}'{near}" if name else "which OpenCLIP model?",
            where="model.name", expected=f"such as RN50 or ViT-B-16, or a `path` to a folder with {CONFIG}",
            remedy="checkpoints of a hub are downloaded by you and opened with `path`",
        )  # fmt: skip
    return Source(_library().get_model_config(name), {}, Path(path) if path else None)


def _folder(place: Path) -> Source:
    """A folder as the hub stores an OpenCLIP model."""
    if not (place / CONFIG).is_file():
        raise ModelError(
            f"'{place}' holds no OpenCLIP model", where="model.path", expected=f"{CONFIG} and {WEIGHTS}"
        )
    weights = place / WEIGHTS
    if not weights.is_file():
        raise _pickle(weights)
    stored = json.loads((place / CONFIG).read_text(encoding="utf-8"))
    return Source(stored["model_cfg"], stored.get("preprocess_cfg") or {}, weights, place)


def _pickle(path: Path) -> ModelError:
    return ModelError(
        f"no safetensors '{path}'", where="model.path", found="another format, or no such file",
        remedy="convert the weights with safetensors.torch.save_file: pickles are not opened",
    )  # fmt: skip


def build(source: Source, seed: int) -> Any:
    """OpenCLIP's model with random weights; whoever wants none builds under `torch.device("meta")`.

    The class is always the one that keeps the text tower in a module of its own; OpenCLIP's loader reads both
    layouts into it.

    Raises:
        ModelError: a captioning model, or a text tower whose config is not at hand.
    """
    from open_clip.model import CustomTextCLIP

    config = deepcopy(source.model)
    config.pop("custom_text", None)
    if "multimodal_cfg" in config:
        raise ModelError(
            "CoCa is not an image-text encoder alone", remedy="take a CLIP or SigLIP of OpenCLIP"
        )
    text = config["text_cfg"]
    if config["vision_cfg"].get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        place = _beside(source, "config.json", text["hf_model_name"], "the config of its text tower")
        text.update(hf_model_name=str(place), hf_model_pretrained=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CustomTextCLIP(**config)


def _beside(source: Source, file: str, name: str, what: str) -> Path:
    """The folder that holds a file of the text tower: `text/` in the model's folder, or the folder itself."""
    for place in [] if source.place is None else [source.place / "text", source.place]:
        if (place / file).is_file():
            return place
    where = (
        "a folder of this model, opened with `path`" if source.place is None else str(source.place / "text")
    )
    raise ModelError(
        f"an OpenCLIP model lacks {what}", where=where, expected=f"{file} of '{name}'",
        remedy=f"put config.json and the tokenizer's files of '{name}' there: nothing is downloaded",
    )  # fmt: skip


def _load(library: ModuleType, model: nn.Module, weights: Path) -> None:
    """All weights of a file, and no others; layouts of older OpenCLIP versions are read as OpenCLIP reads them."""
    with safe_open(weights, framework="pt") as stored:
        keys = set(stored.keys())
    faults = ""
    # OpenCLIP fills a missing bias in with zero, in silence.
    if model.logit_bias is not None and not {"logit_bias", "module.logit_bias"} & keys:
        faults = "missing logit_bias"
    else:
        try:
            library.factory.load_checkpoint(model, str(weights), strict=True)
        except RuntimeError as error:
            faults = " ".join(str(error).split())[:300]
    if faults:
        raise ModelError(
            "the weights do not fit the architecture", where=str(weights), found=faults,
            remedy="give the `name` or the config that belongs to these weights",
        )  # fmt: skip


def _resize(visual: Any, section: Mapping[str, Any]) -> None:
    """Make a tower read images of the recipe's `size`, in place: its positions are interpolated as OpenCLIP does."""
    own = visual.image_size[0] if isinstance(visual.image_size, (tuple, list)) else visual.image_size
    inner = dict(visual.named_children())
    patch = STRIDE if "attnpool" in inner else 1 if "trunk" in inner else visual.patch_size[0]
    size = wanted(section, own, patch)
    if size == own:
        return
    if "trunk" in inner:
        visual.set_input_size(size)
    elif "attnpool" in inner:
        pool = visual.attnpool
        pool.positional_embedding = nn.Parameter(_stretched(pool.positional_embedding, size // STRIDE))
        visual.image_size = size
    else:
        grid = size // visual.patch_size[0]
        visual.positional_embedding = nn.Parameter(_stretched(visual.positional_embedding, grid))
        visual.image_size, visual.grid_size = (size, size), (grid, grid)


def _stretched(table: Tensor, grid: int) -> Tensor:
    return stretch(table, grid, leading=1, antialias=True)


def _look(library: ModuleType, visual: Any, source: Source) -> dict[str, Any]:
    """Settings of the image transform, as plain values."""
    plain = library.transform.merge_preprocess_dict(library.transform.PreprocessCfg(), source.look)
    size = visual.image_size
    plain["size"] = size[0] if isinstance(size, (tuple, list)) else size
    return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


def _tokenizer(library: ModuleType, source: Source) -> Any:
    """The tokenizer of the text tower: OpenCLIP's own, or one of transformers from the folder."""
    text = source.model["text_cfg"]
    length = text.get("context_length", READ_LENGTH)
    # `reduction_mask` would let chance decide which words of a long text are read.
    more = {k: v for k, v in (text.get("tokenizer_kwargs") or {}).items() if k != "reduction_mask"}
    name = text.get("hf_tokenizer_name")
    if not name:
        return library.tokenizer.SimpleTokenizer(context_length=length, **more)
    place = _beside(source, "tokenizer_config.json", name, "its tokenizer")
    mode = text.get("tokenizer_mode")
    try:
        return library.tokenizer.HFTokenizer(
            str(place), context_length=length, tokenizer_mode=mode, local_files_only=True, **more
        )
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise ModelError(
            "the tokenizer of an OpenCLIP model cannot be opened", where=str(place),
            found=str(error).strip().splitlines()[0], remedy=f"put all tokenizer files of '{name}' there",
        ) from None  # fmt: skip


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Pixels [3, S, S] each -> outputs of the tower [width] each; its projection is part of it."""
    return list(model.visual(torch.stack(images)).unbind())


def pool(model: nn.Module, features: list[Tensor]) -> Tensor:
    """[width] each -> [n, width]."""
    return torch.stack(features)


def encode_texts(model: nn.Module, tokens: Tokens) -> Tensor:
    """Tokens [n, T] -> [n, width]; its projection is part of the tower."""
    made: Tensor = model.text(tokens["input_ids"])
    return made


def scale(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Logarithm of the factor, and the bias where the architecture has one."""
    return model.logit_scale, model.logit_bias


ENCODER = EncoderFamily(
    name="openclip",
    parts={"vision": ("visual",), "text": ("text",), "heads": ("logit_scale", "logit_bias")},
    compose=compose,
    encode_images=encode_images,
    pool=pool,
    encode_texts=encode_texts,
    scale=scale,
    layer=lambda model: "projected",
)
