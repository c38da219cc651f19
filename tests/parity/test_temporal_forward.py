"""The temporal connector against its formulas, written out without its modules, and within a whole model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import models
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, together
from sightline.data.rows import encode_samples
from sightline.inference import ask, items
from sightline.models import checkpoint, trainable
from sightline.models.connector import Joint, make
from sightline.models.connectors.temporal import Temporal
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels, gridder
from sightline.settings import Full, Generate, Lora, Speed
from sightline.settings import Plan as Trains
from sightline.types import ImageRef, Sample, View

DINO = {
    "model_type": "dinov2", "image_size": 28, "patch_size": 14, "hidden_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 2, "mlp_ratio": 2,
}  # fmt: skip
CURRENT, OTHER = models.PICTURES[0], models.PICTURES[2]
PRIOR = replace(models.PICTURES[1], when="prior")


def gelu(v: Tensor) -> Tensor:
    return v * 0.5 * (1 + torch.erf(v / math.sqrt(2)))


def norm(v: Tensor, w: Mapping[str, Tensor], name: str) -> Tensor:
    centred = v - v.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def dense(v: Tensor, w: Mapping[str, Tensor], name: str) -> Tensor:
    return v @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def mixed(layers: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """One image's layers [L, N, w] to one map [N, w]: gate every layer, mix, three times."""
    for gate, mix in ((0, 1), (2, 3), (4, 5)):
        averages = layers.mean((1, 2))
        small = gelu(w[f"LFE.{gate}.fc1.weight"][:, :, 0, 0] @ averages + w[f"LFE.{gate}.fc1.bias"])
        gates = torch.sigmoid(w[f"LFE.{gate}.fc2.weight"][:, :, 0, 0] @ small + w[f"LFE.{gate}.fc2.bias"])
        layers = torch.einsum(
            "ol,lnw->onw", w[f"LFE.{mix}.weight"][:, :, 0, 0], layers * gates[:, None, None]
        )
    return layers[0]


def looks(asking: Tensor, asked: Tensor, w: Mapping[str, Tensor], name: str, heads: int) -> Tensor:
    """Attention of one map [N, w] to another, head by head, with a learned key and value more."""
    q, k, v = (
        source @ part.T + bias
        for source, part, bias in zip(
            (asking, asked, asked),
            w[f"{name}.in_proj_weight"].chunk(3),
            w[f"{name}.in_proj_bias"].chunk(3),
            strict=True,
        )
    )
    k, v = torch.cat([k, w[f"{name}.bias_k"][0]]), torch.cat([v, w[f"{name}.bias_v"][0]])
    found = []
    for h in range(heads):
        part = slice(h * q.shape[1] // heads, (h + 1) * q.shape[1] // heads)
        scores = q[:, part] @ k[:, part].T / math.sqrt(q.shape[1] // heads)
        found.append(torch.softmax(scores, -1) @ v[:, part])
    return dense(torch.cat(found, 1), w, f"{name}.out_proj")


def by_formula(current: Tensor, prior: Tensor, w: Mapping[str, Tensor], heads: int) -> Tensor:
    """Words of one pair: [L, N, w] twice -> [N, h]."""
    now, then = mixed(current, w), mixed(prior, w)
    alike = (now * then).sum() / (now.norm() * then.norm())
    then = then + ((alike + 1) / 2) ** 8 * w["LFE_prior_bias"]
    own = norm(now + looks(now, now, w, "cur_self_attention", heads), w, "norm1")
    past = norm(then + looks(then, then, w, "prior_self_attention", heads), w, "norm2")
    fused = norm(own + looks(own, past, w, "cros_attention", heads), w, "norm3")
    out = norm(now + dense(gelu(dense(fused, w, "mlp_attn.0")), w, "mlp_attn.3"), w, "norm4")
    for place in (0, 2, 4):
        out = gelu(dense(out, w, f"mlp_final.{place}"))
    return dense(out, w, "mlp_final.6")


def connector(no_prior: str = "current", depth: int = 12) -> Temporal:
    """A small one in double precision, every weight away from where it starts."""
    torch.manual_seed(0)
    joint = Joint(depth=depth, width=24, hidden=10, heads={"language": 4})
    made, _ = make({"name": "temporal", "no_prior": no_prior}, joint, 1.0)
    models.stir(made.parameters(), seed=1, size=0.3)
    assert isinstance(made, Temporal)
    return made.double().eval()


def maps(seed: int, depth: int = 12) -> Tensor:
    return torch.randn(2, depth, 7, 24, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("depth", [12, 5, 1])
def test_the_forward_pass_is_its_formulas(depth: int) -> None:
    made, current, prior = connector(depth=depth), maps(2, depth), maps(3, depth)
    weights = {k: v.detach() for k, v in made.state_dict().items()}
    with torch.no_grad():
        found = made(current, prior, torch.tensor([True, True]))
    wanted = torch.stack([by_formula(c, p, weights, 4) for c, p in zip(current, prior, strict=True)])
    assert found.shape == (2, 7, 10)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_a_missing_prior_is_the_current_image() -> None:
    made, current = connector(), maps(2)
    weights = {k: v.detach() for k, v in made.state_dict().items()}
    with torch.no_grad():
        found = made(current, current, torch.tensor([False, False]))
        same = made.similarity(current[:, 0], current[:, 0])
    torch.testing.assert_close(same, torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(found[0], by_formula(current[0], current[0], weights, 4), rtol=0, atol=1e-12)


def test_no_prior_can_be_said() -> None:
    made, current, prior = connector("learned"), maps(2), maps(3)
    with torch.no_grad():
        some = made(current, prior, torch.tensor([True, False]))
        both = made(current, prior, torch.tensor([True, True]))
        other = made(current, maps(4), torch.tensor([True, False]))
        own = made(current, current, torch.tensor([False, False]))
    assert torch.equal(some[0], both[0])
    assert torch.equal(some[1], other[1])  # whatever stands in the place of the prior is not looked at
    assert torch.equal(some[1], own[1])
    assert float((some[1] - both[1]).abs().max()) > 0.01


def bundle(language: Path, **more: Any) -> Bundle:
    """A tiny Libra: Dinov2 of three layers with 4 patches, temporal connector, Llama; awake."""
    made = models.bundle(language, vision=DINO, connector=more.pop("connector", "temporal"), **more)
    models.stir(made.model.requires_grad_(True).parameters(), seed=3, size=0.1)
    return made


def study(name: str, images: tuple[ImageRef, ...]) -> Sample:
    return models.sample(name, [("Has it changed?", "Yes"), ("How?", "No.")], images)


def look(made: Bundle, root: Path, name: str) -> Features | Pixels:
    return Pixels(made, root) if name == "pixels" else Features(made, root, root / name, name)  # type: ignore[arg-type]


def collated(made: Bundle, root: Path, samples: list[Sample], name: str) -> dict[str, Any]:
    seen = look(made, root, name)
    chat = Chat.of(made)
    rows, aside = encode_samples(samples, chat, 500, gridder(made, root))
    assert aside == []
    seen.prepare([v for row in rows for v in row.views])
    return SupervisedCollator(Plan.of(chat, seen, Speed()))(together(rows, 1, 0))


def test_only_the_fused_tokens_stand_in_the_row(language: Path, tmp_path: Path) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language)
    chat, grid = Chat.of(made), gridder(made, tmp_path)
    pair, single = study("a", (CURRENT, PRIOR)), study("b", (CURRENT,))
    (first, second), _ = encode_samples([pair, single], chat, 500, grid)
    assert made.tokens_per_image == 4
    assert first.encoded.ids == second.encoded.ids
    assert first.encoded.ids.count(made.image_token) == 4
    assert first.views == (View(CURRENT, "a", prior=View(PRIOR, "a")),)
    assert second.views == (View(CURRENT, "b"),)
    assert first.views[0].sight != second.views[0].sight


def test_a_prior_image_that_stands_first_belongs_to_the_current_one(language: Path, tmp_path: Path) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language)
    (row,), _ = encode_samples([study("a", (PRIOR, CURRENT))], Chat.of(made), 500, gridder(made, tmp_path))
    assert row.views == (View(CURRENT, "a", prior=View(PRIOR, "a")),)


def test_two_pairs_go_by_their_order(language: Path) -> None:
    made = bundle(language)
    then = replace(models.PICTURES[3], when="prior")
    views = [View(ref, "a") for ref in (CURRENT, OTHER, PRIOR, then)]
    assert made.see(views) == (
        replace(views[0], prior=views[2]),
        replace(views[1], prior=views[3]),
    )


def test_more_priors_than_images_are_set_aside(language: Path, tmp_path: Path) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language)
    lonely = study("a", (CURRENT, PRIOR, replace(OTHER, when="prior")))
    rows, aside = encode_samples([lonely], Chat.of(made), 500, gridder(made, tmp_path))
    assert rows == []
    assert aside[0]["id"] == "a"
    assert "more prior images than current ones" in aside[0]["reason"]


@pytest.mark.parametrize(
    ("asked", "connectors", "count"),
    [("stand", "linear", 8), ("leave", "linear", 4), ("leave", "temporal", 4)],
)
def test_other_models_show_a_prior_image_or_leave_it_out(
    language: Path, tmp_path: Path, asked: str, connectors: str, count: int
) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language, connector=connectors, prior=asked)
    (row,), _ = encode_samples([study("a", (CURRENT, PRIOR))], Chat.of(made), 500, gridder(made, tmp_path))
    shown = (View(CURRENT, "a"), View(PRIOR, "a"))
    assert row.views == (shown if asked == "stand" else shown[:1])
    assert row.encoded.ids.count(made.image_token) == count
    alone = encode_samples([study("a", (CURRENT,))], Chat.of(made), 500, gridder(made, tmp_path))[0][0]
    assert (row.encoded.ids == alone.encoded.ids) == (asked == "leave")


@pytest.mark.parametrize("name", ["pixels", "features", "tokens"])
def test_a_batch_of_pairs_and_single_images_equals_one_by_one(
    language: Path, tmp_path: Path, name: str
) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language)
    samples = [
        study("a", (CURRENT, PRIOR)),
        study("b", (CURRENT,)),
        study("c", (OTHER, PRIOR)),
        study("d", (CURRENT, PRIOR)),
    ]
    batch = collated(made, tmp_path, samples, name)
    assert len(batch["images"]) == 3  # a and d see the same
    with torch.no_grad():
        whole = made.forward(batch, given=name)  # type: ignore[arg-type]
        for at, identity in enumerate(batch["ids"]):
            own = collated(made, tmp_path, [s for s in samples if s.id == identity], "pixels")
            real = batch["document"][at] >= 0
            wanted = made.forward(own, given="pixels")[0]
            torch.testing.assert_close(whole[at][real], wanted, rtol=0, atol=2e-5)
    rows = {i: whole[at] for at, i in enumerate(batch["ids"])}
    assert torch.equal(rows["a"], rows["d"])
    assert float((rows["a"] - rows["b"]).abs().max()) > 1e-3  # the prior image counts


def test_features_are_kept_image_by_image_with_all_layers(language: Path, tmp_path: Path) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language)
    kept = Features(made, tmp_path, tmp_path / "kept")
    now, then = View(CURRENT, "a"), View(PRIOR, "a")
    kept.prepare([replace(now, prior=then), View(OTHER, "b", prior=View(PRIOR, "b"))])
    assert kept.computed == 3
    assert kept(now).values.shape == (1, 3, 4, 16)
    both = kept(replace(now, prior=then)).values
    assert torch.equal(both, torch.cat([kept(now).values, kept(then).values]))
    with torch.no_grad():
        tower = made.model.get_submodule("model.vision_tower")
        states = tower(Pixels(made, tmp_path)(now).values[None], output_hidden_states=True).hidden_states
    wanted = torch.stack([state[0, 1:] for state in states[1:]])
    torch.testing.assert_close(both[0], wanted, rtol=0, atol=1e-5)


def test_only_the_connector_learns_and_is_saved_and_loaded(language: Path, tmp_path: Path) -> None:
    models.write_pictures(tmp_path)
    made = models.bundle(language, vision=DINO, connector={"name": "temporal", "no_prior": "learned"})
    asked = {
        "connector": Trains(full=Full(lr=1e-3)),
        "language": Trains(lora=Lora(r=2, alpha=4, lr=1e-3)),
    }
    trained = trainable.apply(made, asked, 0)
    batch = collated(made, tmp_path, [study("a", (CURRENT, PRIOR)), study("b", (OTHER,))], "features")
    made.forward(batch, given="features").square().sum().backward()
    moved = {
        n for n, p in made.model.named_parameters() if p.grad is not None and float(p.grad.abs().max()) > 0
    }
    wanted = {n for n, p in made.model.named_parameters() if ".modules_to_save." in n}
    assert wanted <= moved
    assert len(wanted) == len(
        dict(made.model.get_submodule("model.multi_modal_projector").original_module.named_parameters())
    )
    models.stir(trained.parameters(), seed=5)
    checkpoint.save(
        tmp_path / "saved",
        made,
        trained,
        parent=None,
        trained={k: v.model_dump(mode="json") for k, v in asked.items()},
        home=tmp_path / "saved",
    )
    with torch.no_grad():
        before = made.forward(batch, given="features")
        after = checkpoint.load(tmp_path / "saved").forward(batch, given="features")
    torch.testing.assert_close(after, before, rtol=0, atol=2e-5)


def test_answers_depend_on_the_prior_image(language: Path, tmp_path: Path) -> None:
    models.write_pictures(tmp_path)
    made = bundle(language)
    samples = [
        study("a", (CURRENT, PRIOR)),
        study("b", (CURRENT, replace(OTHER, when="prior"))),
        study("c", (CURRENT,)),
    ]
    kept = Features(made, tmp_path, tmp_path / "kept")
    todo = items(samples, Chat.of(made), lambda s, i: View(s.images[i], s.id), gridder(made, tmp_path))
    kept.prepare([v for item in todo for v in item.views])
    told: dict[str, Any] = {}
    ask(
        made,
        todo,
        kept,
        Generate(max_new_tokens=3, batch=8),
        lambda item, a: told.update({item.sample.id: a}),
    )
    one: dict[str, Any] = {}
    for item in todo:
        ask(made, [item], kept, Generate(max_new_tokens=3), lambda item, a: one.update({item.sample.id: a}))
    for name, answers in told.items():
        assert answers[0].choices["yes"] == pytest.approx(one[name][0].choices["yes"], abs=1e-5)
        assert [a.text for a in answers] == [a.text for a in one[name]]
    chances = [answers[0].choices["yes"] for answers in told.values()]
    assert len({round(c, 4) for c in chances}) == 3
