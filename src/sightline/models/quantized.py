"""A language model whose linear layers are held in 4 or 8 bits, frozen, under LoRA (QLoRA: Dettmers et al. 2023).

Done by bitsandbytes: NF4 in blocks of 64 (arXiv 2305.14314), or 8 bits per row (LLM.int8(), arXiv 2208.07339). The
words' table, the head, the tower and the connector stay in float32. A saved model is its adapter; opening it puts the
weights back to float32 as they were rounded, so adapters merge without a second rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtra, ModelError
from .family import Bundle

LOADS = {"4bit": "Linear4bit", "8bit": "Linear8bitLt"}
BLOCK = 64  # weights with one scale in NF4


def quantize(bundle: Bundle, load: str) -> None:
    """Round the linear layers of the language model, in place.

    In 4 bits, a layer stays as it is whose rows are no whole number of blocks: bitsandbytes 0.50 reads its scales
    wrongly on a CPU, with weights off by half of the largest.

    Args:
        bundle: the model, in float32.
        load: `4bit` or `8bit`.

    Raises:
        MissingExtra: bitsandbytes is not installed.
        ModelError: no layer can be rounded.
    """
    language: Any = bundle.family.language(bundle.model)
    found = [each for each in _linears(language) if load == "8bit" or each[2].in_features % BLOCK == 0]
    if not found:
        raise ModelError(
            "no layer of the language model can be held in 4 bits", where="model.load", found=load,
            expected=f"layers with a multiple of {BLOCK} inputs", remedy="use `load: 8bit`, or leave it out",
        )  # fmt: skip
    for parent, name, linear in found:
        setattr(parent, name, _four(linear) if load == "4bit" else _eight(linear))
    setattr(bundle.model, f"is_loaded_in_{load}", True)  # PEFT's sign to take its layers for rounded weights


def dequantize(bundle: Bundle) -> None:
    """Put plain layers with the rounded weights, in float32, in the place of rounded ones."""
    language: Any = bundle.family.language(bundle.model)
    for parent, name, linear in list(_linears(language)):
        if type(linear).__name__ not in LOADS.values():
            continue
        weight = values(linear)
        plain = nn.Linear(*reversed(weight.shape), bias=linear.bias is not None, dtype=weight.dtype)
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if linear.bias is not None:
            plain.bias = linear.bias
        setattr(parent, name, plain)
    for load in LOADS:
        vars(bundle.model).pop(f"is_loaded_in_{load}", None)


def values(linear: Any) -> Tensor:
    """The rounded weights [out, in] of a layer as float32."""
    weight = linear.weight
    if "quant_state" in vars(weight):
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(weight.data, weight.quant_state).float()
    scales = linear.state.SCB if weight.SCB is None else weight.SCB  # the first forward pass moves them
    return weight.data.float() * (scales.float() / 127)[:, None]


def count(parameter: Any) -> int:
    """Weights that a parameter stands for: two in a byte of 4-bit ones."""
    state = vars(parameter).get("quant_state")
    return int(parameter.numel()) if state is None else int(state.shape.numel())


def is_rounded(model: nn.Module) -> bool:
    """Whether any layer of a model is held in fewer bits."""
    return any(type(module).__name__ in LOADS.values() for module in model.modules())


def refuse_full(part: str, module: nn.Module) -> None:
    """Refuse to train rounded weights.

    Raises:
        ModelError: a layer of the part is held in fewer bits.
    """
    if is_rounded(module):
        raise ModelError(
            f"part '{part}' is held in fewer bits and cannot train in full", where=f"trainable.{part}",
            expected="lora", remedy="train an adapter, or leave `load` out of the recipe's `model`",
        )  # fmt: skip


def _linears(language: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """Every linear layer with its parent and its name there."""
    for parent in language.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                yield parent, name, child


def _package() -> Any:
    try:
        import bitsandbytes
    except ImportError:
        raise MissingExtra("bitsandbytes", "quantized") from None
    return bitsandbytes


def _four(linear: nn.Linear) -> nn.Module:
    """The layer in NF4, with one float32 scale for 64 weights."""
    own = _package().nn
    with torch.device("meta"):
        made = own.Linear4bit(
            linear.in_features, linear.out_features, bias=linear.bias is not None, quant_type="nf4",
            compress_statistics=False, compute_dtype=torch.float32,
        )  # fmt: skip
    made.weight = own.Params4bit(
        linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=False, blocksize=BLOCK
    ).to(linear.weight.device)
    made.bias = linear.bias
    made.register_forward_pre_hook(_as_autocast)
    return made


def _eight(linear: nn.Linear) -> nn.Module:
    """The layer in 8 bits, with one scale for each row; its inputs are rounded too, as it computes."""
    own = _package().nn
    with torch.device("meta"):
        made = own.Linear8bitLt(
            linear.in_features, linear.out_features, bias=linear.bias is not None, has_fp16_weights=False, threshold=0.0
        )  # fmt: skip
    made.weight = own.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False).to(
        linear.weight.device
    )
    made.bias = linear.bias
    return made


def _as_autocast(module: Any, inputs: tuple[Tensor, ...]) -> None:
    """Compute as a plain layer would here: in autocast's type, or else in the input's."""
    kind = inputs[0].device.type
    module.compute_dtype = (
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else inputs[0].dtype
    )
