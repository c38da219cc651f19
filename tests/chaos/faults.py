"""What can go wrong in a training run, installed in the run's own process before it starts."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

WATCHED = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")


class Fault(Protocol):
    """Something to patch in the run's process."""

    def install(self) -> None:
        """Patch."""


def record(place: Path) -> None:
    """Note every batch that goes through the model, and degrade every other image of the taught samples."""
    from sightline.stages import sft
    from sightline.train.trainers import AtomicTrainer
    from sightline.types import Degrade

    plain_step, plain_encode = AtomicTrainer.training_step, sft.encode_samples

    def step(self: Any, model: Any, inputs: Any, *args: Any) -> Any:
        line = {"pid": os.getpid(), "step": self.state.global_step + 1, "ids": inputs["ids"]}
        with place.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        return plain_step(self, model, inputs, *args)

    def encode(*args: Any) -> Any:
        rows, aside = plain_encode(*args)
        noise = Degrade(kind="replace", seed=3)
        return [
            replace(r, views=tuple(replace(v, degrade=noise) for v in r.views)) if i % 2 else r
            for i, r in enumerate(rows)
        ], aside

    AtomicTrainer.training_step = step
    sft.encode_samples = encode


@dataclass(frozen=True)
class FileOperation:
    """Die by SIGKILL at the n-th file operation below a folder; with `count`, write their number there.

    Operations are what Python's audit hooks see (open, rename, mkdir, remove) and every fsync and torch.save.
    With `torn`, the file at hand loses its second half first, as after a power cut.
    """

    below: str
    at: int = -1
    torn: bool = False
    count: Path | None = None

    def install(self) -> None:
        import torch

        seen: list[str] = []
        plain_sync, plain_save = os.fsync, torch.save

        def tick(path: str) -> None:
            if self.below not in path:
                return
            seen.append(path)
            if self.count is not None and self.below not in str(self.count):
                handle = os.open(self.count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(handle, str(len(seen)).encode())
                os.close(handle)
            if len(seen) == self.at:
                if self.torn and os.path.isfile(path):
                    os.truncate(path, os.path.getsize(path) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        def audit(event: str, args: tuple[Any, ...]) -> None:
            if event in WATCHED and args and isinstance(args[0], (str, os.PathLike)):
                tick(os.fspath(args[0]))

        def sync(handle: int) -> None:
            tick(os.readlink(f"/proc/self/fd/{handle}"))
            plain_sync(handle)

        def save(value: Any, place: Any, *args: Any, **kwargs: Any) -> None:
            plain_save(value, place, *args, **kwargs)
            tick(os.fspath(place))

        os.fsync = sync
        torch.save = save
        sys.addaudithook(audit)


def _before_loss(act: Callable[[Any, dict[str, Any], int], None]) -> None:
    """Call `act(trainer, inputs, micro-batch of the step)` in the middle of every step, before the loss."""
    from sightline.train.trainers import PairTrainer, SupervisedTrainer

    for kind in (PairTrainer, SupervisedTrainer):
        _wrap(kind, act)


def _wrap(kind: Any, act: Callable[[Any, dict[str, Any], int], None]) -> None:
    plain, at = kind.compute_loss, {"step": -1, "micro": -1}

    def loss(self: Any, model: Any, inputs: Any, **kwargs: Any) -> Any:
        same = at["step"] == self.state.global_step
        at.update(step=self.state.global_step, micro=at["micro"] + 1 if same else 0)
        act(self, inputs, at["micro"])
        return plain(self, model, inputs, **kwargs)

    kind.compute_loss = loss


@dataclass(frozen=True)
class Signals:
    """Send signals to this very process in the forward pass of one micro-batch of one step."""

    step: int
    micro: int = 0
    numbers: tuple[int, ...] = (signal.SIGTERM,)

    def install(self) -> None:
        def act(trainer: Any, inputs: Any, micro: int) -> None:
            if trainer.state.global_step + 1 == self.step and micro == self.micro:
                for number in self.numbers:
                    os.kill(os.getpid(), number)

        _before_loss(act)


@dataclass(frozen=True)
class Hold:
    """Wait in the middle of a step, and say so by a file."""

    step: int
    sign: Path

    def install(self) -> None:
        def act(trainer: Any, inputs: Any, micro: int) -> None:
            if trainer.state.global_step + 1 == self.step:
                self.sign.write_text(str(os.getpid()))
                time.sleep(60)

        _before_loss(act)


@dataclass(frozen=True)
class BadImage:
    """One record's image comes out as NaN."""

    record: str

    def install(self) -> None:
        from sightline.models.features import Pixels

        plain = Pixels.__call__

        def look(self: Any, view: Any) -> Any:
            seen = plain(self, view)
            return replace(seen, values=seen.values * float("nan")) if view.record == self_record else seen

        self_record = self.record
        Pixels.__call__ = look


@dataclass(frozen=True)
class BadGradient:
    """The gradient of one step is multiplied by a number; the loss stays as it is."""

    step: int
    factor: float

    def install(self) -> None:
        from sightline.train.trainers import PairTrainer, SupervisedTrainer

        step, factor = self.step, self.factor

        def spoil(trainer: Any) -> None:
            plain = trainer.compute_loss

            def compute(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                def hooked(batch: Any) -> Any:
                    found = model(batch)
                    if self.state.global_step + 1 == step:
                        found.register_hook(lambda grad: grad * factor)
                    return found

                return plain(self, hooked, inputs, *args, **kwargs)

            trainer.compute_loss = compute

        spoil(SupervisedTrainer)
        spoil(PairTrainer)
