"""EfficientNet-Lite0 with several of its layers, as a tower of transformer blocks gives them: 224 px, 7 x 7 tokens.

A connector that mixes layers (`connectors/temporal.py`) adds them up, channel by channel. In a transformer that has a
meaning, since every block adds to one stream; maps of a convolutional trunk have channels of their own. So each layer
here has its own channels, beside where a token stands, and state l holds those of the first l layers:

    state 0   place
    state 1   place | block 4
    state 2   place | block 4 | block 7            and so on; the last state holds all

Weights and preprocessing are those of `efficientnet_lite`; what comes behind the last block that is taken is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel
from transformers.modeling_outputs import BaseModelOutput

from .efficientnet_lite import EfficientNetLiteConfig, EfficientNetLiteModel, Part

BLOCKS, CHANNELS = (4, 7, 10), (40, 80, 112)  # the last blocks of 28 x 28, 14 x 14 and 14 x 14
MULTIPLE = 16  # the width is one of it, so that attention of 2, 4, 8 or 16 heads divides it


class EfficientNetLayersConfig(EfficientNetLiteConfig):
    """Sizes of the tower.

    Args:
        blocks: whose output is taken, in order.
        widths: channels of each of them.
    """

    model_type = "efficientnet_lite_layers"

    def __init__(
        self, blocks: Sequence[int] = BLOCKS, widths: Sequence[int] = CHANNELS, **kwargs: Any
    ) -> None:
        super().__init__(**{**kwargs, "channels": sum(widths)})
        self.blocks, self.widths = list(blocks), list(widths)
        self.hidden_size = -(-self.hidden_size // MULTIPLE) * MULTIPLE


class EfficientNetLayersModel(EfficientNetLiteModel):
    """The trunk up to the last block that is taken. Channels are standardised as in `EfficientNetLiteModel`."""

    config_class: Any = EfficientNetLayersConfig

    def __init__(self, config: EfficientNetLayersConfig) -> None:
        super().__init__(config)
        del self.trunk._conv_head, self.trunk._bn1
        del self.trunk._blocks[max(config.blocks) + 1 :]

    def maps(self, pixel_values: Tensor) -> Tensor:
        """Raw tokens [N, 49, channels of all layers] of pixels [N, 3, 224, 224]; larger maps are averaged to 7 x 7."""
        trunk, grid = self.trunk, self.config.grid
        state = pixel_values.contiguous(memory_format=torch.channels_last)
        state = trunk._swish(trunk._bn0(trunk._conv_stem(state)))  # [N, 32, 112, 112]
        taken = []
        for number, block in enumerate(trunk._blocks):
            state = block(state)
            if number in self.config.blocks:
                taken.append(functional.adaptive_avg_pool2d(state, grid).flatten(2))  # [N, channels, 49]
        return torch.cat(taken, dim=1).transpose(1, 2)  # [N, 49, channels of all layers]

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False, **_: Any) -> BaseModelOutput:
        """Tokens of an image after each layer.

        Args:
            pixel_values: [images, 3, 224, 224], normalised with mean = std = 0.5.
            output_hidden_states: they are always given.

        Returns:
            `last_hidden_state` [images, 49, width] and `hidden_states`, one more than there are layers.
        """
        tokens = (self.maps(pixel_values) - self.mean) / self.deviation  # [N, 49, channels]
        places = self._places().to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        places = places if self.config.place else places[..., :0]
        whole = torch.cat([tokens, places], dim=-1)
        whole = functional.pad(whole, (0, self.config.hidden_size - whole.shape[-1]))  # [N, 49, width]
        states = []
        for end in [sum(self.config.widths[:i]) for i in range(len(self.config.widths))]:
            later = torch.arange(whole.shape[-1], device=whole.device)
            states.append(whole * ~((later >= end) & (later < self.config.channels)))
        return BaseModelOutput(last_hidden_state=whole, hidden_states=(*states, whole))


AutoConfig.register("efficientnet_lite_layers", EfficientNetLayersConfig)
AutoModel.register(EfficientNetLayersConfig, EfficientNetLayersModel)

PART = Part(slot="vision", config=EfficientNetLayersConfig, model=EfficientNetLayersModel)
