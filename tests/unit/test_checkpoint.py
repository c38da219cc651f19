"""Saved models: what is loaded is what was trained, or nothing is."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import models
from sightline.errors import ModelError
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.settings import Full, Lora, Plan

LORA, FULL = Plan(lora=Lora(r=2, alpha=4, lr=1e-3)), Plan(full=Full(lr=1e-2))
USUAL: dict[str, Any] = {"connector": FULL, "language": LORA}


def logits(bundle: Bundle) -> Tensor:
    """Logits of one fixed row with one fixed image. [1, 9, vocabulary]."""
    draw = torch.Generator().manual_seed(7)
    ids = torch.tensor([[9, 3, 3, 3, 3, 40, 50, 60, 2]])
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "images": torch.randn(1, 3, 28, 28, generator=draw),
    }
    bundle.model.eval()
    with torch.no_grad():
        return bundle.head(bundle.forward(batch, given="pixels"))


def teach(bundle: Bundle, asked: dict[str, Any], seed: int) -> nn.Module:
    """Pretend to train."""
    trained = trainable.apply(bundle, asked, seed)
    models.stir(bundle.model.parameters(), seed, 0.1)
    return trained


def save(
    folder: Path, bundle: Bundle, trained: nn.Module, asked: dict[str, Any], parent: Path | None = None
) -> None:
    plain = {part: plan.model_dump(mode="json") for part, plan in asked.items()}
    checkpoint.save(
        folder, bundle, trained, parent=parent, trained={"vision": "frozen", **plain}, home=folder
    )


def near(one: Tensor, other: Tensor, limit: float = 1e-5) -> bool:
    return float((one - other).norm() / other.norm()) < limit


@pytest.fixture
def line(language: Path, tmp_path: Path) -> tuple[Path, Path, Tensor]:
    """`taught` on a base, `aligned` on `taught`, and the logits of `aligned` in memory."""
    taught, aligned = tmp_path / "runs" / "taught" / "model", tmp_path / "runs" / "aligned" / "model"
    made = models.bundle(language)
    save(taught, made, teach(made, USUAL, 1), USUAL)
    second = checkpoint.load(taught)
    save(aligned, second, teach(second, {"language": LORA}, 2), {"language": LORA}, taught)
    return taught, aligned, logits(second)


@pytest.mark.parametrize(
    "asked",
    [
        USUAL,
        {"connector": FULL},
        {"vision": LORA, "connector": FULL, "language": Plan(lora=Lora(r=3, alpha=3, lr=1))},
        {"language": FULL},
        {"vision": FULL, "language": LORA},
        {"vision": LORA, "language": FULL},
    ],
    ids=["usual", "connector", "ranks", "language", "tower", "language beside lora"],
)
@pytest.mark.parametrize("tie", [False, True])
def test_a_loaded_model_answers_as_the_trained_one(
    language: Path, tied_language: Path, tmp_path: Path, asked: dict[str, Any], tie: bool
) -> None:
    made = models.bundle(tied_language if tie else language)
    base = logits(made)
    trained = teach(made, asked, 1)
    before = logits(made)
    assert not near(before, base, 1e-2)
    save(tmp_path / "m", made, trained, asked)
    loaded = checkpoint.load(tmp_path / "m")
    assert near(logits(loaded), before)
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training
    checkpoint.merge(made, trained)
    assert near(logits(made), before)


def test_a_connector_trained_beside_lora_comes_back_exactly(language: Path, tmp_path: Path) -> None:
    made = models.bundle(language)
    trained = teach(made, USUAL, 1)
    copy = made.model.model.multi_modal_projector.modules_to_save["default"]
    own = {n: p.detach().clone() for n, p in copy.named_parameters()}
    save(tmp_path / "m", made, trained, USUAL)
    loaded = dict(checkpoint.load(tmp_path / "m").model.model.multi_modal_projector.named_parameters())
    assert loaded.keys() == own.keys()
    assert all(torch.equal(loaded[n], own[n]) for n in own)


def test_a_line_of_three_equals_the_one_in_memory(line: tuple[Path, Path, Tensor]) -> None:
    taught, aligned, before = line
    assert near(logits(checkpoint.load(aligned)), before)
    assert not near(logits(checkpoint.load(taught)), before, 1e-3)
    assert [place for place, _ in checkpoint.lineage(aligned)] == [taught, aligned]


def test_a_folder_of_runs_may_move(line: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    _, aligned, before = line
    moved = tmp_path / "elsewhere" / "deep"
    shutil.copytree(aligned.parents[1], moved)
    shutil.rmtree(aligned.parents[1])
    assert near(logits(checkpoint.load(moved / "aligned" / "model")), before)
    assert checkpoint.folder_of(moved / "aligned") == moved / "aligned" / "model"
    assert checkpoint.folder_of(moved / "aligned" / "model") == moved / "aligned" / "model"


def test_the_template_of_the_checkpoint_is_used(language: Path, tmp_path: Path) -> None:
    made = models.bundle(language)
    made.tokenizer.chat_template = models.CHATML + "{# its own #}"
    save(tmp_path / "m", made, teach(made, USUAL, 1), USUAL)
    assert checkpoint.load(tmp_path / "m").tokenizer.chat_template == models.CHATML + "{# its own #}"


def edit(folder: Path, change: str) -> None:
    """Take a tensor away from the stored weights, or add one."""
    path = next(folder.glob("*.safetensors"))
    stored = load_file(path)
    if change == "missing":
        del stored[sorted(stored)[0]]
    else:
        stored["something.else"] = torch.zeros(1)
    save_file(stored, path)


@pytest.mark.parametrize(
    "asked", [USUAL, {"connector": FULL}, {"language": FULL}], ids=["lora", "connector", "language"]
)
@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_missing_and_unexpected_weights_are_refused(
    language: Path, tmp_path: Path, asked: dict[str, Any], change: str
) -> None:
    made = models.bundle(language)
    save(tmp_path / "m", made, teach(made, asked, 1), asked)
    edit(tmp_path / "m", change)
    with pytest.raises(ModelError) as caught:
        checkpoint.load(tmp_path / "m")
    assert "do not fit" in caught.value.what
    assert caught.value.where == str(tmp_path / "m")
    assert ("1 missing" in caught.value.expected) == (change == "missing")
    assert ("1 unexpected, e.g. ['something.else']" in caught.value.found) == (change == "unexpected")


def test_a_changed_parent_is_refused(line: tuple[Path, Path, Tensor]) -> None:
    taught, aligned, _ = line
    path = taught / "adapter_model.safetensors"
    stored = load_file(path)
    name = sorted(stored)[0]
    stored[name] = stored[name] + 1e-3
    save_file(stored, path)
    with pytest.raises(ModelError) as caught:
        checkpoint.load(aligned)
    assert "parent of a saved model has changed" in caught.value.what
    assert caught.value.where == f"{aligned}, field parent"
    assert "run the recipe again" in caught.value.remedy


def test_a_missing_parent_is_named(line: tuple[Path, Path, Tensor]) -> None:
    taught, aligned, _ = line
    shutil.rmtree(taught)
    with pytest.raises(ModelError) as caught:
        checkpoint.load(aligned)
    assert caught.value.where == str(taught)


def test_other_folders_and_formats_are_refused(line: tuple[Path, Path, Tensor], tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        checkpoint.load(tmp_path)
    assert "not a saved model" in caught.value.what
    assert "sightline.json" in caught.value.expected
    info = line[0] / "sightline.json"
    info.write_text(info.read_text(encoding="utf-8").replace('"format": 1', '"format": 99'), encoding="utf-8")
    with pytest.raises(ModelError, match="unknown format") as caught:
        checkpoint.load(line[0])
    assert caught.value.found == "99"


def test_a_saved_model_is_small_and_plain(language: Path, tmp_path: Path) -> None:
    made = models.bundle(language)
    save(tmp_path / "m", made, teach(made, USUAL, 1), USUAL)
    names = sorted(p.name for p in (tmp_path / "m").iterdir())
    assert names == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "sightline.json",
    ]
    stored = load_file(tmp_path / "m" / "adapter_model.safetensors")
    assert all("lora_" in n or "multi_modal_projector" in n for n in stored)
