"""Real training runs of a tiny model, each in a process of its own that may be hurt.

A server process imports torch, transformers and Sightline once; every run is forked from it, so that a trial
costs a second instead of ten and no run inherits a thread. What goes wrong in a run is asked for by `faults`.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faults

from sightline import recipe, runs
from sightline.errors import SightlineError

NAME = "chaos"
SAVE_EVERY = 3
STEPS = 10
LIMIT = 120.0
PRELOAD = [
    "torch", "transformers", "peft", "safetensors.torch", "tensorboard", "sightline.stages.sft",
    "sightline.stages.align", "sightline.stages.prefer", "sightline.stages.prepare", "sightline.losses.dpo",
    "sightline.models.families.llava", "sightline.data.readers.phantom", "sightline.images.degrade.replace",
    "transformers.models.clip.modeling_clip", "transformers.models.llama.modeling_llama", "torch._dynamo",
    "transformers.integrations.integration_utils", "torch.utils.tensorboard",
    "sightline.images.formats.raster",
]  # fmt: skip
VISION = {
    "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "image_size": 32, "patch_size": 16, "projection_dim": 16,
}  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_language(place: Path) -> None:
    """A tiny Llama with a tokenizer of single bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.trainer_utils import set_seed

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special = ("<pad>", "<image>", "<|im_start|>", "<|im_end|>")
    tokens.add_special_tokens([AddedToken(token, special=True) for token in special])
    spoken = PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="<pad>", eos_token="<|im_end|>")
    spoken.chat_template = TEMPLATE
    spoken.save_pretrained(place)
    config = LlamaConfig(
        vocab_size=len(spoken), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=1024,
    )  # fmt: skip
    set_seed(1)
    LlamaForCausalLM(config).save_pretrained(place)


def tree(language: Path, train: dict[str, Any]) -> dict[str, Any]:
    """The recipe of the trials: sft and align of a tower that trains, so every use degrades anew."""
    train = {"steps": STEPS, "batch": 2, "save_every": SAVE_EVERY, "keep": 2, "warmup": 0.2} | train

    def lora(dropout: float) -> dict[str, Any]:
        return {"lora": {"r": 2, "alpha": 8, "dropout": dropout, "lr": 2e-3}}

    taught = {"vision": lora(0.1), "language": lora(0.1), "connector": {"full": {"lr": 2e-3}}}
    model = {"family": "llava", "vision": VISION, "language": str(language), "connector": "mlp2x_gelu"}
    split = {"train": 0.8, "valid": 0.1, "test": 0.1}
    return {
        "name": NAME,
        "seed": 7,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": 9, "size": 64, "split": split},
            "taught": {"stage": "sft", "data": "data", "model": model, "trainable": taught, "train": train},
            "pairs": {"stage": "prefer", "data": "data", "kinds": {"degraded": 1.0, "wrong_finding": 0.5}},
            "aligned": {
                "stage": "align", "data": "pairs", "model": "taught", "train": train,
                "trainable": {"vision": lora(0.0), "language": lora(0.0)},
            },
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run of one stage, for a process of its own."""

    root: Path
    tree: dict[str, Any]
    stages: tuple[str, ...]
    faults: tuple[faults.Fault, ...] = ()


def perform(job: Job) -> None:
    """Run a job in this process as the command line would: our errors as one block, their exit code."""
    os.setsid()
    out = os.open(job.root / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    from sightline import stages

    settle()
    faults.record(job.root / "ledger.jsonl")
    for fault in job.faults:
        fault.install()
    code = 0
    try:
        stages.execute(recipe.check(job.tree, "chaos"), job.root, only=job.stages)
    except SightlineError as error:
        print(error.block())
        code = error.exit_code
    sys.stdout.flush()
    os._exit(code)


def settle() -> None:
    """One thread for arithmetic, plain forks for data workers, no lock that outlives a kill."""
    import torch
    from tqdm import tqdm

    gc.freeze()  # what the server imported is not searched for garbage in every run
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())
    multiprocessing.set_start_method("fork", force=True)


def prepare_world(language: Path, job: Job) -> None:
    """What all trials stand on: the language model's folder and the stages above the one under trial."""
    settle()
    write_language(language)
    perform(job)


@dataclass
class Ended:
    """How a run ended: exit code (negative: the signal), what it printed, wall time in seconds."""

    code: int
    text: str
    seconds: float


@dataclass
class Running:
    """A run under way."""

    process: Any
    output: Path
    said: int
    began: float

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for the end; a run that outlasts the limit is killed and fails the test."""
        try:
            self.process.join(limit)
            assert self.process.exitcode is not None, f"the run did not end within {limit} s"
            text = self.output.read_text(encoding="utf-8")[self.said :] if self.output.exists() else ""
            return Ended(self.process.exitcode, text, time.monotonic() - self.began)
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the run and to what it started; harmless where it has ended."""
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


@dataclass
class Trial:
    """One stage in a folder of its own, run as often as it takes."""

    lab: Lab
    root: Path
    stage: str
    tree: dict[str, Any]
    running: list[Running] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where the stage's result will stand."""
        return self.root / NAME / self.stage

    @property
    def work(self) -> Path:
        """Where it is being made."""
        return self.root / NAME / f".{self.stage}.work"

    @property
    def checkpoints(self) -> Path:
        """Where its checkpoints stand."""
        return self.work / "checkpoints"

    def start(self, *asked: faults.Fault) -> Running:
        """Start a run and return at once."""
        output = self.root / "output.txt"
        said = len(output.read_text(encoding="utf-8")) if output.exists() else 0
        running = self.lab.spawn(perform, Job(self.root, self.tree, (self.stage,), asked))
        running.output, running.said = output, said
        self.running.append(running)
        return running

    def run(self, *asked: faults.Fault, limit: float = LIMIT) -> Ended:
        """Run to the end, whichever that is."""
        return self.start(*asked).wait(limit)

    def finish(self) -> Ended:
        """Run without faults; it must end well."""
        ended = self.run()
        assert ended.code == 0, ended.text[-3000:]
        return ended

    def ledger(self) -> list[dict[str, Any]]:
        """Every batch that went through the model: pid, step, record ids, time."""
        place = self.root / "ledger.jsonl"
        return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind, from the work folder or the finished one."""
        place = next(p for p in (self.work, self.folder) if (p / "events.jsonl").exists())
        lines = (place / "events.jsonl").read_text(encoding="utf-8").splitlines()
        return [e for e in map(json.loads, lines) if e["event"] == kind]

    def result(self) -> tuple[str, str]:
        """The finished stage: hash of its weights, and the manifest's hash of all its results."""
        assert runs.faults(self.folder) == []
        weights = sorted((self.folder / "model").glob("*.safetensors"))
        assert weights
        mixed = hashlib.sha256(b"".join(p.read_bytes() for p in weights)).hexdigest()
        return mixed, runs.content(self.folder)

    def held(self) -> list[int]:
        """Steps of the checkpoints that verify, in order."""
        good = [p for p in runs.numbered(self.checkpoints) if not runs.faults(p)]
        return sorted(int(p.name.rpartition("-")[2]) for p in good)


def consumed(ledger: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Record ids that made each step of the final weights: of a step done twice, the last time counts."""
    last: dict[int, tuple[Any, list[str]]] = {}
    for line in ledger:
        pid, ids = last.get(line["step"], (None, []))
        last[line["step"]] = (line["pid"], (ids if pid == line["pid"] else []) + line["ids"])
    return [tuple(last[step][1]) for step in sorted(last)]


class Lab:
    """Makes trials, and ends every process that they started."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.language = home / "language"
        self.world = home / "world"
        self.count = 0
        self.started: list[Running] = []
        self.known: dict[str, tuple[tuple[str, str], list[tuple[str, ...]]]] = {}
        self.server = multiprocessing.get_context("forkserver")
        self.server.set_forkserver_preload(PRELOAD)
        self.world.mkdir(parents=True)
        job = Job(self.world, tree(self.language, {}), ("data", "taught", "pairs"))
        made = self.spawn(prepare_world, self.language, job)
        made.output = self.world / "output.txt"
        ended = made.wait()
        assert ended.code == 0, ended.text[-3000:]
        (self.world / "ledger.jsonl").unlink()
        (self.world / "output.txt").unlink()

    def spawn(self, target: Any, *args: Any) -> Running:
        """Fork one process from the server, with one thread for arithmetic."""
        wanted = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            process = self.server.Process(target=target, args=args)
            process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        running = Running(process, Path(), 0, time.monotonic())
        self.started.append(running)
        return running

    def trial(self, stage: str, **train: Any) -> Trial:
        """A fresh trial of `taught` (sft) or `aligned` (align); `train` overrides the recipe's section."""
        self.count += 1
        root = self.home / f"trial-{self.count}"
        left_out = shutil.ignore_patterns("*.lock", stage, *(["pairs"] if stage == "taught" else []))
        shutil.copytree(self.world, root, ignore=left_out)
        return Trial(self, root, stage, tree(self.language, train))

    def unbroken(self, stage: str, **train: Any) -> tuple[tuple[str, str], list[tuple[str, ...]]]:
        """Result and consumed records of a run that nothing disturbs; made once for each setting."""
        key = json.dumps([stage, train], sort_keys=True)
        if key not in self.known:
            trial = self.trial(stage, **train)
            trial.finish()
            self.known[key] = (trial.result(), consumed(trial.ledger()))
        return self.known[key]

    def close(self) -> None:
        """End what is still alive."""
        for running in self.started:
            running.kill()
