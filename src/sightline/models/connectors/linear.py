"""One matrix from features to words: the connector of the first LLaVA (Liu et al. 2023, arXiv 2304.08485)."""

from __future__ import annotations

from torch import nn

from ..connector import Connector, Joint, start_layers


def linear(joint: Joint) -> nn.Module:
    """[images, tokens, width] -> [images, tokens, hidden]."""
    return nn.Sequential(nn.Linear(joint.width, joint.hidden))


def start(module: nn.Module, spread: float) -> None:
    """Output spread like words, for features of unit variance."""
    start_layers([m for m in module.modules() if isinstance(m, nn.Linear)], spread)


CONNECTOR = Connector(name="linear", build=linear, start=start)
