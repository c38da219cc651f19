"""A saved model to a folder of one kind, opened again and compared before anybody relies on it.

`export.json` in the folder says what was done: where the model comes from, how far its answers moved, how large its
files are, and, where there was a gate, what it measured.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import NOTICE, plugins, runs
from ..errors import ModelError
from ..models import checkpoint
from ..models.family import Bundle
from . import card, folder, fp8, graphs, hub, opened, packed, rounded
from .calibration import Calibration
from .probe import MERGED, Origin, continued, distance, logits, probe, same_words, stock
from .sizes import sizes

FORMAT = 1
ROUND = 1e-3  # how far logits may move where another program sums them up


@dataclass(frozen=True)
class Task:
    """What is written.

    Args:
        to: folder to write into.
        home: where that folder will stand.
        ends: ids that end an answer.
        precision: number format of weights that are not rounded.
        calibration: what a kind that is calibrated is calibrated on.
        also: parts that are rounded with the language model, see `fp8.PARTS`.
    """

    to: Path
    home: Path
    ends: Collection[int]
    precision: str = "float32"
    calibration: Calibration | None = None
    also: Collection[str] = ()


@dataclass(frozen=True)
class Kind:
    """One kind of export.

    Args:
        write: (origin, task) -> what `export.json` says beyond what it says of every kind.
        allowed: precision -> how far logits may move, as a share of their length; None: that is for the gate to say.
        programs: what opens it beside Sightline, where the parts are all its own.
    """

    write: Callable[[Origin, Task], Mapping[str, Any]]
    allowed: Callable[[str], float | None]
    programs: tuple[str, ...]


def _merged(origin: Origin, task: Task) -> Mapping[str, Any]:
    hub.write(origin.bundle, task.to, task.ends, task.precision)
    return {}


def _onnx(origin: Origin, task: Task) -> Mapping[str, Any]:
    folder.write(origin.bundle, task.to, task.ends)
    return {}


def _onnx_int8(origin: Origin, task: Task) -> Mapping[str, Any]:
    folder.write(origin.bundle, task.to, task.ends)
    graphs.round_off(task.to)
    return {}


def _rounded(kind: str) -> Callable[[Origin, Task], Mapping[str, Any]]:
    def write(origin: Origin, task: Task) -> Mapping[str, Any]:
        with _plain(origin, task) as plain:
            rounded.write(origin.bundle, plain, task.to, kind, task.precision)
        return {}

    return write


def _fp8(origin: Origin, task: Task) -> Mapping[str, Any]:
    with _plain(origin, task) as plain:
        fp8.write(origin.bundle, plain, task.to, task.precision, task.also)
    return {"also": sorted(task.also)} if task.also else {}


def _calibrated(kind: str) -> Callable[[Origin, Task], Mapping[str, Any]]:
    def write(origin: Origin, task: Task) -> Mapping[str, Any]:
        held = packed.check(origin.bundle, kind, task.calibration)
        with _plain(origin, task) as plain:
            return packed.write(origin.bundle, plain, task.to, kind, task.precision, held)

    return write


@contextmanager
def _plain(origin: Origin, task: Task) -> Iterator[Path]:
    """A hub's folder of the model for as long as its layers are rounded; what stands beside them is kept."""
    plain = task.to.with_name(f".{task.to.name}.plain")
    shutil.rmtree(plain, ignore_errors=True)
    try:
        hub.write(origin.bundle, plain, task.ends, task.precision)
        yield plain
        hub.copy_beside(plain, task.to)
    finally:
        shutil.rmtree(plain, ignore_errors=True)


def _near(precision: str) -> float:
    return {"float32": MERGED, "float16": 0.02, "bfloat16": 0.1}[precision]


def _unjudged(precision: str) -> None:
    return None


KINDS = {
    "merged": Kind(_merged, _near, ("transformers",)),
    "onnx": Kind(_onnx, lambda precision: ROUND, ("onnxruntime",)),
    "onnx_int8": Kind(_onnx_int8, _unjudged, ("onnxruntime",)),
    "int8": Kind(_rounded("int8"), _unjudged, ("transformers",)),
    "nf4": Kind(_rounded("nf4"), _unjudged, ("transformers",)),
    "fp8": Kind(_fp8, _unjudged, ("transformers",)),
    "gptq": Kind(_calibrated("gptq"), _unjudged, ("transformers",)),
    "awq": Kind(_calibrated("awq"), _unjudged, ("transformers",)),
}
ROUNDED = (*rounded.LOADS, "fp8", *packed.SCHEMES)  # folders whose weights are held in fewer bits


def find(name: str) -> Kind:
    """The kind of that name.

    Raises:
        ModelError: there is none.
    """
    if name not in KINDS:
        raise ModelError(
            f"no kind of export '{name}'{plugins.nearest(name, list(KINDS))}", where="--to", found=name,
            expected=", ".join(KINDS),
        )  # fmt: skip
    return KINDS[name]


def export(origin: Origin, name: str, task: Task) -> dict[str, Any]:
    """Write one kind into an empty folder, open it, and compare the probe's logits.

    Args:
        origin: the model; it is of no use afterwards, to make room for the one that is compared.
        name: of the kind.
        task: where, and how.

    Returns:
        What `export.json` says.

    Raises:
        ModelError: no such kind, a model that it cannot hold, or answers that moved.
    """
    kind = find(name)
    plain = hub.is_plain(origin.bundle)
    weights = sum(p.numel() for p in origin.bundle.model.parameters()) * 4
    more = kind.write(origin, task)
    if "onnxruntime" not in kind.programs:
        (task.to / hub.SECTION).write_text(hub.section(origin.bundle, task.home), encoding="utf-8")
    origin.bundle.model.to("meta")
    moved = compare(origin, opened.load(task.to), kind.allowed(task.precision), plain)
    alone = plain or "onnxruntime" in kind.programs
    told = {
        "format": FORMAT,
        "kind": name,
        "precision": task.precision,
        "opens_with": list(kind.programs if alone else ("sightline",)),
        "from": checkpoint.fingerprints(origin.place),
        "merged": {"moved": origin.merged, "allowed": MERGED},
        "answers": moved,
        "bytes": {"float32": weights, "files": sizes(task.to)},
        **more,
        "gate": None,
        "notice": NOTICE,
        "versions": runs.versions(),
    }
    runs.write_json(task.to / opened.REPORT, told)
    (task.to / "README.md").write_text(card.text(name, told), encoding="utf-8")
    return told


def compare(origin: Origin, made: Bundle, allowed: float | None, plain: bool) -> dict[str, Any]:
    """How far an opened export answers from the model, on a batch that it made by itself.

    Raises:
        ModelError: it reads the probe otherwise, or its logits moved by more than is allowed.
    """
    batch = probe(made)
    ours, theirs = origin.batch, batch
    one, other = ours["images"][0], theirs["images"][0]
    pixels = float((one - other).abs().max()) if one.shape == other.shape else float("inf")
    if not torch.equal(ours["input_ids"], theirs["input_ids"]) or pixels > 1e-5:
        raise ModelError(
            "the export reads a question otherwise than the model", found=f"{theirs['input_ids'].shape[1]} ids, pixels "
            f"{pixels:.1e} away", expected=f"the same {ours['input_ids'].shape[1]} ids and pixels",
        )  # fmt: skip
    found = logits(made, batch)
    moved = {"moved": distance(found, origin.logits)}
    moved["read_on"] = distance(continued(made, batch), origin.logits[-1:])
    if plain and made.family.name == "llava":
        moved["stock"] = distance(stock(made, batch), origin.logits)
    worst = max(moved.values())
    if worst == float("inf") or (allowed is not None and worst > allowed):
        raise ModelError(
            "the export does not answer as the model does", found=f"logits {worst:.1e} away",
            expected=f"at most {allowed:g} of their length" if allowed else "finite logits",
        )  # fmt: skip

    return {**moved, "same": same_words(found, origin.logits), "allowed": allowed}
