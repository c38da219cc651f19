"""A plug-in is a file. Its name is the file name; its options are its keyword-only arguments.

`names("losses")` lists files and imports nothing. `options("losses", "dpo")` reads the keyword-only arguments
from the source, again without importing, so a recipe can be checked where torch is absent. `load` imports the
file and returns the constant at its end; `"my_lab.scores:metric"` reaches outside the package.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from .errors import RecipeError

Kind = Literal[
    "readers", "formats", "degrade", "losses", "metrics", "families", "parts", "contrasts", "encoders",
    "connectors",
]  # fmt: skip

PLACES: dict[str, tuple[str, str]] = {
    "readers": ("data/readers", "READER"),
    "formats": ("images/formats", "FORMAT"),
    "degrade": ("images/degrade", "DEGRADE"),
    "losses": ("losses", "LOSS"),
    "metrics": ("metrics", "METRIC"),
    "families": ("models/families", "FAMILY"),
    "parts": ("models/parts", "PART"),
    "contrasts": ("losses", "CONTRAST"),
    "encoders": ("models/encoders", "ENCODER"),
    "connectors": ("models/connectors", "CONNECTOR"),
}
ROOT = Path(__file__).parent


def names(kind: Kind) -> list[str]:
    """The plug-ins of a kind, by reading file names; a file counts when it ends with the kind's constant."""
    folder, constant = PLACES[kind]
    return sorted(
        p.stem
        for p in (ROOT / folder).glob("[!_]*.py")
        if f"\n{constant} = " in p.read_text(encoding="utf-8")
    )


def nearest(word: str, known: list[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known word is near."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean '{match[0]}'?" if match else ""


def source(kind: Kind, name: str) -> tuple[Path, str]:
    """The file of a plug-in and the name of its function.

    Raises:
        RecipeError: no such plug-in; the message lists the known ones.
    """
    if ":" in name:
        module, _, function = name.partition(":")
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None or spec.origin is None:
            raise RecipeError(f"no module '{module}' for the plug-in '{name}'", remedy="set PYTHONPATH")
        return Path(spec.origin), function
    known = names(kind)
    if name not in known:
        raise RecipeError(
            f"no {kind} plug-in '{name}'{nearest(name, known)}", found=repr(name), expected=", ".join(known)
        )
    return ROOT / PLACES[kind][0] / f"{name}.py", name


def load(kind: Kind, name: str) -> Any:
    """Import one plug-in and return its constant (`LOSS`, `METRIC`, ...).

    A file outside the package may leave the constant out; the function itself is returned then.

    Raises:
        RecipeError: no such plug-in, or no such function in an outside file.
    """
    path, function = source(kind, name)
    folder, constant = PLACES[kind]
    if ":" in name:
        held = vars(importlib.import_module(name.partition(":")[0]))
        if function not in held:
            raise RecipeError(f"the plug-in file {path.name} holds no function '{function}'")
        return held.get(constant, held[function])
    module = importlib.import_module(f"sightline.{folder.replace('/', '.')}.{path.stem}")
    return getattr(module, constant)


_TYPES: dict[str, Any] = {
    "int": int, "float": float, "str": str, "bool": bool, "None": None, "Literal": Literal, "Path": Path,
    "list": list, "tuple": tuple, "dict": dict,
}  # fmt: skip


@lru_cache
def options(kind: Kind, name: str) -> dict[str, tuple[Any, Any]]:
    """Keyword-only arguments of a plug-in as {name: (type, default)}, read from the source.

    A default of `...` means required. Arguments whose name starts with an underscore are not options.
    """
    path, function = source(kind, name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            found = {}
            for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                annotation = ast.unparse(arg.annotation) if arg.annotation else "str"
                kind_of = eval(annotation, {"__builtins__": {}}, _TYPES)
                found[arg.arg] = (kind_of, ... if default is None else ast.literal_eval(default))
            return found
    raise RecipeError(f"the plug-in file {path.name} holds no function '{function}'")


def bind(kind: Kind, name: str, given: Mapping[str, Any], *, where: str = "") -> dict[str, Any]:
    """Check options against a plug-in's keyword-only arguments and return them converted, defaults filled in.

    Raises:
        RecipeError: unknown, missing or wrongly typed options; all of them in one message.
    """
    from pydantic import ConfigDict, ValidationError, create_model

    known = options(kind, name)
    fields: dict[str, Any] = dict(known)
    model = create_model(f"{name}_options", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        checked = model(**given)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(p) for p in item["loc"])
            hint = nearest(key, list(known)) if item["type"] == "extra_forbidden" else ""
            lines.append(f"{where}{key}: {item['msg']}{hint}")
        raise RecipeError(
            f"options of '{name}' do not fit", where="; ".join(lines), expected=describe(known)
        ) from None
    return {key: getattr(checked, key) for key in known}


def describe(known: Mapping[str, tuple[Any, Any]]) -> str:
    """One line that lists options with their types and defaults."""
    if not known:
        return "no options"
    shown = []
    for key, (kind_of, default) in known.items():
        text = "|".join(map(str, get_args(kind_of))) or getattr(kind_of, "__name__", str(kind_of))
        shown.append(f"{key}: {text}" + ("" if default is ... else f" = {default}"))
    return ", ".join(shown)
