"""A saved model on other data: a recipe of two stages made in memory and run like any other."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import recipe, runs, tree
from ..errors import ModelError, RecipeError
from ..recipe import Recipe

METRICS = ("vqa", "bleu", "rouge")


def measure(
    model: str,
    data: str,
    reader: str,
    options: Sequence[str],
    *,
    runs: Path,
    limit: int | None,
    backend: str = "auto",
) -> Path:
    """Prepare the data, evaluate the model, and return the evaluation's folder.

    Progress goes to standard error, so that standard output stays free for the result.

    Args:
        model: a trained stage's folder, an export, or a base model's folder; with an address its name there.
        data: folder of raw files; `-` for none.
        reader: a reader's name.
        options: the reader's options as `key=value`.
        runs: the folder of all runs.
        limit: at most so many samples.
        backend: `auto`, `transformers`, `onnx`, or the address of an OpenAI-compatible server.

    Raises:
        ModelError: nothing in the model's folder that can be asked, or no such server.
        RecipeError: unknown reader or options, or a backend that does not open the model.
    """
    given = parse(options)
    if backend not in ("auto", "transformers") or not _is_trained(Path(model)):
        model = str(_served(model, backend, runs))
    made = recipe_of(model, data, reader, given, limit)
    from ..stages import execute

    with contextlib.redirect_stdout(sys.stderr):
        return execute(made, runs)["evaluate"]


def _is_trained(place: Path) -> bool:
    """Whether a folder may be a trained stage's: it is neither an export nor a base model's."""
    others = (place / "config.json", place / "generate.json", place / "export" / "export.json")
    return not any(path.is_file() for path in others)


def _served(model: str, backend: str, root: Path) -> Path:
    """A folder that stands for a model that no stage trained."""
    from ..stages import served

    far = backend.startswith(("http://", "https://"))
    found = served.of_address(backend, model) if far else served.of_folder(Path(model), backend)
    label = re.sub(r"[^A-Za-z0-9_.-]", "-", found.model)
    return served.write(root / f"served-{runs.digest(found.place, found.model)[:8]}" / label, found)


def recipe_of(model: str, data: str, reader: str, options: dict[str, Any], limit: int | None) -> Recipe:
    """The recipe of such a measurement; its name holds a digest of what is measured on what."""
    place = stage_of(model)
    label = re.sub(r"[^A-Za-z0-9_.-]", "-", place.name)
    digest = runs.digest(str(Path(data).resolve()), str(place.resolve()))[:8]
    prepare: dict[str, Any] = {"stage": "prepare", "reader": reader, **options}
    prepare["split"] = {"train": 0, "valid": 0, "test": 1, "by": "patient"}
    if data != "-":
        prepare["root"] = data
    evaluate: dict[str, Any] = {
        "stage": "evaluate",
        "data": "data",
        "models": [_spelt(place)],
        "metrics": METRICS,
    }
    if limit is not None:
        evaluate["limit"] = limit
    document = {"name": f"evaluate-{label}-{digest}", "stages": {"data": prepare, "evaluate": evaluate}}
    return recipe.check(document, "sightline evaluate")


def stage_of(model: str) -> Path:
    """The stage folder that was meant; its inner `model` folder is taken for it.

    Raises:
        ModelError: there is none.
    """
    place = Path(model)
    if not (place / runs.MANIFEST).is_file() and place.name == "model":
        place = place.parent
    if not (place / runs.MANIFEST).is_file():
        raise ModelError(
            "no trained stage in this folder",
            where=model,
            expected=f"a stage's folder, with {runs.MANIFEST}",
            remedy="give a folder such as runs/quickstart/taught",
        )
    return place


def _spelt(place: Path) -> str:
    """The path in a spelling that no stage's name can have."""
    text = place.as_posix()
    return text if "/" in text else f"./{text}"


def parse(options: Sequence[str]) -> dict[str, Any]:
    """`key=value` words as a mapping; values are YAML.

    Raises:
        RecipeError: a word without `=`.
    """
    found: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise RecipeError("an option reads key=value", found=text)
        found[key] = tree.value(value, text)
    return found
