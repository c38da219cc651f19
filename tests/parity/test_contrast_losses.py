"""SigLIP and CLIP losses equal those of transformers and of open_clip, in one process and spread over two."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, multiprocessing
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

import models
import models_contrast
from sightline.losses.clip import clip
from sightline.losses.siglip import siglip
from sightline.losses.similarity import Sides, gathered, together
from sightline.train.contrast import Towers

PAIRS, WIDTH, WORLD = 8, 6, 2
LOSSES: dict[str, Callable[[Sides], Tensor]] = {"siglip": siglip, "clip": clip}
LAYERS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 40,
    "max_position_embeddings": 6,
    "image_size": 28,
    "patch_size": 14,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
Inputs = dict[str, Tensor]


def inputs() -> Inputs:
    """Unit embeddings of 8 pairs, temperature, bias, and keys that make pairs 1 and 6 the same text."""
    draw = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(PAIRS, WIDTH, generator=draw, dtype=torch.float64) for _ in range(2))
    keys = torch.arange(2 * PAIRS).reshape(PAIRS, 2)
    keys[6, 0] = keys[1, 0]
    return {
        "images": images,
        "texts": texts,
        "scale": torch.tensor(1.7, dtype=torch.float64),
        "bias": torch.tensor(-2.5, dtype=torch.float64),
        "keys": keys,
    }


def leaves(given: Inputs) -> Inputs:
    return {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in given.items()}


def ours(name: str, own: Inputs, *, equal: bool) -> Tensor:
    """The loss; `equal` looks at the keys, else each pair is its own."""
    keys = own["keys"] if equal else own["keys"][:, 1:]
    images, texts = (normalize(own[side], dim=-1) for side in ("images", "texts"))
    return LOSSES[name](gathered(images, texts, own["scale"], own["bias"], keys))


def theirs(name: str, own: Inputs, rank: int, world: int) -> Tensor:
    """The same loss as open_clip has it."""
    from open_clip.loss import ClipLoss, SigLipLoss

    images, texts = (normalize(own[side], dim=-1) for side in ("images", "texts"))
    if name == "siglip":
        return SigLipLoss(rank=rank, world_size=world)(images, texts, own["scale"].exp(), own["bias"])
    loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)
    return loss(images, texts, own["scale"].exp())


def gradients(loss: Tensor, own: Inputs) -> Inputs:
    """The loss and the gradient of everything that has one."""
    loss.backward()
    found = {f"grad {k}": v.grad.clone() for k, v in own.items() if v.grad is not None}
    return {"loss": loss.detach().reshape(1), **found}


def towers(chunk: int) -> tuple[Towers, dict[str, Any]]:
    encoder = models_contrast.toy({"width": WIDTH}, 3)
    encoder.model.double()
    made = Towers(encoder, encoder.model, given="pixels", chunk=chunk)
    return made.train(), models_contrast.batch(PAIRS, dtype=torch.float64)


def part(batch: dict[str, Any], at: slice) -> dict[str, Any]:
    """Some rows of a batch."""
    return {
        k: {n: v[at] for n, v in value.items()} if isinstance(value, dict) else value[at]
        for k, value in batch.items()
    }


def step(name: str, made: Any, batch: dict[str, Any]) -> None:
    """A forward and a backward pass, all of it in float64."""
    with models.doubled():
        images, texts, scale, bias = made(batch)
        loss = LOSSES[name](gathered(images, texts, scale, bias, batch["keys"]))
        (loss + 0 * bias.sum()).backward()


def work(rank: int, folder: Path) -> None:
    """One of two processes: every loss on its half of the pairs, and a step of data-parallel towers."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    half = slice(rank * PAIRS // WORLD, (rank + 1) * PAIRS // WORLD)
    out: Inputs = {}

    def note(title: str, make: Callable[[Inputs], Tensor]) -> None:
        given = {k: v[half] if v.dim() else v for k, v in inputs().items()}
        own = leaves(given)
        out.update({f"{title} {k}": v for k, v in gradients(make(own), own).items()})

    for name in LOSSES:
        for equal in (False, True):
            note(f"{name} {equal}", lambda own, name=name, equal=equal: ours(name, own, equal=equal))
        if (folder / "open_clip").exists():
            note(f"{name} theirs", lambda own, name=name: theirs(name, own, rank, WORLD))
        made, batch = towers(chunk=3)
        step(name, DistributedDataParallel(made), part(batch, half))
        out.update({f"ddp {name} {k}": p.grad for k, p in made.named_parameters()})
    save_file({k: v.contiguous() for k, v in out.items()}, folder / f"rank{rank}.safetensors")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Inputs]:
    """What both processes found."""
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        if importlib.util.find_spec("open_clip") is not None:
            (folder / "open_clip").touch()
        multiprocessing.spawn(work, args=(folder,), nprocs=WORLD)
    return [load_file(folder / f"rank{rank}.safetensors") for rank in range(WORLD)]


def combined(ranks: list[Inputs], title: str) -> Inputs:
    """Losses and gradients of both processes as data-parallel training combines them: by their mean."""
    found = [
        {k.removeprefix(f"{title} "): v for k, v in r.items() if k.startswith(f"{title} ")} for r in ranks
    ]
    assert found[0]
    sides = ("grad images", "grad texts")
    return {
        k: torch.cat([f[k] for f in found]) / WORLD if k in sides else sum(f[k] for f in found) / WORLD
        for k in found[0]
    }


def same(found: Inputs, expected: Inputs, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=0, atol=tolerance), name


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_two_processes_find_the_loss_and_the_gradients_of_one(
    ranks: list[Inputs], name: str, equal: bool
) -> None:
    own = leaves(inputs())
    one = gradients(ours(name, own, equal=equal), own)
    assert float(one["grad images"].abs().max()) > 1e-3
    same(combined(ranks, f"{name} {equal}"), one, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_open_clip_in_one_process(name: str) -> None:
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    own, other = leaves(inputs()), leaves(inputs())
    same(
        gradients(ours(name, own, equal=False), own),
        gradients(theirs(name, other, 0, 1), other),
        1e-12,
    )


@pytest.mark.parametrize("name", LOSSES)
def test_open_clip_on_two_processes(ranks: list[Inputs], name: str) -> None:
    pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    for rank in ranks:
        titles = (f"{name} False ", f"{name} theirs ")
        mine, other = ({k[len(t) :]: v for k, v in rank.items() if k.startswith(t)} for t in titles)
        assert len(mine) >= 4
        same(mine, other, 1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_towers_under_ddp_with_chunks_get_the_gradients_of_one_process(
    ranks: list[Inputs], name: str
) -> None:
    made, batch = towers(chunk=0)
    step(name, made, batch)
    expected = {k: p.grad for k, p in made.named_parameters()}
    for rank in ranks:
        same({k: rank[f"ddp {name} {k}"] for k in expected}, expected, 1e-12)


def transformers_model(name: str) -> Any:
    torch.manual_seed(0)
    kinds = {"siglip": (SiglipModel, SiglipConfig), "clip": (CLIPModel, CLIPConfig)}
    model, config = kinds[name]
    made = model(config(text_config=dict(LAYERS), vision_config=dict(LAYERS))).double().eval()
    with torch.no_grad():
        made.logit_scale.fill_(1.3)
    return made


@pytest.mark.parametrize("name", LOSSES)
def test_transformers(name: str) -> None:
    model, draw = transformers_model(name), torch.Generator().manual_seed(1)
    shown = {
        "pixel_values": torch.randn(5, 3, 28, 28, generator=draw, dtype=torch.float64),
        "input_ids": torch.randint(2, 40, (5, 6), generator=draw),
    }
    made = model(**shown, return_loss=True)
    bias = model.logit_bias if name == "siglip" else None
    found = LOSSES[name](together(made.image_embeds, made.text_embeds, model.logit_scale, bias))
    assert float(found.detach()) > 0.1
    assert float(found.detach()) == pytest.approx(float(made.loss.detach()), abs=1e-6)
    weights = [p for p in model.parameters() if p.requires_grad]
    for mine, other in zip(
        torch.autograd.grad(found, weights, retain_graph=True, allow_unused=True),
        torch.autograd.grad(made.loss, weights, allow_unused=True),
        strict=True,
    ):
        if other is not None:
            assert torch.allclose(mine, other, rtol=0, atol=1e-6)
