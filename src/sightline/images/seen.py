"""One image as a model is given it: what every collator and every model family hands on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """Values of an image, and what its family must know of its size.

    Args:
        values: the tower's input, features of the tower, or tokens behind the connector.
        grid: decides how many tokens stand for the image; empty where all images are alike.
    """

    values: Tensor
    grid: tuple[int, ...] = ()
