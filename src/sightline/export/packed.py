"""Linear layers of the language model in 4 bits, packed, with one scale for a group of weights: by GPTQ or by AWQ.

GPTQ (Frantar et al. 2022, arXiv 2210.17323) rounds column by column and lets later columns make good what earlier ones
lost, layer by layer, each calibrated on what the rounded layers in front of it give. AWQ (Lin et al. 2023, arXiv
2306.00978) makes columns larger that meet large inputs, and their inputs smaller, then rounds to the nearest. Both by
llm-compressor (vllm-project), in its schemes W4A16 and, with a zero point for each group, W4A16_ASYM, on inputs of the
language model that `calibration` gathers. Tower, connector, table of words and head keep their precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from ..errors import ModelError
from ..models.family import Bundle
from . import calibration, compressed
from .calibration import Calibration
from .rounded import kept

SCHEMES = {"gptq": "W4A16", "awq": "W4A16_ASYM"}
GROUPS = (128, 64, 32)  # weights with one scale
# Kinds of language models -> the class under whose name llm-compressor keeps which layers AWQ balances.
BALANCED = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
}
# Layers of cross-attention read images where others read words: what AWQ would balance is not one input there.
KNOWN = {"gptq": (*BALANCED, "mllama_text_model"), "awq": tuple(BALANCED)}


def check(bundle: Bundle, kind: str, held: Calibration | None) -> Calibration:
    """Refuse what cannot be calibrated, before anything is written.

    Args:
        bundle: the model.
        kind: `gptq` or `awq`.
        held: what there is to calibrate on.

    Raises:
        ModelError: no data, a model that this was not seen to work with, or layers that no group fits.
        MissingExtra: llmcompressor is not installed.
    """
    if held is None:
        raise ModelError(
            f"'{kind}' is calibrated, and there is nothing to calibrate on", where="--data", found="no data set",
            expected="the prepared data set that the model was taught on, such as runs/quickstart/data",
            remedy="name it, or use nf4, which needs none",
        )  # fmt: skip
    language: Any = bundle.family.language(bundle.model)
    if language.config.model_type not in KNOWN[kind]:
        raise ModelError(
            f"'{kind}' was not seen to work with a language model '{language.config.model_type}'", where="--to",
            found=f"family '{bundle.family.name}'", expected=", ".join(KNOWN[kind]), remedy="use int8, nf4 or fp8",
        )  # fmt: skip
    group(language, held.asked.group)
    compressed.needed()
    return held


def group(language: nn.Module, asked: int | None) -> int:
    """How many weights share a scale: what was asked for, or the largest that divides the inputs of every layer.

    Raises:
        ModelError: it does not, or none does.
    """
    widths = {
        name: layer.in_features for name, layer in language.named_modules() if isinstance(layer, nn.Linear)
    }
    wanted = GROUPS if asked is None else (asked,)
    fits = [size for size in wanted if all(width % size == 0 for width in widths.values())]
    if not fits:
        name, width = next((n, w) for n, w in widths.items() if w % wanted[-1])
        raise ModelError(
            f"groups of {' or '.join(map(str, wanted))} weights do not divide the layers", where="calibrate.group",
            found=f"{name} has {width} inputs", expected=f"a multiple of {wanted[-1]}",
            remedy="use int8 or nf4" if asked is None else "leave `group` out",
        )  # fmt: skip
    return fits[0]


def write(
    bundle: Bundle, plain: Path, to: Path, kind: str, precision: str, held: Calibration
) -> dict[str, Any]:
    """Calibrate and round the model of a hub's folder, and write it into another one.

    Args:
        bundle: the same model; of no use afterwards.
        plain: the folder, as `hub.write` made it.
        to: where to write weights and config; what else stands beside them is there.
        kind: `gptq` or `awq`.
        precision: number format of what is not rounded.
        held: what is calibrated on.

    Returns:
        What `export.json` says of it, as `calibration`.

    Raises:
        ModelError: nothing to calibrate on.
    """
    names, given = kept(bundle, "int8"), calibration.take(bundle, held)
    size = group(bundle.family.language(bundle.model), held.asked.group)
    bundle.model.to("meta")  # room for the one that is rounded
    made: Any = type(bundle.model).from_pretrained(
        plain, dtype=getattr(torch, precision), local_files_only=True
    )
    language: Any = bundle.family.language(made)
    language.config._name_or_path = str(plain)  # it looks there whether weights are rounded already
    round_off(language, given.inputs, kind, size)

    from llmcompressor.transformers.compression.compressed_tensors_utils import modify_save_pretrained

    modify_save_pretrained(made)
    compressed.save(made, to, names)
    return {"calibration": {"scheme": SCHEMES[kind], "group": size, **given.facts}}


def round_off(language: Any, inputs: Sequence[dict[str, Any]], kind: str, size: int) -> None:
    """Round the linear layers of a language model, in place.

    Args:
        language: of transformers, without its head.
        inputs: its keyword arguments, one row each.
        kind: `gptq` or `awq`.
        size: weights with one scale.
    """
    from compressed_tensors.offload import remove_dispatch
    from llmcompressor import oneshot

    loader: Any = DataLoader(list(inputs), batch_size=1, shuffle=False, collate_fn=lambda rows: rows[0])
    with _unpinned():
        oneshot(
            model=language, processor=language.config, dataset=loader, recipe=_recipe(language, kind, size),
            sequential_targets=sorted({type(layer).__name__ for layer in language.layers}),
        )  # fmt: skip
    remove_dispatch(language)  # it may have been lent to a GPU, layer by layer


def scheme(kind: str, size: int) -> Any:
    """How weights are held: llm-compressor's scheme, with groups of this size."""
    from compressed_tensors.quantization import preset_name_to_scheme

    made = preset_name_to_scheme(SCHEMES[kind], ["Linear"])
    made.weights.group_size = size
    return made


def _recipe(language: Any, kind: str, size: int) -> list[Any]:
    """What llm-compressor does, in its order."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.modifiers.transform.awq.mappings import AWQ_MAPPING_REGISTRY

    groups = {"group_0": scheme(kind, size)}
    if kind == "gptq":
        return [GPTQModifier(config_groups=groups)]
    pairs = AWQ_MAPPING_REGISTRY[BALANCED[language.config.model_type]]
    return [AWQModifier(mappings=pairs), QuantizationModifier(config_groups=groups)]


@contextmanager
def _unpinned() -> Iterator[None]:
    """Without a GPU nothing is pinned for it: llm-compressor 0.14 asks for that all the same, and torch refuses."""
    from llmcompressor.pipelines import cache

    held: Any = cache.IntermediatesCache
    own = held.pin_memory
    if not torch.accelerator.is_available():
        held.pin_memory = lambda *_: None
    try:
        yield
    finally:
        held.pin_memory = own
