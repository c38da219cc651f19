"""A model that no stage trained, where an evaluation wants a stage: an export, a base model's folder, or an address.

The folder holds `served.json`, which says what it is by its hash; the model stays where it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import ModelError, RecipeError, RunError
from ..export import opened
from ..models import foreign
from ..models.family import Bundle
from ..recipe import Evaluate
from ..serve import opening, sources
from .far import Far, connect

FILE = "served.json"
BACKENDS = ("auto", "transformers", "onnx")
VERSION = 1
TOKEN = "SIGHTLINE_REMOTE_TOKEN"
# What needs log p of yes and of no, or a look inside; an address gives the words of an answer and their probability.
INNER = ("occluded", "occluded_elsewhere")
CHOICES = ("calibration", "looking")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A model that is asked as it is.

    Args:
        kind: of a folder as in `serve.sources`; or `address`.
        place: the folder; or the address.
        model: its name there.
        sha256: of its files, or what the server says of them; "" where that is not known.
    """

    kind: str
    place: str
    model: str
    sha256: str

    @property
    def base(self) -> dict[str, Any]:
        """What stands in the place of a base: nothing is known of one behind an address."""
        return {"model": {"family": None, "served": self.kind, "name": self.model}}

    @property
    def known(self) -> dict[str, Any]:
        """What answers depend on, as plain values: of a server that tells no hash its address and name."""
        if self.kind == "address" and not self.sha256:
            return {"address": self.place, "model": self.model}
        return {"served": self.kind == "address", "sha256": self.sha256}


def of_folder(model: Path, backend: str) -> Served:
    """An export or a base model's folder.

    Args:
        model: the folder.
        backend: `auto`, `onnx` or `transformers`.

    Raises:
        ModelError: nothing that can be asked, or a trained stage, which is asked by itself.
        RecipeError: the backend does not open it.
    """
    if backend not in BACKENDS:
        raise RecipeError(
            "no such backend of an evaluation", where="--backend", found=backend,
            expected=f"{', '.join(BACKENDS)}, or an address",
            remedy="`sightline serve MODEL --backend vllm` in another terminal has an address",
        )  # fmt: skip
    source = sources.find(model)
    sources.backend(source, backend)
    if source.kind == "stage":
        raise ModelError(
            "a trained stage is asked by Sightline itself", where=str(model), remedy="leave `--backend` out"
        )
    return Served(
        kind=source.kind, place=str(source.folder), model=source.name, sha256=opening.files(source.folder)
    )


def of_address(address: str, model: str) -> Served:
    """A model behind an address, and the hash that the server tells of it, if it is one of ours.

    Raises:
        ModelError: no such server, or it knows no such model.
    """
    plain = connect(address, model, os.environ.get(TOKEN, ""))
    import httpx

    try:
        told = httpx.get(f"{plain.address}/models", headers=plain.headers, timeout=30, trust_env=False)
        models: Mapping[str, Any] = {each["id"]: each for each in told.raise_for_status().json()["data"]}
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        raise ModelError(
            "no server answers at this address", where="--backend", found=address,
            expected="http://HOST:PORT/v1 of an OpenAI-compatible server", remedy=f"its token is read from {TOKEN}",
        ) from None  # fmt: skip
    if model not in models:
        raise ModelError(
            "the server knows no such model", where=address, found=model, expected=", ".join(models) or "any"
        )
    own = str((models[model].get("sightline") or {}).get("model_sha256", ""))
    return Served(
        kind="address", place=plain.address, model=model, sha256="" if own in ("", "unknown") else own
    )


def write(folder: Path, served: Served) -> Path:
    """Make the folder that an evaluation reads, unless it is there already."""
    section = {"stage": "served", **asdict(served)}
    if not runs.is_done(folder, runs.key_of(section, 0, VERSION, {})):
        with runs.start(folder, section=section, seed=0, version=VERSION, parents={}) as run:
            runs.write_json(run.work / FILE, asdict(served))
    return folder


def read(folder: Path | None) -> Served | None:
    """What such a folder says; None of any other."""
    if folder is None or not (folder / FILE).is_file():
        return None
    return Served(**runs.read_json(folder / FILE))


def open_model(served: Served) -> Bundle | Far:
    """The model, or whoever asks it.

    Raises:
        RunError: its files are no longer those that were named.
    """
    if served.kind == "address":
        return Far(served.place, served.model, os.environ.get(TOKEN, ""))
    place = Path(served.place)
    if opening.files(place) != served.sha256:
        raise RunError(
            "the model's files have changed since the evaluation began", where=str(place),
            remedy="give the same command again",
        )  # fmt: skip
    return foreign.open_folder(place) if served.kind == "base" else opened.load(place)


def check(served: Served, section: Evaluate) -> None:
    """Refuse what the model behind an address, or in graphs, cannot give.

    Raises:
        RecipeError: with the reason.
    """
    inner = [kind for kind in section.images if kind in INNER]
    if inner and served.kind in ("address", "graphs"):
        raise RecipeError(
            "what a model looks at is not told from outside", where="images", found=", ".join(inner),
            expected="a model that is opened by Sightline", remedy="evaluate the stage itself",
        )  # fmt: skip
    if served.kind != "address":
        return
    named = [each if isinstance(each, str) else next(iter(each)) for each in section.metrics]
    wrong = [name for name in named if name in CHOICES] + ["abstain"] * (section.abstain is not None)
    if wrong:
        raise RecipeError(
            "an address does not tell log p of yes and of no at every question", where="metrics",
            found=", ".join(wrong), expected="metrics of answers alone",
            remedy="evaluate the stage or the export itself",
        )  # fmt: skip
    if section.generate.beams > 1:
        raise RecipeError(
            "an address answers greedily",
            where="generate.beams",
            found=str(section.generate.beams),
            expected="1",
        )
