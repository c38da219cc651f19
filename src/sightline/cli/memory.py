"""What a training step holds in memory, estimated from sizes and settings alone; no torch here.

Activations follow the account of Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1), with a gated feed-forward
part and attention that keeps no scores (`sdpa`). They are counted for rows as long as `max_tokens` allows, so shorter
rows need less.
"""

from __future__ import annotations

from dataclasses import dataclass

from .sizes import Layer, Size

GIGA = 1e9
DEVICES = (24, 48, 80, 141)  # GB of devices that people have
SPARE = 0.92  # share of a device that a run can fill: its own libraries, and gaps between tensors
HEAD = 3 * 4 * 8192  # bytes of one token: logits of so many words at a time, their softmax and their gradient
FLOAT = 4
# Bytes a weight takes as it is held: NF4 has one float32 for 64 weights, 8 bits one for a row.
HELD = {"float32": 4.0, "8bit": 1.0, "4bit": 0.5 + 4 / 64}


@dataclass(frozen=True)
class Step:
    """What decides the memory of one training step.

    Args:
        weights: parameters in all.
        trained: those of them, or beside them, that train.
        language: sizes of the language model, where they are known.
        tokens: of a batch: rows times the longest row.
        half: whether it computes in bfloat16.
        again: whether layers are computed again in the backward pass (gradient checkpointing).
        load: how the weights of the language model's linear layers are held.
        vision: sizes of a tower that a gradient passes; else its activations are not kept.
        patches: tokens of the tower in a batch.
    """

    weights: int
    trained: int
    language: Size | None
    tokens: int
    half: bool = False
    again: bool = False
    load: str = "float32"
    vision: Size | None = None
    patches: int = 0


@dataclass(frozen=True)
class Need:
    """Bytes by what they are for."""

    weights: float
    gradients: float
    optimizer: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def text(self) -> str:
        """The four figures in GB, and the devices that they fit on."""
        named = {
            "weights": self.weights, "gradients": self.gradients, "optimizer": self.optimizer,
            "activations": self.activations,
        }  # fmt: skip
        told = ", ".join(f"{name} {value / GIGA:.1f}" for name, value in named.items())
        fits = [str(size) for size in DEVICES if self.total <= size * GIGA * SPARE]
        where = f"fits on {', '.join(fits)} GB" if fits else f"does not fit on {DEVICES[-1]} GB"
        return f"about {self.total / GIGA:.1f} GB ({told}); {where}"


def need(step: Step) -> Need:
    """What one step holds at most.

    Weights are opened in float32, gradients are float32, AdamW keeps two moments of each trained weight.
    """
    inside = step.language.inside if step.language else 0
    held = HELD[step.load] * inside + FLOAT * (step.weights - inside)
    return Need(
        weights=held + FLOAT * step.trained,
        gradients=FLOAT * step.trained,
        optimizer=2 * FLOAT * step.trained,
        activations=activations(step),
    )


def activations(step: Step) -> float:
    """Bytes that are kept from the forward pass for the backward pass, and the head's logits, a piece at a time."""
    kept = 0.0
    if step.language is not None:
        size = step.language
        kept += transformer(size, step.tokens, half=step.half, again=step.again)
        kept += HEAD * step.tokens
        if step.load == "float32":  # weights in fewer bits are turned into others twice instead
            kept += _copies(size, step)
    if step.vision is not None:
        size = step.vision
        kept += transformer(size, step.patches, half=step.half, again=step.again)
        kept += _copies(size, step)
    return kept


def _copies(size: Size, step: Step) -> float:
    """Bytes of the bfloat16 weights that autocast makes of float32 ones; they stay until the backward pass."""
    if not step.half:
        return 0.0
    return 2 * (size.inside / size.layers if step.again else size.inside)


def transformer(size: Size, tokens: int, *, half: bool, again: bool) -> float:
    """Bytes kept of all layers: what each needs, or with `again` their inputs and one layer's needs."""
    each = per_token(size.layer, 2 if half else 4)
    if again:
        return tokens * (size.layers * FLOAT * size.layer.width + each)
    return tokens * size.layers * each


def per_token(layer: Layer, item: int) -> float:
    """Bytes of one token in one layer: inputs of norms in float32, all others in the item's size."""
    ways = 4 if layer.gated else 2  # gate, its activation, the other way in, their product; else two
    computed = 2 * layer.width + 3 * layer.query + 2 * layer.key + ways * layer.inner
    return item * computed + 2 * 2 * FLOAT * layer.width
