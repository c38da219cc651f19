"""A frozen text tower reads each text once: features as without it, gradients too, and nothing is dropped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models_contrast
import models_encoders as tiny
from sightline.losses.siglip import siglip
from sightline.losses.similarity import gathered
from sightline.models import readings, trainable
from sightline.models.encoder import DualEncoder
from sightline.train.contrast import Towers

KINDS = ("siglip", "clip", "openclip/resnet", "openclip/vit", "openclip/bert", "kit")
# 70 different texts of 1 to 16 words: two batches, and neighbours other than those of a step.
MANY = [" ".join([*["left"] * (i % 10), "no", *["heart"] * (i // 10)]) for i in range(70)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readings")


def trained(made: DualEncoder, asked: dict[str, Any], **more: Any) -> Towers:
    return Towers(made, trainable.apply(made, asked, 0), given="pixels", **more).train()


def gradients(made: Towers, batch: dict[str, Any]) -> dict[str, Tensor]:
    images, texts, scale, bias = made(batch)
    loss = siglip(gathered(images, texts, scale, torch.tensor(-1.0) if bias is None else bias, batch["keys"]))
    made.zero_grad()
    loss.backward()
    found = {name: p.grad for name, p in made.weights().items() if p.grad is not None}
    return {"loss": loss.detach(), "texts": texts.detach(), **found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 2])
def test_texts_and_gradients_are_those_of_the_tokens(
    kind: str, chunk: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    towers = trained(made, {"heads": tiny.FULL}, chunk=chunk)
    said = [*MANY[3:60:11], MANY[3]]
    read = readings.read(made, [*MANY, *tiny.TEXTS])
    assert read is not None
    shown = [made.preprocess(p.astype(np.float32) / 255) for p in tiny.pictures()] * 3
    batch = {"images": shown[:7], "grids": [()] * 7, "keys": torch.arange(14).reshape(7, 2)}
    plain = gradients(towers, {**batch, "tokens": made.tokenize(said)})
    kept = gradients(towers, {**batch, "readings": read(said)})
    assert plain.keys() == kept.keys() >= {"loss", "texts"}
    assert {"clip": "text_projection.weight", "kit": "text_head.1.weight"}.get(kind, "loss") in plain
    for name, value in plain.items():
        # Gradients are as large as 38, and float32 holds seven digits: 1e-6 of the largest.
        torch.testing.assert_close(kept[name], value, rtol=0, atol=1e-6 * max(1, float(value.abs().max())))
    assert float((plain["texts"][0] - plain["texts"][1]).norm()) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_kept_half_is_made_by_the_text_part_alone(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    trainable.apply(made, {"vision": tiny.FULL, "heads": tiny.FULL}, 0)
    features = made.family.encode_texts(made.model, made.tokenize(tiny.TEXTS))
    assert not features.requires_grad
    assert features.shape[0] == 3
    trainable.apply(made, {"text": tiny.FULL}, 0)
    assert made.family.encode_texts(made.model, made.tokenize(tiny.TEXTS)).requires_grad


def test_every_text_is_read_once_in_batches_of_like_length(capsys: pytest.CaptureFixture[str]) -> None:
    made, seen = models_contrast.toy({"width": 6}, 0), []
    made.model.text.register_forward_hook(lambda m, i, o: seen.append(tuple(i[0].shape)))
    told = ["b" * i for i in range(1, 71)]
    read = readings.read(made, [*told, *reversed(told)])
    assert read is not None
    assert seen == [(64, 64), (6, 70)]
    assert read.table.shape == (70, models_contrast.HIDDEN)
    assert not read.table.requires_grad
    assert "reading texts" in capsys.readouterr().err
    torch.testing.assert_close(read(["bbb", "b"]), made.model.text.weight[[98, 98]].detach())
    one = readings.read(made, ["cab"])
    assert one is not None
    torch.testing.assert_close(one(["cab"])[0], made.model.text.weight[[99, 97, 98]].mean(0).detach())
    assert readings.read(made, []) is None


def test_the_order_of_the_texts_changes_no_bit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.opened("kit", root, monkeypatch)
    one, other = (readings.read(made, texts) for texts in (MANY, MANY[::-1]))
    assert one is not None
    assert other is not None
    assert torch.equal(one(MANY), other(MANY))


@pytest.mark.parametrize("kind", ["kit", "openclip/bert", "clip"])
def test_a_frozen_text_tower_drops_nothing(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for asked in ("heads", "text"):
        made = tiny.opened(kind, root, monkeypatch)
        for module in made.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.5
            if isinstance(getattr(module, "dropout", None), float):  # CLIP's attention: no module
                module.dropout = 0.5
        towers = trained(made, {asked: tiny.FULL})
        tokens = made.tokenize(tiny.TEXTS)
        with torch.no_grad():
            towers.eval()
            still = made.texts(tokens)
            towers.train()
            torch.manual_seed(1)
            found[asked] = torch.equal(made.texts(tokens), still)
    assert found == {"heads": True, "text": False}


def test_a_model_in_training_mode_is_read_without_dropout(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened("kit", root, monkeypatch)
    with torch.no_grad():
        still = made.texts(made.tokenize(tiny.TEXTS))
        made.model.train()
        read = readings.read(made, tiny.TEXTS)
        assert read is not None
        torch.testing.assert_close(made.pool_texts(read(tiny.TEXTS)), still, rtol=0, atol=1e-6)
    assert made.model.image_head.training, "only the text tower is put to rest"
    assert not made.model.text.training
