"""Libra's temporal alignment connector: what has changed between a current and a prior image, in one map of tokens.

Zhang et al. 2024, "Libra: Leveraging Temporal Images for Biomedical Radiology Analysis" (arXiv 2411.19378; repository
X-iZhang/Libra, module TAC). All layers of the tower are mixed into one map per image, the two maps are compared, the
prior one is moved by how alike they are, each looks at itself, and the current one looks at the prior one:

    c, p = LFE(current), LFE(prior)                     [L, N, w] -> [N, w]
    s = cos(c, p)                                       of all N w numbers
    p = p + ((s + 1) / 2)^8 * LFE_prior_bias
    c1, p1 = LN1(c + MHA_cur(c)), LN2(p + MHA_prior(p))
    f = LN3(c1 + MHA_cros(c1 asks p1))
    words = mlp_final(LN4(c + mlp_attn(f)))             [N, w] -> [N, h]

Modules have the original's names, `cros_attention` included, so that its tensors fit. The original is fixed to 12
layers and to as many heads as the language model has; here both follow from the models that are joined.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from ..connector import Connector, Joint, start_layers

EPS = 1e-6  # of the norm below which a map has no direction
POWER = 8
DROPOUT = 0.1


class Squeeze(nn.Module):
    """Squeeze and excitation over layers (Hu et al. 2018, arXiv 1709.01507): each layer weighted by all averages.

    Args:
        layers: taken in and given out.
        squeezed: layers between.
    """

    def __init__(self, layers: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(layers, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, layers, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, layers, N, w] -> the same shape."""
        averages = maps.mean((2, 3), keepdim=True)  # [B, layers, 1, 1]
        gates: Tensor = self.fc2(functional.gelu(self.fc1(averages))).sigmoid()
        return maps * gates


class Temporal(nn.Module):
    """The connector. See the formulas at the file's head.

    Args:
        depth: layers of the tower, L.
        width: of a feature, w.
        hidden: of a word, h.
        heads: of each attention; a divisor of the width.
        learned: where there is no prior image, a learned vector stands in for each of its tokens; otherwise the
            current image does, as in the original.
    """

    def __init__(self, depth: int, width: int, hidden: int, heads: int, learned: bool) -> None:
        super().__init__()
        self.heads = heads
        half, quarter = max(depth // 2, 1), max(depth // 4, 1)
        steps = [(depth, half), (half, quarter), (quarter, 1)]
        blocks = [
            module
            for into, out in steps
            for module in (Squeeze(into, out), nn.Conv2d(into, out, 1, bias=False))
        ]
        self.LFE = nn.Sequential(*blocks)
        self.LFE_prior_bias = nn.Parameter(torch.zeros(()))
        self.cur_self_attention = _attention(width, heads)
        self.prior_self_attention = _attention(width, heads)
        self.cros_attention = _attention(width, heads)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm3, self.norm4 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(DROPOUT)
        self.mlp_attn = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(width, width), nn.Dropout(DROPOUT)
        )  # fmt: skip
        final: list[nn.Module] = [nn.Linear(width, hidden)]
        for _ in range(3):
            final += [nn.GELU(), nn.Linear(hidden, hidden)]
        self.mlp_final = nn.Sequential(*final)
        self.no_prior = nn.Parameter(torch.zeros(width)) if learned else None

    def forward(self, current: Tensor, prior: Tensor, present: Tensor) -> Tensor:
        """One map of words for each pair of images.

        Args:
            current: [B, L, N, w], the layers of the tower.
            prior: the same of the earlier study; where there is none, the current image again.
            present: [B] bool, whether there is a prior image.

        Returns:
            [B, N, h].
        """
        now: Tensor = self.LFE(current).squeeze(1)  # [B, N, w]
        then: Tensor = self.LFE(prior).squeeze(1)  # [B, N, w]
        weight = ((self.similarity(now, then) + 1) / 2) ** POWER  # [B]
        moved = then + (weight.to(then.dtype) * self.LFE_prior_bias)[:, None, None]
        if self.no_prior is not None:
            moved = torch.where(present[:, None, None], moved, self.no_prior.to(then.dtype))
        return self.mlp_final(self.norm4(now + self.mlp_attn(self._fused(now, moved))))

    @staticmethod
    def similarity(now: Tensor, then: Tensor) -> Tensor:
        """[B]: cosine of two maps [B, N, w], each taken as one long vector, in float32 at least."""
        exact = torch.promote_types(now.dtype, torch.float32)
        first, second = now.flatten(1).to(exact), then.flatten(1).to(exact)  # [B, N w]
        return (functional.normalize(first, eps=EPS) * functional.normalize(second, eps=EPS)).sum(1)

    def _fused(self, now: Tensor, then: Tensor) -> Tensor:
        """[B, N, w]: what the current map finds in the prior one."""
        own = self.norm1(now + self.drop(_look(self.cur_self_attention, now, now)))
        past = self.norm2(then + self.drop(_look(self.prior_self_attention, then, then)))
        fused: Tensor = self.norm3(own + self.drop(_look(self.cros_attention, own, past)))
        return fused


def _attention(width: int, heads: int) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, heads, dropout=DROPOUT, add_bias_kv=True, batch_first=True)


def _look(attention: nn.Module, asking: Tensor, asked: Tensor) -> Tensor:
    """[B, N, w]: what the first finds in the second; weights are not needed, so attention may be computed in blocks."""
    found: Tensor = attention(asking, asked, asked, need_weights=False)[0]
    return found


def temporal(
    joint: Joint,
    *,
    heads: int | Literal["language", "vision"] = "language",
    no_prior: Literal["current", "learned"] = "current",
) -> nn.Module:
    """The connector between two models.

    Args:
        joint: their sizes.
        heads: of its attention: as many as the language model has (the original, which its weights need), as the
            tower has, or a number.
        no_prior: what stands for a prior image that is not there: the current image, as in the original, or a
            learned vector that says so.

    Raises:
        ModelError: the heads do not divide the width.
    """
    count = joint.heads.get(heads, 0) if isinstance(heads, str) else heads
    if count < 1 or joint.width % count:
        fitting = [n for n in range(1, joint.width + 1) if joint.width % n == 0 and n <= 64]
        raise ModelError(
            "the temporal connector cannot join these models: its heads do not divide the features' width",
            where="model.connector.heads", found=f"{count} heads ({heads}), features of width {joint.width}",
            expected=f"one of {', '.join(map(str, fitting))}",
            remedy="name a number, or `vision`: connector: {name: temporal, heads: ...}",
        )  # fmt: skip
    return Temporal(joint.depth, joint.width, joint.hidden, count, no_prior == "learned")


def start(module: nn.Module, spread: float) -> None:
    """Output spread like words; the rest starts as torch starts it, the stand-in for no prior image small."""
    assert isinstance(module, Temporal)
    start_layers([m for m in module.mlp_final if isinstance(m, nn.Linear)], spread)
    if module.no_prior is not None:
        nn.init.normal_(module.no_prior, std=0.02)


CONNECTOR = Connector(name="temporal", build=temporal, start=start, fuses=True)
