"""Linear layers of the language model in 8-bit floats (E4M3): one scale a row of weights, inputs rounded as they come.

The scheme FP8_DYNAMIC of llm-compressor (vllm-project/llm-compressor), in the files of compressed-tensors, which
transformers opens. Nothing is calibrated. Tower, connector and head keep their precision, as its own examples for
models with images have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..models.family import Bundle
from . import compressed
from .rounded import kept

SCHEME = "FP8_DYNAMIC"


def write(bundle: Bundle, plain: Path, to: Path, kind: str, precision: str) -> None:
    """Round the model of a hub's folder and write it into another one. See `rounded.write`.

    Raises:
        MissingExtra: llmcompressor is not installed.
    """
    compressed.needed()
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier

    made: Any = type(bundle.model).from_pretrained(
        plain, dtype=getattr(torch, precision), local_files_only=True
    )
    names = kept(bundle, "int8")
    oneshot(model=made, recipe=QuantizationModifier(targets="Linear", scheme=SCHEME, ignore=names))
    compressed.save(made, to, names)
