"""Which models vLLM can take: told from files, before anything is started, with the reason and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from safetensors import safe_open

from .. import runs
from ..errors import ModelError
from ..models import checkpoint, foreign
from ..models.adapter import Adapter, layers, misfit, today
from .sources import Source

MLLAMA = (0, 10, 2)  # the last version of vLLM that opens it (its registry of models)
TOWERS = ("clip_vision_model", "siglip_vision_model", "pixtral")  # that its LLaVA knows
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that it takes as the largest of an adapter
HERE = "leave `--backend` out: Sightline answers with it in this process"
ELSEWHERE = (".vision_tower.", ".vision_model.", ".visual.", ".multi_modal_projector.", ".connector.")


def check(source: Source, version: str, adapter: Adapter | None) -> None:
    """Refuse a model, or an adapter, that vLLM would refuse after a minute, or answer with otherwise.

    Args:
        source: the model.
        version: of vLLM.
        adapter: what is put on top.

    Raises:
        ModelError: it cannot be taken.
    """
    if source.kind == "graphs":
        raise _refused(
            source, "ONNX graphs are not opened by vLLM", "leave `--backend` out: onnxruntime answers"
        )
    if source.kind == "stage":
        _stage(source)
    if source.told and "transformers" not in source.told.get("opens_with", ()):
        raise _refused(
            source,
            "vLLM has no class for a part of this model: the export is opened by Sightline alone",
            HERE,
        )
    config = runs.read_json(source.folder / foreign.CONFIG)
    kind = foreign.family_of(source.folder)
    if kind == "mllama" and _number(version) > MLLAMA:
        raise _refused(
            source, f"vLLM {version} does not open Mllama (Llama-3.2-Vision): it was dropped after 0.10.2",
            f"{HERE}; or name a Python with vLLM 0.10.2 as --vllm-python",
        )  # fmt: skip
    tower = (config.get("vision_config") or {}).get("model_type")
    if kind in ("llava", "llava_next") and tower not in TOWERS:
        raise _refused(
            source, f"vLLM's LLaVA does not know a tower '{tower}', only {', '.join(TOWERS)}", HERE
        )
    if adapter is not None:
        _adapter(source, adapter)
        _fits(source, adapter, kind)


def _stage(source: Source) -> None:
    """Refuse a saved model: for good where no export of it would do, else with the command that exports it.

    Raises:
        ModelError: always.
    """
    model: Mapping[str, Any] = checkpoint.lineage(source.folder)[0][1]["base"].get("model", {})
    connector = model.get("connector")
    named = connector.get("name") if isinstance(connector, Mapping) else connector
    vision = model.get("vision")
    tower = vision.get("model_type", "") if isinstance(vision, Mapping) else str(vision)
    if model.get("family") == "umbrella" or model.get("patches"):
        raise _refused(
            source, "vLLM has no class for UMBRELLA's tower of volumes", "`sightline evaluate` asks it"
        )
    if not model.get("path") and named == "temporal":
        raise _refused(source, "vLLM has no class for Libra's connector, which compares two images", HERE)
    if not model.get("path") and "efficientnet" in tower:
        raise _refused(source, "vLLM has no class for the kit's convolutional tower", HERE)
    raise _refused(
        source, "a stage is an adapter and what it stands on, and vLLM opens whole folders",
        "sightline export RUN --to merged --out DIR, then serve DIR",
    )  # fmt: skip


def _adapter(source: Source, adapter: Adapter) -> None:
    """Refuse an adapter that vLLM cannot put on top.

    Raises:
        ModelError: parts in full, DoRA, layers outside the language model, or a rank that is too large.
    """
    for key, what in (("modules_to_save", "parts that were trained in full"), ("use_dora", "DoRA")):
        if adapter.told.get(key):
            raise _refused(source, f"vLLM takes no adapter with {what} ({key})", HERE)
    if touches_tower(adapter):
        raise _refused(
            source, "vLLM 0.32 on a CPU ends at the first question about an adapter that changes tower or connector",
            f"{HERE}; or merge it with PEFT, and serve the merged folder",
        )  # fmt: skip
    if adapter.rank > RANKS[-1]:
        raise _refused(
            source, f"the adapter has rank {adapter.rank}, and vLLM takes {RANKS[-1]} at most", HERE
        )


def _fits(source: Source, adapter: Adapter, family: str) -> None:
    """Refuse an adapter of another model: vLLM would pass over a layer that it does not find.

    Raises:
        ModelError: a layer is not there, or has another number of inputs.
    """
    inputs: dict[str, int] = {}
    for path in sorted(source.folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.offset_keys():
                if key.endswith(".weight"):
                    inputs[today(key.removesuffix(".weight"), family)] = file.get_slice(key).get_shape()[-1]
    own = layers(adapter)
    strange = sorted(name for name in own if today(name, family) not in inputs)
    if strange:
        raise misfit(adapter, source.name, f"{len(strange)} unexpected layers", strange)
    if "quantization_config" in runs.read_json(source.folder / foreign.CONFIG):
        return  # packed weights have other shapes
    other = sorted(name for name, count in own.items() if inputs[today(name, family)] != count)
    if other:
        wide = f"{other[0]} {own[other[0]]}, and the model {inputs[today(other[0], family)]}"
        raise misfit(adapter, source.name, f"{len(other)} layers with other numbers of inputs: {wide}")


def rank(adapter: Adapter) -> int:
    """The adapter's rank, rounded up to one that vLLM takes."""
    return next(each for each in RANKS if each >= adapter.rank)


def touches_tower(adapter: Adapter) -> bool:
    """Whether an adapter has layers outside the language model."""
    return any(part in f".{name}." for name in layers(adapter) for part in ELSEWHERE)


def _number(version: str) -> tuple[int, ...]:
    """A version's numbers, as far as they are numbers."""
    parts = version.partition("+")[0].split(".")[:3]
    return tuple(int("".join(takewhile(str.isdigit, part)) or 0) for part in parts)


def _refused(source: Source, what: str, remedy: str) -> ModelError:
    return ModelError(what, where=f"{source.name} with --backend vllm", remedy=remedy)
