"""One training run from rows to trained weights: order, optimizer, callbacks, resume."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import runs
from ..errors import Interrupted, RunError
from ..models import trainable
from ..recipe import Train
from .arguments import Ordered, arguments, steps
from .callbacks import Events, FiniteGradients, Progress, StopAtStep
from .trainers import Answers, AtomicTrainer


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained.

    Args:
        answers: the model with its adapters.
        asked: the recipe's `trainable`.
        rows: training rows (conversations or pairs).
        ids: their record ids.
        collator: rows to a batch.
        train: the recipe's `train` section.
        seed: decides order and dropout.
    """

    answers: Answers
    asked: Mapping[str, Any]
    rows: Sequence[Any]
    ids: Sequence[str]
    collator: Callable[[Any], dict[str, Any]]
    train: Train
    seed: int


def fit(run: runs.Run, job: Job, trainer_class: type[AtomicTrainer], **extra: Any) -> list[dict[str, Any]]:
    """Train, resuming from the newest checkpoint that verifies.

    Args:
        run: the stage at work; checkpoints stand in its work folder until the end.
        job: what is trained.
        trainer_class: `SupervisedTrainer` or `PairTrainer`.
        extra: further arguments of the trainer class.

    Returns:
        The curve: one entry per step with loss, learning rate and what the trainer adds.

    Raises:
        Interrupted: a signal asked to stop; the checkpoint stands.
        NonFinite: a loss or gradient is not a number.
    """
    if not job.rows:
        raise RunError("there is nothing to train on", remedy="look at set_aside.jsonl and the data set's rejected.jsonl")
    total = steps(job.train, len(job.rows))
    checkpoints = run.work / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    newest, notes = runs.newest_valid(checkpoints)
    for note in notes:
        print(note)
        run.event("checkpoint_damaged", note=note)
    args = arguments(job.train, checkpoints, total, job.seed, run.work / "tensorboard")
    batch = job.train.batch * job.train.accumulate * args.world_size
    data = Ordered(job.rows, job.ids, job.seed, total * batch)
    groups = trainable.groups(job.answers.bundle, job.asked)
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    stop = StopAtStep()
    trainer = trainer_class(
        job.answers,
        args=args,
        train_dataset=data,
        data_collator=job.collator,
        optimizers=(optimizer, None),
        keep=job.train.keep,
        saved=lambda step: run.event("checkpoint", step=step),
        callbacks=[Events(run), Progress(run.name), stop],
        **extra,
    )
    trainer.add_callback(FiniteGradients(job.answers, lambda: data_ids(data, trainer.state.global_step, batch)))
    _quiet(trainer)
    run.event("training", steps=total, rows=len(job.rows), resumed_at=0 if newest is None else number(newest))
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    if stop.asked and trainer.state.global_step < total:
        raise Interrupted(
            f"stopped after step {trainer.state.global_step} of {total}; everything is saved",
            where=str(run.folder),
            remedy="give the same command again to go on",
        )
    curve = [entry for entry in trainer.state.log_history if "loss" in entry]
    shutil.rmtree(checkpoints)
    return curve


def data_ids(data: Ordered[Any], step: int, batch: int) -> list[str]:
    """Record ids of one optimizer step."""
    return [data.rows[i].id for i in data.plan[step * batch : (step + 1) * batch]]


def number(checkpoint: Any) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _quiet(trainer: AtomicTrainer) -> None:
    """Drop the stock progress bar and printer; ours shows the loss beside the bar."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
