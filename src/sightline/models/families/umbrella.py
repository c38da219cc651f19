"""UMBRELLA: brain volumes in a LLaVA. A SigLIP tower whose embeddings are replaced by patches of volumes.

Transconnectome/BrainVLM on GitHub, directory UMBRELLA (read November 2025). All but the tower's embeddings is a LLaVA,
composed or opened by the family `llava` (theirs is llava-hf/llava-interleave-qwen-0.5b-hf); the patch embedding is
random, a function of the seed, and is the part `patches`. T1 (three axes) and fMRI (with time) have weights of their
own and different numbers of tokens, and stand in one batch: each kind passes the tower by itself. The gradient of the
patches passes the frozen tower.

Where the original's second version puts the patches in the place of `patch_embedding` alone, SigLIP adds its own
positions to tokens that have theirs and fails; here, as in the first, all of `embeddings` is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ...images.volume_input import Box, VolumeInput
from ...settings import Patches, VolumePatches
from ..family import Bundle, Family, Grid
from ..parts.volume_patches import VolumePatches3d4d
from ..released import umbrella
from . import llava

TOWERS = ("siglip_vision_model",)  # their `embeddings` is all that stands in front of the first layer
Step = Callable[[nn.Module, list[Tensor], list[Grid]], list[Tensor]]


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """A LLaVA of parts, or a stock folder (`path`), whose tower reads volumes.

    Raises:
        ModelError: no `patches`, a tower other than SigLIP, patches that do not divide the volumes, or weights of them
            that do not fit.
    """
    if not section.get("patches"):
        raise ModelError(
            "nothing says how volumes are cut", where="model.patches", found="nothing",
            expected="`t1: {size: ..., patch: ...}`, `fmri: ...`, or both",
        )  # fmt: skip
    wanted = Patches.model_validate(section["patches"])
    inner = llava.compose({k: v for k, v in section.items() if k != "patches"}, seed)
    if inner.prior == "fuse":
        raise ModelError(
            "volumes of two studies are not fused", where="model.connector", found=str(section["connector"]),
            expected="a connector that takes one image", remedy="use `mlp2x_gelu`; prior scans stand in the row",
        )  # fmt: skip
    patches = swap(inner.model, wanted, seed)
    if wanted.weights is not None:
        umbrella.fill(patches, inner.model, Path(wanted.weights))
    return replace(
        inner,
        family=FAMILY,
        preprocess=reading(wanted, seed),
        tokens_per_image=max(patches.tokens(axes) for axes in patches.grids),
        fixed=False,
        base={"model": dict(section), "seed": seed},
    )


def swap(model: nn.Module, wanted: Patches, seed: int) -> VolumePatches3d4d:
    """Put a patch embedding of volumes in the place of the tower's embeddings.

    Args:
        model: a `LlavaForConditionalGeneration` with a SigLIP tower.
        wanted: the recipe's section.
        seed: decides the random start.

    Returns:
        The patch embedding.

    Raises:
        ModelError: another tower, or one whose first token is dropped; patches that do not divide the volumes.
    """
    config: Any = model.config
    if config.vision_config.model_type not in TOWERS:
        raise ModelError(
            "the embeddings of this tower cannot be replaced", where="model.vision",
            found=config.vision_config.model_type, expected=", ".join(TOWERS),
            remedy="use a SigLIP tower: others add a class token, or norms, in front of their layers",
        )  # fmt: skip
    if config.vision_feature_select_strategy != "full":
        raise ModelError(
            "patches of volumes have no class token to drop", where="model.select",
            found=config.vision_feature_select_strategy, expected="full",
        )  # fmt: skip
    tower: Any = model.get_submodule("model.vision_tower")
    kernel = tower.embeddings.patch_embedding.weight
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with torch.device(kernel.device):
            patches = VolumePatches3d4d(kernel.shape[0], wanted.t1, wanted.fmri)
    tower.embeddings = patches.to(kernel.dtype)
    return patches


def reading(wanted: Patches, seed: int) -> VolumeInput:
    """The preprocessing that a recipe's section asks for."""

    def box(kind: VolumePatches | None) -> Box | None:
        if kind is None:
            return None
        return Box(size=kind.size, times=kind.times or 0, spacing=kind.spacing)

    return VolumeInput(
        t1=box(wanted.t1), fmri=box(wanted.fmri), scale=wanted.scale, frames=wanted.frames, seed=seed,
        flip=wanted.flip,
    )  # fmt: skip


def words(bundle: Bundle, grid: Grid) -> tuple[int, ...]:
    """The image token, once for every patch of a volume of this shape."""
    patches: Any = bundle.model.get_submodule("model.vision_tower.embeddings")
    return (bundle.image_token,) * int(patches.tokens(len(grid)))


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Tokens of the tower's chosen layer, before the connector.

    Args:
        model: the LLaVA.
        images: [1, D, H, W] or [1, D, H, W, T] each.
        grids: their shapes without the channel.

    Returns:
        [patches, width] each.
    """
    return _by_kind(llava.FAMILY.encode_images, model, images, grids)


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[patches, width] -> [patches, hidden] of each volume."""
    return _by_kind(llava.FAMILY.connect, model, features, grids)


def _by_kind(step: Step, model: nn.Module, values: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """A step that wants equal shapes, once for all volumes of one shape; results in the order given.

    Shapes come in one order, whatever comes first: processes that share weights put them together in it.
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for i, value in enumerate(values):
        places.setdefault(tuple(value.shape), []).append(i)
    made: dict[int, Tensor] = {}
    for own in (places[shape] for shape in sorted(places)):
        made.update(zip(own, step(model, [values[i] for i in own], [grids[i] for i in own]), strict=True))
    return [made[i] for i in range(len(values))]


FAMILY = Family(
    name="umbrella",
    parts={
        "patches": ("model.vision_tower.embeddings",),
        "vision": ("model.vision_tower.encoder", "model.vision_tower.post_layernorm"),
        "connector": llava.FAMILY.parts["connector"],
        "language": llava.FAMILY.parts["language"],
    },
    placement="inline",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=llava.FAMILY.hidden,
    head=llava.FAMILY.head,
    words=words,
    around=("", "\n"),
    tower=("patches", "vision"),
    layer=llava.FAMILY.layer,
    cannot=("pictures", "volumes of other sizes than the recipe's", "towers other than SigLIP"),
)
