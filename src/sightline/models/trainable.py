"""What trains, stated per part: `frozen | lora | full`, each with its own learning rate, and checked.

A part trained in full beside LoRA goes through PEFT's `modules_to_save`: outside PEFT it would be shared with
the adapter-off model, and a DPO reference would drift. The table says what is trainable; if the model disagrees
with what was asked, `apply` fails.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from ..errors import ModelError
from ..settings import Full, Lora, Plan
from . import quantized
from .encoder import EncoderFamily, Learner
from .family import Bundle, Family

Asked = Mapping[str, Literal["frozen"] | Plan]
# Their forward takes the weights of their linear layers past the layers themselves: an adapter in one would never act.
SEALED = ("MultiheadAttention", "AttentionPool2d")


@dataclass(frozen=True)
class PartRow:
    """One line of the table: a part, how it is trained, and its parameters."""

    part: str
    how: str
    lr: float
    total: int
    trainable: int


def apply(bundle: Learner, asked: Asked, seed: int) -> nn.Module:
    """Set what trains, in place; adapters are injected into the bundle's model.

    Args:
        bundle: the model.
        asked: part name -> `frozen` or a plan; parts that are not named are frozen.
        seed: decides the adapters' random start.

    Returns:
        The PEFT model where LoRA was asked for, else the bare model.

    Raises:
        ModelError: unknown part, nothing to train, or a result other than what was asked.
    """
    family, model = bundle.family, bundle.model
    unknown = sorted(set(asked) - set(family.parts))
    if unknown:
        raise ModelError(f"family '{family.name}' has no part {unknown}", expected=", ".join(family.parts))
    plans = {part: plan for part, plan in asked.items() if isinstance(plan, Plan)}
    if not plans:
        raise ModelError("nothing trains", remedy="give at least one part `lora:` or `full:`")
    model.requires_grad_(False)
    loras = {part: plan.lora for part, plan in plans.items() if plan.lora}
    fulls = [part for part, plan in plans.items() if plan.full]
    if loras:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trained: nn.Module = get_peft_model(model, _lora_config(bundle, loras, fulls))
    else:
        trained = model
    unlock(bundle, fulls, modules=not loras)
    check(bundle, asked)
    return trained


def _lora_config(bundle: Learner, loras: Mapping[str, Lora], fulls: list[str]) -> LoraConfig:
    """One PEFT config for all parts; parts after the first differ by rank and alpha patterns."""
    targets: list[str] = []
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    dropouts = {lora.dropout for lora in loras.values()}
    if len(dropouts) > 1:
        raise ModelError("all LoRA parts share one dropout", found=str(sorted(dropouts)))
    for part, lora in loras.items():
        names = _linears(bundle, part, lora)
        targets += names
        ranks.update({re.escape(n): lora.r for n in names})
        alphas.update({re.escape(n): lora.alpha for n in names})
    first = next(iter(loras.values()))
    same = len({(x.r, x.alpha) for x in loras.values()}) == 1
    return LoraConfig(
        r=first.r,
        lora_alpha=first.alpha,
        lora_dropout=first.dropout,
        target_modules=targets,
        rank_pattern={} if same else ranks,
        alpha_pattern={} if same else alphas,
        modules_to_save=[n for part in fulls for n, m in members(bundle, part) if isinstance(m, nn.Module)]
        or None,
    )


def members(bundle: Learner, part: str) -> list[tuple[str, nn.Module | nn.Parameter]]:
    """What a part is made of, by dotted name: modules, and bare parameters such as a temperature.

    Raises:
        ModelError: the model has neither of that name.
    """
    bare = dict(bundle.model.named_parameters())
    return [
        (name, bare[name] if name in bare else bundle.family.module(bundle.model, name))
        for name in bundle.family.parts[part]
    ]


def unlock(bundle: Learner, parts: list[str], *, modules: bool) -> None:
    """Let parts train in full; beside LoRA the modules are PEFT's and only bare parameters are left to do."""
    for part in parts:
        for _, member in members(bundle, part):
            if isinstance(member, nn.Module):
                quantized.refuse_full(part, member)
            if modules or isinstance(member, nn.Parameter):
                member.requires_grad_(True)


def _linears(bundle: Learner, part: str, lora: Lora) -> list[str]:
    """Dotted names of the linear layers of a part that an adapter can act in, the output head left out."""
    found = []
    for root, member in members(bundle, part):
        modules = dict(member.named_modules()) if isinstance(member, nn.Module) else {}
        sealed = {name for name, inner in modules.items() if type(inner).__name__ in SEALED}
        for name, inner in modules.items():
            above, _, last = name.rpartition(".")
            wanted = lora.targets == "all-linear" or last in lora.targets
            if isinstance(inner, nn.Linear) and name and wanted and above not in sealed:
                found.append(f"{root}.{name}")
    if not found:
        raise ModelError(
            f"part '{part}' has no linear layer for LoRA", found=str(lora.targets),
            remedy="train it `full`, or leave it `frozen`",
        )  # fmt: skip
    return found


def part_of(family: Family | EncoderFamily, parameter: str) -> str:
    """The part that a parameter belongs to; "" for none. PEFT's wrapping words are ignored."""
    plain = parameter.removeprefix("base_model.model.")
    for part, names in family.parts.items():
        if any(plain == n or plain.startswith(f"{n}.") for n in names):
            return part
    return ""


def table(bundle: Learner, asked: Asked) -> list[PartRow]:
    """Part, how, learning rate, parameters in all and trainable."""
    rows = []
    for part in bundle.family.parts:
        plan = asked.get(part, "frozen")
        mine = [(n, p) for n, p in bundle.model.named_parameters() if part_of(bundle.family, n) == part]
        how: Full | Lora | None = None if isinstance(plan, str) else (plan.full or plan.lora)
        name = "frozen" if how is None else type(how).__name__.lower()
        trains = sum(p.numel() for _, p in mine if p.requires_grad)
        own = sum(quantized.count(p) for n, p in mine if ".lora_" not in n and ".modules_to_save." not in n)
        rows.append(PartRow(part, name, how.lr if how else 0.0, own, trains))
    return rows


def check(bundle: Learner, asked: Asked) -> None:
    """Compare what trains with what was asked, parameter by parameter.

    Raises:
        ModelError: names the first parameters that differ.
    """
    wrong = []
    for name, parameter in bundle.model.named_parameters():
        plan = asked.get(part_of(bundle.family, name), "frozen")
        adapter = ".lora_" in name
        copy = ".modules_to_save." in name
        original = ".original_module." in name
        if isinstance(plan, str):
            expected = False
        elif plan.lora:
            expected = adapter
        else:
            expected = copy or not original
        if parameter.requires_grad != expected:
            wrong.append(f"{name} {'trains' if parameter.requires_grad else 'is frozen'}")
    if wrong:
        raise ModelError(
            f"{len(wrong)} parameters are not as asked", found="; ".join(wrong[:3]), expected=str(dict(asked))
        )


def text(rows: list[PartRow]) -> str:
    """The table for a terminal."""
    lines = [f"{'part':<12}{'how':<8}{'lr':>9}{'total':>14}{'trainable':>14}"]
    for row in rows:
        rate = f"{row.lr:.1e}" if row.trainable else "-"
        lines.append(f"{row.part:<12}{row.how:<8}{rate:>9}{row.total:>14,}{row.trainable:>14,}")
    return "\n".join(lines)


def groups(bundle: Learner, asked: Asked) -> list[dict[str, Any]]:
    """Optimizer groups, one per trained part, each with its own learning rate."""
    out = []
    for part, plan in asked.items():
        if isinstance(plan, str):
            continue
        how = plan.full or plan.lora
        assert how is not None
        mine = [
            p
            for n, p in bundle.model.named_parameters()
            if p.requires_grad and part_of(bundle.family, n) == part
        ]
        out.append({"params": mine, "lr": how.lr, "part": part})
    return out


def is_frozen(asked: Asked, part: str) -> bool:
    """Whether nothing of a part trains."""
    return isinstance(asked.get(part, "frozen"), str)


def frozen(bundle: Learner, asked: Asked) -> dict[str, bool]:
    """Whether nothing trains of what makes features of images (`vision`), and of what makes tokens (`connector`)."""
    between = bundle.family.between if isinstance(bundle, Bundle) else ()
    return {
        "vision": all(is_frozen(asked, part) for part in bundle.family.tower),
        "connector": all(is_frozen(asked, part) for part in between),
    }


def silence(model: nn.Module) -> None:
    """Turn every dropout off, so that policy and reference see the same network."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def unwrap(model: nn.Module) -> nn.Module:
    """The bare model below PEFT's wrapper, adapters still injected."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
