"""What happens beside a training step: events, a progress bar, signals."""

from __future__ import annotations

import signal
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback

from ..runs import Run


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
        """Between two steps, and only there, a checkpoint is exact."""
        if self.asked and state.global_step < state.max_steps:
            control.should_save = True
            control.should_training_stop = True

    def release(self) -> None:
        """Stop listening, also where training ended in an error."""
        for each, handler in self.before.items():
            signal.signal(each, handler)
