"""Linear layers of the language model in 8 or 4 bits, as transformers opens them: by bitsandbytes.

LLM.int8() (Dettmers et al. 2022, arXiv 2208.07339) and NF4 (Dettmers et al. 2023, arXiv 2305.14314). Tower, connector,
table of words and head keep their precision: rounding the tower costs what is seen, and the head answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import MissingExtra, ModelError
from ..models.family import Bundle
from ..models.quantized import BLOCK

LOADS = {"int8": "8bit", "nf4": "4bit"}


def config(kind: str, kept: list[str], dtype: torch.dtype) -> Any:
    """Settings of transformers' rounding.

    Args:
        kind: `int8` or `nf4`.
        kept: names of modules that stay as they are.
        dtype: what rounded layers compute in.

    Raises:
        MissingExtra: bitsandbytes is not installed.
    """
    try:
        import bitsandbytes
    except ImportError:
        raise MissingExtra("bitsandbytes", "quantized") from None
    del bitsandbytes
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=False,
        bnb_4bit_compute_dtype=dtype, llm_int8_skip_modules=kept,
    )  # fmt: skip


def write(bundle: Bundle, plain: Path, to: Path, kind: str, precision: str) -> None:
    """Round the model of a hub's folder and write it into another one.

    Args:
        bundle: the same model, for its names.
        plain: the folder, as `hub.write` made it.
        to: where to write weights and config; what else stands beside them is there.
        kind: `int8` or `nf4`.
        precision: number format of what is not rounded.

    Raises:
        ModelError: no layer can be rounded.
        MissingExtra: bitsandbytes is not installed.
    """
    dtype = getattr(torch, precision)
    settings = config(kind, kept(bundle, kind), dtype)
    made: Any = type(bundle.model).from_pretrained(
        plain, quantization_config=settings, dtype=dtype, device_map={"": "cpu"}, local_files_only=True
    )
    made.save_pretrained(to)


def kept(bundle: Bundle, kind: str) -> list[str]:
    """Names of the linear layers that are not rounded, in the model's own spelling.

    In 4 bits those too whose rows are no whole number of blocks: see `models.quantized.quantize`.

    Raises:
        ModelError: nothing is left to round.
    """
    language = bundle.family.parts["language"][0]
    linears = {n: m for n, m in bundle.model.named_modules() if isinstance(m, nn.Linear)}
    fits = {
        name
        for name, layer in linears.items()
        if name.startswith(f"{language}.") and (kind == "int8" or layer.in_features % BLOCK == 0)
    }
    if not fits:
        raise ModelError(
            f"no layer of the language model can be rounded as {kind}", where="--to",
            expected=f"layers with a multiple of {BLOCK} inputs", remedy="use `--to int8`",
        )  # fmt: skip
    return sorted(linears.keys() - fits)
