"""What searching costs: Sightline's store against plain FAISS, LanceDB, and the way of MMed-RAG's scripts.

Random unit vectors, the 10 best for each query. What each contender does:

    sightline    the store: memory-mapped files, float64 order that is proven, same-patient filter, duplicates collapsed
    approximate  the same store with inverted lists (only with --approximate)
    faiss        an IndexFlatIP in memory, nothing else
    lancedb      a table without an index, asked in one batch, with a filter on the patient (where it is installed)
    loop         MMed-RAG's way: for one query after another the similarities to all, then torch's topk

    python bench/retrieve.py [--rows 200000] [--queries 1000] [--rounds 5] [--approximate] [--threads 2]

Rounds are interleaved, ratios are of rounds next to each other. `loop` and `lancedb` are timed on --slow queries, since
their time is proportional to the number. Memory is what a process takes, beyond its libraries,
to open the files and answer the queries once: what it still holds (anonymous), and its peak with the pages of files
that it had mapped, which the system can take back. Random vectors are the hardest case for approximate search.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
K = 10
SCALE = 100.0
NAMES = ("sightline", "approximate", "faiss", "lancedb", "loop")
SLOW = ("lancedb", "loop")
LIBRARIES = {
    "sightline": ("sightline.retrieval.search",), "approximate": ("sightline.retrieval.search",), "faiss": ("faiss",),
    "lancedb": ("lancedb",), "loop": ("torch",),
}  # fmt: skip

Answer = Callable[[np.ndarray], list[list[int]]]


def unit(count: int, width: int, seed: int) -> np.ndarray:
    """Random unit vectors, float32 [count, width]."""
    made = np.random.default_rng(seed).standard_normal((count, width), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def write_store(folder: Path, rows: np.ndarray, above: int) -> None:
    """The store of as many reports, two to a patient."""
    from sightline.retrieval import store
    from sightline.retrieval.report import Report

    reports = [
        Report(id=f"r{i:07d}", patient=f"p{i // 2}", split="train", text=f"Report number {i} of this bench.")
        for i in range(len(rows))
    ]
    store.write(folder, reports, lambda part: rows[[int(r.id[1:]) for r in part]], approximate_above=above)


def write_lance(folder: Path, rows: np.ndarray) -> None:
    """A table of vectors, patients and numbers."""
    import lancedb
    import pyarrow as pa

    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    patients = pa.array([f"p{i // 2}" for i in range(len(rows))])
    table = pa.table({"vector": flat, "patient": patients, "number": pa.array(range(len(rows)))})
    lancedb.connect(str(folder)).create_table("reports", table)


def open_store(folder: Path) -> Answer:
    from sightline.retrieval.search import Asker, search
    from sightline.retrieval.store import Store

    opened = Store.open(folder)

    def answer(queries: np.ndarray) -> list[list[int]]:
        askers = [Asker(patient=f"stranger{i}") for i in range(len(queries))]
        return [[h.row for h in hits] for hits in search(opened, queries, askers, K)]

    return answer


def open_faiss(folder: Path) -> Answer:
    import faiss

    rows = np.load(folder / "rows.npy")
    index: Any = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    del rows
    return lambda queries: index.search(queries, K)[1].tolist()


def open_lance(folder: Path) -> Answer:
    import lancedb

    table = lancedb.connect(str(folder)).open_table("reports")

    def answer(queries: np.ndarray) -> list[list[int]]:
        asked = table.search(queries).distance_type("dot").where("patient != 'stranger'", prefilter=True)
        made = asked.select(["number", "_distance"]).limit(K).to_arrow()
        found: list[list[tuple[float, int]]] = [[] for _ in queries]
        for place, far, number in zip(
            *(made[c].to_pylist() for c in ("query_index", "_distance", "number")), strict=True
        ):
            found[place].append((far, number))
        return [[number for _, number in sorted(each)] for each in found]

    return answer


def open_loop(folder: Path) -> Answer:
    import torch

    texts = torch.from_numpy(np.load(folder / "rows.npy"))

    def answer(queries: np.ndarray) -> list[list[int]]:
        return [(SCALE * query @ texts.T).topk(K).indices.tolist() for query in torch.from_numpy(queries)]

    return answer


OPEN: dict[str, Callable[[Path], Answer]] = {
    "sightline": open_store, "approximate": open_store, "faiss": open_faiss, "lancedb": open_lance, "loop": open_loop,
}  # fmt: skip


def place(work: Path, name: str) -> Path:
    """Where a contender's files are."""
    return work / (name if name in ("sightline", "approximate", "lancedb") else "rows")


def write(work: Path, names: list[str], rows: np.ndarray) -> dict[str, float]:
    """Write what the contenders open; seconds of each that has a format of its own."""
    (work / "rows").mkdir()
    np.save(work / "rows" / "rows.npy", rows)
    makers: dict[str, Callable[[], None]] = {
        "sightline": lambda: write_store(work / "sightline", rows, 10**9),
        "approximate": lambda: write_store(work / "approximate", rows, 1),
        "lancedb": lambda: write_lance(work / "lancedb", rows),
    }
    spent = {}
    for name in [n for n in names if n in makers]:
        start = time.perf_counter()
        makers[name]()
        spent[name] = time.perf_counter() - start
    return spent


def reference(rows: np.ndarray, queries: np.ndarray) -> list[list[int]]:
    """The 10 best in float64, a part of the rows at a time."""
    exact, step = queries.astype(np.float64), 20_000
    parts = [exact @ rows[i : i + step].astype(np.float64).T for i in range(0, len(rows), step)]
    scores = np.concatenate(parts, axis=1)  # [queries, rows]
    tops = np.argpartition(-scores, K, axis=1)[:, : K + 1]
    return [
        [int(i) for i in sorted(top, key=lambda i, row=row: (-row[i], i))[:K]]
        for top, row in zip(tops, scores, strict=True)
    ]


def memory(asked: argparse.Namespace, work: Path, name: str) -> dict[str, float]:
    """MiB of a process that opens one contender and answers the queries once."""
    count = asked.slow if name in SLOW else asked.queries
    line = [sys.executable, __file__, "--only", name, "--work", str(work), "--queries", str(count)]
    line += ["--width", str(asked.width), "--threads", str(asked.threads)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(asked: argparse.Namespace) -> None:
    """What `memory` starts: print what this process took for one answer."""
    for module in LIBRARIES[asked.only]:
        importlib.import_module(module)
    queries, before = unit(asked.queries, asked.width, 1), resident()
    answer = OPEN[asked.only](place(asked.work, asked.only))
    answer(queries)
    after = resident()
    print(
        json.dumps(
            {
                "anonymous_mib": after["RssAnon"] - before["RssAnon"],
                "peak_mib": after["VmHWM"] - before["VmRSS"],
            }
        )
    )


def resident() -> dict[str, float]:
    """MiB of memory that this process has."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {line.split(":")[0]: float(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}


def measure(asked: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Everything about every contender."""
    rows, queries = unit(asked.rows, asked.width, 0), unit(asked.queries, asked.width, 1)
    names = [n for n in NAMES if n != "approximate" or asked.approximate]
    if importlib.util.find_spec("lancedb") is None:
        print("LanceDB is not installed here: it is left out")
        names.remove("lancedb")
    writing = write(work, names, rows)
    answers = {name: OPEN[name](place(work, name)) for name in names}
    counts = {name: asked.slow if name in SLOW else asked.queries for name in names}
    right = reference(rows, queries[: asked.slow])
    del rows
    agree = {}
    for name, answer in answers.items():  # a warm-up as well
        found = answer(queries[: asked.slow])
        same = [len(set(a) & set(b)) for a, b in zip(found, right, strict=True)]
        agree[name] = {
            "equal": sum(a == b for a, b in zip(found, right, strict=True)),
            "recall": sum(same) / K / len(same),
        }
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(asked.rounds):
        for name, answer in answers.items():
            start = time.perf_counter()
            answer(queries[: counts[name]])
            times[name].append((time.perf_counter() - start) / counts[name] * 1000)
    held = {name: memory(asked, work, name) for name in names}
    return {
        name: {
            "ms_per_query": statistics.median(times[name]), "all_ms": times[name], **held[name], **agree[name],
            "of": asked.slow, "write_seconds": writing.get(name),
            "ratio": statistics.median(t / ours for t, ours in zip(times[name], times["sightline"], strict=True)),
            "mib_on_disk": sum(f.stat().st_size for f in place(work, name).rglob("*") if f.is_file()) / 2**20,
        }
        for name in names
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """The results for a reader."""
    titles = ("ms/query", "ratio", "recall", "equal", "anon MiB", "peak MiB", "disk MiB")
    head = " " * 12 + "".join(f"{title:>10}" for title in titles)
    lines = [
        f"{name:<12}{r['ms_per_query']:>10.2f}{r['ratio']:>10.2f}{r['recall']:>10.3f}{r['equal']:>6}/{r['of']:<3}"
        f"{r['anonymous_mib']:>10.0f}{r['peak_mib']:>10.0f}{r['mib_on_disk']:>10.0f}"
        for name, r in found.items()
    ]
    return "\n".join([head, *lines])


def ask() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=100, help="queries of contenders that take one at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--approximate", action="store_true")
    parser.add_argument("--json", type=Path, default=RESULTS / "retrieve-cpu.json")
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table and write the results."""
    asked = ask()
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS"):
        os.environ[name] = str(asked.threads)
    if asked.only:
        one(asked)
        return
    with tempfile.TemporaryDirectory() as work:
        found = measure(asked, Path(work))
    print(table(found))
    from sightline import runs

    setting = {
        k: getattr(asked, k) for k in ("rows", "width", "queries", "slow", "rounds", "threads", "approximate")
    }
    packages = ("faiss-cpu", "numpy", "torch", "lancedb", "pyarrow")
    versions = {p: metadata.version(p) for p in packages if importlib.util.find_spec(p.split("-")[0])}
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next(
        (x.partition(":")[2].strip() for x in listed if x.startswith("model name")), platform.machine()
    )
    machine = {**runs.machine(), "cpu": cpu, "threads": asked.threads}
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(
        asked.json, {"setting": setting, "contenders": found, "machine": machine, "versions": versions}
    )


if __name__ == "__main__":
    main()
