"""Opens what stands beside a server's model: an index with reports, and the model that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import runs
from ..data import prepare
from ..errors import DataError, RunError
from ..models import checkpoint
from ..retrieval.shelf import Shelf
from ..settings import Template
from .beside import Beside, Model
from .local import Local
from .opening import How, open_model
from .reports import HIDDEN
from .sources import Source, find


def open_beside(
    own: Source | None, *, index: Path | None, before: Path | None, how: How, slots: int
) -> Beside:
    """Open what stands beside a model.

    Args:
        own: the server's own model; None if it is elsewhere.
        index: folder of a `retrieve` or an `index` stage; None for no reports.
        before: a stage, an export or a base model's folder; None for no comparison.
        how: in what precision the other model is opened. Its threshold is one of its own run.
        slots: how many answers it makes at the same time.

    Raises:
        RunError: no such index, or one that holds a report of the test split.
        ModelError: no such model, or one that cannot be asked.
    """
    other = None
    if before is not None:
        source = find(before)
        opened = open_model(source, How(precision=how.precision, load=how.load))
        other = Model(
            backend=Local(opened.bundle, opened.identity, slots), held=opened.held, template=_wording(source)
        )
    finder = None if index is None else open_shelf(index)
    return Beside(before=other, finder=finder, template=None if own is None else _wording(own))


def _wording(source: Source) -> Template | None:
    return wording(source.folder) if source.kind == "stage" else None


def open_shelf(folder: Path) -> Shelf:
    """Open the index, or the indexes behind a `retrieve` stage, that reports are found in.

    Raises:
        RunError: no such folder, an index that was made anew since, or one that holds a report of the test split.
    """
    shelf = Shelf.open(folder)
    for index in shelf.library.indexes.values():
        held = {*index.splits, *index.store.table["split"].unique().to_pylist()}
        if HIDDEN in held:
            raise RunError(
                "an index with reports of the test split is not shown to anybody", where=str(folder),
                found=", ".join(sorted(held)), expected="reports of train and valid",
                remedy="make the index again with `split: [train]`",
            )  # fmt: skip
    return shelf


def wording(model: Path) -> Template | None:
    """How reports stood in the prompts that a saved model was taught with; None if none did, or nobody knows any more.

    Args:
        model: a stage's folder, or the `model` folder in it.
    """
    for place, _ in reversed(checkpoint.lineage(checkpoint.folder_of(model.resolve()))):
        manifest = place.parent / runs.MANIFEST
        stage = runs.read_json(manifest) if manifest.is_file() else {}
        if stage.get("stage") == "sft":
            return _template(place.parent, stage) if stage["section"].get("reports", 1.0) > 0 else None
    return None


def _template(folder: Path, stage: Mapping[str, Any]) -> Template | None:
    """The template of the data that a stage was taught on."""
    try:
        data = prepare.load(folder.parent / stage["section"]["data"])
    except DataError:
        return None
    return None if data.template is None else Template.model_validate(dict(data.template))
