"""The only save and the only load. A saved model is a small folder that names what it stands on.

    sightline.json                 family, what the base was composed from, the parent, what was trained
    adapter_config.json            PEFT's, where LoRA was trained
    adapter_model.safetensors      the adapter, and parts trained in full
    full.safetensors               parts trained in full where there was no LoRA, and bare parameters beside it
    chat_template.jinja            the template that it was trained with

`load` composes the base, in float32 whatever bits it was trained in, then merges each ancestor's adapter in turn.
Missing or unexpected keys are refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from .. import plugins, runs
from ..errors import ModelError
from . import quantized, trainable
from .encoder import Learner
from .family import Bundle

FORMAT = 1
INFO = "sightline.json"


def compose(section: dict[str, Any], seed: int) -> Bundle:
    """A base model from a recipe's `model` section; its language model in fewer bits where `load` says so."""
    bundle: Bundle = plugins.load("families", section["family"]).compose(section, seed)
    load = section.get("load", "float32")
    if load != "float32":
        quantized.quantize(bundle, load)
    return bundle


def save(
    folder: Path,
    bundle: Bundle,
    model: nn.Module,
    *,
    parent: Path | None,
    trained: dict[str, Any],
    home: Path,
) -> None:
    """Write what was trained.

    Args:
        folder: where to write; made here.
        bundle: the model's bundle.
        model: what `trainable.apply` returned.
        parent: the saved model that this one stands on; None for the base.
        trained: the recipe's `trainable` section, for the record.
        home: where `folder` will finally stand, for the relative path to the parent.
    """
    write(folder, bundle, model, "family", parent=parent, trained=trained, home=home)
    (folder / "chat_template.jinja").write_text(bundle.tokenizer.chat_template, encoding="utf-8")


def write(
    folder: Path,
    bundle: Learner,
    model: nn.Module,
    kind: str,
    *,
    parent: Path | None,
    trained: dict[str, Any],
    home: Path,
) -> None:
    """Write weights and `sightline.json` of a model or an encoder; `kind` is its name's key. The rest as in `save`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder, bundle, model)
    info = {
        "format": FORMAT,
        kind: bundle.family.name,
        "base": bundle.base,
        "parent": above(parent, home),
        "trained": trained,
    }
    runs.write_json(folder / INFO, info)


def above(parent: Path | None, home: Path) -> dict[str, str] | None:
    """How a saved model that will stand in `home` names the one it stands on."""
    if parent is None:
        return None
    return {"path": os.path.relpath(parent, home), "content": fingerprint(parent)}


def base_weights(base: Mapping[str, Any]) -> list[str]:
    """SHA-256 of the weights and configs in the local folders that a base is made of; the kit names its own."""
    model = base["model"]
    named = [model.get(key) for key in ("path", "vision", "language")]
    if isinstance(model.get("language"), Mapping):
        named.append(model["language"].get("tokenizer"))
    places = [Path(n) for n in named if isinstance(n, str) and not n.startswith("kit/")]
    connector = model.get("connector")
    held = [Path(connector["weights"])] if isinstance(connector, Mapping) and connector.get("weights") else []
    if model.get("path"):
        places, held = places[:1], []
    files = [
        f for p in places for f in sorted(p.glob("*")) if f.suffix in (".safetensors", ".json", ".jinja")
    ] + held
    return [f"{f.name} {runs.hash_file(f)}" for f in files]


def write_weights(folder: Path, bundle: Learner, model: nn.Module) -> None:
    """The trained weights alone: PEFT's two files, and in `full.safetensors` what trains outside PEFT."""
    if isinstance(model, PeftModel):
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
        config = folder / "adapter_config.json"
        runs.write_json(config, _ordered(runs.read_json(config)))
    weights = {name: p.detach().contiguous() for name, p in _outside(bundle).items()}
    if weights or not isinstance(model, PeftModel):
        save_file(weights, folder / "full.safetensors")


def _outside(bundle: Learner) -> dict[str, nn.Parameter]:
    """The parameters that train and are not PEFT's, by name."""
    return {
        name: p
        for name, p in bundle.model.named_parameters()
        if p.requires_grad and ".lora_" not in name and ".modules_to_save." not in name
    }


def _ordered(config: dict[str, Any]) -> dict[str, Any]:
    """PEFT keeps module names in a set, whose order differs from process to process; files must not."""
    return {
        k: sorted(v) if k in ("target_modules", "modules_to_save") and v else v for k, v in config.items()
    }


def read_weights(folder: Path, bundle: Learner, model: nn.Module) -> None:
    """Load what `write_weights` wrote into a model prepared alike.

    Raises:
        ModelError: keys are missing or unexpected.
    """
    if isinstance(model, PeftModel):
        stored = _stored(folder / "adapter_model.safetensors")
        _same_keys(set(stored), set(get_peft_model_state_dict(model, save_embedding_layers=False)), folder)
        set_peft_model_state_dict(model, stored)
    own, stored = _outside(bundle), _stored(folder / "full.safetensors")
    _same_keys(set(stored), set(own), folder)
    with torch.no_grad():
        for name, value in stored.items():
            own[name].copy_(value)


def _stored(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file; none where there is no file, which is told from the keys that are missing."""
    return load_file(path) if path.is_file() else {}


def load(folder: Path, acting: Callable[[Learner], None] | None = None) -> Bundle:
    """A saved model, every adapter of its line merged, in float32 and eval mode.

    Args:
        folder: of the saved model.
        acting: called when the last adapter acts and is not merged yet.

    Raises:
        ModelError: not a saved model, a parent that changed, or keys that do not fit.
    """
    line = lineage(folder)
    base = line[0][1]["base"]
    if "model" not in base:
        raise ModelError(
            "this is a saved image-text encoder", where=str(folder), expected="a model that answers",
            remedy="name it where an encoder is asked for, as in an `index` stage",
        )  # fmt: skip
    bundle = compose(base["model"], base["seed"])
    quantized.dequantize(
        bundle
    )  # adapters merge into the weights as they were rounded, without a second rounding
    bundle.base = base
    for place, _ in line:
        template = (place / "chat_template.jinja").read_text(encoding="utf-8")
        bundle.tokenizer.chat_template = template
    add_all(line, bundle, acting)
    return bundle


def add_all(
    line: Sequence[tuple[Path, dict[str, Any]]],
    bundle: Learner,
    acting: Callable[[Learner], None] | None = None,
) -> None:
    """Put the weights of a whole line on top of its base, one after the other; frozen and in eval mode then."""
    for place, info in line:
        add(place, info, bundle, acting if place == line[-1][0] else None)
    bundle.model.requires_grad_(False)
    bundle.model.eval()


def lineage(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The saved models from the first above the base down to `folder`.

    Raises:
        ModelError: a folder of the line is missing or is not the one it was trained on.
    """
    line: list[tuple[Path, dict[str, Any]]] = []
    place: Path | None = folder
    while place is not None:
        if not (place / INFO).is_file():
            raise ModelError(
                "this is not a saved model", where=str(place), expected=f"a folder with {INFO}",
                remedy="give a stage's folder, such as runs/quickstart/taught",
            )  # fmt: skip
        info = runs.read_json(place / INFO)
        if info.get("format") != FORMAT:
            raise ModelError(
                "unknown format of a saved model", where=str(place), found=str(info.get("format"))
            )
        line.insert(0, (place, info))
        above = info["parent"]
        parent = None if above is None else (place / above["path"]).resolve()
        if parent is not None and (parent / INFO).is_file() and fingerprint(parent) != above["content"]:
            raise ModelError(
                "the parent of a saved model has changed since", where=f"{place}, field parent",
                found=fingerprint(parent)[:12], expected=above["content"][:12], remedy="run the recipe again",
            )  # fmt: skip
        place = parent
    return line


def fingerprints(folder: Path) -> list[str]:
    """The fingerprint of every saved model of a line, from the first above the base down to `folder`."""
    return [fingerprint(place) for place, _ in lineage(folder)]


def folder_of(name: Path) -> Path:
    """The saved model in a stage's folder, or the folder itself."""
    return name / "model" if (name / "model" / INFO).is_file() else name


def fingerprint(folder: Path) -> str:
    """One hash of a saved model's files."""
    return runs.digest(*(f"{p.name}:{runs.hash_file(p)}" for p in runs.files_below(folder)))


def merge(bundle: Learner, model: nn.Module) -> None:
    """Fold adapters into the weights; the bundle then holds a plain model."""
    if isinstance(model, PeftModel):
        bundle.model = model.merge_and_unload()
    bundle.model.requires_grad_(False)


def add(
    place: Path, info: dict[str, Any], bundle: Learner, acting: Callable[[Learner], None] | None = None
) -> None:
    """Put one saved model's weights on top of the bundle's and merge; `acting` is called between the two."""
    peft = (place / "adapter_config.json").is_file()
    model: nn.Module = bundle.model
    model.requires_grad_(False)
    if peft:
        config = LoraConfig.from_pretrained(place)
        config.inference_mode = False
        model = get_peft_model(bundle.model, config)
    fulls = [part for part, plan in info["trained"].items() if isinstance(plan, dict) and plan["full"]]
    trainable.unlock(bundle, fulls, modules=not peft)
    read_weights(place, bundle, model)
    if acting is not None:
        bundle.model.eval()
        acting(bundle)
    merge(bundle, model)


def _same_keys(stored: set[str], expected: set[str], folder: Path) -> None:
    missing, unexpected = sorted(expected - stored), sorted(stored - expected)
    if missing or unexpected:
        raise ModelError(
            "the weights of a saved model do not fit", where=str(folder),
            found=f"{len(unexpected)} unexpected, e.g. {unexpected[:2]}",
            expected=f"{len(missing)} missing, e.g. {missing[:2]}",
            remedy="it was saved by another family or version; train it again",
        )  # fmt: skip
