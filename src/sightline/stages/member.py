"""One of the processes that train a stage together: `python -m sightline.stages.member JOB`, started by `launch`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .. import recipe, runs
from ..errors import Interrupted, MissingExtra, SightlineError
from ..train import processes
from .launch import FAILED


def perform(job: Path) -> int:
    """Do this process's part of a stage.

    Args:
        job: the file that `launch` wrote.

    Returns:
        The exit code: 0 done, else that of the error, which stands in the stage's scratch for `launch` to raise.
    """
    told = runs.read_json(job)
    place, work = processes.here(), Path(told["work"])
    own = work if place.rank == 0 else work / runs.SCRATCH / f"process-{place.rank}"
    own.mkdir(exist_ok=True)
    run = runs.Run(
        name=told["name"], folder=Path(told["folder"]), work=own, key=told["key"],
        parents={name: Path(folder) for name, folder in told["parents"].items()}, resumed=told["resumed"],
        leader=None if place.rank == 0 else work,
    )  # fmt: skip
    section = recipe.STAGES[told["section"]["stage"]].model_validate(told["section"])
    module = importlib.import_module(f".{told['section']['stage']}", __package__)
    try:
        processes.join()
        module.run(run, section, told["seed"])
    except processes.Helped:
        return 0
    except SightlineError as error:
        tell(work / runs.SCRATCH / FAILED, error)
        return error.exit_code
    return 0


def tell(place: Path, error: SightlineError) -> None:
    """Write an error down, unless another process was first: what follows from the first one is no news."""
    facts = {"kind": type(error).__name__, "what": error.what} | {
        name: getattr(error, name) for name in ("where", "found", "expected", "remedy")
    }
    if isinstance(error, MissingExtra):
        facts["kind"] = "SightlineError"  # that one is made from other words
    part = place.with_name(f".{place.name}.{os.getpid()}")
    runs.write_json(part, facts)
    try:
        os.link(part, place)
    except FileExistsError:
        pass
    finally:
        part.unlink()


def end_with_parent() -> None:
    """End at once when the process that started this one is gone: its standard input, a pipe, is closed then."""

    def listen() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=listen, daemon=True).start()


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """A signal outside training, where there is no step to finish."""
    del frame
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}; what was finished is kept",
        remedy="give the same command again to go on",
    )


def main() -> NoReturn:
    """Run the job named on the command line and leave with its exit code."""
    end_with_parent()
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    code = 1
    try:
        code = perform(Path(sys.argv[1]))
    except Exception:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == 0:
        processes.leave()
    os._exit(code)  # without waiting for processes that may be gone


if __name__ == "__main__":
    main()
