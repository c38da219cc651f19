"""Hinge: max(0, 1 - beta * margin), the margin of DPO under the loss of SLiC.

Zhao et al. 2023 (arXiv 2305.10425) for the loss, Liu et al. 2023 (arXiv 2309.06657) for it on DPO's margin. Pairs
whose reward already differs by 1 teach nothing more.
"""

from __future__ import annotations

from torch import Tensor, relu

from .pairs import PairLogps, PairLoss


def hinge(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities; the reference's are needed.
        beta: one over the margin in nats from which a pair counts as learned, > 0.

    Returns:
        [pairs].
    """
    return relu(1 - beta * logps.margin)


LOSS = PairLoss(loss=hinge, needs_reference=True, paper="arXiv 2305.10425, 2309.06657")
