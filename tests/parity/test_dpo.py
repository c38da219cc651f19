"""Log-probabilities and DPO against TRL's own trainer, gradients included; and what the images change."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import LlamaForCausalLM

import models
from sightline.data.chat import Chat
from sightline.data.collate import PairCollator
from sightline.data.collate import Plan as Layout
from sightline.data.rows import encode_pairs
from sightline.losses.dpo import LOSS, dpo
from sightline.losses.logps import answer_logps
from sightline.losses.pairs import PairLogps
from sightline.models import trainable
from sightline.models.features import Features
from sightline.settings import Lora, Plan
from sightline.train.reference import reference_logps
from sightline.train.trainers import Answers, pair_logps
from sightline.types import Degrade, Message, Preference

IGNORE = -100
RECORDS = [
    {"prompt": "Is there fluid?", "chosen": " Yes, on the left.", "rejected": " No."},
    {"prompt": "Is the heart large?", "chosen": " No", "rejected": " Yes, it is so large"},
    {"prompt": "Where?", "chosen": " Left of the spine", "rejected": " Above"},
]


@pytest.fixture(scope="module")
def policy() -> LlamaForCausalLM:
    torch.manual_seed(1)
    return LlamaForCausalLM(models.llama(len(models.bytes_tokenizer()))).eval()


def trl(
    policy: LlamaForCausalLM, folder: Path, records: list[dict[str, str]]
) -> tuple[Any, dict[str, Tensor]]:
    """TRL's trainer over a copy of the policy, and one batch of its own collator."""
    datasets, library = pytest.importorskip("datasets"), pytest.importorskip("trl")
    torch.manual_seed(2)
    reference = LlamaForCausalLM(policy.config).eval()
    config = library.DPOConfig(
        output_dir=str(folder),
        beta=0.1,
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=3,
        gradient_checkpointing=False,
        disable_dropout=True,
    )
    trainer = library.DPOTrainer(
        model=copy.deepcopy(policy),
        ref_model=reference,
        args=config,
        processing_class=models.bytes_tokenizer(),
        train_dataset=datasets.Dataset.from_list(records),
    )
    return trainer, trainer.data_collator([trainer.train_dataset[i] for i in range(len(records))])


def sums(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Our summed log-probabilities of TRL's batch of [chosen; rejected] rows."""
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, IGNORE)
    states = model.model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
    ).last_hidden_state
    return answer_logps(states, labels, model.lm_head)


def ours(model: Any, reference: Any, batch: dict[str, Tensor], **options: float) -> Tensor:
    own, half = sums(model, batch), len(batch["input_ids"]) // 2
    with torch.no_grad():
        other = sums(reference, batch)
    logps = PairLogps(own[:half], own[half:], other[:half], other[half:])
    return dpo(logps, **options).mean()


def test_loss_and_gradients_equal_trl_s(policy: LlamaForCausalLM, tmp_path: Path) -> None:
    trainer, batch = trl(policy, tmp_path, RECORDS)
    theirs = trainer.compute_loss(trainer.model, batch)
    theirs.backward()
    own = copy.deepcopy(policy)
    loss = ours(own, trainer.ref_model, batch, beta=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-6)
    assert abs(loss.item() - 0.6931) > 1e-3  # policy and reference do differ
    wanted = dict(trainer.model.named_parameters())
    for name, parameter in own.named_parameters():
        theirs = wanted[name].grad
        assert float((parameter.grad - theirs).norm() / theirs.norm()) < 1e-5, name


def test_smoothing_mixes_trl_s_losses_of_the_pair_and_of_the_pair_turned_round(
    policy: LlamaForCausalLM, tmp_path: Path
) -> None:
    trainer, batch = trl(policy, tmp_path, RECORDS)
    turned = [{"prompt": r["prompt"], "chosen": r["rejected"], "rejected": r["chosen"]} for r in RECORDS]
    other = trainer.data_collator(
        [trl(policy, tmp_path, turned)[0].train_dataset[i] for i in range(len(RECORDS))]
    )
    with torch.no_grad():
        right, wrong = (float(trainer.compute_loss(trainer.model, b)) for b in (batch, other))
        loss = float(ours(policy, trainer.ref_model, batch, beta=0.1, smoothing=0.2))
    assert loss == pytest.approx(0.8 * right + 0.2 * wrong, rel=1e-6)


def test_the_loss_at_known_margins() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    margins = torch.tensor([0.0, 10.0, -10.0], dtype=torch.float64)
    loss = dpo(PairLogps(margins, zero, zero, zero), beta=0.1)
    torch.testing.assert_close(loss, torch.log1p(torch.exp(-0.1 * margins)))
    assert LOSS.needs_reference
    huge = dpo(PairLogps(torch.tensor([-1e6]), torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([0.0])))
    assert torch.isfinite(huge).all()


def collator(look: Features, chat: Chat, known: Any = None) -> PairCollator:
    return PairCollator(Layout(look=look, pad=chat.pad, image_token=chat.image_token), known or {})


def preference(name: str, image: Any, spoiled: Degrade | None) -> Preference:
    wrong = "Yes" if spoiled else "No"
    return Preference(
        id=name,
        patient="p",
        images=(image,),
        prompt=(Message(role="user", parts=(0, "Is it?")),),
        chosen="Yes",
        rejected=wrong,
        rejected_images=spoiled,
    )


@pytest.fixture
def aligned(language: Path, tmp_path: Path) -> tuple[Answers, Features, list[Any], Chat]:
    """Three pairs about images: a wrong answer, and two that differ by the rejected image only."""
    bundle = models.bundle(language)
    images = [models.picture(tmp_path / "images", f"{i}.png", i) for i in range(2)]
    records = [
        preference("wrong", images[0], None),
        preference("noise", images[0], Degrade(kind="replace", seed=1)),
        preference("other noise", images[0], Degrade(kind="replace", seed=2)),
    ]
    chat = Chat.of(bundle)
    pairs, _ = encode_pairs(records, chat, 200)
    look = Features(bundle, tmp_path / "images", tmp_path / "kept")
    look.prepare([v for p in pairs for row in (p.chosen, p.rejected) for v in row.views])
    return Answers(bundle, bundle.model, given="features"), look, pairs, chat


def test_references_follow_the_image_of_their_side(
    aligned: tuple[Answers, Features, list[Any], Chat],
) -> None:
    answers, look, pairs, chat = aligned
    loader = DataLoader(pairs, batch_size=3, collate_fn=collator(look, chat))
    found = reference_logps(answers, loader, "float32")
    chosen = [found[n][0] for n in ("wrong", "noise", "other noise")]
    assert chosen == pytest.approx([chosen[0]] * 3, abs=1e-5)
    assert abs(found["noise"][1] - found["noise"][0]) > 1e-3  # equal answers, other image
    assert abs(found["noise"][1] - found["other noise"][1]) > 1e-3
    alone = reference_logps(
        answers, DataLoader(pairs, batch_size=1, collate_fn=collator(look, chat)), "float32"
    )
    for name, values in found.items():
        assert alone[name] == pytest.approx(values, abs=1e-4)


def test_the_margin_is_exactly_zero_before_the_first_step(
    aligned: tuple[Answers, Features, list[Any], Chat],
) -> None:
    answers, look, pairs, chat = aligned
    known = reference_logps(
        answers, DataLoader(pairs, batch_size=3, collate_fn=collator(look, chat)), "float32"
    )
    trained = trainable.apply(answers.bundle, {"language": Plan(lora=Lora(r=2, lr=1e-3))}, 0)
    trainable.silence(answers.bundle.model)
    policy = Answers(answers.bundle, trained, given="features").train()
    batch = collator(look, chat, known)(pairs)
    logps = pair_logps(policy(batch), batch)
    assert torch.equal(logps.chosen, logps.chosen_reference)
    assert torch.equal(logps.rejected, logps.rejected_reference)
    loss = dpo(logps).mean()
    assert float(loss.detach()) == pytest.approx(0.6931472, abs=1e-6)
    loss.backward()
    assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in policy.parameters())
    assert logps.chosen_length is not None
    assert logps.chosen_length.tolist() == [int(sum(p.chosen.encoded.learned)) for p in pairs]
