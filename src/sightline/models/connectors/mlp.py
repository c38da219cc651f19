"""N matrices with GELU between them: `mlpNx_gelu` (Liu et al. 2023, arXiv 2310.03744; haotian-liu/LLaVA).

Two of them are LLaVA-1.5's connector, under the names that transformers gives it; any other number has LLaVA's names.
"""

from __future__ import annotations

from torch import Tensor, nn

from ...errors import ModelError
from ..connector import Connector, Joint, start_layers


class TwoLayers(nn.Module):
    """`LlavaMultiModalProjector` of transformers, without its config.

    Args:
        width: of a feature.
        hidden: of a word.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.linear_2 = nn.Linear(hidden, hidden)

    def forward(self, features: Tensor) -> Tensor:
        """[..., width] -> [..., hidden]."""
        made: Tensor = self.linear_2(self.act(self.linear_1(features)))
        return made


def mlp(joint: Joint, *, layers: int = 2) -> nn.Module:
    """[images, tokens, width] -> [images, tokens, hidden].

    Raises:
        ModelError: no layer.
    """
    if layers < 1:
        raise ModelError("a connector has a layer at least", where="model.connector", found=str(layers))
    if layers == 2:
        return TwoLayers(joint.width, joint.hidden)
    stack: list[nn.Module] = [nn.Linear(joint.width, joint.hidden)]
    for _ in range(layers - 1):
        stack += [nn.GELU(), nn.Linear(joint.hidden, joint.hidden)]
    return nn.Sequential(*stack)


def start(module: nn.Module, spread: float) -> None:
    """Output spread like words, for features of unit variance."""
    start_layers([m for m in module.modules() if isinstance(m, nn.Linear)], spread)


CONNECTOR = Connector(name="mlp", build=mlp, start=start)
