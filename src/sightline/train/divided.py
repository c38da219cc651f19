"""What several processes change about transformers' Trainer: who wraps the model, and how it is saved and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from . import sharding
from .processes import here

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"  # transformers' names in a checkpoint
OURS = ("ddp", "fsdp2")  # kinds of division that are not the business of accelerate


class DividedTrainer(Trainer):
    """A Trainer of a model that may be divided among processes; in one that is alone, the stock one.

    Args:
        answers: what is trained; it has `trained`, what `trainable.apply` returned.
    """

    answers: Any
    optimizer: Any

    def __init__(self, model: Any, **kwargs: Any) -> None:
        super().__init__(model=model, **kwargs)
        self.place = here()
        model.whole_head = self.place.kind != "deepspeed"
        self.asked_optimizer = self.optimizer

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what trains, whole; several processes put it together first."""
        if not self.place.kind:
            super().save_model(output_dir, _internal_call)
            return
        with sharding.whole(self.answers.trained):
            if self.args.should_save:
                self._save(output_dir)

    def _wrap_model(self, model: nn.Module, training: bool = True, dataloader: Any = None) -> nn.Module:
        """DDP is put around by us, so that the same class stands there on CPUs and on GPUs."""
        if training and self.place.kind == "ddp" and model is self.model:
            return sharding.wrap(model, self.place)
        return super()._wrap_model(model, training, dataloader)

    def create_optimizer(self, model: Any = None) -> Any:
        """Ours; transformers drops it where DeepSpeed is asked for, and would make one with its own learning rate."""
        if self.optimizer is None:
            self.optimizer = self.asked_optimizer
        return super().create_optimizer(model)

    def _prepare_for_training(self, *args: Any) -> Any:
        """Wrap the model; DeepSpeed's checkpoint, which is its own, is read here."""
        steps, loader, resume = args
        zero = self.place.kind == "deepspeed"
        made = super()._prepare_for_training(steps, loader, None if zero else resume)
        sharding.check(self.model_wrapped, self.place)
        if zero and resume is not None:
            self.model_wrapped.load_checkpoint(resume, load_module_strict=False)
            self._load_scheduler(resume)
        return made

    def compute_loss_context_manager(self) -> Any:
        """Autocast around the loss where accelerate does not put it around the model."""
        contexts = super().compute_loss_context_manager()
        if self.place.kind in OURS:
            contexts.enter_context(self.accelerator.autocast())
        return contexts

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Whole states from divided ones; all processes take part. DeepSpeed writes its own files."""
        if self.place.kind in ("", "ddp"):
            super()._save_optimizer_and_scheduler(output_dir)
            return
        place = Path(output_dir)
        if self.place.kind == "deepspeed":
            self.model_wrapped.save_checkpoint(output_dir, exclude_frozen_parameters=True)
        state = {} if self.place.kind == "deepspeed" else sharding.whole_state(self.optimizer.state_dict())
        if self.args.should_save:
            if state:
                torch.save(state, place / OPTIMIZER)
            else:
                sharding.mark(place, self.place)
            torch.save(self.lr_scheduler.state_dict(), place / SCHEDULER)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.place.kind or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(sharding.divided_state(state, self.optimizer))
        self._load_scheduler(checkpoint)

    def _load_scheduler(self, checkpoint: str) -> None:
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER, weights_only=True))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of all gradients, summed over the parts that processes hold."""
        if self.place.kind == "fsdp2" and grad_norm is not None:
            grad_norm = sharding.plain(grad_norm)
        return super()._get_grad_norm(model, grad_norm=grad_norm)
