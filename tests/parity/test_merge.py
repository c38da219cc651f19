"""A merged model equals the adapter-on model, and adapter-off equals the parent, exactly where it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor

import models
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.settings import Full, Lora, Plan

LORA, FULL = Plan(lora=Lora(r=4, alpha=8, lr=1e-3)), Plan(full=Full(lr=1e-2))


def logits(bundle: Bundle) -> Tensor:
    draw = torch.Generator().manual_seed(3)
    ids = torch.tensor([[9, 3, 3, 3, 3, *range(100, 130), 2]])
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "images": torch.randn(1, 3, 28, 28, generator=draw),
    }
    with torch.no_grad():
        return bundle.head(bundle.forward(batch, given="pixels"))


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize(
    "asked",
    [
        {"language": LORA},
        {"connector": FULL, "language": LORA},
        {"vision": LORA, "connector": LORA, "language": LORA},
        {"connector": Plan(lora=Lora(r=2, alpha=2, lr=1)), "language": LORA},
    ],
    ids=["language", "usual", "all", "ranks"],
)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_merged_equals_adapter_on(language: Path, asked: dict[str, Any], precision: str) -> None:
    made = models.bundle(language)
    before = logits(made)
    trained = trainable.apply(made, asked, 0)
    models.stir(made.model.parameters(), 1, 0.2)
    if precision == "float64":
        made.model.double()
    on = logits64(made) if precision == "float64" else logits(made)
    checkpoint.merge(made, trained)
    merged = logits64(made) if precision == "float64" else logits(made)
    assert not any("lora_" in n or "modules_to_save" in n for n, _ in made.model.named_parameters())
    assert distance(merged, on) < (1e-13 if precision == "float64" else 1e-5)
    assert distance(merged.float(), before) > 1e-2


def logits64(bundle: Bundle) -> Tensor:
    """The same in float64."""
    draw = torch.Generator().manual_seed(3)
    ids = torch.tensor([[9, 3, 3, 3, 3, *range(100, 130), 2]])
    pixels = torch.randn(1, 3, 28, 28, generator=draw).double()
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "images": pixels}
    with torch.no_grad():
        return bundle.head(bundle.forward(batch, given="pixels"))


def test_adapter_off_is_the_parent_bit_by_bit_however_far_training_went(
    language: Path, tmp_path: Path
) -> None:
    made = models.bundle(language)
    asked: dict[str, Any] = {"connector": FULL, "language": LORA}
    taught = trainable.apply(made, asked, 0)
    models.stir(made.model.parameters(), 1, 0.2)
    plain = {"connector": FULL.model_dump(), "language": LORA.model_dump()}
    checkpoint.save(tmp_path, made, taught, parent=None, trained=plain, home=tmp_path)

    parent = checkpoint.load(tmp_path)
    reference = logits(parent)
    aligned = trainable.apply(parent, asked, 1)
    assert torch.equal(logits(parent), reference)  # a fresh adapter changes nothing
    models.stir(parent.model.parameters(), 2, 0.2)
    assert distance(logits(parent), reference) > 1e-2
    assert isinstance(aligned, PeftModel)
    with aligned.disable_adapter():
        assert torch.equal(logits(parent), reference)
