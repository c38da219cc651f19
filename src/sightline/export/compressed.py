"""Weights in the files of compressed-tensors, which transformers opens, by llm-compressor (vllm-project)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import MissingExtra


def needed() -> None:
    """See to it that llm-compressor is there, and silent: its lines would go to standard output.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        with redirect_stdout(StringIO()):  # it begins while it is imported
            import llmcompressor
    except ImportError:
        raise MissingExtra("llmcompressor", "fp8") from None
    from loguru import logger

    for package in (llmcompressor.__name__, "compressed_tensors"):
        logger.disable(package)


def save(model: Any, to: Path, kept: Sequence[str]) -> None:
    """Write a model whose layers have been rounded.

    Args:
        model: of transformers, with llm-compressor's way to save.
        to: where to write weights and config.
        kept: names of linear layers that are not rounded, in the model's own spelling.
    """
    with warnings.catch_warnings():  # nothing is offloaded any more
        warnings.filterwarnings("ignore", "Attempting to save a model with offloaded modules")
        model.save_pretrained(to, save_compressed=True)
    (to / "recipe.yaml").unlink(missing_ok=True)  # of llm-compressor; the config says the same
    told = runs.read_json(to / "config.json")
    settings = told["quantization_config"]
    # It writes the hub's names, which vLLM looks for; transformers looks for those of its modules.
    settings["ignore"] = list(dict.fromkeys([*settings["ignore"], *kept]))
    runs.write_json(to / "config.json", told)
