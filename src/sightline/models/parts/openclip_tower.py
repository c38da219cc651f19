"""A vision tower of OpenCLIP, its own or timm's (BiomedCLIP), that `AutoModel` can build: all layers, no projection.

Ilharco et al. (repository mlfoundations/open_clip); BiomedCLIP: Zhang et al. 2023 (arXiv 2303.00915), a ViT-B/16 of
timm with a class token. What a block gives out is listened to, so that the tower runs as OpenCLIP wrote it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ...errors import MissingExtra, ModelError
from .efficientnet_lite import Part


class OpenClipTowerConfig(PretrainedConfig):
    """What OpenCLIP says of a tower.

    Args:
        vision: its `vision_cfg`.
        embed_dim: width of the projection behind it, which is left out of the features.
        quick_gelu: OpenAI's activation.
    """

    model_type = "openclip_tower"

    def __init__(
        self,
        vision: dict[str, Any] | None = None,
        embed_dim: int = 512,
        quick_gelu: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vision = {**(vision or {}), "timm_model_pretrained": False}
        self.embed_dim = embed_dim
        self.quick_gelu = quick_gelu


class OpenClipTower(PreTrainedModel):
    """The tower; sizes of its features stand in its config once it is built.

    Raises:
        MissingExtra: open_clip_torch is not installed.
        ModelError: a tower without transformer blocks.
    """

    config_class = OpenClipTowerConfig
    base_model_prefix = "visual"
    main_input_name = "pixel_values"

    def __init__(self, config: OpenClipTowerConfig) -> None:
        super().__init__(config)
        try:
            from open_clip.model import _build_vision_tower
        except ImportError:
            raise MissingExtra("open_clip_torch", "encoders") from None
        self.visual: nn.Module = _build_vision_tower(config.embed_dim, config.vision, config.quick_gelu)
        visual: Any = self.visual
        inner = dict(visual.named_children())
        if "transformer" not in inner and "blocks" not in dict(
            getattr(visual, "trunk", visual).named_children()
        ):
            raise ModelError(
                "this OpenCLIP tower has no transformer blocks whose tokens a connector could take",
                where="model.vision", found=str(config.vision), remedy="take a ViT",
            )  # fmt: skip
        size = visual.image_size
        config.image_size = size[0] if isinstance(size, (tuple, list)) else size
        patch = visual.trunk.patch_embed.patch_size if "trunk" in inner else visual.patch_size
        config.patch_size = patch[0] if isinstance(patch, (tuple, list)) else patch
        blocks = self.blocks
        attention: Any = next(m for n, m in blocks[0].named_modules() if n == "attn")
        config.num_hidden_layers = len(blocks)
        config.num_attention_heads = attention.num_heads
        config.hidden_size = visual.trunk.embed_dim if "trunk" in inner else visual.conv1.out_channels
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """OpenCLIP and timm have set the weights already."""

    @property
    def blocks(self) -> Any:
        """The transformer's blocks, first one first."""
        visual: Any = self.visual
        return (
            visual.trunk.blocks if "trunk" in dict(visual.named_children()) else visual.transformer.resblocks
        )

    def forward(self, pixel_values: Tensor, output_hidden_states: bool = False, **_: Any) -> BaseModelOutput:
        """Tokens of images, class token first where there is one.

        Args:
            pixel_values: [images, 3, S, S].
            output_hidden_states: they are always given.

        Returns:
            `last_hidden_state` [images, tokens, width] of the last block, without a norm behind it, and
            `hidden_states`, what goes into the first block and what each block gives out.
        """
        states: list[Tensor] = []
        blocks = self.blocks
        hooks = [blocks[0].register_forward_pre_hook(lambda module, given: states.append(given[0]))]
        hooks += [
            block.register_forward_hook(lambda module, given, made: states.append(made)) for block in blocks
        ]
        try:
            self.visual(pixel_values)
        finally:
            for hook in hooks:
                hook.remove()
        visual: Any = self.visual
        if not getattr(getattr(visual, "transformer", None), "batch_first", True):
            states = [state.transpose(0, 1) for state in states]
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=tuple(states))


AutoConfig.register("openclip_tower", OpenClipTowerConfig)
AutoModel.register(OpenClipTowerConfig, OpenClipTower)

PART = Part(slot="vision", config=OpenClipTowerConfig, model=OpenClipTower)
