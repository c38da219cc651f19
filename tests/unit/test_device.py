"""Whoever is asked is asked on the device that there is, and answers as on the CPU; what was lent goes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel

import elsewhere
import models
import models_gemma3
import models_idefics3
import models_llava_next
import models_mllama
import models_qwen
import models_umbrella
import small
from sightline import recipe, runs, stages
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.images.brain import Brain
from sightline.inference import Answer, Manner, ask, in_precision, items
from sightline.models import device
from sightline.models.chance import Chance
from sightline.models.family import Bundle
from sightline.models.features import Features, gridder
from sightline.settings import Generate
from sightline.types import ImageRef, Message, Sample, View

SIZES = [(28, 28), (40, 93), (90, 31)]  # height and width
FAMILIES: dict[str, Callable[[Path], Bundle]] = {
    "llava": models.bundle,
    "llava_next": models_llava_next.bundle,
    "gemma3": models_gemma3.bundle,
    "mllama": models_mllama.bundle,
    "idefics3": models_idefics3.idefics3,
    "qwen2_5_vl": models_qwen.qwen2_5_vl,
    "qwen3_vl": models_qwen.qwen3_vl,
    "umbrella": models_umbrella.bundle,
}


def samples(root: Path, volumes: bool) -> list[Sample]:
    """A closed and an open question each, about one picture and about two, the second shown later."""
    if volumes:
        brain = Brain(side="left", sex="male")
        refs = [
            models_umbrella.head(root, "t.nii", brain),
            models_umbrella.head(root, "f.nii", brain, times=6),
        ]
        refs.append(refs[0])
    else:
        for i, size in enumerate(SIZES):
            made = np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(made).save(root / f"{i}.png")
        refs = [ImageRef(path=f"{i}.png", sha256=runs.hash_file(root / f"{i}.png")) for i in range(3)]
    later = (
        Message(role="user", parts=(0, "Is it there?")),
        Message(role="assistant", parts=("Yes",)),
        Message(role="user", parts=(1, "Say where.")),
        Message(role="assistant", parts=("Left",)),
    )
    return [
        models.sample("a", [("Is it broken?", "No"), ("Say how.", "It grew.")], refs[:1]),
        Sample(id="b", patient="b", images=tuple(refs[1:]), messages=later),
    ]


@pytest.fixture
def plainly() -> Iterator[None]:
    """Attention by the same operations on both sides; the CPU's own kernel rounds otherwise."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def answers(
    made: Bundle, root: Path, kept: Path, settings: Generate, manner: Manner
) -> dict[str, list[Answer]]:
    look = Features(made, root, kept)
    in_precision(made, settings)
    shown = samples(root, made.family.name == "umbrella")
    todo = items(shown, Chat.of(made), lambda s, i: View(s.images[i], s.id), gridder(made, root))
    look.prepare([view for item in todo for view in item.views])
    told: dict[str, list[Answer]] = {}
    ask(made, todo, look, settings, lambda item, said: told.update({item.sample.id: said}), manner)
    return told


HALF = [("llava", "bfloat16"), ("llava_next", "bfloat16"), ("qwen2_5_vl", "bfloat16")]


@pytest.mark.usefixtures("plainly")
@pytest.mark.parametrize(("family", "precision"), [*((name, "float32") for name in FAMILIES), *HALF])
def test_every_family_answers_there_as_here(family: str, precision: Any, tmp_path: Path) -> None:
    language = models.write_language(tmp_path / "language")
    settings = Generate(max_new_tokens=3, precision=precision)
    manner = Manner(chance=Chance(5)) if precision == "float32" else Manner()
    here = answers(FAMILIES[family](language), tmp_path, tmp_path / "here", settings, manner)
    made = FAMILIES[family](language)
    with elsewhere.elsewhere() as mode:
        there = answers(made, tmp_path, tmp_path / "there", settings, manner)
        assert mode.operations > 500
        assert {p.device for p in made.model.parameters()} == {elsewhere.THERE}
    assert there == here
    assert all(len(said) == 2 for said in there.values())


def test_that_device_refuses_what_a_gpu_refuses() -> None:
    with elsewhere.elsewhere():
        there = torch.arange(6.0).to(elsewhere.THERE)
        assert there.device == elsewhere.THERE
        assert (there * 2).sum().item() == 30
        assert there.cpu().numpy().tolist() == [0, 1, 2, 3, 4, 5]
        with pytest.raises(RuntimeError, match="in one operation"):
            there + torch.ones(6)
        with pytest.raises(TypeError):
            there.numpy()


@pytest.mark.usefixtures("plainly")
def test_a_recipe_teaches_here_and_asks_there(language: Path, tmp_path: Path) -> None:
    """Evaluation, answers for pairs, the hardest questions and the reference: all but the trainer's own steps."""
    document = small.document(language)
    document["stages"]["pairs"] |= {"model": "taught", "kinds": {"wrong_finding": 1, "degraded": 1}}
    document["stages"]["aligned"] |= {"train": {"steps": 2, "batch": 4, "warmup": 0.0}}
    document["stages"]["evaluate"] = {
        "stage": "evaluate", "data": "data", "models": ["base", "taught", "aligned"], "images": ["clean", "black"],
        "metrics": ["vqa"], "generate": {"max_new_tokens": 2}, "resamples": 100,
    }  # fmt: skip
    made = recipe.check(document, "test")
    here = stages.execute(made, tmp_path / "here", say=lambda line: None)
    with elsewhere.elsewhere():
        there = stages.execute(made, tmp_path / "there", say=lambda line: None)
    for name in ("pairs/train.parquet", "aligned/model/adapter_model.safetensors", "evaluate/scores.json"):
        stage, _, file = name.partition("/")
        assert (there[stage] / file).read_bytes() == (here[stage] / file).read_bytes(), name


def places(made: Bundle) -> dict[str, set[str]]:
    """Where the parameters of each part are."""
    return {
        part: {p.device.type for name in names for p in made.family.module(made.model, name).parameters()}
        for part, names in made.family.parts.items()
    }


def test_what_is_lent_comes_back_and_the_language_model_stays(language: Path) -> None:
    made = models.bundle(language)
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    with elsewhere.elsewhere():
        with device.lent(made):
            assert places(made) == {"vision": {"lazy"}, "connector": {"lazy"}, "language": {"cpu"}}
        assert set().union(*places(made).values()) == {"cpu"}
        with device.lent(made, whole=True):
            assert set().union(*places(made).values()) == {"lazy"}
        with pytest.raises(KeyError), device.lent(made):
            raise KeyError
    assert set().union(*places(made).values()) == {"cpu"}
    after = made.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_on_a_cpu_nothing_moves(language: Path) -> None:
    made = models.bundle(language)
    held = dict(made.model.named_parameters())
    with device.lent(made, whole=True):
        device.place(made, torch.float32)
    assert device.chosen() == torch.device("cpu") or torch.cuda.is_available()
    assert all(p is held[name] for name, p in made.model.named_parameters())
    with torch.device("meta"):
        empty = torch.nn.Linear(2, 2)
    made.model.model.multi_modal_projector = empty
    with device.lent(made):
        assert empty.weight.is_meta


def test_a_gpu_without_room_is_an_error_with_a_way_out(
    language: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = models.bundle(language)

    def full(self: Any, fn: Any, recurse: bool = True) -> Any:
        if not recurse:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 20 MiB. GPU 0 has more to say"
            )
        return self

    monkeypatch.setattr(device, "chosen", lambda: torch.device("cuda", 0))
    monkeypatch.setattr(torch.nn.Module, "_apply", full)
    with pytest.raises(ModelError, match="no room") as caught:
        device.place(made, torch.float32)
    assert caught.value.found == "CUDA out of memory"
    assert caught.value.where == "cuda:0"


def test_a_batch_moves_with_all_that_is_in_it() -> None:
    batch = {
        "input_ids": torch.ones(2),
        "images": [torch.ones(3)],
        "ids": ["a"],
        "third": {"labels": torch.ones(1)},
    }
    with elsewhere.elsewhere():
        made = device.moved(batch, elsewhere.THERE)
        assert made["input_ids"].device == made["images"][0].device == made["third"]["labels"].device
        assert made["input_ids"].device == elsewhere.THERE
    assert made["ids"] == ["a"]
