"""A model divided among processes: DDP and FSDP2 around what trains, and its weights and optimizer states whole again.

The classes are torch's own: accelerate's FSDP plug-in becomes DDP on a CPU without a word. What is saved is whole and
in the layout of one process, so a run may go on with another number of processes.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from .. import runs
from ..errors import MissingExtra, ModelError, RunError
from ..models import quantized
from ..settings import Train
from .processes import Place

CLASSES = {"ddp": "DistributedDataParallel", "fsdp2": "FSDPModule", "deepspeed": "DeepSpeedEngine"}
DIVISION = "division.json"  # in a checkpoint that is no whole one
Held = list[tuple[nn.Module, str, nn.Parameter]]


def wrap(answers: nn.Module, place: Place) -> nn.Module:
    """The whole model in every process (Li et al. 2020, arXiv 2006.15704).

    Where all weights take part in every batch, unused ones are not looked for: a weight that the forward pass returns
    as it is, as a temperature, would be taken for one.
    """
    devices = [place.local] if torch.cuda.is_available() else None
    settings = {**place.settings, **({"find_unused_parameters": False} if answers.complete else {})}
    return DistributedDataParallel(answers, device_ids=devices, **settings)


def refuse_rounded(answers: nn.Module, place: Place) -> None:
    """Refuse to divide weights that are held in fewer bits: their scales stand beside them, whole.

    Raises:
        ModelError: some are, and the preset divides weights.
    """
    if place.kind not in ("", "ddp") and quantized.is_rounded(answers):
        raise ModelError(
            "weights in 4 or 8 bits are not divided", where="model.load, --shard", found=place.kind, expected="ddp",
            remedy="--shard ddp: every process holds the small base, and gradients of the adapters are averaged",
        )  # fmt: skip


def divide(answers: nn.Module, place: Place) -> None:
    """FSDP2: every process keeps its part of each weight (Zhao et al. 2023, arXiv 2304.11277; torch `fully_shard`).

    The layers that transformers names as not to be split are units, the rest is one. Done in place, before there is an
    optimizer: its parameters are then the divided ones.
    """
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (place.count,))
    units = {name for m in answers.modules() for name in getattr(m, "_no_split_modules", None) or ()}
    for module in reversed(list(answers.modules())):  # what is inside first
        if type(module).__name__ in units:
            fully_shard(module, mesh=mesh, **place.settings)
    fully_shard(answers, mesh=mesh, **place.settings)
    if callable(getattr(type(answers), "imagine", None)):
        register_fsdp_forward_method(answers, "imagine")
    answers._is_accelerate_prepared = True  # accelerate would refuse it as DDP's


def deepspeed_config(place: Place, train: Train) -> dict[str, Any]:
    """DeepSpeed's config (Rajbhandari et al. 2020, arXiv 1910.02054) of a preset and one process's part of a step.

    Weights stay in float32 and autocast computes, as everywhere here.

    Raises:
        MissingExtra: DeepSpeed is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingExtra("deepspeed", "deepspeed")
    half = {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}} if train.precision == "bfloat16" else {}
    return {
        **place.settings, **half, "train_micro_batch_size_per_gpu": train.batch,
        "gradient_accumulation_steps": train.accumulate, "gradient_clipping": 1.0,
        "zero_allow_untested_optimizer": True, "steps_per_print": 2**31,
    }  # fmt: skip


def configure_deepspeed() -> bool:
    """Tell accelerate that DeepSpeed's processes have met; on CPUs it would take each for one that is alone."""
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_USE_DEEPSPEED"] = "true"
    PartialState(backend=None if torch.cuda.is_available() else "gloo")
    return True


def mark(checkpoint: Path, place: Place) -> None:
    """Say in a checkpoint that only processes like these can go on from it."""
    runs.write_json(checkpoint / DIVISION, {"kind": place.kind, "count": place.count})


def fits(checkpoint: Path, place: Place) -> None:
    """Refuse a checkpoint whose optimizer states other processes cannot read.

    Raises:
        RunError: DeepSpeed wrote it and does not read it, or the other way round, or with another number.
    """
    mine = {"kind": place.kind, "count": place.count} if place.kind == "deepspeed" else None
    held = runs.read_json(checkpoint / DIVISION) if (checkpoint / DIVISION).is_file() else None
    if mine != held:
        said = [f"{x['count']} processes of {x['kind']}" if x else "whole states" for x in (held, mine)]
        raise RunError(
            "this checkpoint cannot be read by these processes", where=str(checkpoint), found=said[0],
            expected=said[1], remedy="go on with the same --processes and --shard, or delete the work folder",
        )  # fmt: skip


def check(model: nn.Module, place: Place) -> None:
    """Refuse to train a model that is not divided as it was asked for.

    Raises:
        RunError: what stands around the model is of another class.
    """
    wanted = CLASSES.get(place.kind)
    if wanted and wanted not in [kind.__name__ for kind in type(model).__mro__]:
        raise RunError(
            "the model is not divided among the processes as asked", found=type(model).__name__, expected=wanted,
            remedy="check the versions of torch, accelerate and deepspeed",
        )  # fmt: skip


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """While this lasts, what trains is whole and plain in every process; all of them must come here together."""
    held = gather(model)
    try:
        yield
    finally:
        for owner, name, parameter in held:
            owner._parameters[name] = parameter


def gather(model: nn.Module) -> Held:
    """Put whole, plain parameters in the place of divided ones that train; the others stay divided.

    Returns:
        The divided parameters and where they stood.
    """
    held: Held = []
    made: dict[int, nn.Parameter] = {}  # tied weights stay tied
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for owner in model.modules():
        for name, parameter in owner._parameters.items():
            if parameter is None or not parameter.requires_grad or not _divided(parameter):
                continue
            if id(parameter) not in made:
                made[id(parameter)] = nn.Parameter(_put_together(parameter))
            held.append((owner, name, parameter))
            owner._parameters[name] = made[id(parameter)]
    return held


def _divided(parameter: Tensor) -> bool:
    """Whether a process holds a part of it only; DeepSpeed marks its own with `ds_id`."""
    return isinstance(parameter, DTensor) or "ds_id" in vars(parameter)


def _put_together(parameter: Tensor) -> Tensor:
    """All of a divided parameter, in every process."""
    if isinstance(parameter, DTensor):
        return parameter.detach().full_tensor()
    from deepspeed import zero

    with zero.GatheredParameters([parameter]):
        return parameter.detach().clone()


def whole_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """An optimizer's state with whole tensors, as one process alone would have it."""
    return {
        "state": {index: {k: plain(v) for k, v in own.items()} for index, own in state["state"].items()},
        "param_groups": state["param_groups"],
    }


def divided_state(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The state of `whole_state`, divided as the optimizer's parameters are."""
    own = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        "state": {i: {k: _like(v, own[i]) for k, v in each.items()} for i, each in state["state"].items()},
        "param_groups": state["param_groups"],
    }


def plain(value: Any) -> Any:
    """All of a divided tensor, summed where parts are yet to be summed; anything else as it stands."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def _like(value: Any, parameter: Tensor) -> Any:
    """A tensor of the parameter's shape divided as it is; anything else (a count of steps) as it stands."""
    if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value
