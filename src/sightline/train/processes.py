"""Several processes that train one model: who takes part, taking turns, and agreeing.

`stages.launch` starts them and says in the environment which one each is; without it there is one process, and
nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import distributed

from ..errors import RecipeError
from ..settings import Train

SHARD = "SIGHTLINE_SHARD"  # the preset's name, in the environment of every process of several
PRESETS = Path(__file__).parent / "shards"
PATIENCE = timedelta(hours=6)  # the first process makes features and references while the others wait


class Helped(Exception):
    """No error: training is over, and this process is not the one that writes the result."""


@dataclass(frozen=True)
class Place:
    """Which of the processes this one is.

    Args:
        rank: its number; 0 leads: it writes files, and the others do as it does.
        count: how many there are.
        local: its number on this machine, which is its GPU's.
        kind: how the model is divided: `ddp`, `fsdp2` or `deepspeed`; "" in a process that is alone.
        settings: of that kind, from the preset.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    kind: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def here() -> Place:
    """This process's place, from its environment."""
    name = os.environ.get(SHARD)
    if not name:
        return Place()
    known = preset(name)
    rank, count, local = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Place(rank, count, local, known["kind"], known["settings"])


def preset(name: str) -> dict[str, Any]:
    """A preset by its short name: `kind` and `settings`."""
    return dict(yaml.safe_load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))


def join() -> None:
    """Meet the other processes at the address in the environment; on GPUs by NCCL, on CPUs by gloo."""
    backend = "cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(here().local)
    else:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # for DeepSpeed, which guesses otherwise
    distributed.init_process_group(backend, timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes; harmless in one that is alone."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


@contextmanager
def turns() -> Iterator[None]:
    """The first process goes first; the others wait, and find what it has made and stored."""
    place = here()
    if place.count > 1 and place.rank:
        distributed.barrier()
    yield
    if place.count > 1 and not place.rank:
        distributed.barrier()


def agreed(flag: bool) -> bool:
    """Whether any of the processes says so: a signal reaches them in different steps."""
    if here().count == 1:
        return flag
    said = torch.tensor(int(flag), device="cuda" if torch.cuda.is_available() else "cpu")
    distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
    return bool(said)


def averaged(values: Mapping[str, float]) -> dict[str, float]:
    """Figures averaged over all processes, which must have the same names."""
    count = here().count
    if count == 1 or not values:
        return dict(values)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sums = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return dict(zip(sorted(values), (sums / count).tolist(), strict=True))


def share(train: Train, count: int, *, apart: bool) -> Train:
    """One process's part of a step, so that all together take the rows that one alone would take.

    Args:
        train: the recipe's section.
        count: how many processes there are.
        apart: a batch may also be one of several that are accumulated: no row's loss depends on another row.

    Raises:
        RecipeError: a step cannot be divided evenly.
    """
    if train.batch % count == 0:
        return train.model_copy(update={"batch": train.batch // count})
    if apart and train.accumulate % count == 0:
        return train.model_copy(update={"accumulate": train.accumulate // count})
    raise RecipeError(
        "a step cannot be divided among the processes", where="train.batch",
        found=f"batch {train.batch}, accumulate {train.accumulate}, {count} processes",
        expected=f"a multiple of {count} for {'either' if apart else 'the batch'}",
        remedy="`batch` counts the rows of all processes together; change it, or --processes",
    )  # fmt: skip
