"""One training run from rows to trained weights: order, optimizer, callbacks, resume."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import runs
from ..errors import Interrupted, RecipeError, RunError
from ..models import checkpoint, trainable
from ..settings import Train
from . import processes, sharding
from .arguments import Ordered, arguments, steps
from .callbacks import Events, Progress, StopAtStep
from .trainers import AtomicTrainer, Taught


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained.

    Args:
        answers: the model with its adapters; `Answers` of a language model, `Towers` of an encoder.
        asked: the recipe's `trainable`.
        rows: training rows (conversations or pairs).
        ids: their record ids.
        collator: rows to a batch.
        train: the recipe's `train` section.
        seed: decides order and dropout.
        betas: decay of AdamW's running means of gradients and of their squares.
    """

    answers: Taught
    asked: Mapping[str, Any]
    rows: Sequence[Any]
    ids: Sequence[str]
    collator: Callable[[Any], dict[str, Any]]
    train: Train
    seed: int
    betas: tuple[float, float] = (0.9, 0.999)


def fit(run: runs.Run, job: Job, trainer_class: type[AtomicTrainer], **extra: Any) -> list[dict[str, Any]]:
    """Train, resuming from the newest checkpoint that verifies.

    Checkpoints stay in the work folder until the stage's result stands (`runs.SCRATCH`): a run that is killed
    while its model is written does not train again. Several processes take the rows of each step together; only the
    first one returns.

    Args:
        run: the stage at work.
        job: what is trained.
        trainer_class: `SupervisedTrainer`, `PairTrainer` or `ContrastTrainer`.
        extra: further arguments of the trainer class.

    Returns:
        The curve: one entry per step with loss, learning rate and what the trainer adds.

    Raises:
        Interrupted: a signal asked to stop; the checkpoint stands.
        NonFinite: a loss or gradient is not a number.
        Helped: this process is not the first one.
    """
    refuse_empty(run, job)
    total = steps(job.train, len(job.rows))
    checkpoints = run.scratch
    checkpoints.mkdir(exist_ok=True)
    place = processes.here()
    with processes.turns():  # the first one puts damaged checkpoints aside
        newest = find(run, checkpoints)
    own = processes.share(job.train, place.count, apart=trainer_class.apart)
    args = arguments(own, checkpoints, total, job.seed, run.work / "tensorboard")
    batch = job.train.batch * job.train.accumulate
    divide(job, place, newest)
    data = Ordered(job.rows, job.ids, job.seed, total * batch)
    stop, bar = StopAtStep(), Progress(run.name)
    trainer = trainer_class(
        job.answers,
        args=args,
        train_dataset=data,
        data_collator=job.collator,
        optimizers=(optimizer(job), None),
        keep=job.train.keep,
        saved=lambda step: run.event("checkpoint", step=step),
        records=lambda step: data_ids(data, step, batch),
        callbacks=[Events(run), bar, stop],
        **extra,
    )
    _quiet(trainer)
    run.event("training", steps=total, rows=len(job.rows), resumed_at=0 if newest is None else number(newest))
    try:
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    finally:
        stop.release()
        bar.close()
    if stop.asked and trainer.state.global_step < total:
        raise interrupted(run, trainer.state.global_step, total)
    if place.kind:
        run.event("divided", model=type(trainer.model_wrapped).__name__)
    finish(job, place)
    # A resumed Trainer reads its history back with sorted keys; the curve must not tell the difference.
    return [dict(sorted(entry.items())) for entry in trainer.state.log_history if "loss" in entry]


def refuse_empty(run: runs.Run, job: Job) -> None:
    """Refuse to train on nothing.

    Raises:
        RunError: there is no row.
    """
    if not job.rows:
        raise RunError(
            "there is nothing to train on", where=f"stage {run.name}", expected="at least one row",
            remedy="look at set_aside.json beside it and at rejected.jsonl of the data set",
        )  # fmt: skip


def interrupted(run: runs.Run, step: int, total: int) -> Interrupted:
    """What ends a run that a signal asked to stop."""
    return Interrupted(
        f"stopped after step {step} of {total}; everything is saved",
        where=str(run.folder),
        remedy="give the same command again to go on",
    )


def divide(job: Job, place: processes.Place, newest: Path | None) -> None:
    """Divide the model among the processes where a preset says so, with the checkpoint's weights in it.

    Raises:
        ModelError: its weights cannot be divided.
        RunError: these processes cannot go on from the checkpoint.
    """
    answers: Any = job.answers
    sharding.refuse_rounded(answers, place)
    if newest is not None:
        sharding.fits(newest, place)
    if place.kind != "fsdp2":
        return
    if newest is not None:
        checkpoint.read_weights(newest, job.answers.bundle, job.answers.trained)
    sharding.divide(answers, place)


def finish(job: Job, place: processes.Place) -> None:
    """Put what was trained together again.

    Raises:
        Helped: in all processes but the first.
    """
    if place.count > 1:
        sharding.gather(job.answers.trained)
    if place.rank:
        raise processes.Helped


def optimizer(job: Job) -> torch.optim.Optimizer:
    """AdamW over the trained parts, each with its own learning rate; what `train.extra` says of AdamW counts.

    Raises:
        RecipeError: it says what AdamW cannot take.
    """
    extra = job.train.extra
    groups = trainable.groups(job.answers.bundle, job.asked)
    try:
        rate = float(extra.get("weight_decay", 0.0))
        betas = (float(extra.get("adam_beta1", job.betas[0])), float(extra.get("adam_beta2", job.betas[1])))
        epsilon = float(extra.get("adam_epsilon", 1e-8))
        return torch.optim.AdamW(decaying(groups, rate), betas=betas, eps=epsilon, weight_decay=rate)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            "`train.extra` holds a value that does not fit", where="train.extra", found=str(error)
        ) from None


def decaying(groups: list[dict[str, Any]], rate: float) -> list[dict[str, Any]]:
    """Optimizer groups in which matrices decay, and biases, norms and a temperature do not (as in CLIP, 2103.00020)."""
    if not rate:
        return groups
    return [
        {**group, "params": own, "weight_decay": rate if matrices else 0.0}
        for group in groups
        for matrices in (True, False)
        if (own := [p for p in group["params"] if (p.ndim > 1) == matrices])
    ]


def find(run: runs.Run, checkpoints: Path) -> Path | None:
    """The newest checkpoint that verifies; says which ones do not, and where training begins instead."""
    newest, notes = runs.newest_valid(checkpoints)
    if notes and newest is None:
        notes.append("no checkpoint is left; training starts from the beginning")
    for note in notes:
        print(note)
        run.event("checkpoint_damaged", note=note)
    return newest


def data_ids(data: Ordered[Any], step: int, batch: int) -> list[str]:
    """Record ids of one optimizer step."""
    return [data.rows[i].id for i in data.plan[step * batch : (step + 1) * batch]]


def number(checkpoint: Path) -> int:
    """The step in a checkpoint's name."""
    return int(checkpoint.name.rpartition("-")[2])


def _quiet(trainer: AtomicTrainer) -> None:
    """Drop the stock progress bar and printer; ours shows the loss beside the bar."""
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    for stock in (ProgressCallback, PrinterCallback):
        trainer.remove_callback(stock)
