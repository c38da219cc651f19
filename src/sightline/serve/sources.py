"""What may be served: a stage of a run, an export, or a folder that a family opens; and which backend answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import runs
from ..errors import ModelError, RecipeError
from ..export import folder as graphs
from ..export import hub, opened
from ..models import checkpoint, foreign

Kind = Literal["stage", "graphs", "export", "base"]
EXPORTED = "export"  # where a stage of the kind `export` has its files
WORDS = {
    "stage": "a trained stage of a run",
    "graphs": "an ONNX export",
    "export": "an export",
    "base": "a folder of a base model",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model that can be served.

    Args:
        kind: `stage`: a saved model, which names what it stands on; `graphs`: an ONNX export; `export`: a folder whose
            `model.yaml` says how it is opened; `base`: any other folder of a model.
        folder: its files.
        stage: the stage's folder that it belongs to, or its own.
    """

    kind: Kind
    folder: Path
    stage: Path

    @property
    def name(self) -> str:
        """What it is called: recipe and stage, or its folder."""
        if self.stage != self.folder or (self.stage / runs.MANIFEST).is_file():
            return f"{self.stage.parent.name}/{self.stage.name}"
        return self.folder.name

    @property
    def told(self) -> dict[str, Any]:
        """What an export says of itself; nothing of others."""
        return opened.report(self.folder) if opened.is_export(self.folder) else {}


def find(model: Path) -> Source:
    """What a path means.

    Args:
        model: a stage's folder, the `model` or `export` folder in it, an export, or a base model's folder.

    Raises:
        ModelError: nothing there that can be served.
    """
    place = model.resolve()
    saved = checkpoint.folder_of(place)
    if (saved / checkpoint.INFO).is_file():
        return Source(kind="stage", folder=saved, stage=saved.parent if saved.name == "model" else saved)
    inner = place / EXPORTED
    where = inner if opened.is_export(inner) else place
    stage = where.parent if where.name == EXPORTED and (where.parent / runs.MANIFEST).is_file() else where
    if (where / graphs.SETTINGS).is_file():
        return Source(kind="graphs", folder=where, stage=stage)
    if (where / hub.SECTION).is_file():
        return Source(kind="export", folder=where, stage=stage)
    if (where / foreign.CONFIG).is_file():
        return Source(kind="base", folder=where, stage=where)
    raise ModelError(
        "this is not a saved model", where=str(model), expected="a stage of a run, an export, or a folder with "
        f"{foreign.CONFIG} and safetensors", remedy="give a stage's folder, such as runs/quickstart/taught",
    )  # fmt: skip


def backend(source: Source, asked: str) -> str:
    """The backend that answers: the one that is asked for, if it can.

    Raises:
        RecipeError: it cannot open such a model.
    """
    if asked == "auto":
        return "onnx" if source.kind == "graphs" else "transformers"
    if (asked == "onnx") != (source.kind == "graphs"):
        wanted = "an ONNX export" if asked == "onnx" else "a model with weights"
        remedy = (
            "`sightline export RUN --to onnx --out DIR` writes one"
            if asked == "onnx"
            else "leave `--backend` out, or give the model that was exported, or its `--to merged`"
        )
        raise RecipeError(
            f"the backend '{asked}' does not open {WORDS[source.kind]}", where=source.name, expected=wanted,
            remedy=remedy,
        )  # fmt: skip
    return asked
