"""Runs a command, and ends it as soon as nobody holds this process's standard input any more. A plain script.

Who starts a server of many processes may be killed without a word; the pipe to here then closes, and this ends the
command: first it is told, then it and all processes of its group are killed.

    python leash.py SECONDS COMMAND ARGUMENT ...
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time


def main() -> None:
    """Run the command; leave with its exit code."""
    grace, words = float(sys.argv[1]), sys.argv[2:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever holds the pipe
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=follow, args=(child,), daemon=True).start()
    while os.read(0, 64):
        pass
    child.terminate()
    time.sleep(grace)
    kill(child)
    time.sleep(grace)


def follow(child: subprocess.Popen[bytes]) -> None:
    """Leave as soon as the command has ended, and leave nothing of it behind."""
    code = child.wait()
    kill(child)
    os._exit(code if code >= 0 else 128 - code)


def kill(child: subprocess.Popen[bytes]) -> None:
    """End all processes of the command's group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
