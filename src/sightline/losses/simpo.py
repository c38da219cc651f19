"""SimPO: -log sigmoid(beta * (mean log p(w) - mean log p(l)) - gamma), without a reference.

Meng et al. 2024 (arXiv 2405.14734), equation 6. The mean per token takes away what length alone gives.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from .pairs import PairLogps, PairLoss


def simpo(logps: PairLogps, *, beta: float = 2.0, gamma: float = 1.0) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities and lengths; no reference.
        beta: scale of the reward, > 0.
        gamma: by how much the chosen answer's reward is to lead, >= 0.

    Returns:
        [pairs].
    """
    return -logsigmoid(beta * (logps.chosen_mean - logps.rejected_mean) - gamma)


LOSS = PairLoss(loss=simpo, needs_reference=False, paper="arXiv 2405.14734")
