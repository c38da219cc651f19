"""Names of tensors: the originals' and today's.

| original | holds | today |
|---|---|---|
| `model.layers.*`, `model.embed_tokens.*`, `model.norm.*`, `lm_head.*` | language model | the same |
| `model.vision_tower.vision_tower.*`, with or without `vision_model.` | tower, where it was trained | without prefix |
| `model.mm_projector.{weight,bias}` | connector of the first LLaVA | `linear`: `0.{weight,bias}` |
| `model.mm_projector.{0,2}.*`, of Libra `model.mm_projector.projector.*` | connector | `linear_1.*`, `linear_2.*` |
| `model.mm_projector.LFE*` and its like | Libra's temporal connector | the same |
| `model.image_newline` | end of a line of tiles, LLaVA-1.6 | the same |

Files of PEFT runs put `base_model.model.` in front. Two kinds of buffers that older versions of transformers wrote
(`rotary_emb.inv_freq`, `position_ids`) follow from the config and are passed over. Names as in haotian-liu/LLaVA,
microsoft/LLaVA-Med and X-iZhang/Libra on GitHub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ...errors import ModelError
from .weights import State

CONNECTOR = "model.mm_projector."
TOWER = "model.vision_tower.vision_tower."
NEWLINE = "model.image_newline"
LANGUAGE = ("model.", "lm_head.")
BUFFERS = ("rotary_emb.inv_freq", "position_ids")


@dataclass
class Divided:
    """A checkpoint's tensors by part, under today's names.

    Args:
        language: as a causal language model of transformers has them.
        vision: of the tower, without prefix; empty where the checkpoint left it as it was.
        connector: as the connector plug-in `kind` has them.
        kind: `linear`, `mlpNx_gelu` or `temporal`.
        newline: LLaVA-1.6's end of a line of tiles.
    """

    language: State = field(default_factory=dict)
    vision: State = field(default_factory=dict)
    connector: State = field(default_factory=dict)
    kind: str = ""
    newline: Tensor | None = None


def plain(state: Mapping[str, Tensor]) -> State:
    """Names without what PEFT and wrapping put in front, and without buffers."""
    made: State = {}
    for name, tensor in state.items():
        short = name.removeprefix("base_model.")
        while short.startswith(("model.model.", "model.lm_head.")):
            short = short.removeprefix("model.")
        if not short.endswith(BUFFERS):
            made[short] = tensor
    return made


def divide(state: Mapping[str, Tensor], where: str) -> Divided:
    """A whole checkpoint by part.

    Args:
        state: all of its tensors, with names as `plain` gives them.
        where: the checkpoint, for messages.

    Raises:
        ModelError: names that belong to no part.
    """
    made = Divided(newline=state.get(NEWLINE))
    connector: State = {}
    unknown = []
    for name, tensor in state.items():
        if name.startswith(CONNECTOR):
            connector[name.removeprefix(CONNECTOR)] = tensor
        elif name.startswith(TOWER):
            made.vision[name.removeprefix(TOWER).removeprefix("vision_model.")] = tensor
        elif name.startswith(LANGUAGE) and name != NEWLINE:
            made.language[name] = tensor
        elif name != NEWLINE:
            unknown.append(name)
    if unknown:
        raise ModelError(
            "this checkpoint holds tensors of no known part", where=where,
            found=f"{len(unknown)} unexpected: {', '.join(sorted(unknown)[:5])}",
            expected=f"names that begin with {', '.join((*LANGUAGE, CONNECTOR, TOWER))}",
        )  # fmt: skip
    if connector:
        made.kind, made.connector = _connector(connector, where)
    return made


def _connector(state: State, where: str) -> tuple[str, State]:
    """A connector's kind, and its tensors under today's names."""
    bare = {name.removeprefix("projector."): tensor for name, tensor in state.items()}
    if any(name.startswith("LFE") for name in bare):
        return "temporal", bare
    if set(bare) == {"weight", "bias"}:
        return "linear", {f"0.{name}": tensor for name, tensor in bare.items()}
    places = sorted({name.partition(".")[0] for name in bare}, key=lambda word: (len(word), word))
    count = len(places)
    wanted = {f"{2 * i}.{kind}" for i in range(count) for kind in ("weight", "bias")}
    if set(bare) != wanted:
        raise ModelError(
            "this checkpoint's connector is none that is known here", where=where,
            found=", ".join(sorted(bare)[:6]),
            expected="that of LLaVA (linear, mlpNx_gelu) or Libra (TAC), complete",
        )  # fmt: skip
    if count != 2:
        return f"mlp{count}x_gelu", bare
    return "mlp2x_gelu", {
        {"0": "linear_1", "2": "linear_2"}[at] + f".{kind}": bare[f"{at}.{kind}"]
        for at in ("0", "2")
        for kind in ("weight", "bias")
    }
