"""Linear layers of the language model in 8-bit floats (E4M3): one scale a row of weights, inputs rounded as they come.

The scheme FP8_DYNAMIC of llm-compressor (vllm-project/llm-compressor), in the files of compressed-tensors, which
transformers opens. Nothing is calibrated. Tower, connector and head keep their precision unless they are asked for, as
its own examples for models with images have it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..models.family import Bundle
from . import compressed
from .rounded import kept

SCHEME = "FP8_DYNAMIC"
PARTS = ("vision", "connector", "head")  # what may be rounded, too


def write(bundle: Bundle, plain: Path, to: Path, precision: str, also: Collection[str] = ()) -> None:
    """Round the model of a hub's folder and write it into another one. See `rounded.write`.

    Args:
        bundle: the same model, for its names.
        plain: the folder, as `hub.write` made it.
        to: where to write weights and config.
        precision: number format of what is not rounded.
        also: which of `PARTS` are rounded with the language model.

    Raises:
        ModelError: such a part has no layer to round, or is the table of words as well.
        MissingExtra: llmcompressor is not installed.
    """
    compressed.needed()
    asked = {name for part in also for name in layers(bundle, part)}
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    made: Any = type(bundle.model).from_pretrained(
        plain, dtype=getattr(torch, precision), local_files_only=True
    )
    names = [name for name in kept(bundle, "int8") if name not in asked]
    oneshot(model=made, recipe=QuantizationModifier(targets="Linear", scheme=SCHEME, ignore=names))
    compressed.save(made, to, names)


def layers(bundle: Bundle, part: str) -> list[str]:
    """Names of a part's linear layers, in the model's own spelling.

    Args:
        bundle: the model.
        part: one of `PARTS`.

    Raises:
        ModelError: it has none, or its weights are those of the table of words, which is looked up and not multiplied.
    """
    parts = bundle.family.parts
    places = parts["language"][1:] if part == "head" else parts[part]
    linears = {n: m for n, m in bundle.model.named_modules() if isinstance(m, nn.Linear)}
    found = [n for n in linears if any(n == place or n.startswith(f"{place}.") for place in places)]
    if not found:
        raise ModelError(
            f"the part '{part}' has no linear layer to round", where="round", found=f"family '{bundle.family.name}'",
            remedy=f"leave '{part}' out of `round`",
        )  # fmt: skip
    table: Any = bundle.family.language(bundle.model).get_input_embeddings()
    if any(linears[name].weight is table.weight for name in found):
        raise ModelError(
            "the head's weights are those of the table of words, which keeps its precision", where="round",
            found="tie_word_embeddings", remedy="leave 'head' out of `round`",
        )  # fmt: skip
    return found
