"""Open indexes and how their reports are shown: what `ask` and `serve` find similar reports with.

shelf = Shelf.open(Path("runs/NAME/retrieved"))   # index and encoder, how many reports are shown, in what words
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import runs
from ..data.prompts import WORDINGS
from ..errors import RecipeError, RunError
from ..models.encoder_checkpoint import load_encoder
from ..settings import Choose, Template
from ..types import Sample
from .ask import Library, cut
from .domain import ABOUT, Router
from .found import Found
from .opened import Index


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Open indexes, and how their reports are shown.

    Args:
        library: the indexes with their encoders.
        choose: how many are shown.
        template: in what words.
    """

    library: Library
    choose: Choose
    template: Template

    @classmethod
    def open(cls, folder: Path, *, k: int | None = None, prompt: str | None = None) -> Shelf:
        """Open what a `retrieve` stage read, shown as it shows them; or one index, its best reports in plain words.

        Args:
            folder: of a `retrieve` or an `index` stage.
            k: most reports shown; None leaves it to the stage (5 for an index).
            prompt: the wording; None leaves it to the stage (`plain` for an index).

        Raises:
            RunError: no such folder, or an index that was made anew since.
            RecipeError: no such wording.
        """
        folder = folder.resolve()
        stage = _stage(folder)
        if stage["stage"] == "index":
            indexes, choose, template = {"": Index.open(folder)}, Choose(), Template(name="plain")
        else:
            indexes, choose, template = _retrieved(folder, stage)
        choose = choose if k is None else choose.model_copy(update={"k": k})
        if prompt is not None and prompt not in WORDINGS:
            raise RecipeError(f"no wording '{prompt}'", expected=", ".join(WORDINGS))
        if prompt is not None:
            template = Template.model_validate({**template.model_dump(), "name": prompt})
        routed = len(indexes) > 1 and (folder / ABOUT).is_file()
        router = Router.load(folder) if routed else None
        library = Library(indexes, load_encoder, None, int(stage["seed"]), router)
        return cls(library=library, choose=choose, template=template)

    def find(self, sample: Sample, root: Path, held: Mapping[str, np.ndarray] | None = None) -> Found:
        """The reports for a sample, and how many of them are shown.

        Args:
            sample: who asks.
            root: data root of its images.
            held: pixels [H, W, 3] by path, of images that are in no file.
        """
        return cut(self.library.find([sample], root, self.choose.k, held), self.choose, None)[0]


def _stage(folder: Path) -> dict[str, Any]:
    """The manifest of a finished `index` or `retrieve` stage."""
    place = folder / runs.MANIFEST
    manifest = runs.read_json(place) if place.is_file() else {}
    if not isinstance(manifest, dict) or manifest.get("stage") not in ("index", "retrieve"):
        raise RunError(
            "no reports can be found in this folder", where=str(folder),
            found=f"stage {manifest['stage']}" if manifest.get("stage") else "no finished stage",
            expected="the folder of a `retrieve` or an `index` stage, such as runs/mmed_rag/retrieved",
        )  # fmt: skip
    return manifest


def _retrieved(folder: Path, stage: Mapping[str, Any]) -> tuple[dict[str, Index], Choose, Template]:
    """The indexes that a `retrieve` stage read, how many reports it shows, and in what words."""
    section = stage["section"]
    named = {"": section["index"]} if isinstance(section["index"], str) else section["index"]
    for name in named.values():
        place = folder.parent / name
        if runs.content(place) != stage["parents"][name]:
            raise RunError(
                "an index was made anew since reports were retrieved from it", where=str(place),
                remedy="run the recipe again, from `retrieve` on",
            )  # fmt: skip
    choose = Choose.model_validate(section["choose"])
    if choose.rule == "calibrated":
        k = int(runs.read_json(folder / "calibration.json")["k"])
        choose = choose.model_copy(update={"rule": "top", "k": k})
    indexes = {domain: Index.open(folder.parent / name) for domain, name in named.items()}
    return indexes, choose, Template.model_validate(section["prompt"])
