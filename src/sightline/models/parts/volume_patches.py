"""Brain volumes cut into patches: what UMBRELLA puts in the place of a tower's own embeddings.

Parameters, shapes, order of tokens and names are those of `PatchEmbed` in Transconnectome/BrainVLM (UMBRELLA, read
November 2025); its later generation calls the same tensors `sMRI_*` and `fMRI_*`, and both are read. What differs: a
size that patches do not divide is refused, unless the recipe says whether the rest is padded or dropped (the original
drops it in silence for T1, 6 of 96 voxels per axis, and fails for fMRI).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import ModelError
from ...settings import VolumePatches

LATER = {"sMRI_": "T1_", "fMRI_": "rsfMRI_"}  # names of the later generation -> names here


def counts(shape: VolumePatches, name: str) -> tuple[int, ...]:
    """Patches along every axis, by the size that volumes have and what is to become of a rest.

    Args:
        shape: the recipe's section.
        name: `t1` or `fmri`, for messages.

    Raises:
        ModelError: a patch does not divide the size, and nothing is said about the rest.
    """
    edges, patch = shape.edges, shape.edges_of_patch
    rests = [n % p for n, p in zip(edges, patch, strict=True)]
    if any(rests) and not (shape.pad or shape.drop):
        near = [(n // p * p, (n + p - 1) // p * p) for n, p in zip(edges, patch, strict=True)]
        raise ModelError(
            f"patches do not divide the volumes of `{name}`", where=f"model.patches.{name}",
            found=f"size {list(edges)}, patch {list(patch)}: {rests} voxels are left over",
            expected=f"sizes such as {[low or high for low, high in near]} or {[high for _, high in near]}",
            remedy="change `size` or `patch`, or say `pad: true` (fills up at the end) or `drop: true` (cuts off)",
        )  # fmt: skip
    if shape.drop and min(n // p for n, p in zip(edges, patch, strict=True)) < 1:
        raise ModelError(
            f"a patch is larger than the volumes of `{name}`", where=f"model.patches.{name}",
            found=f"size {list(edges)}, patch {list(patch)}",
        )  # fmt: skip
    up = 0 if shape.drop else 1
    return tuple((n + up * (p - 1)) // p for n, p in zip(edges, patch, strict=True))


class VolumePatches3d4d(nn.Module):
    """Volumes [B, 1, D, H, W] or [B, 1, D, H, W, T] to tokens [B, patches, width], each kind by its own weights.

    Args:
        width: of the tower's tokens.
        t1: volumes without a time axis: `T1_proj`, a Conv3d whose stride is its kernel.
        fmri: volumes with one: `rsfMRI_proj`, a linear layer over a patch's voxels in the order D, H, W, T.
    """

    def __init__(
        self, width: int, t1: VolumePatches | None = None, fmri: VolumePatches | None = None
    ) -> None:
        super().__init__()
        self.t1, self.fmri = t1, fmri
        self.grids: dict[int, tuple[int, ...]] = {}  # patches along every axis, by the number of axes
        if t1 is not None:
            self.grids[3] = counts(t1, "t1")
            self.T1_proj = nn.Conv3d(1, width, kernel_size=t1.patch, stride=t1.patch)
            self.T1_positional_embeddings = nn.Parameter(torch.zeros(1, prod(self.grids[3]), width))
        if fmri is not None:
            self.grids[4] = counts(fmri, "fmri")
            self.rsfMRI_proj = nn.Linear(prod(fmri.edges_of_patch), width)
            self.rsfMRI_positional_embeddings = nn.Parameter(torch.zeros(1, prod(self.grids[4]), width))
        for name, parameter in self.named_parameters():
            if name.endswith("positional_embeddings"):
                nn.init.trunc_normal_(parameter, std=0.02)
        self.register_load_state_dict_pre_hook(_renamed)

    def tokens(self, axes: int) -> int:
        """Tokens of one volume of three or four axes."""
        return prod(self.grids[axes])

    def forward(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> Tensor:
        """Tokens of volumes of one kind.

        Args:
            pixel_values: [B, 1, D, H, W] or [B, 1, D, H, W, T], of the size that the recipe states.
            interpolate_pos_encoding: what the tower passes on; sizes are fixed here, so it has no meaning.

        Returns:
            [B, patches, width], the last axis of a volume running fastest.

        Raises:
            ModelError: a kind or a size that these weights are not for.
        """
        axes = pixel_values.ndim - 2
        section = {3: self.t1, 4: self.fmri}.get(axes)
        if section is None or tuple(pixel_values.shape[1:]) != (1, *section.edges):
            known = [list(s.edges) for s in (self.t1, self.fmri) if s is not None]
            raise ModelError(
                "a volume does not fit the patch embedding", found=f"shape {list(pixel_values.shape)}",
                expected=f"[B, 1, ...] with edges {' or '.join(map(str, known))}",
            )  # fmt: skip
        grid, patch = self.grids[axes], section.edges_of_patch
        whole = [n * p for n, p in zip(grid, patch, strict=True)]
        values = _to(pixel_values, whole)  # [B, 1, *whole]
        if axes == 3:
            made = self.T1_proj(values.to(self.T1_proj.weight.dtype)).flatten(2).transpose(1, 2)
            return made + self.T1_positional_embeddings  # [B, patches, width]
        cut = values[:, 0].unflatten(4, (grid[3], patch[3])).unflatten(3, (grid[2], patch[2]))
        cut = cut.unflatten(2, (grid[1], patch[1])).unflatten(
            1, (grid[0], patch[0])
        )  # [B, g, p, g, p, g, p, g, p]
        cut = (
            cut.permute(0, 1, 3, 5, 7, 2, 4, 6, 8).flatten(5).flatten(1, 4)
        )  # [B, patches, voxels of a patch]
        return self.rsfMRI_proj(cut.to(self.rsfMRI_proj.weight.dtype)) + self.rsfMRI_positional_embeddings


def _to(values: Tensor, whole: list[int]) -> Tensor:
    """[B, 1, *edges] cut off, or filled up with zeros, at the end of every axis. [B, 1, *whole]."""
    edges = values.shape[2:]
    values = values[(slice(None), slice(None), *(slice(n) for n in whole))]
    extra = [max(0, n - have) for n, have in zip(whole, edges, strict=True)]
    if not any(extra):
        return values
    return functional.pad(values, [n for e in reversed(extra) for n in (0, e)])


def renamed(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """A state dict with the later generation's names (`sMRI_*`, `fMRI_*`) as those of the first.

    Raises:
        ModelError: it holds both names of one tensor.
    """
    made: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key
        for later, first in LATER.items():
            if key.startswith(prefix + later):
                name = prefix + first + key.removeprefix(prefix + later)
        if name in made or (name != key and name in state):
            raise ModelError(
                "a patch embedding is stored under both of its names", found=f"{key} and {name}",
                expected="one of them", remedy="take one out: nobody can tell which is meant",
            )  # fmt: skip
        made[name] = value
    return made


def _renamed(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Rename in place before a state dict is loaded."""
    made = renamed(state, prefix)
    state.clear()
    state.update(made)
