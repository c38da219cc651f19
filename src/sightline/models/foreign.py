"""Models that Sightline did not train: a folder as on a hub, opened by the family that knows its type."""

from __future__ import annotations

from pathlib import Path

from .. import plugins, runs
from ..errors import ModelError
from ..settings import Model
from . import checkpoint
from .family import Bundle
from .stock import part_folder

CONFIG = "config.json"


def family_of(place: Path) -> str:
    """The family that opens a folder: a family has the name of the type that its `config.json` says.

    Raises:
        ModelError: no model's folder, one with code of its own or without safetensors, or one that no family knows.
    """
    part_folder(str(place))
    kind = str(runs.read_json(place / CONFIG).get("model_type"))
    known = plugins.names("families")
    if kind not in known:
        raise ModelError(
            f"no family opens a model of the type '{kind}'{plugins.nearest(kind, known)}", where=f"{place}/{CONFIG}",
            expected=", ".join(known), remedy="a language model alone is put together with a tower by a recipe",
        )  # fmt: skip
    return kind


def open_folder(place: Path) -> Bundle:
    """A model as it stands in its folder, in float32, frozen and in eval mode.

    Raises:
        ModelError: see `family_of`; or weights are missing or unexpected.
    """
    section = Model(family=family_of(place), path=str(place)).model_dump()
    bundle = checkpoint.compose(section, 0)
    bundle.model.requires_grad_(False)
    bundle.model.eval()
    return bundle
