"""export: a trained model, or an image-text encoder, as files that other programs open, behind a gate where asked.

The gate asks the model and its export the same questions; answers are kept beside the stages, so those of a model that
was evaluated already are known.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import judging, runs
from ..data import prepare
from ..data.prepare import Prepared
from ..data.rows import select
from ..errors import ModelError, RunError
from ..export import calibration, card, encoder, gate, opened, written
from ..export.calibration import Calibration
from ..export.probe import open_origin
from ..inference import end_tokens
from ..models import checkpoint
from ..models.family import Bundle
from ..recipe import CALIBRATED, Calibrate, Export, Gate
from ..runs import Run
from ..serve import sure
from ..types import Prediction, Sample, View
from .answers import Asked, Desk, aided, answer, key_of

VERSION = 1
FOLDER = "export"  # in the stage's folder; what other programs are given
MIB = 2**20
EARLIER = ("README.md", opened.REPORT)  # not part of what answers depend on
EXACT = ("merged", "onnx")  # in float32 they answer word for word as the model


@dataclass(frozen=True)
class Order:
    """What is exported, and where to.

    Args:
        place: the saved model or encoder.
        kind: of the export.
        to: folder to write into; made here.
        home: where that folder will stand.
        precision: number format of weights that are not rounded.
        calibration: what a kind that is calibrated is calibrated on.
        also: parts that are rounded with the language model.
    """

    place: Path
    kind: str
    to: Path
    home: Path
    precision: str = "float32"
    calibration: Calibration | None = None
    also: Collection[str] = ()


def run(run: Run, section: Export, seed: int) -> None:
    """Write the export, ask it beside the model, and refuse it where it has become too much worse."""
    data = None if section.data is None else prepare.load(run.parents[section.data])
    order = Order(
        place=checkpoint.folder_of(run.parents[section.model]), kind=section.to, to=run.work / FOLDER,
        home=run.folder / FOLDER, precision=section.precision, calibration=ground(section, data, seed),
        also=section.round or (),
    )  # fmt: skip
    shutil.rmtree(order.to, ignore_errors=True)
    told = make(order)
    run.event("written", bytes=sum(told["bytes"]["files"].values()))
    if section.gate is not None and data is not None:
        through(order, data, section.gate, home=run.folder.parent, seed=seed)


def ground(section: Export, data: Prepared | None, seed: int) -> Calibration | None:
    """What a kind is calibrated on: the train split of `data`, read as it is taught; nothing for the other kinds.

    Raises:
        RunError: the data set has nothing to calibrate on.
    """
    if section.to not in CALIBRATED or data is None:
        return None
    return calibration.of(data, section.calibrate or Calibrate(), aided(data), seed)


def make(order: Order) -> dict[str, Any]:
    """Write one export and say how large it is.

    Returns:
        What its `export.json` says.

    Raises:
        ModelError: no saved model, or one that this kind cannot hold.
    """
    written.find(order.kind)
    base = checkpoint.lineage(order.place)[0][1]["base"]
    if "encoder" in base:
        told = encoder.export(order.place, order.kind, order.to)
    else:
        origin = open_origin(order.place)
        ends = end_tokens(origin.bundle)
        task = written.Task(
            to=order.to, home=order.home, ends=ends, precision=order.precision, calibration=order.calibration,
            also=order.also,
        )  # fmt: skip
        told = written.export(origin, order.kind, task)
    print(f"  {order.kind}: {size(told)}")
    return told


def carry(order: Order) -> bool:
    """Store the threshold of abstention with an export, where an evaluation of the same run calibrated one.

    It is calibrated for exactly this model, so an export that answers otherwise than the model gets none.

    Returns:
        Whether there is one; `export.json` then holds it as `abstain`.
    """
    stage = order.place.parent if order.place.name == "model" else order.place
    exact = order.kind in EXACT and order.precision == "float32"
    held = sure.find(stage) if exact and (stage / runs.MANIFEST).is_file() else None
    if held is not None:
        runs.write_json(order.to / opened.REPORT, {**opened.report(order.to), "abstain": asdict(held)})
    return held is not None


def size(told: Mapping[str, Any]) -> str:
    """The size of an export beside that of the weights in float32, in words."""
    held, before = sum(told["bytes"]["files"].values()) / MIB, told["bytes"]["float32"] / MIB
    return f"{held:.1f} MiB in {len(told['bytes']['files'])} files; float32 weights are {before:.1f} MiB"


def through(order: Order, data: Prepared, asked: Gate, *, home: Path, seed: int) -> list[dict[str, Any]]:
    """Lead an export through the gate; its table goes into `export.json`, is printed, and decides.

    Args:
        order: what was exported.
        data: what is asked.
        asked: the gate.
        home: folder whose `.answers` keep answers.
        seed: decides the resamples.

    Raises:
        RunError: nothing to ask, or a measure fell by more than is allowed.
    """
    samples = select(data.samples(asked.split), asked.where)[: asked.limit]
    if not samples:
        raise RunError(
            "there is nothing to ask at the gate", where="gate", found=f"no sample of split '{asked.split}'",
            expected="at least one sample", remedy="check `where` and `split`",
        )  # fmt: skip
    desk = Desk(root=data.root, home=home, generate=asked.generate)
    line = {"line": checkpoint.fingerprints(order.place)}
    files = [p for p in runs.files_below(order.to) if p.name not in EARLIER]
    made = {"export": [f"{p.name} {runs.hash_file(p)}" for p in files]}
    sides = {
        "before": answers(desk, data, samples, line, lambda: checkpoint.load(order.place), seed),
        "after": answers(desk, data, samples, made, lambda: opened.load(order.to), seed),
    }
    measures = judging.measure({(s, "clean"): p for s, p in sides.items()}, asked.metrics, data.root)
    rows = gate.compare(
        measures["before", "clean"],
        measures["after", "clean"],
        asked.allow,
        seed=seed,
        resamples=asked.resamples,
    )
    told = {**opened.report(order.to), "gate": {"samples": len(samples), "allow": asked.allow, "rows": rows}}
    runs.write_json(order.to / opened.REPORT, told)
    (order.to / "README.md").write_text(card.text(order.kind, told), encoding="utf-8")
    print(gate.text(rows))
    wrong = gate.failed(rows)
    if wrong:
        raise RunError(
            f"the export '{order.kind}' answers worse than the gate allows", where=f"{len(samples)} samples",
            found="; ".join(wrong), expected="differences whose lower end is within what is allowed",
            remedy="export with more bits, measure on more patients, or allow more",
        )  # fmt: skip
    return rows


def answers(
    desk: Desk, data: Prepared, samples: list[Sample], model: dict[str, Any], load: Callable[[], Bundle], seed: int
) -> list[Prediction]:  # fmt: skip
    """Answers of one side to clean images, as an evaluation asks for them."""
    read = aided(data)
    asked = Asked(
        name="the model" if "line" in model else "its export", shown="clean", samples=samples, read=read,
        see=lambda sample, i: View(sample.images[i], sample.id),
        key=key_of(desk, model, samples, read, shown="clean", seed=seed),
    )  # fmt: skip
    (ledger,) = answer(desk, [asked], load, lambda one, count: None)
    return ledger.all([s.id for s in samples])


def refuse(order: Order) -> None:
    """Refuse to write where something stands already.

    Raises:
        ModelError: the folder is there.
    """
    if order.home.exists():
        raise ModelError(
            "there is something already where the export is to be written", where=str(order.home)
        )
