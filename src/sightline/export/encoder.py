"""An image-text encoder as two ONNX graphs: what a search by images needs, without torch.

image_encoder.onnx     pixel_values [1, 3, S, S]                   -> image_embeds [1, width], of length 1
text_encoder.onnx      input_ids [n, T] (and attention_mask)       -> text_embeds [n, width], of length 1
encoder.json           how pictures and texts are prepared; the tokenizer stands beside it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import NOTICE, runs
from ..errors import ModelError
from ..images.transforms import Preprocess
from ..models import checkpoint
from ..models.encoder import DualEncoder
from ..models.encoder_checkpoint import load_encoder
from ..models.encoders.opened import Words
from ..models.stock import StockProcessor
from . import graphs
from .opened import REPORT
from .probe import HEIGHT, WIDTH
from .sizes import sizes

IMAGE, TEXT, SETTINGS = "image_encoder.onnx", "text_encoder.onnx", "encoder.json"
TEXTS = ("No effusion.", "The heart is large, and there is a small nodule in the left upper zone.", "Left.")
NEAR = 1e-4  # between unit embeddings of the model and of its graphs


class Images(nn.Module):
    """One picture's input of the tower -> its unit embedding."""

    def __init__(self, encoder: DualEncoder) -> None:
        super().__init__()
        self.encoder, self.model = encoder, encoder.model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[1, 3, S, S] -> [1, width]."""
        features = self.encoder.family.encode_images(self.model, [pixel_values[0]], [()])
        return self.encoder.images(features)


class Texts(nn.Module):
    """Tokens of texts -> their unit embeddings.

    Args:
        encoder: the encoder.
        names: of its tokens, in the order of `forward`.
    """

    def __init__(self, encoder: DualEncoder, names: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.model, self.names = encoder, encoder.model, tuple(names)

    def forward(self, *tokens: Tensor) -> Tensor:
        """[n, T] each -> [n, width]."""
        return self.encoder.texts(dict(zip(self.names, tokens, strict=True)))


def export(place: Path, kind: str, to: Path) -> dict[str, Any]:
    """Write a saved encoder as graphs, and compare them with it.

    Args:
        place: the saved encoder.
        kind: `onnx`.
        to: folder to write into; made here.

    Returns:
        What `export.json` says.

    Raises:
        ModelError: another kind, an encoder that has no such graphs, or graphs that do not agree with it.
        MissingExtra: onnx or onnxruntime is not installed.
    """
    if kind != "onnx":
        raise ModelError(
            "an image-text encoder is exported to ONNX alone", where="--to", found=kind, expected="onnx"
        )
    graphs.needed()
    encoder = load_encoder(place)
    words, look = encoder.tokenize, encoder.preprocess
    if not isinstance(words, Words) or not encoder.fixed:
        raise ModelError(
            f"the encoder '{encoder.family.name}' is not exported: its tokenizer is no file of transformers",
            expected="kit, clip or siglip",
        )  # fmt: skip
    to.mkdir(parents=True, exist_ok=True)
    for module in encoder.model.modules():
        config = getattr(module, "config", None)
        if config is not None and callable(getattr(module, "set_attn_implementation", None)):
            module.set_attn_implementation("eager")
    tokens = dict(words(TEXTS))
    batch = {name: {0: "texts", 1: "tokens"} for name in tokens}
    pixels = look(_picture())[None]  # [1, 3, S, S]
    fixed: dict[int, str] = {}
    graphs.trace(Images(encoder), [pixels], to / IMAGE, {"pixel_values": fixed}, {"image_embeds": fixed})
    graphs.trace(
        Texts(encoder, list(tokens)), list(tokens.values()), to / TEXT, batch, {"text_embeds": {0: "texts"}}
    )
    words.tokenizer.save_pretrained(to)
    if isinstance(look, StockProcessor):
        look.processor.save_pretrained(to)
    runs.write_json(
        to / SETTINGS,
        {
            "format": 1, "width": encoder.width, "tokens": list(tokens), "length": words.length,
            "padding": words.padding, "lower": words.lower,
            "preprocess": asdict(look) if isinstance(look, Preprocess) else None,
        },
    )  # fmt: skip
    moved = compare(encoder, to)
    told = {
        "format": 1, "kind": "onnx", "precision": "float32", "opens_with": ["onnxruntime"],
        "from": checkpoint.fingerprints(place), "answers": {"moved": moved, "allowed": NEAR},
        "bytes": {"float32": 4 * sum(p.numel() for p in encoder.model.parameters()), "files": sizes(to)},
        "gate": None, "notice": NOTICE, "versions": runs.versions(),
    }  # fmt: skip
    runs.write_json(to / REPORT, told)
    return told


@torch.no_grad()
def compare(encoder: DualEncoder, place: Path) -> float:
    """The largest difference between embeddings of the graphs and of the encoder: of a picture, of texts one by one.

    Raises:
        ModelError: more than rounding.
    """
    import onnxruntime

    image, text = (
        onnxruntime.InferenceSession(str(place / name), providers=["CPUExecutionProvider"]) for name in (IMAGE, TEXT)
    )  # fmt: skip
    pixels = encoder.preprocess(_picture())[None]
    wanted = [encoder.images(encoder.family.encode_images(encoder.model, [pixels[0]], [()])).numpy()]
    made = [image.run(None, {"pixel_values": pixels.numpy()})[0]]
    for said in ([*TEXTS], *[[each] for each in TEXTS]):
        tokens = encoder.tokenize(said)
        wanted.append(encoder.texts(tokens).numpy())
        made.append(text.run(None, {name: value.numpy() for name, value in tokens.items()})[0])
    moved = max(float(np.abs(a - b).max()) for a, b in zip(made, wanted, strict=True))
    if not moved <= NEAR:
        raise ModelError(
            "the graphs do not embed as the encoder does", where=str(place), found=f"{moved:.1e} away",
            expected=f"at most {NEAR:g}",
        )  # fmt: skip
    return moved


def _picture() -> np.ndarray:
    """A made-up picture, the same for ever."""
    draw = np.random.default_rng(int(runs.digest("export", "encoder")[:16], 16))
    made: np.ndarray = draw.random((HEIGHT, WIDTH, 3), dtype=np.float32)
    return made
