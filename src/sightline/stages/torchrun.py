"""`sightline run` as `torchrun` or `accelerate launch` starts it: several times at once, on one machine.

The first of these processes does what `--processes N` does, and starts the N that train by itself: preparing and
evaluating stay the work of one, and a stage has one lock. The others have nothing to do and end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from ..errors import RunError
from .launch import SHARD

# What they put into the environment; it would tell the processes that train another place than theirs.
NAMES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK", "ROLE_NAME",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
BEGINNINGS = ("TORCHELASTIC_", "ACCELERATE_", "FSDP_")


@dataclass(frozen=True)
class Called:
    """This process's place among those that were started.

    Args:
        rank: its number.
        count: how many there are.
        shard: the preset that `accelerate launch` was asked for; "" where nothing says.
    """

    rank: int
    count: int
    shard: str = ""


def called(environment: Mapping[str, str] = os.environ) -> Called | None:
    """Who started this process, as its environment says; None where it is alone, or one of our own.

    Raises:
        RunError: the others are on other machines.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count < 2 or SHARD in environment:
        return None
    here = int(environment.get("LOCAL_WORLD_SIZE", count))
    if here != count:
        raise RunError(
            "these processes are not all on one machine", found=f"{here} of {count} here",
            expected="all of them", remedy="start them on one machine, or one `sightline run` with --processes N",
        )  # fmt: skip
    return Called(int(environment.get("RANK", "0")), count, _shard(environment))


def _shard(environment: Mapping[str, str]) -> str:
    """The preset that is nearest to what `accelerate launch` was asked for."""
    if environment.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        return "zero3" if environment.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2") == "3" else "zero2"
    return "fsdp2" if environment.get("ACCELERATE_USE_FSDP", "").lower() == "true" else ""


def forget(environment: MutableMapping[str, str] = os.environ) -> None:
    """Take out of the environment what says that this process is one of several."""
    for name in [n for n in environment if n in NAMES or n.startswith(BEGINNINGS)]:
        del environment[name]
