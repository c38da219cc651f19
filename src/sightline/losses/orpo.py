"""ORPO: NLL(w) - lambda * log sigmoid(log odds(w) - log odds(l)), with odds(y) = p(y) / (1 - p(y)).

Hong et al. 2024 (arXiv 2403.07691), equations 4 to 7. log p is the mean per token. There is no reference model; the
first term alone is teaching, so ORPO needs no stage before it. It is taken over the answer: the authors' code takes
prompt and answer, which with an image prompt would teach the model to write questions.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .pairs import PairLogps, PairLoss

LEAST = 1e-7  # 1 - p of an answer that is certain; log(0) otherwise


def orpo(logps: PairLogps, *, weight: float = 0.1) -> Tensor:
    """Loss per pair.

    Args:
        logps: summed log-probabilities and lengths; no reference.
        weight: lambda, the share of the odds ratio, > 0.

    Returns:
        [pairs].
    """
    log_odds = _log_odds(logps.chosen_mean) - _log_odds(logps.rejected_mean)
    return -logps.chosen_mean - weight * logsigmoid(log_odds)


def _log_odds(logp: Tensor) -> Tensor:
    """Log p - log(1 - p) of log p < 0; exact near 0 too, where 1 - p is computed as -expm1(log p)."""
    return logp - torch.log((-torch.expm1(logp)).clamp_min(LEAST))


LOSS = PairLoss(loss=orpo, needs_reference=False, paper="arXiv 2403.07691")
