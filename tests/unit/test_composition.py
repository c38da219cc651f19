"""Every encoder with every language model and every connector: built, taught a step, saved, opened, merged, asked.

The fast tests take every pair of an encoder and a language model, with connectors so that every pair with a connector
occurs too; the slow ones every combination. Sizes are tiny, from configs; kinds are those of real models.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import models
import models_encoders
import models_languages
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, together
from sightline.data.rows import encode_samples
from sightline.errors import ModelError
from sightline.inference import Answer, ask, items
from sightline.losses.logps import token_logps
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels, gridder
from sightline.settings import Full, Generate, Lora, Speed
from sightline.settings import Plan as Trains
from sightline.types import View

VIT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
ENCODERS: dict[str, Any] = {
    "rad-dino": {"model_type": "dinov2", "image_size": 28, "patch_size": 14, "mlp_ratio": 2, **VIT},
    "clip-l/336": {"model_type": "clip_vision_model", "image_size": 42, "patch_size": 14, **VIT},
    "clip-l/224": {"model_type": "clip_vision_model", "image_size": 28, "patch_size": 14, **VIT},
    "clip-b/16": {"model_type": "clip_vision_model", "image_size": 32, "patch_size": 16, **VIT},
    "siglip": {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14, **VIT},
    "biomedclip": "openclip",  # a ViT of timm, as the real one
    "kit": {"model_type": "efficientnet_lite"},
}
TOKENS = {
    "rad-dino": 4, "clip-l/336": 9, "clip-l/224": 4, "clip-b/16": 4, "siglip": 4, "biomedclip": 100, "kit": 49,
}  # fmt: skip
LANGUAGES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "smollm2")
TEMPLATES = {"llama": "libra_v1", "mistral": "mistral_instruct"}
CONNECTORS = ("linear", "mlp2x_gelu", "mlp3x_gelu", "temporal")
PAIRS = [
    (encoder, language, CONNECTORS[(row + column) % len(CONNECTORS)])
    for row, encoder in enumerate(ENCODERS)
    for column, language in enumerate(LANGUAGES)
]
EVERY = [(e, word, c) for e in ENCODERS for word in LANGUAGES for c in CONNECTORS]
REST = [cell for cell in EVERY if cell not in PAIRS]
ASKED = {
    "connector": Trains(full=Full(lr=1e-4)),
    "language": Trains(lora=Lora(r=2, alpha=4, lr=1e-4)),
}
FALL = 1e-3
PRIOR = replace(models.PICTURES[1], when="prior")
STUDIES = [
    models.sample("a", [("Has it changed?", "Yes"), ("Say how.", "It grew.")], (models.PICTURES[0], PRIOR)),
    models.sample("b", [("Is it broken?", "No"), ("Say how.", "Not.")], (models.PICTURES[2],)),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Encoders and language models by name, as a recipe names them."""
    root = tmp_path_factory.mktemp("parts")
    models.write_pictures(root / "pictures")
    timm = models_encoders.write_openclip(root / "openclip", "bert")
    named = {n: str(timm) if source == "openclip" else source for n, source in ENCODERS.items()}
    spoken = {n: models_languages.config(n, root / n) for n in LANGUAGES}
    return {"vision": named, "language": spoken, "pictures": root / "pictures"}


def section(parts: dict[str, Any], encoder: str, language: str, connector: Any) -> dict[str, Any]:
    return {
        **models.section(Path("unused"), connector=connector),
        "vision": parts["vision"][encoder],
        "language": parts["language"][language],
        "template": TEMPLATES.get(language),
    }


def step(made: Bundle, root: Path) -> float:
    """One step of steepest descent, of a length that lowers a smooth loss by `FALL`; by how much it falls."""
    chat = Chat.of(made)
    rows, aside = encode_samples(STUDIES, chat, 2048, gridder(made, root))
    assert aside == []
    batch = SupervisedCollator(Plan.of(chat, Pixels(made, root), Speed()))(together(rows, 1, 0))

    def loss() -> torch.Tensor:
        states = made.forward(batch, given="pixels")
        logps = token_logps(states, batch["labels"], made.head, batch["source"])
        return -logps.sum() / (batch["labels"] >= 0).sum()

    learned = [p for group in trainable.groups(made, ASKED) for p in group["params"]]
    before = loss()
    before.backward()
    steepness = sum(float(p.grad.double().square().sum()) for p in learned if p.grad is not None)
    with torch.no_grad():
        for p in learned:
            if p.grad is not None:
                p.sub_(p.grad, alpha=FALL / steepness)
        return float(before) - float(loss())


def answers(made: Bundle, root: Path, cache: Path) -> dict[str, list[Answer]]:
    look = Features(made, root, cache)
    todo = items(STUDIES, Chat.of(made), lambda s, i: View(s.images[i], s.id), gridder(made, root))
    look.prepare([v for item in todo for v in item.views])
    told: dict[str, list[Answer]] = {}
    ask(made, todo, look, Generate(max_new_tokens=2), lambda item, said: told.update({item.sample.id: said}))
    return told


def whole_life(parts: dict[str, Any], cell: tuple[str, str, Any], home: Path) -> None:
    """Build, teach one step, save, load, merge, answer."""
    encoder, language, connector = cell
    root = parts["pictures"]
    made = checkpoint.compose(section(parts, encoder, language, connector), 0)
    assert made.tokens_per_image == TOKENS[encoder]
    trained = trainable.apply(made, ASKED, 0)
    assert step(made, root) == pytest.approx(FALL, rel=0.3)
    models.stir(made.model.parameters(), seed=1, size=0.02)
    asked = {part: plan.model_dump(mode="json") for part, plan in ASKED.items()}
    checkpoint.save(home / "model", made, trained, parent=None, trained=asked, home=home / "model")
    base = json.loads((home / "model" / "sightline.json").read_text(encoding="utf-8"))["base"]
    assert base["model"]["connector"] == connector
    adapted = answers(made, root, home / "features")
    opened = checkpoint.load(home / "model")
    checkpoint.merge(made, trained)
    for other in (opened, made):
        found = answers(other, root, home / "features")
        for name, said in adapted.items():
            assert [len(a.ids) <= 2 for a in found[name]] == [True, True]
            assert [a.ids for a in found[name]] == [a.ids for a in said]
            assert found[name][0].choices["yes"] == pytest.approx(said[0].choices["yes"], abs=2e-4)


def run(parts: dict[str, Any], encoder: str, language: str, connector: str, home: Path) -> None:
    """A cell; where the heads of the temporal connector do not divide, it says so, and two heads do."""
    cell: tuple[str, str, Any] = (encoder, language, connector)
    if connector == "temporal" and encoder == "kit":
        with pytest.raises(ModelError, match="heads do not divide the features' width") as caught:
            checkpoint.compose(section(parts, *cell), 0)
        assert caught.value.found == "4 heads (language), features of width 1294"
        cell = (encoder, language, {"name": "temporal", "heads": 2})
    whole_life(parts, cell, home)


def test_every_pair_of_two_occurs() -> None:
    assert len(PAIRS) == 49
    assert {(e, c) for e, _, c in PAIRS} == {(e, c) for e in ENCODERS for c in CONNECTORS}
    assert {(word, c) for _, word, c in PAIRS} == {(word, c) for word in LANGUAGES for c in CONNECTORS}


@pytest.mark.parametrize(("encoder", "language", "connector"), PAIRS, ids=[" ".join(c) for c in PAIRS])
def test_pairs(parts: dict[str, Any], encoder: str, language: str, connector: str, tmp_path: Path) -> None:
    run(parts, encoder, language, connector, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "language", "connector"), REST, ids=[" ".join(c) for c in REST])
def test_every_combination(
    parts: dict[str, Any], encoder: str, language: str, connector: str, tmp_path: Path
) -> None:
    run(parts, encoder, language, connector, tmp_path)
