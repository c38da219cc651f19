"""What the pair pass saves: an optimizer step of DPO on images, Sightline against TRL and against the seed's way.

All contenders (`contenders.py`) start from one model with random weights, one adapter and one set of pairs, and their
losses must agree. LoRA trains on the language model; tower and connector are frozen. Rounds are interleaved, so that
whatever else the machine does meets all alike. Sizes (`shapes.py`) are those of real models, scaled down:

    shape      real model                                         here
    llava15    LLaVA-1.5-7B: CLIP-L/336, 576 image tokens         64 image tokens, 8 layers of 512
    llava16    LLaVA-1.6-7B on 672 x 504: 5 tiles, 2340 tokens    268 image tokens, 8 layers of 512
    siglip05   LLaVA-interleave, Qwen 0.5B + SigLIP-so400m-384    169 image tokens, 6 layers of 256
    medgemma   MedGemma-4B: SigLIP-896, 4096 patches, 256 tokens  36 image tokens, 9 layers of 360
    tiny, tiny-tiles, tiny-gemma: none; to see that everything runs

    python bench/align.py [--shape llava15,llava16,siglip05,medgemma] [--rounds 9] [--pairs 16] [--checkpointing on|off]
    python bench/align.py --device cuda --size full      # real LLaVA-1.5-7B and MedGemma-4B, random weights, bfloat16

FLOPs are those of matrix products and attention, forward and backward. `saved` is what autograd keeps from the forward
to the backward pass, parameters left out; with checkpointing that is mainly the input of each layer, and what one layer
makes anew in the backward pass is not in it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import transformers
from contenders import (
    Contender,
    Online,
    Seed,
    Sightline,
    Trl,
    TrlBest,
    TrlLike,
    learner,
    pieces,
    without_gradients,
)
from ground import Ground
from shapes import REAL, SCALED, proportions
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import (
    FlopCounterMode,
    flop_registry,
    register_flop_formula,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from sightline import runs

RESULTS = Path(__file__).parent / "results"
WARMUP, EPOCHS = 2, 3
AGREE = 1e-4  # how far losses may be apart in float32, of their value
ALIKE = 0.005  # how far the work of TRL's way, rewritten, may be from TRL's
LOG2 = 0.6931471805599453
OURS = "sightline"


def teach_counter() -> None:
    """Teach the counter what it takes for free: attention on CPUs, and the product in place of TRL's head."""
    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda g, q, k, v, *_, **__: sdpa_backward_flop_count(g, q, k, v)
        ),
        aten.addmm_: lambda _, a, b, *__, **___: 2 * a[0] * a[1] * b[1],
    }
    for operation, formula in formulas.items():
        if operation not in flop_registry:
            register_flop_formula(operation)(formula)


def flops(contender: Contender, places: Sequence[int]) -> int:
    """Of one step's forward and backward pass."""
    batch = contender.collate(places)
    with FlopCounterMode(display=False) as counter:
        contender.loss(batch).backward()
    contender.own.optimizer.zero_grad()
    return counter.get_total_flops()


def saved(contender: Contender, places: Sequence[int]) -> int:
    """Bytes that autograd keeps after the forward pass; a storage counts once, parameters and buffers do not."""
    batch, model = contender.collate(places), contender.own.trained
    known = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = contender.loss(batch)
    del loss
    return sum(storage.nbytes() for storage in kept.values())


def seconds(ground: Ground, work: Any) -> float:
    """Wall-clock seconds of a piece of work."""
    wait = torch.cuda.synchronize if ground.device == "cuda" else (lambda: None)
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def contenders(ground: Ground) -> list[Contender]:
    """Those that can run here. The three that do not hook the tower share one model."""
    found: list[Contender] = []
    if importlib.util.find_spec("trl") is None:
        print("TRL is not installed here: it is left out, and its way rewritten (trl-like) stands for it")
    else:
        found += [Trl(ground), TrlBest(ground)]
    own = learner(ground)
    return [*found, TrlLike(ground), Seed(ground, own), Sightline(ground, own), Online(ground, own)]


def agree(ground: Ground, all_: Sequence[Contender], places: Sequence[int]) -> dict[str, float]:
    """The loss of each contender on the same pairs. In bfloat16 their difference is printed and not judged.

    Raises:
        SystemExit: two of them differ, or the adapter changes nothing, so that they could not.
    """
    losses = {}
    for c in all_:
        with torch.no_grad():
            losses[c.name] = float(c.loss(c.collate(places)))
    apart = (max(losses.values()) - min(losses.values())) / min(losses.values())
    print(f"losses are within {apart:.1e} of their value (in float32 at most {AGREE:.0e})")
    exact = ground.dtype == torch.float32
    if (exact and apart > AGREE) or abs(losses[OURS] - LOG2) < 2 * AGREE:
        raise SystemExit(f"the losses do not agree, or none has moved from log 2: {losses}")
    return losses


def vision_share(like: TrlLike, work: dict[str, int], places: Sequence[int]) -> float:
    """Which part of TRL's work is the tower's and the connector's: 4 encodes a pair, and what runs backward.

    Of the work with the head on answer positions, as on a GPU.

    Raises:
        SystemExit: TRL's way, rewritten, does not do TRL's work.
    """
    like.every = like.ground.device == "cpu"
    whole = flops(like, places)
    with without_gradients(like.own.bundle):
        frozen = flops(like, places)
    like.every = False
    if "trl" in work:
        off = whole / work["trl"] - 1
        print(f"TRL's way rewritten does TRL's work within {off:+.2%} (at most {ALIKE:.1%})")
        if abs(off) > ALIKE:
            raise SystemExit("TRL's way, rewritten, does not do TRL's work")
    bundle, batch = like.own.bundle, like.collate(places)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        order = batch["shown"].tolist()
        bundle.tokens([batch["images"][i] for i in order], [batch["grids"][i] for i in order], "pixels")
    return (2 * counter.get_total_flops() + whole - frozen) / work[like.name]


def measure(name: str, ground: Ground, rounds: int) -> dict[str, Any]:
    """Everything about one shape."""
    print(
        f"\n== {name}: {ground.batch} pairs a step, checkpointing {'on' if ground.checkpointing else 'off'}"
    )
    compare(name, ground)
    all_ = contenders(ground)
    base = all_[0].name
    steps = pieces(range(ground.count), ground.batch)
    first = steps[0]
    if isinstance(all_[0], Trl):
        print(f"TRL's collator gives our ids and labels, and pixels within {all_[0].check(first):.1e}")
    for c in all_:
        c.prepare()
        c.ready(steps)
    losses = agree(ground, all_, first)
    work = {c.name: flops(c, first) for c in all_}
    like = next(c for c in all_ if isinstance(c, TrlLike))
    share = vision_share(like, work, first)
    print(f"tower and connector are {share:.0%} of the work of TRL's way")
    memory = {c.name: saved(c, first) for c in all_}
    times: dict[str, list[float]] = {c.name: [] for c in all_}
    for turn in range(WARMUP + rounds):
        for c in all_:
            spent = seconds(ground, lambda c=c: c.step(first))
            if turn >= WARMUP:
                times[c.name].append(spent)
    epochs: dict[str, list[float]] = {c.name: [] for c in all_}
    for _ in range(EPOCHS):
        for c in all_:
            epochs[c.name].append(seconds(ground, lambda c=c: epoch(c, steps)))
    rows = {
        c: {
            "loss": losses[c], "seconds": statistics.median(times[c]), "flops": work[c], "saved_bytes": memory[c],
            "epoch_seconds": statistics.median(epochs[c]), "all_seconds": times[c], "all_epochs": epochs[c],
            "step_ratio": paired(times[base], times[c]), "flops_ratio": work[base] / work[c],
            "epoch_ratio": paired(epochs[base], epochs[c]), "saved_ratio": memory[c] / memory[base],
        }
        for c in times
    }  # fmt: skip
    return {"base": base, "vision_share": share, "contenders": rows, "against": against(rows, times, epochs)}


def compare(name: str, ground: Ground) -> None:
    """How well the scaled shape keeps the proportions of the real one."""
    real = proportions(REAL[name]) if name in REAL else {}
    for what, value in proportions(ground.shape).items():
        print(f"  {what:<22}{value:>8.3f}" + (f"   real model {real[what]:.3f}" if real else ""))


def epoch(contender: Contender, steps: Sequence[Sequence[int]]) -> None:
    """A whole run over all pairs, with what is made once before it."""
    contender.prepare()
    for places in steps:
        contender.step(places)


def paired(base: Sequence[float], other: Sequence[float]) -> float:
    """Median over rounds of how many times longer the first took."""
    return statistics.median(b / o for b, o in zip(base, other, strict=True))


def against(
    rows: dict[str, Any], times: dict[str, list[float]], epochs: dict[str, list[float]]
) -> dict[str, Any]:
    """Sightline, everything stored, against each other contender."""
    ours = rows[OURS]
    return {
        c: {
            "step": paired(times[c], times[OURS]), "flops": row["flops"] / ours["flops"],
            "epoch": paired(epochs[c], epochs[OURS]),
            "saved": ours["saved_bytes"] / row["saved_bytes"],
        }
        for c, row in rows.items()
        if c != OURS
    }  # fmt: skip


def table(found: dict[str, Any]) -> str:
    """Of one shape, for a terminal; ratios say how many times less than TRL."""
    head = f"{'':<18}{'loss':>10}{'step s':>9}{'GFLOP':>10}{'saved MiB':>11}{'epoch s':>9}"
    lines = [head + f"{'step x':>9}{'FLOPs x':>9}{'epoch x':>9}"]
    for name, row in found["contenders"].items():
        lines.append(
            f"{name:<18}{row['loss']:>10.6f}{row['seconds']:>9.4f}{row['flops'] / 1e9:>10.3f}"
            f"{row['saved_bytes'] / 2**20:>11.2f}{row['epoch_seconds']:>9.3f}"
            f"{row['step_ratio']:>9.2f}{row['flops_ratio']:>9.2f}{row['epoch_ratio']:>9.2f}"
        )
    return "\n".join(lines)


def line(name: str, found: dict[str, Any], other: str) -> str:
    """The ratios of one shape in one line."""
    r = found["against"][other]
    return (
        f"{name}: step {r['step']:.2f}x (FLOPs {r['flops']:.2f}x, {r['step'] / r['flops']:.0%} of it), "
        f"epoch {r['epoch']:.2f}x, activations {r['saved']:.2f}x"
    )


def machine(asked: argparse.Namespace) -> dict[str, Any]:
    """What it ran on, without names of people or hosts."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    more = {"gpu": torch.cuda.get_device_name()} if asked.device == "cuda" else {}
    return {
        **runs.machine(), "cpu": names[0] if names else platform.processor(), "threads": asked.threads,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1), **more,
    }  # fmt: skip


def ask() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", help=f"comma-separated, of {', '.join(SCALED)}")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pairs", type=int, default=16, help="of an epoch")
    parser.add_argument("--batch", type=int, default=4, help="pairs in a step")
    parser.add_argument("--checkpointing", choices=("on", "off"), default="on")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("scaled", "full"), default="scaled")
    parser.add_argument(
        "--json", type=Path, help="default: bench/results/align-DEVICE.json, and none for tiny shapes"
    )
    asked = parser.parse_args()
    default = "llava15,medgemma" if asked.size == "full" else ",".join(REAL)
    asked.shapes = (asked.shape or default).split(",")
    known = REAL if asked.size == "full" else SCALED
    for name in asked.shapes:
        if name not in known:
            parser.error(f"unknown shape '{name}': expected one of {', '.join(known)}")
    if asked.size == "full" and asked.device == "cpu":
        parser.error("--size full needs --device cuda")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device")
    if asked.pairs < asked.batch:
        parser.error("--pairs must be at least --batch")
    if asked.json is None and any(name in REAL for name in asked.shapes):
        asked.json = RESULTS / f"align-{asked.device}.json"
    return asked


def main() -> None:
    """Print the tables and write the results."""
    asked = ask()
    torch.set_num_threads(asked.threads)
    transformers.logging.set_verbosity_error()
    teach_counter()
    found = {}
    for name in asked.shapes:
        with tempfile.TemporaryDirectory() as scratch:
            ground = Ground(
                shape=(REAL if asked.size == "full" else SCALED)[name], count=asked.pairs, batch=asked.batch,
                checkpointing=asked.checkpointing == "on", device=asked.device, work=Path(scratch),
                dtype=torch.bfloat16 if asked.size == "full" else torch.float32,
            )  # fmt: skip
            found[name] = measure(name, ground, asked.rounds)
        print(table(found[name]))
        gc.collect()
    versions = runs.versions()
    if importlib.util.find_spec("trl") is not None:
        versions["trl"] = metadata.version("trl")
    if asked.json is not None:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        setting = {
            k: getattr(asked, k) for k in ("rounds", "pairs", "batch", "checkpointing", "device", "size")
        }
        runs.write_json(
            asked.json, {"setting": setting, "shapes": found, "machine": machine(asked), "versions": versions}
        )
    print(
        "\nSightline with everything stored, against the seed's way, TRL's way with a GPU's head, TRL at its best,"
    )
    print("and in the last line TRL as it ships, where it is installed:")
    for other in ("seed", "trl-best", "trl-like", "trl"):
        lines = [line(name, each, other) for name, each in found.items() if other in each["contenders"]]
        if lines:
            print(" | ".join(lines))


if __name__ == "__main__":
    main()
