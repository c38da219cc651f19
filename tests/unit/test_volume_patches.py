"""The patch embedding of volumes: shapes, keys and order of the original, and no rest that vanishes in silence."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from sightline.errors import ModelError
from sightline.models.parts.volume_patches import VolumePatches3d4d, counts, renamed
from sightline.settings import Patches, VolumePatches

T1 = VolumePatches(size=(4, 6, 8), patch=(2, 3, 4))
FMRI = VolumePatches(size=(4, 6, 4), patch=(2, 3, 2), times=6, time_patch=2)


def made(seed: int = 0, **kinds: VolumePatches) -> VolumePatches3d4d:
    torch.manual_seed(seed)
    return VolumePatches3d4d(5, **kinds)


def plain_t1(patches: VolumePatches3d4d, volume: Tensor) -> Tensor:
    """Every patch by itself: a dot product with the kernel. [1, D, H, W] -> [patches, width]."""
    rows = []
    for i, j, k in product(range(2), range(2), range(2)):
        block = volume[:, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3, 4 * k : 4 * k + 4]
        rows.append((patches.T1_proj.weight * block).sum(dim=(1, 2, 3, 4)) + patches.T1_proj.bias)
    return torch.stack(rows) + patches.T1_positional_embeddings[0]


def plain_fmri(patches: VolumePatches3d4d, volume: Tensor) -> Tensor:
    """[1, D, H, W, T] -> [patches, width]; time is the fastest axis of patches and of voxels in a patch."""
    rows = []
    for i, j, k, t in product(range(2), range(2), range(2), range(3)):
        voxels = [
            volume[0, 2 * i + a, 3 * j + b, 2 * k + c, 2 * t + d]
            for a, b, c, d in product(range(2), range(3), range(2), range(2))
        ]
        rows.append(patches.rsfMRI_proj.weight @ torch.stack(voxels) + patches.rsfMRI_proj.bias)
    return torch.stack(rows) + patches.rsfMRI_positional_embeddings[0]


def test_both_kinds_equal_a_plain_loop() -> None:
    patches = made(t1=T1, fmri=FMRI)
    volumes = torch.randn(2, 1, 4, 6, 8)
    torch.testing.assert_close(patches(volumes), torch.stack([plain_t1(patches, v) for v in volumes]))
    timed = torch.randn(2, 1, 4, 6, 4, 6)
    torch.testing.assert_close(patches(timed), torch.stack([plain_fmri(patches, v) for v in timed]))
    assert (patches.tokens(3), patches.tokens(4)) == (8, 24)


def test_names_and_shapes_are_the_originals() -> None:
    shapes = {name: tuple(value.shape) for name, value in made(t1=T1, fmri=FMRI).state_dict().items()}
    assert shapes == {
        "T1_proj.weight": (5, 1, 2, 3, 4),
        "T1_proj.bias": (5,),
        "T1_positional_embeddings": (1, 8, 5),
        "rsfMRI_proj.weight": (5, 24),
        "rsfMRI_proj.bias": (5,),
        "rsfMRI_positional_embeddings": (1, 24, 5),
    }
    assert set(made(fmri=FMRI).state_dict()) == {n for n in shapes if n.startswith("rsfMRI")}


def test_names_of_both_generations_are_read() -> None:
    source, target = made(1, t1=T1, fmri=FMRI), made(2, t1=T1, fmri=FMRI)
    later = {
        name.replace("rsfMRI_", "fMRI_").replace("T1_", "sMRI_"): value
        for name, value in source.state_dict().items()
    }
    assert sorted(later)[0] == "fMRI_positional_embeddings"
    target.load_state_dict(later)
    volume = torch.randn(1, 1, 4, 6, 8)
    assert torch.equal(target(volume), source(volume))
    holder = torch.nn.ModuleDict({"embeddings": made(3, t1=T1, fmri=FMRI)})
    holder.load_state_dict({f"embeddings.{name}": value for name, value in later.items()})
    assert torch.equal(holder["embeddings"](volume), source(volume))
    with pytest.raises(ModelError, match="both of its names"):
        renamed({**source.state_dict(), **later})
    with pytest.raises(RuntimeError, match=r"Missing key.*rsfMRI_proj.bias"):
        made(t1=T1, fmri=FMRI).load_state_dict({k: v for k, v in later.items() if k != "fMRI_proj.bias"})


def test_positions_start_small_and_the_seed_decides() -> None:
    one, two, three = made(1, t1=T1), made(1, t1=T1), made(2, t1=T1)
    assert torch.equal(one.T1_positional_embeddings, two.T1_positional_embeddings)
    assert not torch.equal(one.T1_positional_embeddings, three.T1_positional_embeddings)
    assert 0.01 < float(one.T1_positional_embeddings.detach().std()) < 0.03


def test_a_rest_is_refused_unless_the_recipe_says_what_becomes_of_it() -> None:
    with pytest.raises(ModelError, match="patches do not divide") as caught:
        counts(VolumePatches(size=(96, 96, 96), patch=(10, 10, 10)), "t1")
    assert caught.value.found == "size [96, 96, 96], patch [10, 10, 10]: [6, 6, 6] voxels are left over"
    assert caught.value.expected == "sizes such as [90, 90, 90] or [100, 100, 100]"
    with pytest.raises(ModelError, match="patches do not divide"):
        counts(VolumePatches(size=(96, 96, 96), patch=(16, 16, 16), times=20, time_patch=3), "fmri")
    odd = {"size": (96, 96, 96), "patch": (10, 10, 10)}
    assert counts(VolumePatches(**odd, drop=True), "t1") == (9, 9, 9)
    assert counts(VolumePatches(**odd, pad=True), "t1") == (10, 10, 10)
    assert counts(VolumePatches(size=(96, 96, 96), patch=(16, 16, 16), times=24, time_patch=3), "fmri") == (
        6,
        6,
        6,
        8,
    )
    with pytest.raises(ModelError, match="larger than the volumes"):
        counts(VolumePatches(size=(4, 4, 4), patch=(5, 4, 4), drop=True), "t1")


def one(size: tuple[int, int, int], times: int | None, **more: bool) -> VolumePatches3d4d:
    time = {} if times is None else {"times": times, "time_patch": 2}
    section = VolumePatches.model_validate({"size": size, "patch": (2, 2, 2), **time, **more})
    return made(**{"t1" if times is None else "fmri": section})


@pytest.mark.parametrize("times", [None, 3])
def test_pad_adds_zeros_at_the_end_and_drop_cuts_the_end_off(times: int | None) -> None:
    edges = (5, 4, 4) if times is None else (5, 4, 4, times)
    volume = torch.randn(1, 1, *edges)
    padded, dropped = one((5, 4, 4), times, pad=True), one((5, 4, 4), times, drop=True)
    whole = torch.zeros(1, 1, 6, 4, 4) if times is None else torch.zeros(1, 1, 6, 4, 4, 4)
    whole[(slice(None), slice(None), *(slice(n) for n in edges))] = volume
    larger = one((6, 4, 4), None if times is None else 4)
    larger.load_state_dict(padded.state_dict())
    assert torch.equal(padded(volume), larger(whole))
    smaller = one((4, 4, 4), None if times is None else 2)
    smaller.load_state_dict(dropped.state_dict())
    rest = volume[:, :, :4] if times is None else volume[:, :, :4, ..., :2]
    assert torch.equal(dropped(volume), smaller(rest))


def test_other_sizes_and_kinds_are_refused() -> None:
    patches = made(t1=T1)
    with pytest.raises(ModelError, match="does not fit the patch embedding") as caught:
        patches(torch.zeros(1, 1, 4, 6, 6))
    assert caught.value.expected == "[B, 1, ...] with edges [4, 6, 8]"
    for shape in ((1, 2, 4, 6, 8), (1, 1, 4, 6, 8, 2), (1, 4, 6, 8)):
        with pytest.raises(ModelError, match="does not fit"):
            patches(torch.zeros(shape))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, "say `t1`, `fmri` or both"),
        ({"t1": {"size": (4, 4, 4), "patch": (2, 2, 2), "times": 4, "time_patch": 2}}, "`t1` has no time"),
        ({"fmri": {"size": (4, 4, 4), "patch": (2, 2, 2)}}, "`fmri` needs `times`"),
        ({"t1": {"size": (4, 4, 4), "patch": (2, 2, 2), "pad": True, "drop": True}}, "`pad` or `drop`"),
        ({"t1": {"size": (4, 4, 0), "patch": (2, 2, 2)}}, "above 0"),
        ({"fmri": {"size": (4, 4, 4), "patch": (2, 2, 2), "times": 4}}, "belong together"),
    ],
)
def test_sections_that_contradict_themselves(section: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Patches.model_validate(section)
