"""A model as what is served: its name and hash, its threshold, and what it was taught to be asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import runs
from ..data import prepare
from ..data.turns import exchanges
from ..errors import DataError, ModelError
from ..export import opened as exports
from ..export.written import ROUNDED
from ..inference import REPORT, in_precision
from ..models import adapter, checkpoint, foreign, quantized
from ..models.family import Bundle
from ..settings import Generate
from . import sure
from .backend import Identity
from .sources import WORDS, Source

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
        note: what whoever serves it should know.
    """

    bundle: Bundle
    identity: Identity
    held: sure.Held | None
    about: Mapping[str, Any]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class How:
    """How a model is opened.

    Args:
        precision: `float32` or `bfloat16`, of connector and language model.
        load: `4bit` or `8bit` rounds the language model's layers (bitsandbytes); "" does not.
        adapter: folder of a LoRA adapter that Sightline did not train.
        threshold: an evaluation's folder or its `abstain.json`; None looks for one in the same run.
    """

    precision: str = "float32"
    load: str = ""
    adapter: Path | None = None
    threshold: Path | None = None


def open_model(source: Source, how: How) -> Opened:
    """Open whatever can be served in this process.

    A saved model's own adapters are merged before its layers are rounded; one that is given stays beside rounded
    layers, as PEFT has it, and is merged into others.

    Raises:
        ModelError: it cannot be opened so, or the adapter is not for it.
        MissingExtra: bitsandbytes or onnxruntime is not installed.
        RunError: the evaluation has no threshold for it.
    """
    found = None if how.adapter is None else adapter.look(how.adapter)
    _check(source, how)
    bundle = _bundle(source)
    if how.load:
        quantized.quantize(bundle, how.load)
    if found is not None:
        adapter.add(bundle, found, base=source.name, merge=not quantized.is_rounded(bundle.model))
    if source.kind != "graphs":
        in_precision(bundle, Generate.model_validate({"precision": how.precision}))
    sealed = source.kind == "stage" and _is_sealed(source.stage)
    whole = found is None and not how.load  # else it is not the model that a threshold was calibrated for
    held = None
    if how.threshold is not None:
        held = sure.read(how.threshold, source.stage.name)
    elif whole:
        told = source.told if how.precision == sure.EXACT else {}
        held = sure.find(source.stage, how.precision) if sealed else sure.carried(told)
    about = _taught(source.folder) if sealed else {}
    named = identity(source, how, bundle.family.name)
    note = _note(source, found)
    if sealed and whole and held is None:
        note = _elsewhere(source)
    return Opened(bundle=bundle, identity=named, held=held, about=about, note=note)


def identity(source: Source, how: How, family: str) -> Identity:
    """What a model is called, and the hash of all its files."""
    line = checkpoint.fingerprints(source.folder) if source.kind == "stage" else [files(source.folder)]
    facts: dict[str, Any] = {"family": family, "precision": how.precision}
    name = source.name
    if source.told:
        facts |= {"export": source.told["kind"]}
    if how.load:
        facts |= {"load": how.load}
    if how.adapter is not None:
        line = [*line, files(how.adapter)]
        name = f"{name}+{how.adapter.resolve().name}"
        facts |= {"adapter": how.adapter.resolve().name}
    return Identity(name=name, sha256=runs.digest(*line), facts=facts)


def _note(source: Source, found: adapter.Adapter | None) -> str:
    """That an adapter, although it fits, names another base: folders may have any name."""
    if found is None or adapter.is_named(found, source.name):
        return ""
    return f"note: the adapter says that it was trained on {found.base}, and it is served on {source.name}"


def _elsewhere(source: Source) -> str:
    """That a threshold was calibrated, but in another precision."""
    others = " or ".join(sure.calibrated(source.stage))
    return (
        f"note: a threshold was calibrated in {others}; --precision {others} shows verdicts" if others else ""
    )


def files(folder: Path) -> str:
    """One hash of the files in a folder that is no saved model, whatever it is called."""
    found = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    return runs.digest(*(f"{p.name}:{runs.hash_file(p)}" for p in found))


def _check(source: Source, how: How) -> None:
    """Refuse what a model of this kind cannot be given.

    Raises:
        ModelError: graphs take neither, and rounded weights are not rounded again.
    """
    asked = [word for word, on in (("--load", how.load), ("--adapter", how.adapter)) if on]
    rounded = source.told.get("kind") in ROUNDED
    if source.kind == "graphs" and how.precision != "float32":
        asked.append(f"--precision {how.precision}")
    if asked and (source.kind == "graphs" or (rounded and how.load)):
        what = (
            WORDS[source.kind] if source.kind == "graphs" else "an export whose weights are rounded already"
        )
        raise ModelError(
            f"{what} is served as it is", where=source.name, found=" ".join(asked),
            remedy="give the model that was exported, or `--to merged` of it",
        )  # fmt: skip


def _bundle(source: Source) -> Bundle:
    """The model in float32, or as it was exported."""
    if source.kind == "stage":
        return checkpoint.load(source.folder)
    return foreign.open_folder(source.folder) if source.kind == "base" else exports.load(source.folder)


def _is_sealed(stage: Path) -> bool:
    return (stage / runs.MANIFEST).is_file()


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
