"""SmolVLM2: Idefics3's architecture with a small language model; its marks of rows and columns are words.

Marafioti et al. 2025 (arXiv 2504.05299); code: `SmolVLMForConditionalGeneration` of transformers, opened from its
folder. Checkpoints whose config says `idefics3` (the first SmolVLM) are of the family `idefics3`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import SmolVLMForConditionalGeneration

from ..family import Bundle
from . import idefics3


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock SmolVLM2 folder (`path`).

    Raises:
        ModelError: no path, no complete SmolVLM2, or settings that are not done here.
    """
    return idefics3.opened(FAMILY, "SmolVLM", SmolVLMForConditionalGeneration, section, seed)


FAMILY = replace(
    idefics3.FAMILY,
    name="smolvlm",
    compose=compose,
    cannot=(*idefics3.FAMILY.cannot, "video"),
)
