"""UMBRELLA: where patches go, what trains, both kinds in one batch, and the numbers of the real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration

import models
import models_umbrella
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, together
from sightline.data.rows import encode_samples
from sightline.errors import ImageError, ModelError
from sightline.images.brain import Brain
from sightline.models import checkpoint, trainable
from sightline.models.families.umbrella import swap
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels, gridder, looker, pixels
from sightline.settings import Full, Model, Patches, Speed
from sightline.settings import Plan as Trains
from sightline.train.trainers import Answers
from sightline.types import ImageRef, Message, Sample, View

ASKED = {"patches": Trains(full=Full(lr=1e-2))}
REAL = LlavaConfig(
    vision_config={
        "model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 384, "intermediate_size": 4304,
        "num_attention_heads": 16, "num_hidden_layers": 26, "patch_size": 14, "vision_use_head": False,
    },
    text_config={
        "model_type": "qwen2", "hidden_size": 1024, "intermediate_size": 2816, "num_attention_heads": 16,
        "num_key_value_heads": 16, "num_hidden_layers": 24, "vocab_size": 152000, "tie_word_embeddings": True,
    },
    vision_feature_layer=-1, vision_feature_select_strategy="full", image_token_index=151646,
    tie_word_embeddings=True,
)  # fmt: skip


def size(model: nn.Module, trains: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trains)


def original(patch: int) -> Patches:
    cube = {"size": (96, 96, 96)}
    t1 = {**cube, "patch": (patch,) * 3, "drop": patch == 10}
    return Patches.model_validate(
        {"t1": t1, "fmri": {**cube, "patch": (16, 16, 16), "times": 24, "time_patch": 3}}
    )


def test_the_real_model_counted_without_weights() -> None:
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(REAL)
    assert size(model) == 864_031_264
    assert size(model.model.vision_tower) == 397_747_744
    assert size(model.model.multi_modal_projector) == 2_230_272
    assert size(model.model.language_model) == 464_053_248
    model.requires_grad_(False)
    patches = swap(model, original(10), 0)
    assert model.model.vision_tower.embeddings is patches
    assert (size(model, trains=True), size(model)) == (18_140_544, 880_653_472)
    assert (patches.tokens(3), patches.tokens(4)) == (729, 1728)
    assert size(patches.T1_proj) == 1_153_152
    assert size(patches.rsfMRI_proj) == 14_156_928


def test_the_real_model_composed_of_its_parts_has_as_many_weights(tmp_path: Path) -> None:
    models.bytes_tokenizer().save_pretrained(tmp_path)
    parts = {name: getattr(REAL, name).to_dict() for name in ("vision_config", "text_config")}
    sizes = (
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "num_key_value_heads",
    )
    more = ("model_type", "image_size", "patch_size", "vision_use_head", "vocab_size", "tie_word_embeddings")
    plain = {n: {k: part[k] for k in (*sizes, *more) if k in part} for n, part in parts.items()}
    section = Model(
        family="umbrella", vision=plain["vision_config"], select="full", patches=original(10),
        language={**plain["text_config"], "tokenizer": str(tmp_path)},
    )  # fmt: skip
    with torch.device("meta"):
        made = checkpoint.compose(section.model_dump(), 0)
        trainable.apply(made, ASKED, 0)
    rows = {row.part: row for row in trainable.table(made, ASKED)}
    assert sum(row.total for row in rows.values()) == size(made.model) == 880_653_472
    assert rows["patches"].total == sum(row.trainable for row in rows.values()) == 18_140_544


def test_the_variant_with_t1_patches_of_16() -> None:
    with torch.device("meta"):
        patches = swap(LlavaForConditionalGeneration(REAL), original(16), 0)
    assert size(patches) == 21_116_160
    assert patches.tokens(3) == 216


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volumes")


@pytest.fixture(scope="module")
def refs(root: Path) -> list[ImageRef]:
    """Two T1 and two fMRI scans, stored in different orientations."""
    brains = [Brain(side="left", sex="male"), Brain(side="right", sex="female", pulse=True)]
    made = [
        models_umbrella.head(root, f"t{i}.nii.gz", b, stored=("RAS", "LPI")[i], seed=i)
        for i, b in enumerate(brains)
    ]
    return made + [
        models_umbrella.head(root, f"f{i}.nii", b, times=6, stored=("PIR", "LAS")[i], seed=i)
        for i, b in enumerate(brains)
    ]


def samples(refs: list[ImageRef]) -> list[Sample]:
    """One T1, one fMRI, and a comparison whose second image stands in the second question."""
    a = Message(role="user", parts=(0, "There?"))
    compare = (
        Message(role="user", parts=("Look.", 0)),
        Message(role="assistant", parts=("Yes",)),
        Message(role="user", parts=(1, "Is it?")),
        Message(role="assistant", parts=("No",), topic="sex_same"),
    )
    one = (a, Message(role="assistant", parts=("Yes",), topic="a"))
    return [
        Sample(id="t", patient="p1", images=(refs[0],), messages=one),
        Sample(id="f", patient="p2", images=(refs[2],), messages=one),
        Sample(id="c", patient="p3", images=(refs[1], refs[3]), messages=compare),
    ]


def batch(made: Bundle, root: Path, wanted: list[Sample], look: Any = None) -> dict[str, Any]:
    chat = Chat.of(made)
    rows, aside = encode_samples(wanted, chat, 4096, gridder(made, root))
    assert aside == []
    plan = Plan.of(chat, look or Pixels(made, root), Speed())
    return SupervisedCollator(plan)(together(rows, 1, 0))


def test_tokens_stand_where_the_turn_has_its_image(language: Path, root: Path, refs: list[ImageRef]) -> None:
    made = models_umbrella.bundle(language)
    chat = Chat.of(made)
    rows, _ = encode_samples(samples(refs), chat, 4096, gridder(made, root))
    token = made.image_token
    counted = {row.id: row.encoded.ids.count(token) for row in rows}
    assert counted == {"t": 8, "f": 12, "c": 20}
    ids = next(row.encoded.ids for row in rows if row.id == "c")
    text = made.tokenizer.decode([i for at, i in enumerate(ids) if i != token or ids[at - 1] != token])
    assert text == (
        "<|im_start|>user\nLook.<empty_output>\n<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
        "<|im_start|>user\n<empty_output>\nIs it?<|im_end|>\n<|im_start|>assistant\nNo<|im_end|>\n"
    )
    assert made.tokens_per_image == 12


def test_both_kinds_in_one_batch_equal_one_by_one(language: Path, root: Path, refs: list[ImageRef]) -> None:
    made = models_umbrella.bundle(language)
    answers = Answers(made, made.model, given="pixels").eval()
    every = samples(refs)
    with torch.no_grad():
        whole = batch(made, root, every)
        logps = dict(zip(whole["ids"], answers(whole).tolist(), strict=True))
        alone = {s.id: float(answers(batch(made, root, [s]))) for s in every}
    assert [tuple(i.shape) for i in whole["images"]].count((1, 8, 8, 8)) == 2
    assert [tuple(i.shape) for i in whole["images"]].count((1, 8, 8, 8, 6)) == 2
    assert logps == pytest.approx(alone, abs=1e-5)


def test_the_model_sees_which_volume_and_which_side(language: Path, root: Path, refs: list[ImageRef]) -> None:
    made = models_umbrella.bundle(language)
    first, second = (pixels(made, root, View(ref, "r")).values for ref in refs[:2])
    assert not torch.equal(first, second)
    left, right = first[0, :4].max(), first[0, 4:].max()
    assert left > right  # the spot of the first head is on the left, at small x
    assert second[0, 4:].max() > second[0, :4].max()  # stored LPI, turned


def test_only_patches_train_and_the_gradient_passes_the_frozen_tower(
    language: Path, root: Path, refs: list[ImageRef]
) -> None:
    made = models_umbrella.bundle(language)
    trained = trainable.apply(made, ASKED, 0)
    answers = Answers(made, trained, given="pixels")
    shown = batch(made, root, samples(refs))
    (-answers(shown).sum()).backward()
    reached = {
        name for name, p in made.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }
    home = "model.vision_tower.embeddings."
    assert reached == {
        home + name
        for name in (
            "T1_proj.weight", "T1_proj.bias", "T1_positional_embeddings",
            "rsfMRI_proj.weight", "rsfMRI_proj.bias", "rsfMRI_positional_embeddings",
        )
    }  # fmt: skip
    assert {name for name, p in made.model.named_parameters() if p.requires_grad} == reached
    bias = made.model.get_submodule("model.vision_tower.embeddings").T1_proj.bias
    before = bias.grad.clone()
    for layer in made.model.model.vision_tower.encoder.layers:  # each frozen layer shapes the gradient
        made.model.zero_grad()
        with torch.no_grad():
            layer.mlp.fc2.weight.mul_(3)
        (-answers(shown).sum()).backward()
        assert not torch.allclose(bias.grad, before, rtol=1e-3)
        before = bias.grad.clone()
    rows = {row.part: (row.how, row.trainable) for row in trainable.table(made, ASKED)}
    width, t1, fmri = 16, 8 * 16, 12 * 16
    total = (64 + 1) * width + t1 + (4 * 4 * 8 * 2 + 1) * width + fmri
    assert rows["patches"] == ("full", total)
    assert [rows[part] for part in ("vision", "connector", "language")] == [("frozen", 0)] * 3


def test_the_gradient_is_that_of_finite_differences(language: Path, root: Path, refs: list[ImageRef]) -> None:
    made = models_umbrella.bundle(language)
    made.model.double()
    trainable.apply(made, ASKED, 0)
    answers = Answers(made, made.model, given="pixels")
    with models.doubled():
        shown = batch(made, root, samples(refs)[:1])
        shown["images"] = [i.double() for i in shown["images"]]
        bias = made.model.model.vision_tower.embeddings.T1_proj.bias
        answers(shown).sum().backward()
        found, step = float(bias.grad[3]), 1e-5
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                bias[3] += sign * step
                values.append(float(answers(shown).sum()))
                bias[3] -= sign * step
    assert found == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)
    assert abs(found) > 1e-6


def test_features_are_kept_only_while_patches_are_frozen(
    language: Path, root: Path, refs: list[ImageRef], tmp_path: Path
) -> None:
    made = models_umbrella.bundle(language)
    views = [View(ref, "r") for ref in refs]
    assert trainable.frozen(made, ASKED) == {"vision": False, "connector": True}
    look = looker(made, root, tmp_path, views, trainable.frozen(made, ASKED), Speed())
    assert isinstance(look, Pixels)
    with pytest.raises(ModelError, match="cannot be kept"):
        looker(made, root, tmp_path, views, trainable.frozen(made, ASKED), Speed(cache="before"))
    other = {"connector": Trains(full=Full(lr=1e-2))}
    kept = looker(made, root, tmp_path, views, trainable.frozen(made, other), Speed())
    assert isinstance(kept, Features)
    kept.prepare(views)
    assert tuple(kept(views[0]).values.shape) == (8, 16)
    assert tuple(kept(views[3]).values.shape) == (12, 16)
    before = kept.key(views[0])
    with torch.no_grad():
        made.model.model.vision_tower.embeddings.T1_proj.bias.add_(1)
    made.tower = ""
    assert Features(made, root, tmp_path).key(views[0]) != before


def test_save_and_load(language: Path, root: Path, refs: list[ImageRef], tmp_path: Path) -> None:
    section = Model.model_validate(models_umbrella.section(language)).model_dump(mode="json")
    made = checkpoint.compose(section, 0)
    trained = trainable.apply(made, ASKED, 0)
    models.stir(made.model.parameters(), 1)
    asked = {"patches": {"full": {"lr": 1e-2}, "lora": None}}
    checkpoint.save(tmp_path / "m", made, trained, parent=None, trained=asked, home=tmp_path / "m")
    back = checkpoint.load(tmp_path / "m")
    assert back.family.name == "umbrella"
    shown = batch(made, root, samples(refs))
    with torch.no_grad():
        same = [Answers(b, b.model, given="pixels").eval()(shown) for b in (made, back)]
    assert torch.equal(*same)
    fresh = checkpoint.compose(section, 0)
    with torch.no_grad():
        assert not torch.equal(Answers(fresh, fresh.model, given="pixels").eval()(shown), same[0])


def test_lora_of_the_frozen_tower_leaves_patches_alone(language: Path) -> None:
    made = models_umbrella.bundle(language)
    plan = Trains.model_validate({"lora": {"r": 2, "alpha": 4, "lr": 1e-3}})
    trainable.apply(made, {"vision": plan, "patches": Trains(full=Full(lr=1e-2))}, 0)
    names = [n for n, p in made.model.named_parameters() if p.requires_grad]
    assert any("encoder.layers.0" in n and ".lora_A." in n for n in names)
    assert not any("rsfMRI_proj" in n and "lora" in n for n in names)
    assert made.tower_trains


def test_what_cannot_be_composed(language: Path) -> None:
    with pytest.raises(ModelError, match="nothing says how volumes are cut"):
        checkpoint.compose({**models_umbrella.section(language), "patches": None}, 0)
    with pytest.raises(ModelError, match="embeddings of this tower") as caught:
        models_umbrella.bundle(language, vision=models.CLIP)
    assert caught.value.found == "clip_vision_model"
    with pytest.raises(ModelError, match="do not divide"):
        models_umbrella.bundle(language, {"t1": {"size": (9, 8, 8), "patch": (4, 4, 4)}})
    with pytest.raises(ModelError, match="two studies are not fused"):
        models_umbrella.bundle(language, connector="temporal")
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(REAL)
    model.config.vision_feature_select_strategy = "default"
    with pytest.raises(ModelError, match="no class token"):
        swap(model, original(10), 0)


def test_pictures_and_volumes_are_not_confused(language: Path, root: Path, refs: list[ImageRef]) -> None:
    made, plain = models_umbrella.bundle(language), models.bundle(language)
    models.picture(root, "a.png", 0)
    with pytest.raises(ImageError, match="reads volumes, not pictures"):
        pixels(made, root, View(ImageRef(path="a.png"), "r"))
    with pytest.raises(ImageError, match="reads pictures, not volumes"):
        pixels(plain, root, View(refs[0], "r"))
    only = models_umbrella.bundle(language, {"t1": models_umbrella.T1})
    with pytest.raises(ImageError, match="volumes of this kind") as caught:
        gridder(only, root)(refs[2])
    assert caught.value.where == "field image, file f0.nii"


def test_a_recipe_without_patches_is_what_it_was() -> None:
    assert "patches" not in Model().model_dump(mode="json")
    used = Model.model_validate({"family": "umbrella", "patches": {"t1": models_umbrella.T1}})
    assert used.model_dump(mode="json")["patches"]["t1"]["size"] == [8, 8, 8]
