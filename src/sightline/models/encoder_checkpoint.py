"""The only save and the only load of image-text encoders: the same small folders as for language models.

    sightline.json                 encoder, what the base was composed from, the parent, what was trained
    adapter_config.json            PEFT's, where LoRA was trained
    adapter_model.safetensors      the adapter, and modules trained in full beside it
    full.safetensors               what trained in full outside PEFT, such as the temperature

`load_encoder` composes the base, then merges each ancestor's weights in turn. Missing or unexpected keys are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from .. import plugins
from ..errors import ModelError
from .checkpoint import add_all, lineage, write
from .encoder import DualEncoder


def compose_encoder(section: Mapping[str, Any], seed: int) -> DualEncoder:
    """A base encoder from a recipe's `model` section of a `contrast` stage, in eval mode.

    Args:
        section: `settings.Encoder` as plain values.
        seed: decides random weights.
    """
    made: DualEncoder = plugins.load("encoders", section["encoder"]).compose(section, seed)
    return made


def save_encoder(
    folder: Path,
    encoder: DualEncoder,
    model: nn.Module,
    *,
    parent: Path | None,
    trained: dict[str, Any],
    home: Path,
) -> None:
    """Write what was trained.

    Args:
        folder: where to write; made here.
        encoder: the encoder.
        model: what `trainable.apply` returned.
        parent: the saved encoder that this one stands on; None for the base.
        trained: the recipe's `trainable` section, for the record.
        home: where `folder` will finally stand, for the relative path to the parent.
    """
    write(folder, encoder, model, "encoder", parent=parent, trained=trained, home=home)


def load_encoder(folder: Path) -> DualEncoder:
    """A saved encoder, every adapter of its line merged, in float32 and eval mode.

    Raises:
        ModelError: not a saved encoder, a parent that changed, or keys that do not fit.
    """
    line = lineage(folder)
    base = line[0][1]["base"]
    if "encoder" not in base:
        raise ModelError(
            "this is a saved language model", where=str(folder), expected="an image-text encoder",
            remedy="give the folder that a `contrast` stage made",
        )  # fmt: skip
    encoder = compose_encoder(base["encoder"], base["seed"])
    add_all(line, encoder)
    return encoder
