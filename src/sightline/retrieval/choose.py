"""How many of the reports found are shown. Every rule keeps the best ones: at least 1, at most k.

    top     all k
    ratio   report i while S1 / Si < gamma                    MMed-RAG's code (github.com/richard-peng-xia/MMed-RAG)
    gap     up to the first i with log(Si / Si+1) > gamma     its paper (Xia et al. 2024, arXiv 2410.13085)

Both adaptive rules compare similarities by their ratio, which means something between positive numbers only. In the
original a negative similarity gives a negative ratio, which is below any threshold, and so the worst reports are kept.
Here a report whose similarity is 0 or less is never kept by these two rules, except as the only one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from ..errors import RecipeError

GAMMA = {"ratio": 1.5, "gap": math.log(1.5)}  # 1.5 is what MMed-RAG's scripts suggest


def kept(
    similarities: Sequence[float],
    rule: str,
    k: int,
    *,
    gamma: float | None = None,
    floor: float | None = None,
) -> int:
    """How many of the reports found are shown.

    Args:
        similarities: of the reports found, falling.
        rule: `top`, `ratio` or `gap`.
        k: most.
        gamma: of the adaptive rules; None for the default.
        floor: least similarity, under any rule.

    Returns:
        From 1 to k; 0 only where nothing was found.

    Raises:
        RecipeError: no such rule.
    """
    found = list(similarities[:k])
    if not found:
        return 0
    limit = GAMMA.get(rule, 0.0) if gamma is None else gamma
    if rule == "top":
        count = len(found)
    elif rule == "ratio":
        count = _while([s > 0 and found[0] / s < limit for s in found])
    elif rule == "gap":
        count = 1 + _while(
            [after > 0 and math.log(before / after) <= limit for before, after in pairwise(found)]
        )
    else:
        raise RecipeError(f"no rule '{rule}' for how many reports are shown", expected="top, ratio, gap")
    if floor is not None:
        count = min(count, _while([s >= floor for s in found]))
    return max(1, count)


def _while(flags: Sequence[bool]) -> int:
    """How many are true before the first that is not."""
    return next((i for i, flag in enumerate(flags) if not flag), len(flags))
