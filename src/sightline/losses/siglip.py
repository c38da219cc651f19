"""SigLIP: 1/N sum_i sum_j -log sigmoid(z_ij (t x_i . y_j + b)), where z_ij is 1 for a pair's own text, else -1.

Zhai et al. 2023 (arXiv 2303.15343), equation 1. Every cell of the similarity matrix is a yes/no question of its own,
summed over texts j and averaged over images i. The factor t begins at 10 (its logarithm is learned) and the bias b
at -10, so that the many negatives do not drown the few positives in the first steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .similarity import Contrastive, Sides


def siglip(sides: Sides) -> Tensor:
    """The rows of this process's images against the texts of all processes.

    Pairs that are no negatives of each other (`same`) are positives: a text that equals an image's own is as true
    of it, and z is 1.

    Args:
        sides: unit embeddings, the factor's logarithm, the bias.

    Returns:
        Scalar; its mean over processes is the loss of the whole batch.
    """
    assert sides.bias is not None, "the trainer refuses an encoder without a bias"
    logits = sides.images @ sides.all_texts.T * sides.scale.exp() + sides.bias  # [n, N]
    signed = torch.where(sides.same, logits, -logits)
    return -logsigmoid(signed).sum(-1).mean()


CONTRAST = Contrastive(loss=siglip, needs_bias=True, paper="arXiv 2303.15343", start=(math.log(10), -10.0))
