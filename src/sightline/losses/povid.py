"""POVID: half DPO on the pair, half DPO of the chosen answer against what the model says under noise.

Zhou et al. 2024 (arXiv 2402.11411); the shares 0.5 and 0.5 are those of its code. The third answer is read off the
policy itself, anew in every step: under the noised image, at each place of the chosen answer, the likeliest token.
What the model says without seeing is what it must unlearn.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from .pairs import PairLogps, PairLoss


def povid(logps: PairLogps, *, beta: float = 0.1, own: float = 0.5) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities with the reference's; the third answer is the imagined one.
        beta: strength of the pull to the reference, > 0.
        own: share of the half that is about the model's own tokens, in [0, 1].

    Returns:
        [pairs].
    """
    pair = -logsigmoid(beta * logps.margin)
    imagined = -logsigmoid(beta * (logps.chosen_ratio - logps.third_ratio))
    return (1 - own) * pair + own * imagined


LOSS = PairLoss(
    loss=povid, needs_reference=True, paper="arXiv 2402.11411", third="imagined", degrade="diffusion"
)
