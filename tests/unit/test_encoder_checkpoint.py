"""Encoders train part by part, frozen parts stay to the last bit, and what is loaded is what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import models
import models_encoders as tiny
from models_encoders import FULL, LORA, save
from sightline.errors import ModelError
from sightline.models import checkpoint, trainable
from sightline.models.encoder import DualEncoder
from sightline.models.encoder_checkpoint import load_encoder
from sightline.models.encoders.openclip import Towers

HEADS: dict[str, Any] = {"heads": FULL}
KINDS = ("siglip", "clip", "openclip/resnet", "openclip/vit", "openclip/bert", "kit")
PLANS: list[dict[str, Any]] = [
    HEADS,
    {"text": LORA, "heads": FULL},
    {"vision": FULL, "text": LORA, "heads": FULL},
    {"vision": FULL, "text": FULL, "heads": FULL},
    {"vision": FULL},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


def state(made: DualEncoder) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in made.model.state_dict().items()}


def original(name: str) -> str:
    """The name of a tensor before PEFT wrapped it; "" for one that PEFT made."""
    if ".lora_" in name or ".modules_to_save." in name:
        return ""
    return name.replace(".base_layer.", ".").replace(".original_module.", ".")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("plan", range(len(PLANS)))
def test_frozen_parts_stay_and_a_loaded_encoder_embeds_as_the_trained_one(
    kind: str, plan: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = PLANS[plan]
    made = tiny.opened(kind, root, monkeypatch)
    before, start = tiny.embed(made), state(made)
    trained = trainable.apply(made, asked, 1)
    tiny.step(made, trained)
    tiny.step(made, trained)
    moved = set()
    for name, value in made.model.state_dict().items():
        if original(name) and not torch.equal(value, start[original(name)]):
            moved.add(trainable.part_of(made.family, original(name)))
    in_place = {p for p, how in asked.items() if how.full and not isinstance(trained, trainable.PeftModel)}
    beside = {"heads"} if "heads" in asked else set()  # bare parameters train where they are
    assert moved == (in_place or beside)
    after = tiny.embed(made)
    apart = [float((a - b).abs().max()) for a, b in zip(after, before, strict=True)]
    towers = {"vision", "heads"} if kind in ("clip", "kit") else {"vision"}
    assert (apart[0] > 1e-5) == bool(towers & set(asked))
    assert (apart[1] > 1e-5) == bool({t.replace("vision", "text") for t in towers} & set(asked))
    save(tmp_path / "m", made, trained, asked)
    loaded = load_encoder(tmp_path / "m")
    for one, other in zip(tiny.embed(loaded), after, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    for one, other in zip(loaded.scale(), made.scale(), strict=True):
        assert one is other is None or torch.equal(one, other)
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training
    assert loaded.base == made.base
    assert loaded.width == made.width


def count(modules: list[Any]) -> int:
    return sum(p.numel() for m in modules for p in ([m] if isinstance(m, nn.Parameter) else m.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_states_the_true_numbers(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    totals = [count([m for _, m in trainable.members(made, part)]) for part in ("vision", "text", "heads")]
    assert sum(totals) == count([made.model])
    asked = {"text": LORA, "heads": FULL}
    trainable.apply(made, asked, 0)
    rows = trainable.table(made, asked)
    assert [(r.part, r.how, r.lr) for r in rows] == [
        ("vision", "frozen", 0.0), ("text", "lora", 1e-3), ("heads", "full", 1e-2)
    ]  # fmt: skip
    assert [r.total for r in rows] == totals
    adapters = [p for n, p in made.model.named_parameters() if ".lora_" in n]
    assert [r.trainable for r in rows] == [0, sum(p.numel() for p in adapters), totals[2]]
    groups = trainable.groups(made, asked)
    assert [(g["part"], g["lr"], sum(p.numel() for p in g["params"])) for g in groups] == [
        ("text", 1e-3, rows[1].trainable), ("heads", 1e-2, totals[2])
    ]  # fmt: skip


def test_the_table_of_a_tiny_clip(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.opened("clip", root, monkeypatch)
    asked = {"vision": LORA, "text": LORA, "heads": FULL}
    trainable.apply(made, asked, 0)
    # Per layer 4 x (16 x 2 + 2 x 16) and 2 x (16 x 2 + 2 x 32); two projections of 16 x 24 and the temperature.
    assert [r.trainable for r in trainable.table(made, asked)] == [2 * 448, 2 * 448, 2 * 384 + 1]


@pytest.mark.parametrize(
    ("kind", "part"), [("openclip/resnet", "vision"), ("siglip", "heads"), ("openclip/vit", "heads")]
)
def test_an_adapter_that_would_never_act_is_refused(
    kind: str, part: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=f"part '{part}' has no linear layer for LoRA") as caught:
        trainable.apply(tiny.opened(kind, root, monkeypatch), {part: LORA}, 0)
    assert caught.value.remedy == "train it `full`, or leave it `frozen`"


@pytest.mark.parametrize("kind", ["siglip", "openclip/vit"])
def test_every_adapter_learns(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those inside torch's attention would get no gradient: its forward takes their weights past them."""
    made = tiny.opened(kind, root, monkeypatch)
    trained = trainable.apply(made, {"vision": LORA, "text": LORA}, 0)
    start = {n: p.detach().clone() for n, p in made.model.named_parameters() if ".lora_B." in n}
    assert start
    assert not any("attention.out_proj" in n or ".attn." in n for n in start)
    tiny.step(made, trained)
    own = dict(made.model.named_parameters())
    assert [n for n in start if torch.equal(own[n], start[n])] == []


def test_batch_norms_keep_their_statistics_in_training(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.opened("openclip/resnet", root, monkeypatch)
    assert isinstance(made.model, Towers)
    start = {n: b.clone() for n, b in made.model.named_buffers()}
    assert sum("running_mean" in n for n in start) == 3 + 4 * 4
    trained = trainable.apply(made, {"vision": FULL, "text": LORA}, 0)
    tiny.step(made, trained)
    assert made.model.training
    for name, value in made.model.named_buffers():
        plain = name.replace("modules_to_save.default.", "").replace("original_module.", "")
        assert torch.equal(value, start[plain]), name
    alone = made.family.encode_images(made.model, [torch.ones(3, 64, 64)], [()])[0]
    beside = made.family.encode_images(made.model, [torch.ones(3, 64, 64), torch.zeros(3, 64, 64)], [(), ()])
    torch.testing.assert_close(alone, beside[0])


@pytest.fixture
def line(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path, tuple[Tensor, Tensor]]:
    """`first` on a base, `second` on `first`, and the embeddings of `second` in memory."""
    first, second = tmp_path / "first" / "model", tmp_path / "second" / "model"
    asked = {"text": LORA, "heads": FULL}
    made = tiny.opened("clip", root, monkeypatch)
    trained = trainable.apply(made, asked, 1)
    tiny.step(made, trained)
    save(first, made, trained, asked)
    again = load_encoder(first)
    trained = trainable.apply(again, {"vision": LORA}, 2)
    tiny.step(again, trained)
    save(second, again, trained, {"vision": LORA}, parent=first)
    return first, second, tiny.embed(again)


def test_a_line_of_two_equals_the_one_in_memory(line: tuple[Path, Path, tuple[Tensor, Tensor]]) -> None:
    first, second, before = line
    for one, other in zip(tiny.embed(load_encoder(second)), before, strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)
    assert not torch.equal(tiny.embed(load_encoder(first))[0], before[0])
    assert [place for place, _ in checkpoint.lineage(second)] == [first, second]
    names = sorted(p.name for p in first.iterdir())
    assert names == [
        "adapter_config.json", "adapter_model.safetensors", "full.safetensors", "sightline.json"
    ]  # fmt: skip
    assert set(load_file(first / "full.safetensors")) == {"logit_scale"}


def test_a_changed_parent_is_refused(line: tuple[Path, Path, tuple[Tensor, Tensor]]) -> None:
    first, second, _ = line
    stored = load_file(first / "full.safetensors")
    save_file({"logit_scale": stored["logit_scale"] + 1e-3}, first / "full.safetensors")
    with pytest.raises(ModelError, match="parent of a saved model has changed"):
        load_encoder(second)


@pytest.mark.parametrize("file", ["adapter_model.safetensors", "full.safetensors"])
@pytest.mark.parametrize("change", ["missing", "unexpected", "absent"])
def test_missing_and_unexpected_weights_are_refused(
    line: tuple[Path, Path, tuple[Tensor, Tensor]], file: str, change: str
) -> None:
    first = line[0]
    stored = load_file(first / file)
    if change == "unexpected":
        stored["something.else"] = torch.zeros(1)
    else:
        del stored[sorted(stored)[0]]
    save_file(stored, first / file)
    if change == "absent":
        (first / file).unlink()
    with pytest.raises(ModelError, match="do not fit") as caught:
        load_encoder(first)
    assert caught.value.expected.startswith("0 missing") == (change == "unexpected")
    assert ("1 unexpected, e.g. ['something.else']" in caught.value.found) == (change == "unexpected")


def test_encoders_and_language_models_are_not_taken_for_each_other(
    line: tuple[Path, Path, tuple[Tensor, Tensor]], language: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="saved image-text encoder"):
        checkpoint.load(line[0])
    made = models.bundle(language)
    plan = {"connector": FULL}
    checkpoint.save(
        tmp_path / "m", made, trainable.apply(made, plan, 0), parent=None, home=tmp_path / "m",
        trained={part: p.model_dump(mode="json") for part, p in plan.items()},
    )  # fmt: skip
    with pytest.raises(ModelError, match="saved language model"):
        load_encoder(tmp_path / "m")


def test_the_same_seed_saves_the_same_bytes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prints = []
    for name in ("one", "two"):
        made = tiny.opened("kit", root, monkeypatch)
        trained = trainable.apply(made, {"text": LORA, "heads": FULL}, 5)
        tiny.step(made, trained)
        save(tmp_path / name, made, trained, {"text": LORA, "heads": FULL})
        prints.append(checkpoint.fingerprint(tmp_path / name))
    assert prints[0] == prints[1]
