"""YAML text to plain mappings, and one change to them at a time; the recipe checks what they mean."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from . import plugins
from .errors import RecipeError

MAX_BYTES = 1_000_000


class _Loader(yaml.SafeLoader):
    """YAML without aliases (they can explode) and without repeated keys (the last would win silently)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise RecipeError("YAML aliases (*name) are not read", where=f"line {mark.line + 1}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise RecipeError("a key is a word, not a list or a mapping", where=f"line {line}")
            if key in seen:
                raise RecipeError(f"the key '{key}' stands twice", where=f"line {line}")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read(path: Path) -> dict[str, Any]:
    """The mappings of a recipe file.

    Raises:
        RecipeError: no such file, too large, not YAML, nested too deeply, or without `stages`.
    """
    if not path.is_file():
        raise RecipeError("no such recipe", where=str(path), remedy="`sightline ls` lists recipes")
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError("a recipe file is small", where=str(path), found=f"{path.stat().st_size} bytes")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except RecipeError as error:
        raise RecipeError(error.what, where=f"{path}, {error.where}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError("this is not YAML", where=str(path), found=" ".join(str(error).split())) from None
    except RecursionError:
        raise RecipeError("the YAML is nested too deeply", where=str(path)) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("stages"), dict):
        raise RecipeError("a recipe has `name` and `stages`", where=str(path), found=type(tree).__name__)
    return tree


def value(text: str, place: str) -> Any:
    """The value of `key=value`, read as YAML.

    Args:
        text: what stands right of the first `=`.
        place: the whole word, for the message.

    Raises:
        RecipeError: not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise RecipeError("the value of an override is not YAML", found=place[:200]) from None


def override(tree: dict[str, Any], text: str) -> None:
    """Set one `a.b=c`; the first word is a stage's name, or `name`, `seed`.

    Raises:
        RecipeError: not of that form, or the first word names no stage.
    """
    place, equals, right = text.partition("=")
    keys = place.split(".")
    if not equals or not all(keys):
        raise RecipeError("an override reads stage.key=value", found=text)
    if keys[0] not in ("name", "seed"):
        if keys[0] not in tree["stages"]:
            known = [*map(str, tree["stages"]), "seed", "name"]
            raise RecipeError(
                f"the override names no stage{plugins.nearest(keys[0], known)}",
                found=text,
                expected=f"one of {', '.join(known)} first",
            )
        keys = ["stages", *keys]
    node = tree
    for key in keys[:-1]:
        below = node.get(key)
        if not isinstance(below, dict):
            below = node[key] = {}
        node = below
    node[keys[-1]] = value(right, text)
