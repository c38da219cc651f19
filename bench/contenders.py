"""The contenders of `align.py`: one model, one set of pairs, one adapter, and the ways to make a step with them.

trl               TRL's vision DPOTrainer as it ships: collator, reference and head are its own
trl-best          the same with all that a user reaches without changing TRL: the tower's forward wrapped in
                  `no_grad` on the model that he hands in, and batches collated before the clock starts, as if
                  data-loader workers cost nothing. References cannot be stored: TRL refuses that for images.
trl-like          TRL's way rewritten: an image encoded for each row, by policy and reference (4 encodes a pair),
                  the prompt written twice, the head on answer positions only, as TRL has it on a GPU. On a CPU
                  TRL's head scores every position; `every` does the same, to compare the work
seed              MMed-RAG's way: chosen and rejected apart, images encoded once more to lay out the labels (8
                  encodes a pair), all logits in float32
sightline         features and reference log-probabilities stored, the prompt written once
sightline-online  nothing stored: pixels encoded once a step, reference by switching the adapter off
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, TypeVar

import torch
from ground import Ground, build, processor, shown
from peft import LoraConfig
from torch import Tensor, nn

from sightline.data.collate import PairCollator, Plan, collate
from sightline.data.line import Row, alone
from sightline.losses.dpo import dpo
from sightline.losses.logps import IGNORE, token_logps
from sightline.losses.pairs import PairLogps
from sightline.models import features, trainable
from sightline.models.family import Bundle
from sightline.settings import Lora, Speed
from sightline.settings import Plan as Part
from sightline.train.reference import Reference, reference_logps
from sightline.train.trainers import Answers, pair_logps, per_answer

T = TypeVar("T")
BETA = 0.1


@dataclass
class Learner:
    """A model with its adapter and an optimizer whose rate of zero does the work of a step and changes nothing."""

    bundle: Bundle
    trained: Any
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        stir(self.trained)
        self.trained.train()
        own = [p for p in self.trained.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(own, lr=0.0)

    def step(self, loss: Tensor) -> float:
        """Backward and one optimizer step."""
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())


@torch.no_grad()
def stir(model: nn.Module) -> None:
    """Give each adapter weight values that its name decides: equal in all contenders, and far from the reference."""
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            draw = torch.Generator().manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
            weight.copy_(torch.randn(weight.shape, generator=draw) * 0.5 * weight.shape[1] ** -0.5)


def learner(ground: Ground, *, whole: bool = False) -> Learner:
    """The benchmark's model with LoRA on its language part alone.

    Args:
        ground: what all stand on; it says whether layers are checkpointed.
        whole: checkpoint the whole model. This hooks the tower's input as well, so that gradients run through the
            frozen tower, as they do in TRL. Otherwise the language part alone.
    """
    bundle = build(ground)
    lora = Lora(r=ground.shape.rank, alpha=2 * ground.shape.rank, lr=1e-4)
    trained = trainable.apply(bundle, {"language": Part(lora=lora)}, 0)
    trainable.silence(bundle.model)
    if ground.checkpointing:
        part: Any = bundle.model if whole else bundle.family.language(bundle.model)
        part.gradient_checkpointing_enable({"use_reentrant": False})
    return Learner(bundle, trained)


@contextmanager
def without_gradients(bundle: Bundle) -> Iterator[None]:
    """The tower's forward pass under `no_grad`, whatever its input wants."""
    tower: Any = bundle.model.model.vision_tower
    before = tower.forward
    tower.forward = torch.no_grad()(before)
    try:
        yield
    finally:
        tower.forward = before


def pieces(things: Sequence[T], size: int) -> list[Sequence[T]]:
    """The same in portions of at most so many."""
    return [things[i : i + size] for i in range(0, len(things), size)]


def mean_loss(own: Tensor, reference: Tensor) -> Tensor:
    """DPO from summed log-probabilities [2, pairs], chosen first."""
    return dpo(PairLogps(own[0], own[1], reference[0], reference[1]), beta=BETA).mean()


class Contender:
    """A way to make a step. `collate`, `loss` and the optimizer are on the clock, `ready` is not."""

    name = ""

    def __init__(self, ground: Ground, own: Learner) -> None:
        self.ground, self.own = ground, own

    def ready(self, batches: Sequence[Sequence[int]]) -> None:
        """What this way gets for nothing."""

    def prepare(self) -> None:
        """What is made once, before the first step of a run."""

    def collate(self, places: Sequence[int]) -> Any:
        raise NotImplementedError

    def loss(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def step(self, places: Sequence[int]) -> float:
        """One whole optimizer step on the pairs at these places; its loss."""
        return self.own.step(self.loss(self.collate(places)))

    def plan(self, look: Any, *, share: bool = True) -> Plan:
        return Plan.of(self.ground.chat, look, Speed(share=share))

    def pixels(self) -> features.Pixels:
        return features.Pixels(self.own.bundle, self.ground.root)

    def move(self, batch: dict[str, Any]) -> dict[str, Any]:
        """To the device, images in the model's precision."""
        moved = {k: v.to(self.ground.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
        return {**moved, "images": [i.to(self.ground.device, self.ground.dtype) for i in moved["images"]]}


class Trl(Contender):
    """TRL's own trainer, collator and loss."""

    name = "trl"

    def __init__(self, ground: Ground) -> None:
        bundle = build(ground)
        self.trainer = self.make(ground, bundle)
        trained: Any = self.trainer.model
        if ground.checkpointing:
            trained.gradient_checkpointing_enable()  # `Trainer.train` does this before its first step
        super().__init__(ground, Learner(bundle, trained))

    def make(self, ground: Ground, bundle: Bundle) -> Any:
        """The trainer, with the defaults of its config except where something must be said."""
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        inside = bundle.family.parts["language"][0] + "."
        targets = [
            n for n, m in bundle.model.named_modules() if isinstance(m, nn.Linear) and n.startswith(inside)
        ]
        rank = ground.shape.rank
        config = DPOConfig(
            output_dir=str(ground.work / self.name), beta=BETA, use_cpu=ground.device == "cpu", report_to=[],
            bf16=ground.dtype == torch.bfloat16, per_device_train_batch_size=ground.batch,
            gradient_checkpointing=ground.checkpointing, max_length=None,
        )  # fmt: skip
        return DPOTrainer(
            model=bundle.model, args=config, processing_class=processor(ground),
            train_dataset=Dataset.from_list(ground.records()),
            peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=targets),
        )  # fmt: skip

    def collate(self, places: Sequence[int]) -> Any:
        batch = self.trainer.data_collator([self.trainer.train_dataset[i] for i in places])
        return {k: v.to(self.ground.device) for k, v in batch.items()}

    def loss(self, batch: Any) -> Tensor:
        return self.trainer.compute_loss(self.trainer.model, batch)

    def check(self, places: Sequence[int]) -> float:
        """That TRL's rows are ours: equal ids, equal learned tokens, and pixels that differ by rounding only.

        Returns:
            The greatest difference of two pixels.
        """
        batch, look, apart = self.collate(places), self.pixels(), 0.0
        pairs = [self.ground.pairs[i] for i in places]
        for at, row in enumerate([p.chosen for p in pairs] + [p.rejected for p in pairs]):
            real = batch["attention_mask"][at].bool()
            assert tuple(batch["input_ids"][at][real].tolist()) == row.encoded.ids, row.id
            assert tuple(batch["completion_mask"][at][real].bool().tolist()) == row.encoded.learned, row.id
            seen = batch["pixel_values"][at].float().cpu()
            apart = max(apart, float((seen - look(row.views[0]).values).abs().max()))
        assert apart < 1e-5, apart
        return apart


class TrlBest(Trl):
    """TRL with what its user can reach; see the file's head."""

    name = "trl-best"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        self.made: dict[tuple[int, ...], Any] = {}

    def ready(self, batches: Sequence[Sequence[int]]) -> None:
        self.made |= {tuple(places): super(TrlBest, self).collate(places) for places in batches}

    def collate(self, places: Sequence[int]) -> Any:
        return self.made[tuple(places)]

    def loss(self, batch: Any) -> Tensor:
        with without_gradients(self.own.bundle):
            return super().loss(batch)


class TrlLike(Contender):
    """TRL's way, rewritten."""

    name = "trl-like"

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground, learner(ground, whole=True))
        self.every = False

    def collate(self, places: Sequence[int]) -> Any:
        plan = self.plan(self.pixels(), share=False)
        return self.move(PairCollator(plan, {})([self.ground.pairs[i] for i in places]))

    def sums(self, batch: dict[str, Any]) -> Tensor:
        model: Any = self.own.bundle.model
        images = shown(self.ground, batch)
        states = model.model(input_ids=batch["input_ids"], **images, use_cache=False).last_hidden_state
        scored = batch["labels"]
        if self.every:
            scored = batch["input_ids"].clone()
            scored[:, 0] = IGNORE
        # A head that is no plain matrix is computed again for the gradient, as TRL's is.
        logps = token_logps(states, scored, partial(model.lm_head), batch["source"])
        return per_answer(logps, batch).view(2, -1)

    def loss(self, batch: Any) -> Tensor:
        own = self.sums(batch)
        with torch.no_grad(), self.own.trained.disable_adapter():
            other = self.sums(batch)
        return mean_loss(own, other)


class Seed(Contender):
    """MMed-RAG's way."""

    name = "seed"

    def collate(self, places: Sequence[int]) -> Any:
        plan = self.plan(self.pixels())

        def side(rows: Sequence[Row]) -> dict[str, Any]:
            return self.move(collate([(alone(row), [i]) for i, row in enumerate(rows)], plan))

        pairs = [self.ground.pairs[i] for i in places]
        return [side([p.chosen for p in pairs]), side([p.rejected for p in pairs])]

    def sums(self, batch: dict[str, Any]) -> Tensor:
        bundle = self.own.bundle
        with torch.no_grad():  # the additional encoding; its result only lays out the labels
            bundle.tokens(batch["images"], batch["grids"], "pixels")
        logits = bundle.head(bundle.forward(batch, given="pixels")).float()  # [rows, T, vocabulary]
        wanted = batch["labels"][:, 1:]
        found = logits[:, :-1].log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None]).squeeze(-1)
        return (found * (wanted != IGNORE)).sum(-1)

    def loss(self, batch: Any) -> Tensor:
        own = torch.stack([self.sums(side) for side in batch])
        with torch.no_grad(), self.own.trained.disable_adapter():
            other = torch.stack([self.sums(side) for side in batch])
        return mean_loss(own, other)


class Sightline(Contender):
    """Sightline with everything stored."""

    name = "sightline"

    def __init__(self, ground: Ground, own: Learner) -> None:
        super().__init__(ground, own)
        self.answers = Answers(own.bundle, own.trained, given="tokens")
        self.folders = count()
        self.look: Any = None
        self.known: Reference = {}

    def prepare(self) -> None:
        """Tokens of all images and reference log-probabilities of all pairs, from nothing."""
        ground, pairs = self.ground, self.ground.pairs
        self.own.bundle.tower = ""  # so that its hash is paid for as well
        folder = ground.work / f"features-{next(self.folders)}"
        self.look = features.Features(self.own.bundle, ground.root, folder, "tokens")
        self.look.prepare([v for p in pairs for v in p.views])
        collator = PairCollator(self.plan(self.look), {})
        batches = (self.move(collator(some)) for some in pieces(pairs, ground.batch))
        with self.answers.adapters_off():
            self.known = reference_logps(self.answers, batches, "float32")
        self.answers.train()

    def collate(self, places: Sequence[int]) -> Any:
        collator = PairCollator(self.plan(self.look), self.known)
        return self.move(collator([self.ground.pairs[i] for i in places]))

    def loss(self, batch: Any) -> Tensor:
        return dpo(pair_logps(self.answers(batch), batch), beta=BETA).mean()


class Online(Sightline):
    """Sightline with nothing stored."""

    name = "sightline-online"

    def prepare(self) -> None:
        """Nothing."""
        self.look = self.pixels()

    def loss(self, batch: Any) -> Tensor:
        bundle = self.own.bundle
        with torch.no_grad():
            shared = bundle.tokens(batch["images"], batch["grids"], "pixels")  # by policy and reference
            batch = {**batch, "images": shared}
            with self.answers.adapters_off():
                other = self.answers(batch)
        return dpo(
            pair_logps(self.answers(batch), {**batch, "reference": other.view(2, -1)}), beta=BETA
        ).mean()
