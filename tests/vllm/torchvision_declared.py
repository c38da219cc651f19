"""Declares two operators that torchvision 0.28.0 asks for at its import, and that its wheel lacks beside this torch.

`make test-vllm` copies this file into vLLM's environment, with a line that imports it whenever Python begins there:
vLLM's processes import torchvision, and fail at its first line without them. Nothing of it is used otherwise: the
operators have no code behind them.
"""

from __future__ import annotations

import importlib.abc
import sys
from typing import Any

OPERATORS = ("nms", "qnms")
SHAPE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
HELD: list[Any] = []  # a library that nobody holds takes its operators along


class Declared(importlib.abc.MetaPathFinder):
    """Finds nothing; sees that torchvision is about to be imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name == "torchvision" and not HELD:
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            HELD.append(library)
            for operator in OPERATORS:
                if not hasattr(torch.ops.torchvision, operator):
                    library.define(f"{operator}{SHAPE}")


sys.meta_path.insert(0, Declared())
