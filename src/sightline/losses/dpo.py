"""DPO: -log sigmoid(beta * [(log pi(w) - log pi_ref(w)) - (log pi(l) - log pi_ref(l))]).

Rafailov et al. 2023 (arXiv 2305.18290), equation 7. Log-probabilities are summed over the answer's tokens. The two
answers may have seen different images (MMed-RAG, arXiv 2410.13085): the formula does not change.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from .pairs import PairLogps, PairLoss


def dpo(logps: PairLogps, *, beta: float = 0.1, smoothing: float = 0.0) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities; the reference's are needed.
        beta: strength of the pull to the reference, > 0.
        smoothing: share of pairs whose labels are taken to be wrong (conservative DPO), in [0, 0.5).

    Returns:
        [pairs].
    """
    reward = beta * logps.margin
    return -(1 - smoothing) * logsigmoid(reward) - smoothing * logsigmoid(-reward)


LOSS = PairLoss(loss=dpo, needs_reference=True, paper="arXiv 2305.18290")
