"""An exported folder as a `Bundle` again, by its own files alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .. import plugins, runs
from ..errors import ModelError
from ..models.family import Bundle
from ..settings import Model
from . import folder, hub, onnx_model

REPORT = "export.json"


def is_export(place: Path) -> bool:
    """Whether a folder is what `sightline export` made."""
    return (place / REPORT).is_file()


def load(place: Path) -> Bundle:
    """Open an exported model, in eval mode and frozen, with its weights rounded where they are.

    Raises:
        ModelError: no export of a model that answers.
    """
    if (place / folder.SETTINGS).is_file():
        return onnx_model.load(place)
    if not (place / hub.SECTION).is_file():
        raise ModelError(
            "this is no exported model", where=str(place), expected=f"a folder with {hub.SECTION} or {folder.SETTINGS}",
            remedy="give the folder that `sightline export` wrote",
        )  # fmt: skip
    told = yaml.safe_load((place / hub.SECTION).read_text(encoding="utf-8"))["model"]
    section = Model.model_validate({**told, "path": str(place)}).model_dump()
    bundle: Bundle = plugins.load("families", section["family"]).compose(section, 0)
    bundle.model.requires_grad_(False)
    bundle.model.eval()
    return bundle


def report(place: Path) -> dict[str, Any]:
    """What an export says of itself."""
    told: dict[str, Any] = runs.read_json(place / REPORT)
    return told
