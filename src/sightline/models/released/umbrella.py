"""UMBRELLA's checkpoints: the patch embedding that was trained, and whether all else is what it stands on.

| original | holds | today |
|---|---|---|
| `...embeddings.{T1,rsfMRI}_proj.*`, `..._positional_embeddings` | the patches | the same |
| `...embeddings.{sMRI,fMRI}_*`, later | the same tensors | `T1_*`, `rsfMRI_*` |
| `vision_tower.vision_model.*` | SigLIP's layers, frozen | `model.vision_tower.*` |
| `multi_modal_projector.*`, `language_model.*` | frozen | `model.multi_modal_projector.*`, `model.language_model.*` |

Names as in Transconnectome/BrainVLM on GitHub, written by transformers 4.45. In all of its generations the patches
alone train, so a checkpoint either holds them alone, or a whole LLaVA whose other tensors are those of its base.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import ModelError
from ..parts.volume_patches import VolumePatches3d4d, renamed
from .names import BUFFERS
from .weights import State, of_folder, read, same

PATCH = re.compile(r"(?:.*\.)?((?:T1|rsfMRI|sMRI|fMRI)_(?:proj\.\w+|positional_embeddings))")
PREFIXES = {
    "vision_tower.vision_model.": "model.vision_tower.", "vision_tower.": "model.vision_tower.",
    "model.vision_tower.vision_model.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
    "language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head.",
}  # fmt: skip
EMBEDDINGS = "model.vision_tower.embeddings."
HEAD = "lm_head.weight"


def fill(patches: VolumePatches3d4d, model: Any, place: Path) -> None:
    """Put the trained patches of a checkpoint into a model.

    Args:
        patches: those of the model.
        model: a LLaVA with the patches in it, opened from the base that the checkpoint stands on.
        place: a folder with its weights, or one file of them: safetensors or `.bin`.

    Raises:
        ModelError: no weights; names that are missing or unexpected, or other shapes, which are named; or frozen
            weights that are not those of the base.
    """
    where = f"model.patches.weights, {place}"
    state = of_folder(place) if place.is_dir() else read(place) if place.is_file() else {}
    if not state:
        raise ModelError(
            "no weights of a patch embedding", where=where,
            expected="a folder or a file with model.safetensors or pytorch_model.bin",
        )  # fmt: skip
    own, rest = _divided(state)
    wanted = patches.state_dict()
    same(set(own), set(wanted), where)
    odd = [
        f"{name} {tuple(own[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if own[name].shape != value.shape
    ]
    if odd:
        raise ModelError(
            "the patch embedding was trained for other volumes", where=where, found="; ".join(sorted(odd)[:3]),
            remedy="give `size`, `patch`, `times` and `time_patch` as they were in its training",
        )  # fmt: skip
    if rest:
        _compare(rest, model, where)
    patches.load_state_dict(own)


def _divided(state: Mapping[str, Any]) -> tuple[State, State]:
    """The patches by their names in the module, and all else by its name in today's LLaVA."""
    own, rest = {}, {}
    for name, tensor in state.items():
        found = PATCH.fullmatch(name)
        if found:
            own[found[1]] = tensor
        elif not name.endswith(BUFFERS):
            before = next((old for old in PREFIXES if name.startswith(old)), "")
            rest[PREFIXES.get(before, "") + name.removeprefix(before)] = tensor
    return renamed(own), rest


def _compare(rest: State, model: Any, where: str) -> None:
    """Refuse a whole checkpoint whose frozen weights are not the base's, to the number format that it has."""
    base = {name: value for name, value in model.state_dict().items() if not name.startswith(EMBEDDINGS)}
    tied = model.config.tie_word_embeddings and HEAD not in rest
    same(set(rest), set(base) - ({HEAD} if tied else set()), where)
    other = [
        name
        for name, value in rest.items()
        if value.shape != base[name].shape or not torch.equal(base[name].to(value.dtype), value)
    ]
    if other:
        raise ModelError(
            "more than the patches differs from the base", where=where,
            found=f"{len(other)} tensors, {', '.join(sorted(other)[:3])} among them",
            expected="a checkpoint of which the patches alone were trained",
            remedy="open the base that it was trained on as `path`",
        )  # fmt: skip
