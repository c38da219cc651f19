"""How fast a served model answers 1, 8 and 64 people: continuous batching against one after the other.

Both contenders are the same server, each in a process of its own, with the same model and the same questions; `one`
makes one answer at a time, as the seed's loop around `generate` does, `all` puts every answer that is being made into
one step. Rounds are interleaved, so that whatever else the machine does meets both alike. Beside them `/health` is
asked all the time.

    python bench/serve.py [--clients 1,8,64] [--tokens 64] [--rounds 3] [--model tiny|kit] [--threads 2]

The model is a LLaVA with random weights: `tiny` (2 layers of 32, a CLIP tower of 28 px) or `kit` (SmolLM2-135M's shape,
30 layers of 576, with the tiny tower). Its end tokens are taken away, so that every answer has its full length.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as vocabularies
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sightline import runs
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.serve import server
from sightline.serve.backend import Identity
from sightline.serve.local import Local

RESULTS = Path(__file__).parent / "results"
SLOTS = {"one": 1, "all": 64}
SHAPES = {"tiny": (2, 32, 64, 4, 2, 512), "kit": (30, 576, 1536, 9, 3, 49152)}
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


def open_model(folder: Path, shape: str) -> Bundle:
    """The model that both serve."""
    write_language(folder, shape)
    section = {
        "family": "llava", "connector": "mlp2x_gelu", "select_layer": -1, "select": "default", "system": "",
        "vision": TOWER, "language": str(folder), "path": None,
    }  # fmt: skip
    made = checkpoint.compose(section, 0)
    made.model.eval()
    return made


def be(asked: argparse.Namespace) -> None:
    """What `start` starts: a server in a process of its own, until it is told to stop."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = open_model(Path(folder) / "language", asked.model)
    backend = Local(bundle, Identity(name="bench"), SLOTS[asked.only])
    backend.engine.ends.clear()
    server.serve(
        backend, server.Settings(port=0, log=None, queue=256), say=lambda text: print(text, flush=True)
    )


def start(asked: argparse.Namespace, name: str) -> tuple[subprocess.Popen[str], str]:
    """A server of this contender, and its address."""
    line = [sys.executable, __file__, "--only", name, "--model", asked.model, "--threads", str(asked.threads)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(4)]
    return process, told[1].split()[1].rstrip("/")


def memory(url: str) -> float:
    """MiB that a server holds."""
    lines = httpx.get(f"{url}/metrics", timeout=600).text.splitlines()
    return float(next(line for line in lines if line.startswith("sightline_memory_bytes")).split()[1]) / 2**20


def question(number: int, tokens: int) -> dict[str, Any]:
    """One of many questions, with an image of its own."""
    out = io.BytesIO()
    draw = np.random.default_rng(number)
    Image.fromarray(draw.integers(0, 256, (28, 28, 3), dtype=np.uint8)).save(out, "PNG")
    address = f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
    parts = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "text", "text": f"What is seen at {number}?"},
    ]
    return {"model": "bench", "messages": [{"role": "user", "content": parts}], "max_tokens": tokens}


def round_of(url: str, clients: int, each: int, tokens: int) -> dict[str, Any]:
    """So many clients, each with so many questions one after the other."""
    spent: list[float] = []
    health: list[float] = []
    statuses: list[int] = []
    over = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=600) as client:
            for k in range(each):
                begin = time.perf_counter()
                answer = client.post("/v1/chat/completions", json=question(number * each + k, tokens))
                spent.append(time.perf_counter() - begin)
                statuses.append(answer.status_code)

    def watch() -> None:
        with httpx.Client(base_url=url, timeout=600) as client:
            while not over.is_set():
                begin = time.perf_counter()
                client.get("/health")
                health.append(time.perf_counter() - begin)
                time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(clients)))
    total = time.perf_counter() - begin
    over.set()
    watcher.join()
    return {
        "requests_per_second": len(spent) / total, "tokens_per_second": len(spent) * tokens / total,
        "p50": statistics.median(spent), "p99": quantile(spent, 0.99), "health_p99": quantile(health, 0.99),
        "wrong": sum(s != 200 for s in statuses),
    }  # fmt: skip


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile, as the value at that place of the sorted ones."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def measure(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """All rounds, interleaved; for each contender and number of clients the median of its rounds."""
    servers = {name: start(asked, name) for name in SLOTS}
    rows: list[dict[str, Any]] = []
    try:
        for _, url in servers.values():
            round_of(url, 2, 1, 4)
        before = {name: memory(url) for name, (_, url) in servers.items()}
        for clients in asked.clients:
            each = max(1, -(-asked.requests // clients))
            made: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
            for _ in range(asked.rounds):
                for name, (_, url) in servers.items():
                    made[name].append(round_of(url, clients, each, asked.tokens))
            for name, found in made.items():
                row = {key: statistics.median(f[key] for f in found) for key in found[0]}
                rows.append({"contender": name, "clients": clients, "requests": each * clients, **row})
        for name, (_, url) in servers.items():
            rows.append({"memory_of": name, "before_mib": before[name], "after_mib": memory(url)})
    finally:
        for process, _ in servers.values():
            process.terminate()
            process.communicate()
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """The table."""
    print(
        "| clients | contender | requests/s | tokens/s | against one | p50 s | p99 s | health p99 ms | not 200 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    alone = {r["clients"]: r["tokens_per_second"] for r in rows if r.get("contender") == "one"}
    for r in rows:
        if "memory_of" in r:
            print(f"\n{r['memory_of']}: {r['before_mib']:.0f} MiB before, {r['after_mib']:.0f} MiB after")
            continue
        cells = [
            r["clients"], r["contender"], f"{r['requests_per_second']:.2f}", f"{r['tokens_per_second']:.0f}",
            f"{r['tokens_per_second'] / alone[r['clients']]:.2f} x", f"{r['p50']:.2f}", f"{r['p99']:.2f}",
            f"{1000 * r['health_p99']:.0f}", r["wrong"],
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=lambda t: [int(n) for n in t.split(",")], default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=64, help="of a round, at least one for each client")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", choices=sorted(SHAPES), default="tiny")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=list(SLOTS), help="be one of the servers")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    if asked.only:
        be(asked)
        return
    rows = measure(asked)
    show(rows)
    asked.out.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "threads": asked.threads, "python": platform.python_version()}
    made = {
        "model": asked.model,
        "tokens": asked.tokens,
        "rounds": asked.rounds,
        "machine": machine,
        "rows": rows,
    }
    runs.write_json(asked.out / f"serve-{asked.model}-cpu.json", made)


if __name__ == "__main__":
    main()
