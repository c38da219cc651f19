"""Recipe to TrainingArguments, the only place; and the order of rows, made of (seed, epoch, record id)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset
from transformers import TrainingArguments

from .. import runs
from ..errors import RecipeError
from ..settings import Train
from .processes import here
from .sharding import configure_deepspeed, deepspeed_config

T = TypeVar("T")

# What keeps runs exact and resumable is not for `extra` to change.
FIXED = (
    "output_dir", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "save_strategy",
    "save_steps", "save_total_limit", "seed", "data_seed", "remove_unused_columns", "train_sampling_strategy",
    "warmup_steps", "lr_scheduler_type", "bf16", "fp16", "num_train_epochs", "ignore_data_skip",
    "save_only_model", "auto_find_batch_size", "load_best_model_at_end", "enable_jit_checkpoint",
    "logging_nan_inf_filter",
    "dataloader_drop_last", "resume_from_checkpoint", "push_to_hub", "deepspeed", "fsdp", "fsdp_config",
)  # fmt: skip
# Arguments of the Trainer that would be passed over in silence, and why.
ADAMW = "the optimizer is AdamW, of which weight_decay, adam_beta1, adam_beta2 and adam_epsilon may be set"
UNUSED = {
    "learning_rate": "each part under `trainable` has its own lr", "optim": ADAMW, "optim_args": ADAMW,
    "optim_target_modules": ADAMW, "label_smoothing_factor": "the loss is that of the stage",
}  # fmt: skip


class Ordered(Dataset[T]):
    """All epochs laid end to end, each in its own order; row i never depends on who asks or when.

    Args:
        rows: the records.
        ids: their ids.
        seed: with the epoch and the id, decides the order.
        length: rows to serve in all.
    """

    def __init__(self, rows: Sequence[T], ids: Sequence[str], seed: int, length: int) -> None:
        self.rows = rows
        self.plan: list[int] = []
        epoch = 0
        while len(self.plan) < length:
            self.plan += sorted(range(len(rows)), key=lambda i: runs.digest(str(seed), str(epoch), ids[i]))
            epoch += 1
        self.plan = self.plan[:length]

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> T:
        return self.rows[self.plan[index]]


def steps(train: Train, rows: int) -> int:
    """Optimizer steps: `steps` where given, else `epochs` over the rows, the last step filled up."""
    if train.steps is not None:
        return train.steps
    per_step = train.batch * train.accumulate
    return max(1, -(-int(rows * train.epochs) // per_step))


def refuse(train: Train) -> None:
    """Refuse what `extra` may not change, and what would change nothing.

    Raises:
        RecipeError: with the arguments.
    """
    clash = sorted(set(train.extra) & set(FIXED))
    if clash:
        raise RecipeError(
            f"`train.extra` may not set {', '.join(clash)}", remedy="use the section's own keys"
        )
    unused = sorted(set(train.extra) & set(UNUSED))
    if unused:
        raise RecipeError(
            f"`train.extra` sets what would change nothing: {', '.join(unused)}", where="train.extra",
            found="; ".join(dict.fromkeys(UNUSED[name] for name in unused)), remedy="leave it out",
        )  # fmt: skip


def arguments(train: Train, folder: Path, total: int, seed: int, events: Path) -> TrainingArguments:
    """A recipe's `train` section as TrainingArguments.

    Args:
        train: the section.
        folder: where checkpoints stand.
        total: optimizer steps.
        seed: for dropout; the order of rows does not use it.
        events: the folder for TensorBoard.

    Raises:
        RecipeError: `extra` names a fixed or unknown argument, or a value that it cannot take; the warm-up is as
            long as the training.
    """
    refuse(train)
    warmup = round(train.warmup * total) if train.warmup < 1 else int(train.warmup)
    if warmup >= total:
        raise RecipeError(
            "the learning rate never leaves its warm-up", where="train.warmup",
            found=f"{warmup} of {total} steps", expected=f"at most {total - 1} of {total}",
            remedy="train for more epochs or steps, or lower `warmup` (below 1 it is a share of the steps)",
        )  # fmt: skip
    settings: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": total, "per_device_train_batch_size": train.batch,
        "gradient_accumulation_steps": train.accumulate, "save_strategy": "steps",
        "save_steps": train.save_every, "save_total_limit": None, "seed": seed, "warmup_steps": warmup,
        "remove_unused_columns": False,
        "train_sampling_strategy": "sequential", "lr_scheduler_type": train.schedule,
        "bf16": train.precision == "bfloat16", "logging_steps": 1, "logging_first_step": True,
        "logging_nan_inf_filter": False, "report_to": ["tensorboard"], "dataloader_pin_memory": False,
        "disable_tqdm": False, "weight_decay": 0.0, "max_grad_norm": 1.0, "push_to_hub": False,
    }  # fmt: skip
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(events)
    settings["use_cpu"] = not torch.cuda.is_available()
    if settings["use_cpu"]:
        os.environ.setdefault(
            "DS_ACCELERATOR", "cpu"
        )  # accelerate imports DeepSpeed where it is, which guesses aloud
    place = here()
    if place.kind == "deepspeed":
        settings |= {"deepspeed": deepspeed_config(place, train), "bf16": False, "use_cpu": False}
        settings["accelerator_config"] = {"use_configured_state": configure_deepspeed()}
    try:
        return TrainingArguments(**{**settings, **train.extra})
    except TypeError as error:
        raise RecipeError("`train.extra` holds an unknown argument", found=str(error)) from None
    except ValueError as error:
        found = " ".join(str(error).split())
        raise RecipeError("`train.extra` holds a value that does not fit", found=found) from None
