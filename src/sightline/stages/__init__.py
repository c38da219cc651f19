"""Stages: each reads its parents' folders and writes its own. `execute` runs a recipe's stages in order."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import RecipeError, RunError
from ..recipe import Recipe
from . import launch

HERE = Path(__file__).parent
Say = Callable[[str], None]


def execute(
    recipe: Recipe,
    root: Path,
    *,
    only: Sequence[str] = (),
    say: Say = print,
    spread: launch.Spread | None = None,
) -> dict[str, Path]:
    """Run what is not up to date, in the recipe's order.

    Args:
        recipe: the checked recipe.
        root: the folder of all runs; results stand in `root/RECIPE/STAGE`.
        only: names of stages to run; the others must be up to date or are left as they are.
        say: where progress is told.
        spread: several processes for the stages that train; None for one. It is no part of what a stage's key is
            made of: the rows of a step are the same.

    Returns:
        Stage name -> its folder.

    Raises:
        RunError: another launcher made this process one of several.
    """
    launch.refuse_foreign()
    unknown = [name for name in only if name not in recipe.stages]
    if unknown:
        raise RecipeError(f"--only names no stage: {', '.join(unknown)}", expected=", ".join(recipe.stages))
    folders: dict[str, Path] = {}
    for name, section in recipe.stages.items():
        folder = root / recipe.name / name
        folders[name] = folder
        if only and name not in only:
            continue
        version = version_of(section.stage)
        parents = {n: folders[n] for n in recipe.reads(name)}
        outside = [m for m in outside_models(section) if m not in recipe.stages]
        parents.update({m: Path(m) for m in outside})
        plain = section.model_dump(mode="json")
        with runs.lock(folder):
            runs.recover(folder)
        chain = {n: finished(n, p) for n, p in parents.items()}
        if runs.is_done(folder, runs.key_of(plain, recipe.seed, version, chain)):
            say(f"{name}: up to date")
            continue
        say(f"{name}: {section.stage}")
        module = importlib.import_module(f".{section.stage}", __name__)
        with runs.start(folder, section=plain, seed=recipe.seed, version=version, parents=parents) as run:
            if run.resumed:
                say(f"{name}: resuming an interrupted run")
            launch.run_stage(module, run, section, recipe.seed, spread)
    return folders


def version_of(stage: str) -> int:
    """The version of a stage's code, read from its source: importing it would import torch."""
    tree = ast.parse((HERE / f"{stage}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == ["VERSION"]:
            return int(ast.literal_eval(node.value))
    raise AssertionError(f"stages/{stage}.py states no VERSION")


def finished(name: str, folder: Path) -> str:
    """The content hash of a result that a stage reads.

    Raises:
        RunError: it has not been made.
    """
    if not (folder / runs.MANIFEST).is_file():
        raise RunError(
            f"'{name}' has no finished result to read",
            where=str(folder),
            remedy="run that stage too, or give the folder of a finished stage",
        )
    return runs.content(folder)


def outside_models(section: Any) -> list[str]:
    """Saved models that a stage names by folder instead of by stage."""
    judge = getattr(getattr(section, "judge", None), "model", None)
    named = [
        getattr(section, "model", None), judge, getattr(section, "encoder", None), *getattr(section, "models", ())
    ]  # fmt: skip
    return [m for m in named if isinstance(m, str) and m != "base"]
