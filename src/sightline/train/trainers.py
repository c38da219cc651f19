"""Two trainers over `transformers.Trainer`: each says only how its loss is computed and how a save is atomic.

The model given to the Trainer is `Answers`: one forward from ids and images to log-probabilities of answer
tokens, so that DDP, FSDP and autocast wrap exactly what is computed.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from .. import runs
from ..errors import NonFinite
from ..losses.logps import IGNORE, POSITIONS, Head, token_logps
from ..losses.pairs import PairLogps
from ..models import checkpoint
from ..models.family import Bundle, Given
from .callbacks import Best
from .divided import DividedTrainer
from .processes import averaged

SHOWN = 8


class Taught(Protocol):
    """What a trainer trains, a module: `Answers` of a language model, `Towers` of an encoder.

    Args:
        bundle: the model with everything that belongs to it.
        trained: what `trainable.apply` returned.
    """

    bundle: Any
    trained: nn.Module


class Answers(nn.Module):
    """Ids and images to log-probabilities of the answers' tokens.

    Args:
        bundle: the model.
        trained: what `trainable.apply` returned (PEFT's wrapper or the bare model).
        given: what a batch's `images` hold: pixels, features of the tower, or connected tokens.
    """

    complete: ClassVar[bool] = False  # a batch without images passes the connector by

    def __init__(self, bundle: Bundle, trained: nn.Module, *, given: Given) -> None:
        super().__init__()
        self.trained = trained
        self.bundle = bundle
        self.given: Given = given
        self.whole_head = (
            True  # False where a process holds a part of the head's weights outside its forward pass
        )

    @property
    def head(self) -> Head:
        """The head, read as a matrix where that can be done, else called."""
        head = self.bundle.head
        return head if self.whole_head else partial(_call, head)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """Summed log-probability of each answer. [answers] float32."""
        states = self.bundle.forward(batch, given=self.given)
        logps = token_logps(states, batch["labels"], self.head, batch["source"])
        return per_answer(logps, batch)

    @torch.no_grad()
    def imagine(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The same batch with the model's own likeliest token in the place of every learned one."""
        states = self.bundle.forward(batch, given=self.given)
        learned = batch["labels"] != IGNORE
        rows, _ = learned.nonzero(as_tuple=True)
        seen = states[rows, batch["source"][learned]]  # [n, width]
        likeliest = torch.cat([self.bundle.head(piece).argmax(-1) for piece in seen.split(POSITIONS)])
        return {**batch, "labels": batch["labels"].masked_scatter(learned, likeliest)}

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: Any = None, **asked: Any) -> None:
        """Compute the language model's layers again in the backward pass, and the tower's where it trains.

        Called by the Trainer under `train.extra: {gradient_checkpointing: true}`.
        """
        how = {"use_reentrant": False} | (gradient_checkpointing_kwargs or {})
        family, model = self.bundle.family, self.bundle.model
        towers = [n for part in family.tower for n in family.parts[part]] if self.bundle.tower_trains else []
        modules: list[Any] = [family.language(model), *(family.module(model, name) for name in towers)]
        for module in modules:
            if isinstance(module, PreTrainedModel) and module.supports_gradient_checkpointing:
                module.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how, **asked)

    @contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The model that the adapters started from: the parent, exactly."""
        trained: Any = self.trained
        with trained.disable_adapter():
            yield


def _call(head: Head, states: Tensor) -> Tensor:
    """The head's forward pass, around which its weights are put together."""
    return head(states)


class AtomicTrainer(DividedTrainer):
    """A Trainer whose checkpoints are complete or absent, and verify before they are used.

    A checkpoint is written to `staging`, sealed with SHA-256 sums and renamed; stock saving leaves
    half-written folders that resume then trusts (transformers issues 35525, 36076).

    Args:
        answers: the model.
        keep: how many checkpoints stay.
        saved: told the step of each finished checkpoint.
        records: record ids of one optimizer step, counted from 0, for messages.
        best: validates, and keeps the best weights; what it knows is part of every checkpoint.
    """

    apart: ClassVar[bool] = True  # no row's loss depends on the others of its batch

    def __init__(
        self,
        answers: Taught,
        *,
        keep: int,
        saved: Callable[[int], None] | None = None,
        records: Callable[[int], list[str]] | None = None,
        best: Best | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model=answers, **kwargs)
        self.answers: Any = answers
        self.keep = keep
        self.saved = saved
        self.records = records
        self.best = best
        if best is not None:
            self.add_callback(best)
        self.final = Path(self.args.output_dir)
        self.model_accepts_loss_kwargs = False

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.final / "staging")

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Stock save into staging, then seal, rename, and drop old checkpoints by step number."""
        staging = self.final / "staging"
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            made = staging / f"checkpoint-{self.state.global_step}"
            runs.seal(made, {"step": self.state.global_step})
            place = self.final / made.name
            shutil.rmtree(place, ignore_errors=True)
            made.rename(place)
            runs.sync_parent(place)
            held = sorted(runs.numbered(self.final), key=lambda p: int(p.name.rpartition("-")[2]))
            for old in held[: -self.keep]:
                shutil.rmtree(old)
            if self.saved is not None:
                self.saved(self.state.global_step)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.write_weights(folder, self.answers.bundle, self.answers.trained)
        if self.best is not None:
            self.best.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.place.kind != "fsdp2":  # that one was read before it was divided
            checkpoint.read_weights(Path(resume_from_checkpoint), self.answers.bundle, self.answers.trained)

    def _prepare_for_training(self, *args: Any) -> Any:
        """Go on with the best step that the checkpoint knew; DeepSpeed passes `_load_from_checkpoint` by."""
        made, (*_, resume) = super()._prepare_for_training(*args), args
        if self.best is not None and resume is not None:
            self.best.load(Path(resume))
        return made

    def _finite(self, loss: Tensor, inputs: dict[str, Any]) -> Tensor:
        """Stop within the step, and name its records, where the loss is not a number.

        Raises:
            NonFinite: the loss is NaN or infinite.
        """
        if not math.isfinite(float(loss.detach())):
            raise self._non_finite("loss", float(loss.detach()), inputs["ids"])
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of all gradients before clipping; stops before the optimizer steps if it is not finite.

        Clipping by an infinite norm turns every gradient into 0: the step would be lost in silence.

        Raises:
            NonFinite: a gradient is NaN or infinite, or their norm is beyond float32.
        """
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(float(norm)):
            ids = self.records(self.state.global_step) if self.records else []
            raise self._non_finite("norm of the gradients", float(norm), ids)
        return norm

    def _non_finite(self, what: str, value: float, ids: list[str]) -> NonFinite:
        """The error that names a step and its records."""
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        return NonFinite(
            f"the {what} is {value} at step {self.state.global_step + 1}",
            where=f"records {', '.join(ids[:SHOWN])}{more}",
            expected="a finite number",
            remedy="look at these records with `sightline data show`, or lower the learning rate; "
            "the last checkpoint before this step is intact",
        )


class SupervisedTrainer(AtomicTrainer):
    """Cross-entropy on the assistant's tokens, averaged over all learned tokens of a step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = True  # the Trainer then counts learned tokens over the whole step

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Negative mean log-probability; under accumulation, the mean over the whole step's tokens."""
        total = -model(inputs).sum()
        count = num_items_in_batch
        if count is None:
            count = (inputs["labels"] != IGNORE).sum()
        elif self.place.count > 1:
            total = total * self.place.count  # `count` is of all processes, and their gradients are averaged
        loss = self._finite(total / count, inputs)
        return (loss, {}) if return_outputs else loss


class PairTrainer(AtomicTrainer):
    """A pair loss over one pass per pair. Reference log-probabilities come with the batch.

    Args:
        loss: logps -> [pairs].
        reference_free: take an imagined answer's reference log-probabilities as 0.
    """

    def __init__(
        self, *args: Any, loss: Callable[[PairLogps], Tensor], reference_free: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.pair_loss = loss
        self.reference_free = reference_free
        self.rewards: dict[str, list[float]] = {}

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Mean pair loss; notes how far chosen and rejected have moved from the reference."""
        pairs = pair_logps(model(inputs), inputs)
        if "third" in inputs:
            pairs = self._imagined(model, pairs, inputs["third"])
        loss = self._finite(self.pair_loss(pairs).mean(), inputs)
        self._note(pairs)
        return (loss, {}) if return_outputs else loss

    def _imagined(self, model: nn.Module, pairs: PairLogps, batch: dict[str, Any]) -> PairLogps:
        """Add what the policy would have said under the degraded images, and what the reference thinks of it.

        The tokens are the policy's of this step, so their reference cannot be stored.
        """
        with self.accelerator.autocast():
            imagined = self.answers.imagine(batch)
        third = model(imagined)
        if self.reference_free:
            return replace(pairs, third=third, third_reference=torch.zeros_like(third))
        with torch.no_grad(), self.answers.adapters_off():
            return replace(pairs, third=third, third_reference=self.answers(imagined))

    def _note(self, pairs: PairLogps) -> None:
        """Log-ratios to the reference in nats, or means per token without one, averaged until the next log line."""
        if pairs.chosen_reference is None:
            chosen, rejected = pairs.chosen_mean.detach(), pairs.rejected_mean.detach()
        else:
            chosen, rejected = pairs.chosen_ratio.detach(), pairs.rejected_ratio.detach()
        values = {
            "chosen": chosen.mean(), "rejected": rejected.mean(), "margin": (chosen - rejected).mean(),
            "accuracy": (chosen > rejected).float().mean(),
        }  # fmt: skip
        for name, value in values.items():
            self.rewards.setdefault(name, []).append(float(value))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the pair figures to the Trainer's own."""
        logs.update(averaged({name: sum(values) / len(values) for name, values in self.rewards.items()}))
        self.rewards = {}
        super().log(logs, *args, **kwargs)


def per_answer(values: Tensor, batch: dict[str, Any]) -> Tensor:
    """Sums of per-token values over each answer's learned tokens.

    Args:
        values: [B, T].
        batch: with `labels` and `answer` [B, T] and the number of `answers`.

    Returns:
        [answers].
    """
    learned = batch["labels"] != IGNORE
    return values.new_zeros(batch["answers"]).index_add(0, batch["answer"][learned], values[learned])


def pair_logps(sums: Tensor, batch: dict[str, Any]) -> PairLogps:
    """A batch's answers, chosen ones first, as pairs.

    Args:
        sums: [2 * pairs], or [3 * pairs] with third answers; summed log-probabilities.
        batch: of `PairCollator`; `reference` [2 or 3, pairs] where it is known.
    """
    count = len(batch["ids"])
    lengths = per_answer((batch["labels"] != IGNORE).to(sums.dtype), batch).split(count)
    known = batch.get("reference")
    references = [None] * 3 if known is None else [*known.to(sums.dtype), None]
    answers = [*sums.split(count), None]
    return PairLogps(
        chosen=answers[0],
        rejected=answers[1],
        chosen_reference=references[0],
        rejected_reference=references[1],
        chosen_length=lengths[0],
        rejected_length=lengths[1],
        third=answers[2],
        third_reference=references[2],
    )
