"""How fast a served model answers 1, 8 and 64 people: continuous batching against one after the other, and others.

    python bench/serve.py [--clients 1,8,64] [--tokens 64] [--rounds 3] [--model tiny|kit] [--threads 1]
                          [--contenders loop,all,transformers] [--address NAME=URL] [--extra JSON] [--out FOLDER]

| contender | what |
|---|---|
| `loop` | our server in front of the seed's way: transformers' `generate`, one question after the other |
| `one` | our own generation with one place: what continuous batching costs where there is nothing to share |
| `all` | our own generation, every answer that is being made in one step |
| `transformers` | `transformers serve` on an export of the same model (it batches texts only, so images wait in line) |
| NAME | any server of the same protocol, such as vLLM on the export that `--write FOLDER` makes |

Each contender is a process of its own with the same weights, the clients are this one. Rounds are interleaved, forwards
and backwards in turn, so whatever else the machine does meets all alike; a ratio is taken within a round, and its
median and range over the rounds are told. Beside them `/health` is asked all the time.

The model is a LLaVA with random weights: `tiny` (2 layers of 64 with heads of 32, the smallest that vLLM takes, a CLIP
tower of 28 px) or `kit` (SmolLM2-135M's shape, 30 layers of 576, with the tiny tower). Its end tokens are taken away,
so that every answer has its full length.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from load import PATIENCE, RESULTS, Got, Line, address, gauges, get, post, quantile, question
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as vocabularies
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sightline import runs
from sightline.export import hub
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.serve import server
from sightline.serve.backend import End, Identity, Piece, Question
from sightline.serve.engine import Prompt
from sightline.serve.local import Local

OURS = {"loop": 64, "one": 1, "all": 64}  # places
THEIRS = "transformers"
SHAPES = {"tiny": (2, 64, 128, 2, 1, 512), "kit": (30, 576, 1536, 9, 3, 49152)}
TEMPLATE = (
    "{% for message in messages %}{{ '<s>' + message['role'] + '\n' + message['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
TOWER = {
    "model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": 16,
}  # fmt: skip


def write_language(folder: Path, shape: str) -> None:
    """A Llama of this shape with random weights, and a tokenizer of bytes and the words yes and no."""
    layers, hidden, inner, heads, groups, words = SHAPES[shape]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<empty>", *letters, "Ye", "Yes"])
    }
    core = Tokenizer(vocabularies.BPE(vocab=vocabulary, merges=[("Y", "e"), ("Ye", "s")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<pad>", "<s>", "</s>", "<empty>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=words, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, eos_token_id=2,
        num_attention_heads=heads, num_key_value_heads=groups, max_position_embeddings=2048, pad_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def open_model(shape: str) -> Bundle:
    """The model that all serve."""
    with tempfile.TemporaryDirectory() as folder:
        write_language(Path(folder), shape)
        section = {
            "family": "llava", "connector": "mlp2x_gelu", "select_layer": -1, "select": "default", "system": "",
            "vision": TOWER, "language": folder, "path": None, "image_token": "<empty>",
        }  # fmt: skip
        made = checkpoint.compose(section, 0)
    made.model.eval()
    return made


def write(folder: Path, shape: str) -> None:
    """The same model as a folder that transformers and vLLM open; nothing ends its answers."""
    hub.write(open_model(shape), folder, [], "float32")
    path = folder / "generation_config.json"
    runs.write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "eos_token_id": None})


class Loop(Local):
    """The seed's way: `generate` of transformers, one question after the other."""

    async def open(self) -> None:
        """Nobody is being answered."""
        self.free = asyncio.Lock()

    async def ask(self, asked: Question) -> Turn:
        """A place in the line."""
        return Turn(self, await asyncio.to_thread(self.prompt, asked))

    async def close(self) -> None:
        """Nothing to end."""

    @torch.no_grad()
    def generate(self, prompt: Prompt) -> list[int]:
        """All tokens of one answer."""
        made = self.bundle.model.generate(
            input_ids=torch.tensor([prompt.ids]), attention_mask=torch.ones(1, len(prompt.ids), dtype=torch.long),
            pixel_values=torch.stack([seen.values for seen in prompt.shown]), do_sample=False, eos_token_id=None,
            max_new_tokens=prompt.limit, pad_token_id=0, suppress_tokens=[self.bundle.image_token],
        )  # fmt: skip
        told: list[int] = made[0, len(prompt.ids) :].tolist()
        return told


class Turn:
    """One question in the line."""

    def __init__(self, loop: Loop, prompt: Prompt) -> None:
        self.loop, self.prompt = loop, prompt

    async def pieces(self) -> AsyncIterator[Piece | End]:
        """The whole answer, once it is there."""
        async with self.loop.free:
            made = await asyncio.to_thread(self.loop.generate, self.prompt)
        yield Piece(self.loop.bundle.tokenizer.decode(made))
        yield End("length", len(self.prompt.ids), len(made))

    def cancel(self) -> None:
        """What has begun is made to its end."""


def be(asked: argparse.Namespace) -> None:
    """What `start` starts: a server in a process of its own, until it is told to stop."""
    kind = Loop if asked.only == "loop" else Local
    backend = kind(open_model(asked.model), Identity(name="bench"), asked.slots or OURS[asked.only])
    backend.engine.ends.clear()
    settings = server.Settings(port=0, log=None, queue=asked.queue)
    server.serve(backend, settings, say=lambda text: print(text, flush=True))


def start(asked: argparse.Namespace, name: str, folder: Path) -> tuple[subprocess.Popen[str], str, str]:
    """A server that begins, its address ("" if it will tell), and the name of the model there."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(asked.threads), "HF_HUB_OFFLINE": "1"}
    if name == THEIRS:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        write(folder, asked.model)
        program = str(Path(sys.executable).with_name("transformers"))
        line = [program, "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(line, text=True, env=environment, **quiet)  # type: ignore[call-overload]
        return process, f"http://127.0.0.1:{port}", str(folder)
    line = [sys.executable, __file__, "--only", name, "--model", asked.model, "--threads", str(asked.threads)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment), "", "bench"


def wait(url: str, process: subprocess.Popen[str]) -> None:
    """Until a server answers."""
    begin = time.monotonic()
    while True:
        try:
            if asyncio.run(Line(url).ask(get("/health"))).status == 200:
                return
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() - begin > PATIENCE:
            raise SystemExit(f"the server at {url} does not begin")
        time.sleep(0.5)


async def round_of(url: str, asks: Sequence[Sequence[bytes]]) -> dict[str, Any]:
    """One round: each client asks its questions, one after the other."""
    got: list[Got] = []
    health: list[float] = []
    over = asyncio.Event()

    async def person(own: Sequence[bytes]) -> None:
        line = Line(url)
        for request in own:
            got.append(await asyncio.wait_for(line.ask(request), PATIENCE))
        line.close()

    async def watch() -> None:
        while not over.is_set():
            line = Line(url)
            health.append((await line.ask(get("/health"))).spent)
            line.close()
            await asyncio.sleep(0.05)

    watching = asyncio.ensure_future(watch())
    begin = time.perf_counter()
    await asyncio.gather(*(person(own) for own in asks))
    total = time.perf_counter() - begin
    over.set()
    await watching
    spent = [each.spent for each in got]
    return {
        "requests_per_second": len(got) / total, "tokens_per_second": sum(each.tokens for each in got) / total,
        "p50": statistics.median(spent), "p99": quantile(spent, 0.99), "health_p99": quantile(health, 0.99),
        "wrong": sum(each.status != 200 for each in got),
    }  # fmt: skip


def written(clients: int, each: int, tokens: int, model: str, extra: Mapping[str, Any]) -> list[list[bytes]]:
    """The questions of every client."""
    return [
        [post({**question(i * each + k, tokens, model=model), **extra}) for k in range(each)]
        for i in range(clients)
    ]


def measure(asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rounds, interleaved; for each contender and number of clients the median of its rounds."""
    processes: list[subprocess.Popen[str]] = []
    places: dict[str, tuple[str, str]] = {}
    rows: list[dict[str, Any]] = []
    try:
        begun = {name: start(asked, name, folder) for name in asked.contenders}
        processes += [process for process, _, _ in begun.values()]
        for name, (process, url, model) in begun.items():
            places[name] = (url or address(process.stdout or ()), model)
            wait(places[name][0], process)
        places |= {name: (url.rstrip("/"), asked.name) for name, url in asked.address}
        extra = {name: asked.extra for name, _ in asked.address}
        for name, (url, model) in places.items():
            asyncio.run(round_of(url, written(2, 1, 8, model, extra.get(name, {}))))
        for clients in asked.clients:
            each = max(1, -(-asked.requests // clients))
            made: dict[str, list[dict[str, Any]]] = {name: [] for name in places}
            for number in range(asked.rounds):
                for name in list(places)[:: 1 if number % 2 == 0 else -1]:
                    url, model = places[name]
                    asks = written(clients, each, asked.tokens, model, extra.get(name, {}))
                    made[name].append(asyncio.run(round_of(url, asks)))
                    print(".", end="", flush=True)
            rows += [row(name, clients, each, made) for name in places]
        rows += [
            {
                "memory_of": name,
                "after_mib": asyncio.run(gauges(Line(places[name][0])))["memory_bytes"] / 2**20,
            }
            for name in asked.contenders
            if name in OURS
        ]
    finally:
        for process in processes:
            process.terminate()
            process.communicate()
    print()
    return rows


def row(
    name: str, clients: int, each: int, made: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """One contender with so many clients: medians, and its speed against the first contender in the same rounds."""
    first = next(iter(made.values()))
    ratios = [
        mine["tokens_per_second"] / theirs["tokens_per_second"]
        for mine, theirs in zip(made[name], first, strict=True)
    ]
    found = {key: statistics.median(f[key] for f in made[name]) for key in made[name][0] if key != "wrong"}
    return {
        "contender": name, "clients": clients, "requests": each * clients, **found,
        "wrong": sum(f["wrong"] for f in made[name]),
        "against_first": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
    }  # fmt: skip


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table."""
    first = next(r["contender"] for r in rows)
    print(
        f"| clients | contender | requests/s | tokens/s | against {first} | p50 s | p99 s | health p99 ms | not 200 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        if "memory_of" in r:
            print(f"\n{r['memory_of']}: {r['after_mib']:.0f} MiB in the end")
            continue
        ratio = r["against_first"]
        cells = [
            r["clients"], r["contender"], f"{r['requests_per_second']:.2f}", f"{r['tokens_per_second']:.0f}",
            f"{ratio['median']:.2f} ({ratio['least']:.2f} to {ratio['most']:.2f})", f"{r['p50']:.2f}",
            f"{r['p99']:.2f}", f"{1000 * r['health_p99']:.0f}", r["wrong"],
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=lambda t: [int(n) for n in t.split(",")], default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=16, help="of a round, at least one for each client")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--threads", type=int, default=1, help="of each server")
    parser.add_argument("--contenders", type=lambda t: t.split(","), default=["loop", "all", THEIRS])
    parser.add_argument(
        "--address", action="append", default=[], type=lambda t: t.split("=", 1), metavar="NAME=URL"
    )
    parser.add_argument("--name", default="bench", help="of the model at those addresses")
    parser.add_argument(
        "--extra", type=json.loads, default={}, help="""fields for them, as '{"ignore_eos": true}'"""
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, help="write the model for other servers, and do nothing else")
    parser.add_argument("--only", choices=list(OURS), help="be one of the servers")
    parser.add_argument("--slots", type=int, default=0)
    parser.add_argument("--queue", type=int, default=256)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.only:
        return be(asked)
    if asked.write:
        return write(asked.write, asked.model)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the servers end with it
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(asked, Path(folder) / "export")
    show(rows)
    asked.out.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "threads": asked.threads, "python": platform.python_version()}
    made = {
        "model": asked.model, "tokens": asked.tokens, "rounds": asked.rounds, "machine": machine, "rows": rows
    }  # fmt: skip
    runs.write_json(asked.out / f"serve-{asked.model}-cpu.json", made)
    return None


if __name__ == "__main__":
    main()
