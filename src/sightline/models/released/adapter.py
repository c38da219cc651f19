"""What a release adds to a base: a low-rank adapter of PEFT, or differences of all weights (LLaVA's deltas)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import ModelError
from .names import plain
from .weights import State, json_of, read

FILES = ("adapter_model.safetensors", "adapter_model.bin")
PAIR = re.compile(r"^(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")
# What PEFT can do beside plain LoRA on linear layers, and the value with which it does not.
PLAIN: Mapping[str, Any] = {
    "bias": "none", "use_dora": False, "fan_in_fan_out": False, "rank_pattern": {}, "alpha_pattern": {},
}  # fmt: skip
GROWN = ("model.embed_tokens.weight", "lm_head.weight")  # these may have more rows than the base's


def merge(state: State, folder: Path) -> int:
    """Add a folder's adapter to the weights it stands on, in place: W + alpha / r B A, summed in float32.

    Args:
        state: the base, names as `names.plain` gives them; changed.
        folder: with `adapter_config.json` and the adapter's weights.

    Returns:
        How many matrices it changed.

    Raises:
        ModelError: no plain LoRA, weights that miss their other half, or matrices that the base does not have.
    """
    config = json_of(folder / "adapter_config.json")
    scale, rank = _scale(config, folder)
    file = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if file is None:
        raise ModelError("the adapter's weights are missing", where=str(folder), expected=" or ".join(FILES))
    pairs = _pairs(plain(read(file)), rank, str(file))
    for module, (down, up) in pairs.items():
        name = f"{module}.weight"
        old = state.get(name)
        if old is None or old.shape != (up.shape[0], down.shape[1]):
            raise ModelError(
                "the adapter changes a matrix that the base does not have so", where=f"{file}, {name}",
                found="none" if old is None else str(tuple(old.shape)),
                expected=str((up.shape[0], down.shape[1])), remedy="give the base that it was trained on",
            )  # fmt: skip
        state[name] = (old.float() + scale * (up.float() @ down.float())).to(old.dtype)
    return len(pairs)


def _scale(config: Mapping[str, Any], folder: Path) -> tuple[float, int]:
    """What plain LoRA is scaled by, alpha / r or alpha / sqrt r, and r.

    Raises:
        ModelError: the adapter is something else.
    """
    odd = {k: config[k] for k, usual in PLAIN.items() if config.get(k) not in (None, usual)}
    if config.get("modules_to_save"):
        odd["modules_to_save"] = config["modules_to_save"]
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if config.get("peft_type", "LORA") != "LORA" or odd or not isinstance(rank, int) or rank < 1 or not alpha:
        raise ModelError(
            "this adapter is not plain LoRA", where=str(folder / "adapter_config.json"),
            found=f"{config.get('peft_type')}, r {rank}, alpha {alpha}, {odd}",
            expected="peft_type LORA with r and lora_alpha, and no further arts",
        )  # fmt: skip
    return float(alpha) / (rank**0.5 if config.get("use_rslora") else rank), rank


def _pairs(state: State, rank: int, where: str) -> dict[str, tuple[Tensor, Tensor]]:
    """A [r, in] and B [out, r] of every module.

    Raises:
        ModelError: other tensors, or a half without its other one.
    """
    halves: dict[str, dict[str, Tensor]] = {}
    odd = []
    for name, tensor in state.items():
        found = PAIR.match(name)
        if found is None or tensor.ndim != 2 or tensor.shape["AB".index(found["side"])] != rank:
            odd.append(name)
        else:
            halves.setdefault(found["module"], {})[found["side"]] = tensor
    lonely = [f"{module}.lora_{side}" for module, held in halves.items() for side in "AB" if side not in held]
    if odd or lonely or not halves:
        raise ModelError(
            "the weights of this adapter do not fit", where=where,
            found=f"{len(odd)} unexpected: {', '.join(sorted(odd)[:5]) or 'none'}",
            expected=f"{len(lonely)} missing: {', '.join(sorted(lonely)[:5]) or 'none'}; pairs of rank {rank}",
        )  # fmt: skip
    return {module: (held["A"], held["B"]) for module, held in halves.items()}


def add_delta(delta: State, base: State, where: str) -> State:
    """Differences plus the weights that they were taken from; connectors stand whole in the differences.

    The tables of words may have further rows, of tokens that were added.

    Raises:
        ModelError: the base has weights that the differences lack, or of another shape.
    """
    made = dict(delta)
    lacking = [name for name in base if name not in delta]
    odd = [name for name in base if name in delta and not _adds(name, delta[name], base[name])]
    if lacking or odd:
        raise ModelError(
            "these differences were not taken from this base", where=where,
            found=f"of other shape: {', '.join(sorted(odd)[:5]) or 'none'}",
            expected=f"{len(lacking)} missing: {', '.join(sorted(lacking)[:5]) or 'none'}",
        )  # fmt: skip
    for name, old in base.items():
        summed = delta[name].clone()
        summed[: old.shape[0]] += old.to(summed.dtype)
        made[name] = summed
    return made


def _adds(name: str, delta: Tensor, base: Tensor) -> bool:
    if name in GROWN:
        return delta.shape[1:] == base.shape[1:] and delta.shape[0] >= base.shape[0]
    return delta.shape == base.shape
