"""What happens beside a training step: events, a progress bar, signals, a limit, validation."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm
from transformers import TrainerCallback

from ..runs import Run, read_json, write_json
from .processes import agreed

Figures = dict[str, float]


class Events(TrainerCallback):
    """Every log line goes to `events.jsonl`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Write the step's figures."""
        numbers = {k: v for k, v in (logs or {}).items() if isinstance(v, (int, float))}
        self.run.event("step", step=state.global_step, **numbers)


class Progress(TrainerCallback):
    """One bar with the loss beside it."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar where training stands."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=self.what, unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Show the loss."""
        if self.bar is not None and logs and "loss" in logs:
            shown = {k: f"{logs[k]:.3f}" for k in ("loss", "margin", "accuracy") if k in logs}
            self.bar.set_postfix(shown)

    def close(self) -> None:
        """Close the bar, also where training ended in an error."""
        if self.bar is not None:
            self.bar.close()


class StopAtStep(TrainerCallback):
    """SIGTERM or SIGINT: finish the step, save, stop. A second signal ends the process at once."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Listen."""
        self.before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGINT)}

    def _note(self, number: int, frame: Any) -> None:
        self.asked = True
        for each, handler in self.before.items():
            signal.signal(each, handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Between two steps, and only there, a checkpoint is exact; several processes stop after the same one."""
        self.asked = agreed(self.asked)
        if self.asked and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def release(self) -> None:
        """Stop listening, also where training ended in an error."""
        for each, handler in self.before.items():
            signal.signal(each, handler)


class Clamp(TrainerCallback):
    """After every step, keep the logarithm of a factor at a limit (Radford et al. 2021, section 2.5: 100 at most).

    Args:
        scale: gives the parameter first; asked every time, since a wrapper may have put another in its place.
        limit: its largest value.
    """

    def __init__(self, scale: Callable[[], tuple[Tensor, Any]], limit: float) -> None:
        self.scale = scale
        self.limit = limit

    @torch.no_grad()
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Before validation and saving look at it."""
        self.scale()[0].clamp_(max=self.limit)


class Best(TrainerCallback):
    """Validate every so many steps and after the last one, and keep the weights of the best step.

    What it knows is saved inside each checkpoint, so a resumed run goes on with the best step that its checkpoint
    knew, and ends as an undisturbed one does. Equal figures keep the earlier step.

    Args:
        weights: what trains, by name; asked every time. Where it gives nothing, figures alone are kept.
        every: steps between validations.
        validate: computes the figures.
        order: figures to what the best one has most of.
        said: told each entry of the history.
    """

    NOTES, WEIGHTS = "best.json", "best.safetensors"

    def __init__(
        self,
        weights: Callable[[], Mapping[str, Tensor]],
        every: int,
        validate: Callable[[], Figures],
        order: Callable[[Figures], tuple[float, ...]],
        said: Callable[[Figures], None] = lambda entry: None,
    ) -> None:
        self.weights = weights
        self.every = every
        self.validate = validate
        self.order = order
        self.said = said
        self.history: list[Figures] = []
        self.step = 0
        self.kept: dict[str, Tensor] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Validate if it is time to; the checkpoint of this step comes after it."""
        if state.global_step % self.every and state.global_step < state.max_steps:
            return
        entry: Figures = {"step": state.global_step, **self.validate()}
        known = [self.order(e) for e in self.history if e["step"] == self.step]
        self.history.append(entry)
        if not known or self.order(entry) > known[0]:
            self.step = state.global_step
            self.kept = {name: value.detach().cpu().clone() for name, value in self.weights().items()}
        self.said(entry)

    def save(self, folder: Path) -> None:
        """Write the history, the best step and its weights into a checkpoint."""
        write_json(folder / self.NOTES, {"step": self.step, "history": self.history})
        if self.kept:
            save_file(self.kept, folder / self.WEIGHTS)

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        notes = read_json(folder / self.NOTES)
        self.step, self.history = notes["step"], notes["history"]
        self.kept = load_file(folder / self.WEIGHTS) if (folder / self.WEIGHTS).is_file() else {}

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best step's weights back into what trains."""
        own = self.weights()
        for name, value in self.kept.items():
            own[name].copy_(value)
