"""CLIP: 1/2N sum_i [-log softmax_j(t x_i . y_j)_i - log softmax_j(t y_i . x_j)_i], InfoNCE both ways.

Radford et al. 2021 (arXiv 2103.00020), section 2.3: each image picks its text among all texts of the batch, each
text its image among all images. The factor t begins at 1/0.07; its logarithm is learned, and t is kept at 100 at
most.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import cross_entropy

from .similarity import Contrastive, Sides


def clip(sides: Sides) -> Tensor:
    """The rows of this process's images and texts against the texts and images of all processes.

    Pairs that are no negatives of each other (`same`) are left out of each other's denominator: neither right nor
    wrong. A bias, where the encoder has one, is not used: softmax would take it away.

    Args:
        sides: unit embeddings and the factor's logarithm.

    Returns:
        Scalar; its mean over processes is the loss of the whole batch.
    """
    factor, target = sides.scale.exp(), sides.own
    apart = sides.same.clone()  # [n, N]
    apart[target - sides.first, target] = False
    ways = (sides.images @ sides.all_texts.T, sides.texts @ sides.all_images.T)  # [n, N] each
    losses = [cross_entropy((way * factor).masked_fill(apart, -math.inf), target) for way in ways]
    return (losses[0] + losses[1]) / 2


CONTRAST = Contrastive(
    loss=clip, needs_bias=False, paper="arXiv 2103.00020", start=(-math.log(0.07), 0.0), limit=math.log(100)
)
