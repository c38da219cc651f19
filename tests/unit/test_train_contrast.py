"""Towers in chunks, the trainer over a toy encoder, the clamp, and the best step through a resume."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import models
import models_contrast
from sightline import plugins, runs
from sightline.errors import Interrupted, ModelError, RecipeError
from sightline.losses.similarity import gathered
from sightline.models import trainable
from sightline.models.encoder import DualEncoder
from sightline.settings import Full, Plan, Train
from sightline.train.callbacks import Best, Clamp
from sightline.train.contrast import ContrastTrainer, Towers, begin
from sightline.train.fit import Job, fit

FULL = {"heads": Plan(full=Full(lr=0.02)), "text": Plan(full=Full(lr=0.02))}
EVERY = {part: Plan(full=Full(lr=0.02)) for part in ("vision", "text", "heads")}
WIDTH = 6


def toy(asked: dict[str, Any] | None = None, **section: Any) -> tuple[DualEncoder, nn.Module]:
    encoder = models_contrast.toy({"width": WIDTH, **section}, 3)
    return encoder, trainable.apply(encoder, EVERY if asked is None else asked, 0)


def towers(asked: dict[str, Any] | None = None, *, chunk: int = 0, given: Any = "pixels") -> Towers:
    return Towers(*toy(asked), given=given, chunk=chunk).train()


def loss_of(made: Towers, batch: dict[str, Any], name: str = "siglip") -> Tensor:
    images, texts, scale, bias = made(batch)
    return plugins.load("contrasts", name).loss(gathered(images, texts, scale, bias, batch["keys"]))


def gradients(made: Towers, batch: dict[str, Any], name: str) -> dict[str, Tensor]:
    loss = loss_of(made, batch, name)
    loss.backward()
    found = {k: p.grad for k, p in made.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("chunk", [1, 3, 16, 32])
@pytest.mark.parametrize("name", ["siglip", "clip"])
def test_chunks_give_the_loss_and_gradients_of_one_batch(name: str, chunk: int) -> None:
    one = gradients(towers(), models_contrast.batch(32), name)
    cut = gradients(towers(chunk=chunk), models_contrast.batch(32), name)
    assert one.keys() == cut.keys()
    for key, value in one.items():
        assert torch.allclose(cut[key], value, rtol=0, atol=1e-5), key
    assert max(float(v.abs().max()) for v in one.values()) > 0.1


def test_in_float64_chunks_are_exact_to_nine_digits() -> None:
    found = []
    for chunk in (0, 5):
        made = towers(chunk=chunk)
        made.double()
        with models.doubled():
            found.append(gradients(made, models_contrast.batch(32, dtype=torch.float64), "siglip"))
    assert found[0]["loss"].dtype == torch.float64
    for key, value in found[0].items():
        assert torch.allclose(found[1][key], value, rtol=0, atol=1e-9), key


def test_plain_accumulation_is_not_the_same() -> None:
    """Two batches of 16 meet half the negatives of one of 32."""
    batch = models_contrast.batch(32)
    halves = []
    for at in (slice(0, 16), slice(16, 32)):
        half = {k: v[at] for k, v in batch.items() if k != "tokens"}
        halves.append({**half, "tokens": {"input_ids": batch["tokens"]["input_ids"][at]}})
    whole = float(loss_of(towers(), batch).detach())
    mean = sum(float(loss_of(towers(), half).detach()) for half in halves) / 2
    assert whole > 1.5 * mean


def test_a_chunk_keeps_less() -> None:
    """Bytes kept by the forward pass, weights left out; no tower call sees more than a chunk."""
    kept, rows = {}, {}
    for chunk in (0, 4):
        made, seen, calls = towers(chunk=chunk), {}, []
        weights = {p.data_ptr() for p in made.parameters()}
        made.bundle.model.vision.register_forward_hook(lambda m, i, o, calls=calls: calls.append(len(o)))

        def note(tensor: Tensor, seen: dict[int, int] = seen, weights: set[int] = weights) -> Tensor:
            if tensor.data_ptr() not in weights:
                seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
            return tensor

        batch = models_contrast.batch(64)
        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            images, texts, *_ = made(batch)
        (images.sum() + texts.sum()).backward()
        kept[chunk], rows[chunk] = sum(seen.values()), max(calls)
    assert rows == {0: 64, 4: 4}
    assert kept[4] < kept[0] / 10


def test_dropout_is_drawn_again_alike_in_the_backward_pass() -> None:
    """Otherwise the gradient would belong to another function than the loss."""
    batch, found = models_contrast.batch(8, given="features"), []
    for again in (True, False):
        made = towers(chunk=4, given="features")
        made.bundle.model.image_head[1] = nn.Dropout(0.5)
        torch.manual_seed(5)
        images, *_ = made(batch)
        if again:
            torch.manual_seed(99)
        images[:, 0].sum().backward()
        found.append(made.bundle.model.image_head[2].weight.grad)
    assert torch.equal(*found)
    assert float(found[0].abs().sum()) > 0


def test_without_gradients_nothing_is_cut() -> None:
    made = towers(chunk=2)
    calls: list[int] = []
    made.bundle.model.vision.register_forward_hook(lambda m, i, o: calls.append(len(o)))
    with torch.no_grad():
        made(models_contrast.batch(8))
    assert calls == [8]


def test_what_is_frozen_stays_in_eval_mode_and_batch_norms_do_too() -> None:
    encoder, trained = toy(FULL)
    encoder.model.image_head.append(nn.BatchNorm1d(WIDTH))
    made = Towers(encoder, trained, given="pixels").train()
    model = encoder.model
    assert model.image_head.training
    assert model.text.training
    assert not model.vision.training
    assert not model.vision[2].training, "a frozen tower's dropout is off"
    assert not model.image_head[3].training
    before = model.image_head[3].running_mean.clone()
    made(models_contrast.batch(8))
    assert torch.equal(model.image_head[3].running_mean, before)
    assert not made.eval().training


def test_a_new_encoder_begins_as_its_loss_wants_and_an_opened_one_keeps_its_own() -> None:
    for name, expected in (("siglip", (math.log(10), -10.0)), ("clip", (-math.log(0.07), 0.0))):
        encoder, _ = toy()
        begin(encoder, plugins.load("contrasts", name), new=True)
        assert [float(v.detach()) for v in encoder.scale()] == pytest.approx(expected, abs=1e-6)
    encoder, _ = toy()
    begin(encoder, plugins.load("contrasts", "siglip"), new=False)
    assert [float(v.detach()) for v in encoder.scale()] == [1.0, -1.0]
    encoder, _ = toy({"text": FULL["text"]})
    begin(encoder, plugins.load("contrasts", "siglip"), new=True)
    assert [float(v.detach()) for v in encoder.scale()] == [1.0, -1.0], "frozen: it would not be saved"


def test_siglip_needs_a_bias() -> None:
    encoder = models_contrast.toy({"width": WIDTH, "name": "unbiased"}, 3)
    with pytest.raises(ModelError, match="encoder 'toy' has none") as caught:
        begin(encoder, plugins.load("contrasts", "siglip"), new=True)
    assert caught.value.remedy == "set loss.name: clip"
    begin(encoder, plugins.load("contrasts", "clip"), new=True)


def test_the_clamp_holds_the_factor_at_a_hundred() -> None:
    scale = nn.Parameter(torch.tensor(5.0))
    Clamp(lambda: (scale, None), math.log(100)).on_step_end(None, None, None)
    assert float(scale.detach().exp()) == pytest.approx(100, abs=1e-3)
    low = nn.Parameter(torch.tensor(1.0))
    Clamp(lambda: (low, None), math.log(100)).on_step_end(None, None, None)
    assert float(low.detach()) == 1.0


# One training run of 24 pairs with pixels, in this process.


def collate(rows: list[Any]) -> dict[str, Any]:
    whole = models_contrast.batch(24)
    at = [int(row.sample[1:]) for row in rows]
    return {
        "images": [whole["images"][i] for i in at],
        "grids": [()] * len(at),
        "tokens": {"input_ids": whole["tokens"]["input_ids"][at]},
        "keys": whole["keys"][at],
        "ids": [row.id for row in rows],
    }


def job(made: Towers, asked: dict[str, Any] = EVERY, **train: Any) -> Job:
    rows = models_contrast.pairs(24)
    return Job(
        answers=made,
        asked=asked,
        rows=rows,
        ids=[row.id for row in rows],
        collator=collate,
        train=Train(**{"steps": 8, "batch": 8, "save_every": 3, "warmup": 0} | train),
        seed=4,
        betas=(0.9, 0.95),
    )


def run_in(place: Path) -> runs.Run:
    place.mkdir(parents=True, exist_ok=True)
    return runs.Run(name="encoder", folder=place / "encoder", work=place, key="k", parents={})


def best_of(made: Towers, figures: list[float] | None = None) -> Best:
    """Validates on the loss of all pairs, or has the figures given."""

    def validate() -> dict[str, float]:
        if figures:
            return {"loss": figures[len(best.history)]}
        with torch.no_grad():
            return {"loss": float(loss_of(made, models_contrast.batch(24)))}

    best = Best(made.weights, 2, validate, lambda found: (-found["loss"],))
    return best


def train(
    place: Path, name: str = "siglip", made: Towers | None = None, best: Any = None, **more: Any
) -> Any:
    made = made or towers()
    plugin = plugins.load("contrasts", name)
    curve = fit(run_in(place), job(made, **more), ContrastTrainer, plugin=plugin, loss=plugin.loss, best=best)
    return made, curve


def weights(made: Towers) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in made.weights().items()}


@pytest.mark.parametrize("name", ["siglip", "clip"])
def test_the_loss_falls(tmp_path: Path, name: str) -> None:
    _, curve = train(tmp_path, name, steps=30)
    assert [entry["step"] for entry in curve] == list(range(1, 31))
    losses = [entry["loss"] for entry in curve]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_optimizer_has_the_betas_of_the_job(tmp_path: Path) -> None:
    seen: list[Any] = []

    class Watching(ContrastTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            inner = getattr(self.optimizer, "optimizer", self.optimizer)
            seen.append({group["betas"] for group in inner.param_groups})
            return super().compute_loss(*args, **kwargs)

    plugin = plugins.load("contrasts", "clip")
    fit(run_in(tmp_path), job(towers(), steps=1), Watching, plugin=plugin, loss=plugin.loss)
    assert seen == [{(0.9, 0.95)}]


def test_chunks_train_like_one_batch(tmp_path: Path) -> None:
    one, first = train(tmp_path / "a")
    two, second = train(tmp_path / "b", made=towers(chunk=3))
    assert [e["loss"] for e in first] == pytest.approx([e["loss"] for e in second], abs=1e-5)
    for (name, a), b in zip(weights(one).items(), weights(two).values(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-4), name


def test_a_bias_that_the_loss_does_not_use_stays_as_it_is(tmp_path: Path) -> None:
    made, seen = towers(), []
    bias = made.bundle.model.logit_bias
    bias.register_post_accumulate_grad_hook(lambda p: seen.append(float(p.grad)))
    train(tmp_path, "clip", made=made)
    assert float(bias.detach()) == -1.0
    assert seen == [0.0] * 8, "data-parallel training waits for a gradient"


def test_the_factor_is_held_during_training(tmp_path: Path) -> None:
    made = towers()
    with torch.no_grad():
        made.bundle.model.logit_scale.fill_(9.0)
    train(tmp_path, "clip", made=made, steps=1)
    assert float(made.bundle.model.logit_scale.detach()) == pytest.approx(math.log(100), abs=1e-6)


def test_bfloat16_trains_and_the_loss_is_float32(tmp_path: Path) -> None:
    seen: list[Any] = []
    made = towers()
    made.bundle.model.vision.register_forward_hook(lambda m, i, o: seen.append(o.dtype))
    _, curve = train(tmp_path, made=made, precision="bfloat16", steps=20)
    assert seen[0] == torch.bfloat16
    assert made.bundle.model.text_head.weight.dtype == torch.float32
    assert sum(e["loss"] for e in curve[-5:]) < 0.9 * sum(e["loss"] for e in curve[:5])


def test_gradient_checkpointing_points_at_chunk(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no gradient checkpointing of layers") as caught:
        train(tmp_path, extra={"gradient_checkpointing": True})
    assert caught.value.remedy.startswith("set `chunk`")


def test_a_warm_up_longer_than_training_is_refused_with_its_numbers(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the learning rate never leaves its warm-up") as caught:
        train(tmp_path, warmup=10_000, steps=1080)
    assert caught.value.found == "10000 of 1080 steps"
    assert caught.value.expected == "at most 1079 of 1080"


def test_a_warm_up_in_steps_is_that_many(tmp_path: Path) -> None:
    _, curve = train(tmp_path, warmup=4, schedule="constant_with_warmup")
    rates = [entry["learning_rate"] for entry in curve]
    assert rates == pytest.approx([0.0, 0.005, 0.01, 0.015, 0.02, 0.02, 0.02, 0.02], abs=1e-9)


def test_the_best_step_is_kept_and_restored(tmp_path: Path) -> None:
    made = towers()
    best = best_of(made, [3.0, 1.0, 1.0, 2.0])
    seen: dict[int, dict[str, Tensor]] = {}
    best.said = lambda entry: seen.__setitem__(int(entry["step"]), weights(made))
    train(tmp_path, made=made, best=best)
    assert [entry["step"] for entry in best.history] == [2, 4, 6, 8]
    assert best.step == 4, "of equal figures the earlier step"
    assert not torch.equal(weights(made)["text.weight"], seen[4]["text.weight"])
    best.restore()
    assert all(torch.equal(value, seen[4][name]) for name, value in weights(made).items())


def test_the_last_step_is_validated_too(tmp_path: Path) -> None:
    made = towers()
    best = best_of(made)
    train(tmp_path, made=made, best=best, steps=5)
    assert [entry["step"] for entry in best.history] == [2, 4, 5]


@pytest.mark.parametrize("after", [1, 3, 4, 7])
def test_a_run_cut_anywhere_ends_with_the_same_bytes(tmp_path: Path, after: int) -> None:
    """The process is gone after a step, whether or not a checkpoint or a validation came with it."""

    class Cut(ContrastTrainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == after:
                raise Interrupted("cut")
            return super().compute_loss(*args, **kwargs)

    whole = towers()
    whole_best = best_of(whole)
    _, expected = train(tmp_path / "whole", made=whole, best=whole_best)
    plugin = plugins.load("contrasts", "siglip")
    broken = towers()
    with pytest.raises(Interrupted):
        fit(
            run_in(tmp_path / "cut"), job(broken), Cut, plugin=plugin, loss=plugin.loss, best=best_of(broken)
        )  # fmt: skip
    made = towers()
    best = best_of(made)
    _, curve = train(tmp_path / "cut", made=made, best=best)
    events = [json.loads(line) for line in (tmp_path / "cut" / "events.jsonl").read_text().splitlines()]
    assert [e["resumed_at"] for e in events if e["event"] == "training"] == [0, after // 3 * 3]
    assert curve == expected
    assert (best.step, best.history) == (whole_best.step, whole_best.history)
    assert all(torch.equal(value, whole_best.kept[name]) for name, value in best.kept.items())
    assert all(
        torch.equal(a, b) for a, b in zip(weights(made).values(), weights(whole).values(), strict=True)
    )


def test_the_best_step_comes_back_from_the_checkpoint_alone(tmp_path: Path) -> None:
    made = towers()
    first = best_of(made, [1.0, 2.0, 3.0, 4.0])
    train(tmp_path, made=made, best=first)
    again = towers()
    best = best_of(again, [9.0])
    train(tmp_path, made=again, best=best)
    assert (best.step, best.history) == (2, first.history)
    assert all(torch.equal(value, first.kept[name]) for name, value in best.kept.items())
