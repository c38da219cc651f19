"""The kit's image-text encoder: EfficientNet-Lite0 and MiniLM-L6 with small heads that learn to agree.

Towers: Tan & Le 2019 (arXiv 1905.11946) on ImageNet, Wang et al. 2020 (arXiv 2002.10957) on sentences
(all-MiniLM-L6-v2); the temperature is SigLIP's (Zhai et al. 2023, arXiv 2303.15343). The heads are random: a function
of the seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from ...errors import ModelError
from ...images.transforms import Preprocess
from .. import stock
from ..encoder import DualEncoder, EncoderFamily, Tokens
from ..family import Grid
from ..parts import efficientnet_lite
from .opened import Words

assert efficientnet_lite.PART.slot == "vision"  # importing it registers the kit's tower with AutoModel

SMALL, HIDDEN = 32, 512  # channels that each cell keeps, and the width in the middle of a head
LENGTH = 256  # tokens: what all-MiniLM-L6-v2 was trained to read
FACTOR, BIAS = math.log(10), -10.0


class ImageHead(nn.Module):
    """A map of cells to one embedding that still knows where a thing was seen.

    A mean over the map would make left and right alike. Each cell is squeezed to a few channels and all cells stand
    beside one another in front of the two layers.

    Args:
        channels: of the map.
        cells: of the map.
        width: of the embedding.
    """

    def __init__(self, channels: int, cells: int, width: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, SMALL)
        self.layers = mlp(cells * SMALL, width)

    def forward(self, features: Tensor) -> Tensor:
        """[n, cells, channels] -> [n, width]."""
        made: Tensor = self.layers(self.squeeze(features).flatten(1))  # [n, cells * SMALL] -> [n, width]
        return made


def mlp(entering: int, width: int) -> nn.Sequential:
    """Two layers behind a norm: [n, entering] -> [n, width]."""
    return nn.Sequential(
        nn.LayerNorm(entering), nn.Linear(entering, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, width)
    )


class Towers(nn.Module):
    """Both towers with their heads and the temperature.

    Args:
        vision: an EfficientNet-Lite of the kit.
        text: a BERT without its pooler.
        width: of the embeddings.
    """

    def __init__(self, vision: Any, text: Any, width: int) -> None:
        super().__init__()
        self.channels: int = vision.config.channels
        self.vision, self.text = vision, text
        self.image_head = ImageHead(self.channels, vision.config.grid**2, width)
        self.text_head = mlp(text.config.hidden_size, width)
        self.logit_scale = nn.Parameter(torch.tensor(FACTOR))
        self.logit_bias = nn.Parameter(torch.tensor(BIAS))


def compose(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """Put the kit's encoder together, with embeddings of `width`.

    Raises:
        ModelError: a `path`, a `name` or a `size`, which it has no use for.
        MissingExtra: a package of the kit is not installed.
    """
    vision_place = stock.part_folder("kit/efficientnet-lite0")
    text_place = stock.part_folder("kit/minilm-l6")
    vision = AutoModel.from_pretrained(vision_place, dtype=torch.float32, local_files_only=True)
    text = AutoModel.from_pretrained(
        text_place, dtype=torch.float32, local_files_only=True, add_pooling_layer=False
    )
    _check(section, vision.config.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Towers(vision, text, section["width"])
    tokenizer = AutoTokenizer.from_pretrained(text_place, local_files_only=True)
    processor = AutoImageProcessor.from_pretrained(vision_place, local_files_only=True)
    return DualEncoder(
        family=ENCODER,
        model=model.eval(),
        tokenize=Words(tokenizer, min(LENGTH, text.config.max_position_embeddings)),
        preprocess=Preprocess.from_processor(processor, pad=True),
        width=section["width"],
        base={"encoder": dict(section), "seed": seed},
    )


def _check(section: Mapping[str, Any], size: int) -> None:
    """Refuse settings that would be passed over."""
    given = {key: section.get(key) for key in ("path", "name")}
    if section.get("size") not in (None, size):
        given["size"] = section["size"]
    wrong = {key: value for key, value in given.items() if value}
    if wrong:
        raise ModelError(
            f"the kit's encoder takes no {' and no '.join(wrong)}", where="model", found=str(wrong),
            expected=f"width alone; its images are {size} px",
            remedy="say `encoder: siglip`, `clip` or `openclip` to open a model of your own",
        )  # fmt: skip


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Pixels [3, 224, 224] each -> maps [49, 1280] each; the channels that only say where a cell is are left out."""
    maps = model.vision(torch.stack(images)).last_hidden_state  # [n, 49, 1294]
    return list(maps[..., : model.channels].unbind())


def pool(model: nn.Module, features: list[Tensor]) -> Tensor:
    """Maps [49, 1280] each -> [n, width]."""
    made: Tensor = model.image_head(torch.stack(features))
    return made


def encode_texts(model: nn.Module, tokens: Tokens) -> Tensor:
    """Tokens [n, T] -> the mean over the words of each text [n, 384]."""
    states = model.text(**tokens).last_hidden_state  # [n, T, 384]
    mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)  # [n, T, 1]
    mean: Tensor = (states * mask).sum(1) / mask.sum(1).clamp_min(1)  # [n, 384]
    return mean


def pool_texts(model: nn.Module, features: Tensor) -> Tensor:
    """Means [n, 384] -> [n, width]."""
    made: Tensor = model.text_head(features)
    return made


def scale(model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Logarithm of the factor, and the bias; [] each."""
    return model.logit_scale, model.logit_bias


ENCODER = EncoderFamily(
    name="kit",
    parts={
        "vision": ("vision",),
        "text": ("text",),
        "heads": ("image_head", "text_head", "logit_scale", "logit_bias"),
    },
    compose=compose,
    encode_images=encode_images,
    pool=pool,
    encode_texts=encode_texts,
    pool_texts=pool_texts,
    scale=scale,
    layer=lambda model: "map",
)
