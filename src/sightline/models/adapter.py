"""LoRA adapters that other programs trained (PEFT's two files), on top of a model: every key must fit.

Names of modules changed with transformers 4.52 and 5; an adapter may have those of any version. What is not plain LoRA
is refused by name: a setting that is passed over would change answers in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import runs
from ..errors import ModelError
from . import checkpoint
from .family import Bundle

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OUTER = "base_model.model."
# What decides an adapter's forward, and what says nothing of it; another key must be as PEFT has it by default.
TAKEN = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora",
    "modules_to_save", "layers_to_transform", "layers_pattern", "fan_in_fan_out",
)  # fmt: skip
SILENT = (
    "base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_type", "peft_version",
    "lora_dropout", "init_lora_weights", "bias", "megatron_core", "loftq_config", "runtime_config", "qalora_group_size",
)  # fmt: skip
STARTS = (True, False, "gaussian", "orthogonal", None)  # ways to begin that leave the base as it was
# Today's beginning of a module's name, and those of earlier versions.
OLDER = (
    ("model.language_model.", ("language_model.model.",)),
    ("lm_head", ("language_model.lm_head",)),
    ("model.vision_tower.", ("vision_tower.", "model.vision_tower.vision_model.", "vision_tower.vision_model.")),
    ("model.multi_modal_projector.", ("multi_modal_projector.",)),
    ("model.vision_model.", ("vision_model.",)),
    ("model.visual.", ("visual.",)),
    ("model.text_model.", ("text_model.",)),
    ("model.connector.", ("connector.",)),
)  # fmt: skip
QWEN = (
    "model.language_model.",
    "model.",
)  # of Qwen-VL; elsewhere such a name is one of a language model alone
FEW = 3


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder that was looked at, and not opened yet.

    Args:
        place: the folder.
        told: its `adapter_config.json`.
    """

    place: Path
    told: Mapping[str, Any]

    @property
    def base(self) -> str:
        """What it says that it was trained on: a name of a hub, or the last part of a path."""
        named = str(self.told.get("base_model_name_or_path") or "")
        return Path(named).name if named.startswith(("/", ".", "~")) else named

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(int(self.told.get("r") or 0), *map(int, (self.told.get("rank_pattern") or {}).values()), 0)


def look(place: Path) -> Adapter:
    """Read an adapter's config, and refuse what cannot be put on top of a model as it is.

    Raises:
        ModelError: no adapter, Sightline's own, one in pickles, or one that is not plain LoRA.
    """
    if (place / checkpoint.INFO).is_file():
        raise ModelError(
            "this adapter is a saved model of Sightline, which names what it stands on", where=str(place),
            remedy="serve its stage without --adapter",
        )  # fmt: skip
    if not (place / CONFIG).is_file() or not (place / WEIGHTS).is_file():
        raise ModelError(
            "this is no adapter", where=str(place), expected=f"a folder with {CONFIG} and {WEIGHTS}",
            remedy="an adapter in a pickle (.bin) is not opened: load it with PEFT and save it with "
            "safe_serialization=True",
        )  # fmt: skip
    told = runs.read_json(place / CONFIG)
    if told.get("peft_type") != "LORA":
        raise ModelError(
            "this adapter is no LoRA", where=str(place / CONFIG), found=str(told.get("peft_type"))
        )
    default = LoraConfig().to_dict()
    wrong = [
        key
        for key, value in told.items()
        if key not in (*TAKEN, *SILENT) and value not in (None, False, [], {}, default.get(key))
    ]
    wrong += ["bias"] if told.get("bias", "none") != "none" else []
    wrong += ["init_lora_weights"] if told.get("init_lora_weights", True) not in STARTS else []
    if wrong:
        raise ModelError(
            "this adapter is not plain LoRA", where=str(place / CONFIG),
            found=", ".join(f"{key}: {told[key]!r}"[:80] for key in wrong[:FEW]), expected="LoRA, rsLoRA or DoRA",
            remedy="convert it with the program that trained it",
        )  # fmt: skip
    return Adapter(place, told)


def add(bundle: Bundle, adapter: Adapter, *, base: str, merge: bool) -> None:
    """Put an adapter on top of a model.

    Args:
        bundle: the model.
        adapter: what is added.
        base: what the model is called, for messages.
        merge: fold it into the weights; otherwise it stays beside them, as beside rounded ones it must.

    Raises:
        ModelError: it was trained on another model: keys are missing or unexpected, or have other shapes.
    """
    family = bundle.family.name
    names = {old: name for name, _ in bundle.model.named_modules() for old in spellings(name, family)}
    stored, strange = _renamed(load_file(adapter.place / WEIGHTS), names)
    config = _config(bundle, adapter)
    if not config.target_modules:
        raise misfit(
            adapter, base, f"no layer of the model is named {adapter.told.get('target_modules')!r}"[:200]
        )
    model: Any = get_peft_model(bundle.model, config)
    wanted = get_peft_model_state_dict(model, save_embedding_layers=False)
    missing = sorted(wanted.keys() - stored.keys())
    unexpected = sorted([*strange, *(stored.keys() - wanted.keys())])
    if missing or unexpected:
        raise misfit(
            adapter, base, f"{len(unexpected)} unexpected keys, {len(missing)} missing", unexpected, missing
        )
    other = [key for key, value in sorted(wanted.items()) if value.shape != stored[key].shape]
    if other:
        key = other[0]
        shapes = f"{key} {tuple(stored[key].shape)}, and the model takes {tuple(wanted[key].shape)}"
        raise misfit(adapter, base, f"{len(other)} of other shapes: {shapes}")
    set_peft_model_state_dict(model, stored)
    bundle.model.requires_grad_(False)
    bundle.model.eval()
    if merge:
        checkpoint.merge(bundle, model)


def spellings(name: str, family: str) -> Iterator[str]:
    """Names that a module has, and had in earlier versions of transformers, today's first."""
    yield name
    if family.startswith("qwen") and name.startswith(QWEN[0]):
        yield QWEN[1] + name.removeprefix(QWEN[0])
    for today, before in OLDER:
        if name == today or name.startswith(today):
            for older in before:
                yield older + name.removeprefix(today)


def today(name: str, family: str) -> str:
    """The name that a module has today, by one that it has, or had in an earlier version."""
    pairs = [(older, new) for new, before in OLDER for older in before]
    if family.startswith("qwen") and not any(name.startswith(new) for new, _ in OLDER):
        pairs.append((QWEN[1], QWEN[0]))
    for older, new in sorted(pairs, key=lambda pair: -len(pair[0])):
        if name == older or (older.endswith(".") and name.startswith(older)):
            return new + name.removeprefix(older)
    return name


def layers(adapter: Adapter) -> dict[str, int]:
    """The layers that an adapter changes, under the names that it has for them, and how many inputs each has."""
    with safe_open(adapter.place / WEIGHTS, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.offset_keys() if ".lora_A." in key}
    return {key.removeprefix(OUTER).partition(".lora_A.")[0]: shape[-1] for key, shape in shapes.items()}


def _renamed(stored: Mapping[str, Tensor], names: Mapping[str, str]) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors under today's names, and the keys whose module the model does not have."""
    made: dict[str, Tensor] = {}
    strange = []
    for key, value in stored.items():
        plain = key.removeprefix(OUTER)
        module, dot, own = plain.partition(".lora_")
        if not dot:
            module, _, last = plain.rpartition(".")
            dot, own = ".", last
        if module in names:
            made[f"{OUTER}{names[module]}{dot}{own}"] = value
        else:
            strange.append(key)
    return made, strange


def _config(bundle: Bundle, adapter: Adapter) -> LoraConfig:
    """The adapter's config with today's names: every layer that it means, with its own rank and alpha."""
    told = {key: adapter.told[key] for key in TAKEN if adapter.told.get(key) is not None}
    asked = LoraConfig(**{key: value for key, value in told.items() if key != "modules_to_save"})
    saved = told.get("modules_to_save") or None
    avoid = LoraConfig(target_modules=told.get("exclude_modules") or [])
    asked.exclude_modules = None
    ranks, alphas = asked.rank_pattern or {}, asked.alpha_pattern or {}
    targets: dict[str, tuple[int, float]] = {}
    for name, module in bundle.model.named_modules():
        known = list(spellings(name, bundle.family.name))
        if not isinstance(module, nn.Linear | nn.Embedding | nn.modules.conv._ConvNd):
            continue
        if any(check_target_module_exists(avoid, each) for each in known) or _is_below(known, saved or ()):
            continue
        if any(check_target_module_exists(asked, each) for each in known):
            rank, alpha = ((_own(patterns, known)) for patterns in (ranks, alphas))
            targets[name] = (int(rank or asked.r), float(alpha or asked.lora_alpha))
    return LoraConfig(
        r=asked.r, lora_alpha=asked.lora_alpha, target_modules=sorted(targets),
        rank_pattern={re.escape(n): r for n, (r, _) in targets.items() if r != asked.r},
        alpha_pattern={re.escape(n): a for n, (_, a) in targets.items() if a != asked.lora_alpha},
        use_rslora=asked.use_rslora, use_dora=asked.use_dora, fan_in_fan_out=asked.fan_in_fan_out,
        modules_to_save=saved,
    )  # fmt: skip


def _is_below(names: list[str], saved: list[str] | tuple[str, ...]) -> bool:
    """Whether a module is, or stands in, one that the adapter keeps in full."""
    return any(re.match(rf"(^|.*\.){each}($|\..*)", name) for each in saved for name in names)


def _own(patterns: Mapping[str, Any], names: list[str]) -> Any:
    """What a pattern says of a module by any of its names; None where none does."""
    found = (patterns.get(get_pattern_key(list(patterns), name)) for name in names)
    return next((value for value in found if value is not None), None)


def misfit(
    adapter: Adapter,
    base: str,
    found: str,
    unexpected: list[str] | None = None,
    missing: list[str] | None = None,
) -> ModelError:
    """The error of an adapter that was trained on another model."""
    shown = [
        f"{word} {', '.join(keys[:FEW])}"
        for word, keys in (("unexpected:", unexpected), ("missing:", missing))
        if keys
    ]
    return ModelError(
        "the adapter does not fit the model", where=f"{adapter.place.name} on {base}",
        found="; ".join([found, *shown]), expected=f"the model that it was trained on: {adapter.base or 'not named'}",
        remedy="serve that model, or train the adapter again on this one",
    )  # fmt: skip


def is_named(adapter: Adapter, base: str) -> bool:
    """Whether the base that an adapter names may be a folder of this name; one that names none may be of any."""
    named = adapter.base.rstrip("/").rpartition("/")[2].lower()
    return not named or named in base.lower() or base.lower() in named
