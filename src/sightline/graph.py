"""What the stages of a recipe name, and what is wrong with it: each other, saved models, and plug-ins.

A fault is one line, `place: what`, whose place reads as in an override. Sections are taken as they are; their
classes stand in `recipe`, which stands above.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from . import plugins
from .errors import RecipeError
from .settings import Connector

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
RESERVED = ("base", "name", "seed")
DATA = {
    "align": ("prefer", "prepare"),
    "contrast": ("prepare",),
    "index": ("prepare",),
    "retrieve": ("prepare",),
}
OPENED = ("sft", "contrast")  # makers of models: a folder of a saved one stands for them


def names(kinds: Mapping[str, Any]) -> list[str]:
    """Stages that cannot be called what they are called."""
    return [f"{name}: {why}" for name in kinds if (why := _name_fault(name))]


def mentions(stages: Mapping[str, Any], kinds: Mapping[str, Any]) -> list[str]:
    """Names that name no stage, stages of the wrong kind, and a stage that reads a later one.

    Args:
        stages: the sections that are right by themselves.
        kinds: the kind of every stage of the recipe, in its order; None where it is not known.
    """
    faults: list[str] = []
    for name, stage in stages.items():
        wanted: list[tuple[str, str, tuple[str, ...]]] = []
        if stage.stage != "prepare" and stage.data is not None:
            wanted.append(("data", stage.data, DATA.get(stage.stage, ("prepare", "retrieve"))))
        if isinstance(getattr(stage, "model", None), str):
            makers: tuple[str, ...] = (
                ("contrast",) if stage.stage in ("contrast", "index") else ("sft", "align")
            )
            makers += ("contrast",) if stage.stage == "export" else ()
            wanted.append(("model", stage.model, makers))
        if stage.stage == "prefer" and stage.judge.model is not None:
            wanted.append(("judge.model", stage.judge.model, ("sft", "align")))
        if stage.stage == "retrieve":
            named = {"": stage.index} if isinstance(stage.index, str) else stage.index
            wanted += [(f"index.{key}".rstrip("."), value, ("index",)) for key, value in named.items()]
        if stage.stage == "evaluate":
            wanted += [("models", m, ("sft", "align")) for m in stage.models if m != "base"]
            wanted += [("encoder", stage.encoder, ("contrast",))] if stage.encoder else []
        for key, value, allowed in wanted:
            faults += _reference_fault(f"{name}.{key}", value, allowed, kinds, name)
    return faults


def _name_fault(name: str) -> str:
    """What is wrong with a stage's name, which is also its folder's."""
    if name in RESERVED:
        return f"a stage cannot be called '{name}'; that word has a meaning of its own"
    if not re.match(NAME, name):
        return "a stage's name is a folder's: letters, digits, '_', '-' and '.', no '.' or '-' first"
    return ""


def _reference_fault(
    place: str, value: str, allowed: tuple[str, ...], kinds: Mapping[str, Any], reader: str
) -> list[str]:
    """What is wrong with one stage's mention of another, if anything."""
    if value not in kinds:
        if set(OPENED) & set(allowed) and ("/" in value or Path(value).exists()):
            return []
        near = plugins.nearest(value, list(kinds))
        return [f"{place}: '{value}' names no stage{near}; known: {', '.join(kinds)}"]
    if kinds[value] is not None and kinds[value] not in allowed:
        return [f"{place}: '{value}' is a {kinds[value]} stage, expected {' or '.join(allowed)}"]
    order = list(kinds)
    if order.index(value) >= order.index(reader):
        return [f"{place}: '{value}' stands later in the recipe; move it up"]
    return []


def plug_ins(stages: Mapping[str, Any]) -> list[str]:
    """Unknown plug-ins, and options that their functions do not take."""
    faults: list[str] = []
    for name, stage in stages.items():
        for key, kind, plugin, options in _named(stage):
            place = f"{name}.{key}" if key else name
            try:
                if options is None:
                    plugins.source(kind, plugin)
                else:
                    plugins.bind(kind, plugin, options, where=f"{place}.")
            except RecipeError as error:
                known = error.expected and f"known: {error.expected}"
                details = "; ".join(t for t in (error.where, known) if t)
                faults.append(f"{place}: {error.what}" + (f" ({details})" if details else ""))
    return faults


def _named(stage: Any) -> Iterator[tuple[str, plugins.Kind, str, dict[str, Any] | None]]:
    """The plug-ins that a stage names: (key, kind, name, options or None)."""
    if stage.stage == "prepare":
        yield from _read(stage)
    if stage.stage == "prefer":
        yield "degrade", "degrade", stage.degrade.kind, None
    if stage.stage in ("align", "contrast"):
        kind: plugins.Kind = "losses" if stage.stage == "align" else "contrasts"
        yield "loss", kind, stage.loss.name, stage.loss.options
    if stage.stage == "contrast" and not isinstance(stage.model, str):
        yield "model.encoder", "encoders", stage.model.encoder, None
    if stage.stage in ("sft", "align") and not isinstance(stage.model, str):
        yield "model.family", "families", stage.model.family, None
        if not stage.model.path:
            asked = Connector.of(stage.model.connector)
            yield "model.connector", "connectors", asked.plugin, asked.options
    if stage.stage == "evaluate":
        yield from _measured(stage)
    if stage.stage == "sft" and stage.watch is not None:
        yield from _metrics(stage.watch.metrics, "watch.metrics")
    if stage.stage == "export" and stage.gate is not None:
        yield from _metrics(stage.gate.metrics, "gate.metrics")


def _read(stage: Any) -> Iterator[tuple[str, plugins.Kind, str, dict[str, Any] | None]]:
    """The readers of a data set: of its own files, or of each of its sources."""
    if stage.reader:
        yield "", "readers", stage.reader, stage.options
    for name, raw in stage.sources.items():
        yield f"sources.{name}", "readers", raw.reader, raw.options


def _measured(stage: Any) -> Iterator[tuple[str, plugins.Kind, str, dict[str, Any] | None]]:
    """The plug-ins of an evaluation: its metrics, and the ways in which its images are spoilt."""
    yield from _metrics(stage.metrics, "metrics")
    for image in stage.images:
        kind = image.removesuffix("_prior")  # of images of earlier studies alone
        if kind not in ("clean", "noise", "unaided", "occluded_elsewhere"):
            yield "images", "degrade", kind, None


def _metrics(asked: Any, place: str) -> Iterator[tuple[str, plugins.Kind, str, dict[str, Any] | None]]:
    """The metrics of a list, each a name or `{name: options}`."""
    for metric in asked:
        for name, options in ({metric: None} if isinstance(metric, str) else metric).items():
            yield place, "metrics", name, options
