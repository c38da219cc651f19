"""mDPO: DPO on the answers, DPO on the images, and an anchor that keeps the chosen answer likely.

Wang et al. 2024 (arXiv 2406.11839), equations 3 to 6. With r = beta * (log pi - log pi_ref), w the chosen and l the
rejected answer, m the image and m' a crop of it:

    -log sigmoid(r(w|m) - r(l|m)) - log sigmoid(r(w|m) - r(w|m')) - log sigmoid(r(w|m) - delta)
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from .pairs import PairLogps, PairLoss


def mdpo(
    logps: PairLogps,
    *,
    beta: float = 0.1,
    conditional: float = 1.0,
    anchored: float = 1.0,
    delta: float = 0.0,
) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities with the reference's; the third answer is the chosen one under the
            degraded image.
        beta: strength of the pull to the reference, > 0.
        conditional: weight of the preference between the images.
        anchored: weight of the anchor.
        delta: reward that the anchor wants of the chosen answer.

    Returns:
        [pairs].
    """
    text = -logsigmoid(beta * logps.margin)
    image = -logsigmoid(beta * (logps.chosen_ratio - logps.third_ratio))
    anchor = -logsigmoid(beta * logps.chosen_ratio - delta)
    return text + conditional * image + anchored * anchor


LOSS = PairLoss(
    loss=mdpo, needs_reference=True, paper="arXiv 2406.11839", third="conditional", degrade="crop"
)
