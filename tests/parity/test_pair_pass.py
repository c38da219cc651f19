"""The pair pass equals two rows per pair: loss and every gradient, in float64, for each family.

A wrong mask or position still trains and still looks plausible, so the last tests break each on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
import models_gemma3
import models_idefics3
import models_llava_next
import models_mllama
import models_qwen
from sightline.data.chat import Chat
from sightline.data.collate import PairCollator, Plan
from sightline.data.rows import encode_pairs
from sightline.images.seen import Seen
from sightline.losses.dpo import dpo
from sightline.losses.orpo import orpo
from sightline.losses.pairs import PairLogps
from sightline.models import features, pairpass, trainable
from sightline.models.family import Bundle
from sightline.settings import Full, Lora
from sightline.settings import Plan as Part
from sightline.train.trainers import Answers, pair_logps
from sightline.types import Degrade, Message, Preference, View

TRAINED = {"connector": Part(full=Full(lr=1e-3)), "language": Part(lora=Lora(r=4, lr=1e-3))}
LONG = "No: the lung is clear, the heart is of normal size and there is no fluid"
NOISE = Degrade(kind="replace", seed=3)
FAMILIES: dict[str, Callable[[Path], Bundle]] = {
    "llava": models.bundle,
    "llava_next": models_llava_next.bundle,
    "gemma3": models_gemma3.bundle,
    "mllama": models_mllama.bundle,
    "idefics3": models_idefics3.idefics3,
    "smolvlm": models_idefics3.smolvlm,
    "qwen2_5_vl": models_qwen.qwen2_5_vl,
    "qwen3_vl": models_qwen.qwen3_vl,
}


def preference(name: str, images: int, chosen: str, rejected: str, **more: Any) -> Preference:
    refs = tuple(models.PICTURES[:images])
    return Preference(
        id=name,
        patient="p",
        images=refs,
        prompt=(Message(role="user", parts=(*range(images), f"Is there fluid, {name}?")),),
        chosen=chosen,
        rejected=rejected,
        **more,
    )


SETS = {
    "one image": [preference("a", 1, "Yes", "No"), preference("b", 1, "Yes, left", "No fluid")],
    "two images": [preference("a", 2, "Yes", "No"), preference("b", 1, "No", "Yes")],
    "very different lengths": [preference("a", 1, "Yes", LONG), preference("b", 1, LONG, "Yes")],
    "other images": [
        preference("a", 1, "Yes", "Yes", rejected_images=NOISE),
        preference("b", 1, "Yes", "No", chosen_images=(models.PICTURES[2],)),
    ],
    "mixed": [
        preference("a", 1, "Yes", LONG),
        preference("b", 2, "Yes", "Yes", rejected_images=NOISE),
        preference("c", 1, "No", "Yes, on both sides"),
        preference("d", 2, LONG, "No"),
    ],
}


@pytest.fixture(scope="module", params=list(FAMILIES))
def setting(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Answers, Callable[..., Any]]:
    """A model in float64 with LoRA and a trained connector, both stirred, and a maker of batches."""
    place = tmp_path_factory.mktemp(request.param)
    bundle = FAMILIES[request.param](models.write_language(place / "language"))
    models.write_pictures(place)
    trained = trainable.apply(bundle, TRAINED, 0)
    trained.double().eval()
    models.stir(trained.parameters(), seed=1)
    chat = Chat.of(bundle)

    def look(view: View) -> Seen:
        seen = features.pixels(bundle, place, view)
        return Seen(seen.values.double(), seen.grid)

    def make(records: list[Preference], **how: Any) -> dict[str, Any]:
        pairs, aside = encode_pairs(records, chat, 2000, grid=features.gridder(bundle, place))
        assert not aside
        known = {p.id: (-20.0 - i, -25.0 + i) for i, p in enumerate(pairs)}
        return PairCollator(Plan(look=look, pad=chat.pad, image_token=chat.image_token, **how), known)(pairs)

    return Answers(bundle, trained, given="pixels"), make


def step(
    answers: Answers, batch: dict[str, Any], loss_of: Callable[[PairLogps], Tensor] = dpo
) -> tuple[float, dict[str, Tensor]]:
    """Mean loss and all gradients."""
    answers.zero_grad()
    with models.doubled():
        loss = loss_of(pair_logps(answers(batch), batch)).mean()
        loss.backward()
    found = {n: p.grad.clone() for n, p in answers.named_parameters() if p.requires_grad}
    return float(loss.detach()), found


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Relative distance of two sets of gradients, over all trained parameters together."""
    apart = sum(float((one[n] - other[n]).square().sum()) for n in other) ** 0.5
    return apart / sum(float(g.square().sum()) for g in other.values()) ** 0.5


@pytest.mark.parametrize("how", [{}, {"side": "left"}, {"pack": 64}, {"pack": 10_000}], ids=str)
@pytest.mark.parametrize("name", list(SETS))
def test_loss_and_gradients_equal_those_of_two_rows(setting: Any, name: str, how: dict[str, Any]) -> None:
    answers, make = setting
    plain = make(SETS[name], share=False)
    assert plain["plain"]
    loss, gradients = step(answers, plain)
    assert len(gradients) > 20
    assert all(float(g.abs().max()) > 0 for g in gradients.values())
    batch = make(SETS[name], **how)
    assert not batch["plain"] or name == "other images"
    made, found = step(answers, batch)
    assert made == pytest.approx(loss, rel=1e-9)
    assert distance(found, gradients) <= 1e-9


def test_the_prompt_and_its_image_are_computed_once(setting: Any) -> None:
    answers, make = setting
    plain, one = make(SETS["very different lengths"], share=False), make(SETS["very different lengths"])
    assert len(plain["input_ids"]) == 2 * len(one["input_ids"])
    images = int((one["input_ids"] == answers.bundle.image_token).sum())
    assert images * 2 == int((plain["input_ids"] == answers.bundle.image_token).sum())
    assert len(one["images"]) == len(plain["images"]) == 1  # both pairs show the same picture


def test_no_mask_is_noticed(setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, make = setting
    loss, gradients = step(answers, make(SETS["mixed"], share=False))
    causal = pairpass.visible
    monkeypatch.setattr(pairpass, "visible", lambda d, s, *read: causal(d, torch.zeros_like(s), *read))
    made, found = step(answers, make(SETS["mixed"]))
    assert abs(made - loss) > 1e-5 * loss
    assert distance(found, gradients) > 1e-4


def test_positions_that_run_on_are_noticed(setting: Any) -> None:
    answers, make = setting
    loss, gradients = step(answers, make(SETS["mixed"], share=False))
    batch = make(SETS["mixed"])
    batch["position"] = torch.arange(batch["position"].shape[1]).expand_as(batch["position"])
    made, found = step(answers, batch)
    assert abs(made - loss) > 1e-5 * loss
    assert distance(found, gradients) > 1e-4


def test_a_reference_with_the_adapter_on_is_noticed(setting: Any) -> None:
    answers, make = setting
    batch = make(SETS["mixed"])
    with torch.no_grad():
        adapted = answers(batch)
        with answers.trained.disable_adapter():
            bare = answers(batch)
    assert float((adapted - bare).abs().max()) > 1e-3
    half = len(bare) // 2
    right = dpo(pair_logps(adapted, {**batch, "reference": torch.stack([bare[:half], bare[half:]])}))
    wrong = dpo(pair_logps(adapted, {**batch, "reference": torch.stack([adapted[:half], adapted[half:]])}))
    assert torch.allclose(wrong, torch.full_like(wrong, 0.6931471805599453))
    assert float((right - wrong).abs().max()) > 1e-5


@pytest.mark.parametrize("loss", [dpo, orpo])
def test_a_step_changes_when_only_the_image_changes(setting: Any, loss: Any) -> None:
    answers, make = setting
    _, gradients = step(answers, make(SETS["one image"]), loss)
    other = [replace(p, images=(models.PICTURES[2],)) for p in SETS["one image"]]
    _, found = step(answers, make(other), loss)
    assert distance(found, gradients) > 1e-3


def test_pairs_that_share_and_pairs_that_do_not_stand_in_one_batch(setting: Any) -> None:
    _, make = setting
    batch = make(SETS["mixed"])
    assert batch["answers"] == 8
    assert len(batch["input_ids"]) == 5  # a, c and d take one row each, b takes two
