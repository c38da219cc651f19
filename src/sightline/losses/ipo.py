"""IPO: (margin - 1 / (2 beta))^2, which wants a finite margin and so does not run away on sure pairs.

Azar et al. 2023 (arXiv 2310.12036), equation 17, where beta is called tau. The margin is that of the answers'
mean log-ratios per token, not of their sums: the authors told TRL's that their figures were made so, and sums would
let the target depend on the length.
"""

from __future__ import annotations

from torch import Tensor

from .pairs import PairLogps, PairLoss


def ipo(logps: PairLogps, *, beta: float = 0.1) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities with the reference's, and the lengths.
        beta: the wanted margin per token is 1 / (2 beta) nats, > 0.

    Returns:
        [pairs].
    """
    assert logps.chosen_length is not None
    assert logps.rejected_length is not None
    margin = logps.chosen_ratio / logps.chosen_length - logps.rejected_ratio / logps.rejected_length
    return (margin - 1 / (2 * beta)) ** 2


LOSS = PairLoss(loss=ipo, needs_reference=True, paper="arXiv 2310.12036")
