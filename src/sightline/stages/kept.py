"""The answers that an evaluation keeps in its folder: one file for each model and kind of image."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..data.predicted import predictions, write
from ..judging import Side
from ..types import Prediction

FOLDER = "predictions"
HELD = "held"  # the clean images of the split that a threshold is calibrated on


def names_of(models: Sequence[str], parents: Collection[str]) -> list[str]:
    """What the models of an evaluation are called in it: a stage by its name, a folder by its last word.

    Args:
        models: as the recipe names them.
        parents: what the stage reads, by name.
    """
    return [m if m in parents and "/" not in m else Path(m).name for m in models]


def place(folder: Path, name: str, image: str) -> Path:
    """Where the answers of one model to one kind of image are kept, below the stage's folder."""
    home = folder / FOLDER
    return home / HELD / f"{name}.jsonl" if image == HELD else home / f"{name}-{image}.jsonl"


def keep(folder: Path, made: Mapping[Side, Sequence[Prediction]]) -> None:
    """Write answers, those of the calibration split (`HELD`) into a folder of their own."""
    for (name, image), each in made.items():
        path = place(folder, name, image)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, each)


def read(folder: Path, names: Sequence[str], images: Sequence[str]) -> dict[Side, list[Prediction]]:
    """The answers of all models to these kinds of images, in the order in which they are scored.

    Raises:
        DataError: a line is no prediction.
        OSError: a file is missing.
    """
    return {(name, image): predictions(place(folder, name, image)) for name in names for image in images}
