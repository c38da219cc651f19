"""A release put together: complete weights, a connector beside a base, or an adapter on top of one.

| folder | weights | stands on |
|---|---|---|
| complete | `model.safetensors` or `pytorch_model.bin`, or shards | nothing |
| differences (`delta`) | the same | the language model that they were taken from |
| connector | `mm_projector.bin`, `mm_tac_projector.bin` and the like | a language model |
| adapter | `adapter_model.bin`, `non_lora_trainables.bin` | a language model, or a complete checkpoint |

Libra's second stage leaves its connector as it was, so its `non_lora_trainables.bin` is empty: the connector must come
from the base, or from a file. A checkpoint without any connector is refused, for it would start at random.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import ModelError
from . import adapter
from .names import CONNECTOR, NEWLINE, TOWER, Divided, divide, plain
from .weights import State, json_of, of_folder, read

SAID = {"TAC": "temporal"}
BESIDE = "non_lora_trainables.bin"
PROJECTORS = ("mm_*projector*.bin", "mm_*projector*.safetensors")
# Of the tensors that stand beside an adapter these may be meant; others would be a change of the base in silence.
TRAINED_BESIDE = (CONNECTOR, TOWER, NEWLINE, "model.embed_tokens.", "lm_head.")


@dataclass(kw_only=True)
class Released:
    """A whole checkpoint as its authors meant it.

    Args:
        config: of the folder that was named.
        parts: its tensors by part.
        files: every file that was read, for the record.
        tokenizers: folders whose tokenizer it may be, best first.
        merged: matrices that an adapter changed.
    """

    config: dict[str, Any]
    parts: Divided
    files: list[Path] = field(default_factory=list)
    tokenizers: list[Path] = field(default_factory=list)
    merged: int = 0


def gather(
    folder: Path, *, base: Path | None = None, connector: Path | None = None, delta: bool = False
) -> Released:
    """Read a release.

    Args:
        folder: of the release, with `config.json`.
        base: what it stands on.
        connector: a file of a connector's weights that goes before any other.
        delta: whether the folder holds differences from `base`.

    Raises:
        ModelError: files are missing or do not fit, the base is missing or not wanted, or no connector is there.
    """
    config = json_of(folder / "config.json")
    _check_config(config, folder)
    own = plain(of_folder(folder))
    adapts, single = (folder / "adapter_config.json").is_file(), _projector(folder)
    _check_base(folder, base, complete=bool(own) and not adapts, delta=delta)
    state = own if own and not adapts else _base(base, folder)
    merged = 0
    if delta:
        state = adapter.add_delta(own, _base(base, folder), f"{folder}, on {base}")
    elif adapts:
        _put(state, _beside(folder))
        merged = adapter.merge(state, folder)
    for file in (None if own and not adapts else single, connector):
        if file is not None:
            _put(state, _only_connector(file))
    if not any(name.startswith(CONNECTOR) for name in state):
        raise _without_connector(folder, base, adapts)
    parts = divide(state, str(folder))
    _check_kind(config, parts.kind, folder)
    return Released(
        config=config, parts=parts, merged=merged,
        files=_files(folder, base, connector), tokenizers=[p for p in (folder, base) if p is not None],
    )  # fmt: skip


def _check_config(config: dict[str, Any], folder: Path) -> None:
    """Refuse what cannot be written down here so that it does the same.

    Raises:
        ModelError: images between start and end tokens, or a stock folder of today.
    """
    if "ForConditionalGeneration" in str(config.get("architectures")):
        raise ModelError(
            "this checkpoint has today's layout already", where=str(folder / "config.json"),
            remedy="name its folder as `path` in a recipe's `model`",
        )  # fmt: skip
    if config.get("mm_use_im_start_end"):
        raise ModelError(
            "this checkpoint wants images between <im_start> and <im_end>, which is not written here",
            where=str(folder / "config.json"), found="mm_use_im_start_end: true",
            expected="a release without them, as all since LLaVA v1.1 and LLaVA-Med v1.5",
        )  # fmt: skip


def _check_kind(config: dict[str, Any], kind: str, folder: Path) -> None:
    """Whether the connector is of the kind that the config says; the first releases say nothing."""
    said = config.get("mm_projector_type")
    if said is not None and SAID.get(str(said), str(said)) != kind:
        raise ModelError(
            "the connector's weights are of another kind than the config says", where=str(folder / "config.json"),
            found=f"{kind}, of mm_projector_type {said}", remedy="give the connector that belongs to this release",
        )  # fmt: skip


def _check_base(folder: Path, base: Path | None, *, complete: bool, delta: bool) -> None:
    """Whether a base is there where one is wanted, and only there."""
    if delta and not complete:
        raise ModelError("this folder holds no complete weights to take as differences", where=str(folder))
    if complete and not delta and base is not None:
        raise ModelError(
            "this checkpoint is complete and stands on no base", where=str(folder), found=f"base {base}",
            remedy="leave the base out; or say `delta` if the weights are differences",
        )  # fmt: skip
    if base is None and (delta or not complete):
        raise ModelError(
            "this release stands on a base, which is not named", where=str(folder),
            expected="the folder of the model that it was trained on, as `--base`",
            remedy="config.json says under `_name_or_path` what its authors used",
        )  # fmt: skip


def _base(base: Path | None, folder: Path) -> State:
    """The weights of the base."""
    state = {} if base is None else plain(of_folder(base))
    if not state:
        raise ModelError(
            "the base holds no weights", where=str(base), expected="safetensors, or pytorch_model.bin with its shards",
            remedy=f"give the folder of the model that {folder.name} stands on",
        )  # fmt: skip
    return state


def _projector(folder: Path) -> Path | None:
    """The one file of a connector in a folder."""
    found = sorted(path for pattern in PROJECTORS for path in folder.glob(pattern))
    if len(found) > 1:
        raise ModelError(
            "several connectors in this folder", where=str(folder), found=", ".join(p.name for p in found),
            remedy="put the one that is meant into a folder with config.json",
        )  # fmt: skip
    return found[0] if found else None


def _beside(folder: Path) -> State:
    """What was trained in full beside an adapter; nothing where there is no such file.

    Raises:
        ModelError: weights of the language model's layers among it.
    """
    if not (folder / BESIDE).is_file():
        return {}
    state = plain(read(folder / BESIDE))
    odd = [name for name in state if not name.startswith(TRAINED_BESIDE)]
    if odd:
        raise ModelError(
            "unexpected tensors stand beside this adapter", where=str(folder / BESIDE),
            found=f"{len(odd)} unexpected: {', '.join(sorted(odd)[:5])}",
            expected=f"names that begin with {', '.join(TRAINED_BESIDE)}",
        )  # fmt: skip
    return state


def _only_connector(file: Path) -> State:
    """The tensors of a connector's file.

    Raises:
        ModelError: it holds others, or none.
    """
    state = plain(read(file))
    odd = [name for name in state if not name.startswith(CONNECTOR)]
    if odd or not state:
        raise ModelError(
            "this is not the file of a connector", where=str(file),
            found=f"{len(odd)} unexpected: {', '.join(sorted(odd)[:5]) or 'no tensors at all'}",
            expected=f"names that begin with {CONNECTOR}",
        )  # fmt: skip
    return state


def _put(state: State, more: State) -> None:
    """Put tensors in the place of others; a new connector takes the place of the whole old one."""
    if any(name.startswith(CONNECTOR) for name in more):
        for name in [name for name in state if name.startswith(CONNECTOR)]:
            del state[name]
    state |= more


def _without_connector(folder: Path, base: Path | None, adapts: bool) -> ModelError:
    """Why a checkpoint without a connector is not converted."""
    beside = "is empty or not there, or holds none" if adapts else "is not part of such a folder"
    return ModelError(
        "this base leaves the connector random: the model would not see its images", where=str(folder),
        found=f"no tensor {CONNECTOR}*: {BESIDE} {beside}, and the base {base} has none",
        expected="a base that holds the connector, or the connector's own file",
        remedy="give the merged first stage as `--base` (Libra's second stage freezes its connector and does not store "
        "it), or the file of the connector (mm_projector.bin, mm_tac_projector.bin) as `--connector`",
    )  # fmt: skip


def _files(folder: Path, base: Path | None, connector: Path | None) -> list[Path]:
    """Every file with weights or settings of the folders, and the connector's."""
    kinds = (".bin", ".safetensors", ".json")
    found = [
        p
        for place in (folder, base)
        if place is not None
        for p in sorted(place.iterdir())
        if p.suffix in kinds
    ]
    return [*found, *([connector] if connector is not None else [])]
