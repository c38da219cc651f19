"""UMBRELLA's checkpoints under their own names open on their base, and say what plain arithmetic says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv3d, linear

import models
import models_umbrella
from sightline.errors import ModelError
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.settings import Model

WIDTH = models.SIGLIP["hidden_size"]
# The patches of `models_umbrella.BOTH`: T1 of 4 x 4 x 4 voxels, fMRI of 4 x 4 x 8 at two points of time.
SHAPES = {
    "T1_proj.weight": (WIDTH, 1, 4, 4, 4), "T1_proj.bias": (WIDTH,), "T1_positional_embeddings": (1, 8, WIDTH),
    "rsfMRI_proj.weight": (WIDTH, 4 * 4 * 8 * 2), "rsfMRI_proj.bias": (WIDTH,),
    "rsfMRI_positional_embeddings": (1, 12, WIDTH),
}  # fmt: skip
EMBEDDINGS = "vision_tower.vision_model.embeddings."
RENAMED = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
State = dict[str, Tensor]


@dataclass(frozen=True)
class Base:
    """A stock LLaVA with a SigLIP tower: its folder, its weights, and the model itself."""

    folder: Path
    state: State
    made: Bundle


@pytest.fixture(scope="module")
def base(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    place = tmp_path_factory.mktemp("base")
    made = models.bundle(language, vision=models.SIGLIP, select="full")
    made.model.save_pretrained(place)
    made.tokenizer.save_pretrained(place)
    processor = {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": 28, "width": 28},
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
    }  # fmt: skip
    (place / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return Base(place, made.model.state_dict(), made)


@pytest.fixture
def trained() -> State:
    draw = torch.Generator().manual_seed(4)
    return {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in SHAPES.items()}


def whole(base: Base, trained: State) -> State:
    """All of it under the names that UMBRELLA's training wrote; the stock embeddings are gone."""
    made = {EMBEDDINGS + name: value for name, value in trained.items()}
    for name, value in base.state.items():
        if "vision_tower.embeddings." not in name:
            now, then = next(pair for pair in RENAMED if name.startswith(pair[0]))
            made[then + name.removeprefix(now)] = value
    return made


def opened(base: Base, weights: Path, **patches: Any) -> Bundle:
    section = models_umbrella.section(
        Path("unused"), {**models_umbrella.BOTH, "weights": str(weights), **patches}
    )
    plain = Model(**{**section, "path": str(base.folder), "language": "unused", "vision": "unused"})
    return checkpoint.compose(plain.model_dump(mode="json"), 0)


def volumes() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(9)
    return torch.randn(1, 8, 8, 8, generator=draw), torch.randn(1, 8, 8, 8, 6, generator=draw)


def tokens(base: Base, trained: State, volume: Tensor) -> Tensor:
    """A volume to words, the original's way: its patches, SigLIP's layers, LLaVA's two matrices."""
    if volume.ndim == 4:
        made = conv3d(volume[None], trained["T1_proj.weight"], trained["T1_proj.bias"], stride=4)
        seen = made.flatten(2).transpose(1, 2) + trained["T1_positional_embeddings"]
    else:
        cut = volume[0].reshape(2, 4, 2, 4, 1, 8, 3, 2).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(1, 12, -1)
        made = linear(cut, trained["rsfMRI_proj.weight"], trained["rsfMRI_proj.bias"])
        seen = made + trained["rsfMRI_positional_embeddings"]
    tower = base.made.model.model.vision_tower
    last = tower.encoder(inputs_embeds=seen).last_hidden_state  # of the last layer, before the norm behind it
    return base.made.model.model.multi_modal_projector(last)[0]


@torch.no_grad()
def said(base: Base, trained: State, volume: Tensor) -> Tensor:
    """Logits [T, vocabulary] of words, a volume, and words; -200 stood for the volume."""
    language = base.made.model.model.language_model
    table = language.get_input_embeddings()
    before, behind = table(torch.tensor([5, 6, 7])), table(torch.tensor([8, 9]))
    embeds = torch.cat([before, tokens(base, trained, volume), behind])[None]
    return base.made.model.lm_head(language(inputs_embeds=embeds).last_hidden_state)[0]


@torch.no_grad()
def says(bundle: Bundle, volume: Tensor) -> Tensor:
    """The same by the opened model."""
    bundle.model.eval()
    grid = tuple(volume.shape[1:])
    ids = torch.tensor([[5, 6, 7, *bundle.words(grid), 8, 9]])
    shown = {"input_ids": ids, "images": [volume], "grids": [grid]}
    return bundle.head(bundle.forward(shown, given="pixels"))[0]


def later(state: State) -> State:
    """The names of the later generation."""
    return {name.replace("rsfMRI_", "fMRI_").replace("T1_", "sMRI_"): value for name, value in state.items()}


def as_bin(state: State, place: Path) -> Path:
    torch.save(state, place / "pytorch_model.bin")
    return place


def as_safetensors(state: State, place: Path) -> Path:
    save_file({name: value.contiguous() for name, value in state.items()}, place / "model.safetensors")
    return place / "model.safetensors"


@pytest.mark.parametrize("write", [as_bin, as_safetensors])
@pytest.mark.parametrize("names", [dict, later], ids=["first", "later"])
@pytest.mark.parametrize("alone", [False, True], ids=["whole", "patches"])
def test_a_checkpoint_says_what_it_said(
    base: Base,
    trained: State,
    tmp_path: Path,
    write: Callable[[State, Path], Path],
    names: Callable[[State], State],
    alone: bool,
) -> None:
    stored = trained if alone else whole(base, trained)
    bundle = opened(base, write(names(stored), tmp_path))
    for volume in volumes():
        assert torch.allclose(says(bundle, volume), said(base, trained, volume), rtol=0, atol=1e-5)
    held = bundle.model.model.vision_tower.embeddings.state_dict()
    assert held.keys() == trained.keys()
    assert all(torch.equal(held[name], value) for name, value in trained.items())
    random = opened_random(base)
    assert not torch.allclose(says(random, volumes()[0]), says(bundle, volumes()[0]), atol=1e-2)


def opened_random(base: Base) -> Bundle:
    section = models_umbrella.section(Path("unused"))
    plain = Model(**{**section, "path": str(base.folder), "language": "unused", "vision": "unused"})
    return checkpoint.compose(plain.model_dump(mode="json"), 0)


def test_half_precision_is_compared_as_it_is(base: Base, trained: State, tmp_path: Path) -> None:
    halves = {name: value.bfloat16() for name, value in whole(base, trained).items()}
    bundle = opened(base, as_bin(halves, tmp_path))
    held = bundle.model.model.vision_tower.embeddings.T1_proj.bias
    assert torch.equal(held, trained["T1_proj.bias"].bfloat16().float())


@pytest.mark.parametrize(
    ("lost", "added", "message"),
    [
        ("rsfMRI_proj.bias", "", r"1 missing: rsfMRI_proj\.bias"),
        (
            "",
            EMBEDDINGS + "position_embedding.weight",
            r"1 unexpected: model\.vision_tower\.embeddings\.position",
        ),
        ("language_model.model.norm.weight", "", r"1 missing: model\.language_model\.norm\.weight"),
        ("", "extra.weight", r"1 unexpected: extra\.weight"),
    ],
)
def test_missing_and_unexpected_names_are_told(
    base: Base, trained: State, tmp_path: Path, lost: str, added: str, message: str
) -> None:
    state = {
        name: value for name, value in whole(base, trained).items() if not lost or not name.endswith(lost)
    }
    state |= {added: torch.ones(2)} if added else {}
    with pytest.raises(ModelError, match=rf"(?s){message}"):
        opened(base, as_bin(state, tmp_path))


def test_what_else_was_trained_is_not_dropped_in_silence(base: Base, trained: State, tmp_path: Path) -> None:
    state = whole(base, trained)
    name = "multi_modal_projector.linear_1.bias"
    state[name] = state[name] + 1
    with pytest.raises(ModelError, match="more than the patches differs") as caught:
        opened(base, as_bin(state, tmp_path))
    assert caught.value.found == "1 tensors, model.multi_modal_projector.linear_1.bias among them"


def test_other_volumes_and_no_weights_are_refused(base: Base, trained: State, tmp_path: Path) -> None:
    place = as_safetensors(trained, tmp_path)
    with pytest.raises(ModelError, match="other volumes") as caught:
        opened(base, place, t1={"size": (8, 8, 8), "patch": (2, 2, 2)})
    assert f"T1_proj.weight ({WIDTH}, 1, 4, 4, 4), not ({WIDTH}, 1, 2, 2, 2)" in caught.value.found
    with pytest.raises(ModelError, match=r"6 missing|3 unexpected"):
        opened(base, place, fmri=None)
    with pytest.raises(ModelError, match="no weights of a patch embedding"):
        opened(base, tmp_path / "nothing")


def test_a_recipe_without_such_weights_is_what_it_was() -> None:
    section = {"family": "umbrella", "patches": {"t1": models_umbrella.T1}}
    assert "weights" not in Model(**section).model_dump(mode="json")["patches"]
