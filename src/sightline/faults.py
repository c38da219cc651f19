"""What is wrong with a recipe's keys and values, in the words and places that its author used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from . import plugins

Kinds = Mapping[str, type[BaseModel]]
ADDED = ("Plan", "Model", "Encoder", "literal['frozen']", "str")  # what pydantic puts into places for unions


def explain(
    error: ValidationError, top: type[BaseModel], stages: Kinds, inner: Sequence[type[BaseModel]]
) -> list[str]:
    """All faults of a validation as lines `place: what, found ...`; places read as in an override.

    Args:
        error: what pydantic raised.
        top: the section of the whole recipe.
        stages: section of each kind of stage.
        inner: sections that stand inside others, whose keys may be meant by an unknown one.
    """
    found = {_place(item["loc"], stages): item for item in error.errors()}
    deepest = {loc for loc in found if not any(o != loc and o[: len(loc)] == loc for o in found)}
    lines = []
    for loc in sorted(deepest, key=list(found).index):
        item = found[loc]
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            section = stages.get(str(item["loc"][2])) if len(item["loc"]) > 3 else top
            text = "unknown key" + plugins.nearest(loc[-1], _keys(section, inner))
        elif item["type"] == "union_tag_invalid":
            text = f"unknown stage; known: {', '.join(stages)}"
        elif item["type"] not in ("missing", "value_error"):
            text += f", found {item['input']!r}"
        words = loc[1:] if loc[0] == "stages" and len(loc) > 1 else loc
        lines.append(f"{'.'.join(words)}: {text}")
    return lines


def _place(loc: tuple[str | int, ...], stages: Kinds) -> tuple[str, ...]:
    """A dotted place as the user wrote it: without the words that pydantic adds for unions."""
    parts = [str(p) for p in loc]
    if len(parts) > 2 and parts[0] == "stages" and parts[2] in stages:
        del parts[2]
    return tuple(p for p in parts if p not in ADDED and not p.startswith(("function-", "dict[")))


def _keys(section: type[BaseModel] | None, inner: Sequence[type[BaseModel]]) -> list[str]:
    """Keys of a section and of the sections inside it."""
    if section is None:
        return []
    return [*section.model_fields, *(key for each in inner for key in each.model_fields)]


def sound(document: Mapping[str, Any], stage: TypeAdapter[Any]) -> dict[str, Any]:
    """The stages of a recipe with their faulty keys left out, where that makes sense; what they name can be checked.

    Args:
        document: the recipe as plain mappings.
        stage: what checks a stage's section.
    """
    found: dict[str, Any] = {}
    for name, section in (document.get("stages") or {}).items():
        kept = section
        for _ in range(2):
            try:
                found[str(name)] = stage.validate_python(kept)
                break
            except ValidationError as error:
                faulty = {item["loc"][1] for item in error.errors() if len(item["loc"]) > 1}
                kept = {k: v for k, v in section.items() if k not in faulty} if faulty else section
    return found
