"""What trains is what was asked, parameter by parameter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn

import models
from sightline.errors import ModelError
from sightline.models import trainable
from sightline.models.family import Bundle
from sightline.settings import Full, Lora, Plan

LORA = Plan(lora=Lora(r=2, alpha=4, lr=1e-3))
FULL = Plan(full=Full(lr=1e-2))
USUAL: dict[str, Any] = {"vision": "frozen", "connector": FULL, "language": LORA}


def trained_names(bundle: Bundle) -> list[str]:
    return [n for n, p in bundle.model.named_parameters() if p.requires_grad]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_table_states_the_true_numbers(language: Path) -> None:
    made = models.bundle(language)
    core = made.model.model
    totals = [
        count(core.vision_tower),
        count(core.multi_modal_projector),
        count(core.language_model) + count(made.model.lm_head),
    ]
    wide = sum(
        2 * (m.in_features + m.out_features)
        for m in core.language_model.modules()
        if isinstance(m, nn.Linear)
    )
    trainable.apply(made, USUAL, 0)
    rows = trainable.table(made, USUAL)
    assert [(r.part, r.how, r.lr) for r in rows] == [
        ("vision", "frozen", 0.0),
        ("connector", "full", 1e-2),
        ("language", "lora", 1e-3),
    ]
    assert [r.total for r in rows] == totals
    assert [r.trainable for r in rows] == [0, totals[1], wide]
    shown = trainable.text(rows).splitlines()
    assert shown[1].split() == ["vision", "frozen", "-", f"{totals[0]:,}", "0"]
    assert shown[2].split() == ["connector", "full", "1.0e-02", f"{totals[1]:,}", f"{totals[1]:,}"]


def test_tied_embeddings_are_counted_once(tied_language: Path) -> None:
    made = models.bundle(tied_language)
    expected = count(made.model.model.language_model)
    trainable.apply(made, USUAL, 0)
    assert trainable.table(made, USUAL)[2].total == expected


def test_adapters_stand_only_in_the_asked_part(language: Path) -> None:
    made = models.bundle(language)
    trained = trainable.apply(made, {"language": LORA}, 0)
    assert isinstance(trained, PeftModel)
    names = trained_names(made)
    assert names
    assert all(n.startswith("model.language_model.layers.") and ".lora_" in n for n in names)
    kinds = {re.findall(r"\.(\w+_proj)\.lora_", n)[0] for n in names}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert not any("lora_" in n for n, _ in made.model.lm_head.named_parameters())


def test_lora_targets_by_name(language: Path) -> None:
    made = models.bundle(language)
    plan = Plan(lora=Lora(r=2, lr=1e-3, targets=("q_proj", "v_proj")))
    trainable.apply(made, {"language": plan}, 0)
    assert {re.findall(r"\.(\w+_proj)\.lora_", n)[0] for n in trained_names(made)} == {"q_proj", "v_proj"}
    assert not any(
        n.startswith("model.vision_tower") for n in trained_names(made)
    )  # CLIP has layers of these names


def test_the_tower_can_train_alone(language: Path) -> None:
    made = models.bundle(language)
    trainable.apply(made, {"vision": LORA}, 0)
    assert all(n.startswith("model.vision_tower.") for n in trained_names(made))
    assert trainable.is_frozen({"vision": LORA}, "language")
    assert not trainable.is_frozen({"vision": LORA}, "vision")


def test_a_full_part_beside_lora_is_peft_s_own_copy(language: Path) -> None:
    made = models.bundle(language)
    trained = trainable.apply(made, USUAL, 0)
    names = [n for n in trained_names(made) if "projector" in n]
    assert len(names) == 4
    assert all(n.startswith("model.multi_modal_projector.modules_to_save.default.") for n in names)
    models.stir(made.model.parameters(), 1, 1.0)
    features = [torch.ones(4, 16)]
    assert isinstance(trained, PeftModel)
    with torch.no_grad(), trained.disable_adapter():
        before = made.tokens(features, [()], "features")[0]
    assert torch.equal(before, models.bundle(language).tokens(features, [()], "features")[0])
    assert not torch.equal(before, made.tokens(features, [()], "features")[0])


def test_parts_may_have_ranks_of_their_own(language: Path) -> None:
    made = models.bundle(language)
    asked = {
        "vision": Plan(lora=Lora(r=3, alpha=12, lr=1e-4)),
        "language": Plan(lora=Lora(r=5, alpha=5, lr=1e-3)),
    }
    trainable.apply(made, asked, 0)
    for name, parameter in made.model.named_parameters():
        if ".lora_A." in name:
            assert parameter.shape[0] == (3 if "vision" in name else 5), name
    scalings = {n: m.scaling["default"] for n, m in made.model.named_modules() if n.endswith("q_proj")}
    assert {v for n, v in scalings.items() if "vision" in n} == {4.0}
    assert {v for n, v in scalings.items() if "language" in n} == {1.0}
    assert [(g["part"], g["lr"]) for g in trainable.groups(made, asked)] == [
        ("vision", 1e-4),
        ("language", 1e-3),
    ]


def test_full_without_lora_leaves_the_bare_model(language: Path) -> None:
    made = models.bundle(language)
    trained = trainable.apply(made, {"connector": FULL}, 0)
    assert trained is made.model
    assert trained_names(made) == [
        f"model.multi_modal_projector.linear_{i}.{w}" for i in (1, 2) for w in ("weight", "bias")
    ]
    assert trainable.unwrap(trained) is made.model


def test_full_language_with_tied_embeddings_trains_every_weight_once(tied_language: Path) -> None:
    made = models.bundle(tied_language)
    asked = {"language": FULL}
    trainable.apply(made, asked, 0)
    assert made.model.lm_head.weight is made.model.get_input_embeddings().weight
    group = trainable.groups(made, asked)[0]["params"]
    assert len({id(p) for p in group}) == len(group)
    assert sum(p.numel() for p in group) == count(made.model.model.language_model)


def test_every_trained_parameter_is_in_exactly_one_group(language: Path) -> None:
    made = models.bundle(language)
    trainable.apply(made, USUAL, 0)
    grouped = [id(p) for g in trainable.groups(made, USUAL) for p in g["params"]]
    assert sorted(grouped) == sorted(id(p) for p in made.model.parameters() if p.requires_grad)
    assert [(g["part"], g["lr"]) for g in trainable.groups(made, USUAL)] == [
        ("connector", 1e-2),
        ("language", 1e-3),
    ]


@pytest.mark.parametrize("asked", [USUAL, {"connector": FULL}, {"language": LORA}])
def test_check_notices_what_else_trains_or_does_not(language: Path, asked: dict[str, Any]) -> None:
    made = models.bundle(language)
    trainable.apply(made, asked, 0)
    made.model.model.vision_tower.get_parameter("embeddings.class_embedding").requires_grad_(True)
    with pytest.raises(ModelError) as caught:
        trainable.check(made, asked)
    assert "1 parameters are not as asked" in caught.value.what
    assert caught.value.found == "model.vision_tower.embeddings.class_embedding trains"
    made.model.requires_grad_(False)
    with pytest.raises(ModelError, match="is frozen"):
        trainable.check(made, asked)


def test_unknown_parts_are_refused(language: Path) -> None:
    with pytest.raises(ModelError) as caught:
        trainable.apply(models.bundle(language), {"conector": FULL}, 0)
    assert "no part ['conector']" in caught.value.what
    assert caught.value.expected == "vision, connector, language"


@pytest.mark.parametrize("asked", [{}, {"vision": "frozen"}])
def test_nothing_to_train_is_refused(language: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="nothing trains"):
        trainable.apply(models.bundle(language), asked, 0)


def test_lora_needs_a_linear_layer_of_that_name(language: Path) -> None:
    with pytest.raises(ModelError) as caught:
        trainable.apply(models.bundle(language), {"language": Plan(lora=Lora(lr=1, targets=("qkv",)))}, 0)
    assert "part 'language' has no linear layer" in caught.value.what
    assert "qkv" in caught.value.found


def test_one_dropout_for_all(language: Path) -> None:
    asked = {"vision": Plan(lora=Lora(lr=1, dropout=0.1)), "language": LORA}
    with pytest.raises(ModelError, match="share one dropout"):
        trainable.apply(models.bundle(language), asked, 0)


def test_the_adapter_s_start_is_a_function_of_the_seed(language: Path) -> None:
    def start(seed: int) -> torch.Tensor:
        made = models.bundle(language)
        trainable.apply(made, {"language": LORA}, seed)
        return torch.cat([p.flatten() for p in made.model.parameters() if p.requires_grad])

    state = torch.random.get_rng_state()
    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_silence_turns_every_dropout_off(language: Path) -> None:
    made = models.bundle(language)
    trainable.apply(made, {"language": Plan(lora=Lora(r=2, lr=1, dropout=0.5))}, 0)
    rates = {m.p for m in made.model.modules() if isinstance(m, nn.Dropout)}
    assert 0.5 in rates
    trainable.silence(made.model)
    assert {m.p for m in made.model.modules() if isinstance(m, nn.Dropout)} == {0.0}
