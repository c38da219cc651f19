"""A stage of a run as what is served: its model, name and hash, its threshold, and what it was taught to be asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import runs
from ..data import prepare
from ..data.turns import exchanges
from ..errors import DataError
from ..inference import REPORT, in_precision
from ..models import checkpoint
from ..models.family import Bundle
from ..settings import Generate
from . import sure
from .backend import Identity

MOST = 12  # questions that are suggested
FEWEST = 5  # patients who must have been asked the same: a question of few may tell who they are
LONGEST = 200


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What is served.

    Args:
        bundle: the model, in its precision and on its device.
        identity: its name and hash.
        held: the threshold that an evaluation of the same run calibrated for it, if one did.
        about: for the page: `questions` that it was taught, and the text that asks for a `report`.
    """

    bundle: Bundle
    identity: Identity
    held: sure.Held | None
    about: Mapping[str, Any]


def open_stage(model: Path, *, precision: str, threshold: Path | None = None) -> Opened:
    """Open the model of a stage.

    Args:
        model: a stage's folder, or the `model` folder in it.
        precision: `float32` or `bfloat16`.
        threshold: an evaluation's folder or its `abstain.json`; None looks for one in the same run.

    Raises:
        ModelError: no saved model there, or no room for it.
        RunError: the evaluation has no threshold for it.
    """
    folder = checkpoint.folder_of(model.resolve())
    stage = folder.parent if folder.name == "model" else folder
    bundle = checkpoint.load(folder)
    in_precision(bundle, Generate.model_validate({"precision": precision}))
    sealed = (stage / runs.MANIFEST).is_file()
    held = sure.find(stage) if sealed and threshold is None else None
    if threshold is not None:
        held = sure.read(threshold, stage.name)
    identity = Identity(
        name=f"{stage.parent.name}/{stage.name}", sha256=runs.digest(*checkpoint.fingerprints(folder)),
        facts={"family": bundle.family.name, "precision": precision},
    )  # fmt: skip
    return Opened(bundle=bundle, identity=identity, held=held, about=_taught(folder) if sealed else {})


def _taught(folder: Path) -> dict[str, Any]:
    """Questions that many patients' records of the train split ask, and the one that asks for a report."""
    asked: dict[tuple[str, str], set[str]] = defaultdict(set)
    for data in _data_sets(folder):
        for sample in data.samples("train"):
            for question, _, topic in exchanges(sample):
                if len(question) <= LONGEST:
                    asked[topic, question].add(sample.patient)
    known = [(topic, q) for (topic, q), who in asked.items() if len(who) >= FEWEST]
    known.sort(key=lambda each: (-len(asked[each]), each))
    first: dict[str, str] = {}
    for topic, question in known:  # of each topic the commonest wording
        first.setdefault(topic or question, question)
    report = first.pop(REPORT, "")
    return {"questions": list(first.values())[:MOST], "report": report.strip()}


def _data_sets(folder: Path) -> Iterator[prepare.Prepared]:
    """The prepared data set that the nearest model of a line was taught on; nothing where it is gone."""
    for place, _ in reversed(checkpoint.lineage(folder)):
        stage = place.parent
        if not (stage / runs.MANIFEST).is_file():
            continue
        for parent in runs.read_json(stage / runs.MANIFEST).get("parents", {}):
            try:
                data = prepare.load(stage.parent / parent)
            except DataError:
                continue
            if data.kind == "samples" and data.counts.get("train"):
                yield data
                return
