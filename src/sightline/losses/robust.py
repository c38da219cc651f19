"""Robust DPO: DPO's loss freed of the bias that a known share of turned labels puts into it.

Chowdhury et al. 2024 (arXiv 2403.00409): with a share e of pairs labelled the wrong way round,
[(1 - e) L(margin) - e L(-margin)] / (1 - 2e) has the mean of L on clean labels. It may be negative.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ..errors import RecipeError
from .pairs import PairLogps, PairLoss


def robust(logps: PairLogps, *, beta: float = 0.1, flipped: float = 0.1) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities; the reference's are needed.
        beta: strength of the pull to the reference, > 0.
        flipped: share of pairs whose labels are wrong, in [0, 0.5).

    Returns:
        [pairs].

    Raises:
        RecipeError: a share outside [0, 0.5).
    """
    if not 0 <= flipped < 0.5:
        raise RecipeError("loss 'robust': no such share", found=str(flipped), expected="flipped in [0, 0.5)")
    reward = beta * logps.margin
    return (flipped * logsigmoid(-reward) - (1 - flipped) * logsigmoid(reward)) / (1 - 2 * flipped)


LOSS = PairLoss(loss=robust, needs_reference=True, paper="arXiv 2403.00409")
