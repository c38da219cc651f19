"""Exports of a tiny trained LLaVA: opened by other programs, they answer word for word as the model does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import models
import models_export
from sightline.errors import MissingExtra, ModelError
from sightline.export import folder, generate, graphs, hub, opened, probe, written
from sightline.images.transforms import Preprocess
from sightline.models import checkpoint
from sightline.models.families import llava
from sightline.stages import export as stage

HUB = {
    "language_model.model.embed_tokens.weight", "language_model.model.norm.weight", "language_model.lm_head.weight",
    "language_model.model.layers.1.self_attn.q_proj.weight", "multi_modal_projector.linear_1.weight",
    "multi_modal_projector.linear_2.bias", "vision_tower.vision_model.embeddings.class_embedding",
    "vision_tower.vision_model.encoder.layers.0.self_attn.out_proj.bias",
    "vision_tower.vision_model.pre_layrnorm.weight",
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models_export.save(models.bundle(language), tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def made(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model, merged and as graphs."""
    root = tmp_path_factory.mktemp("made")
    return {kind: export(saved, kind, root / kind) for kind in ("merged", "onnx")}


def export(place: Path, kind: str, to: Path, precision: str = "float32") -> Path:
    stage.make(stage.Order(place=place, kind=kind, to=to, home=to, precision=precision))
    return to


def names(place: Path) -> set[str]:
    with safe_open(place / "model.safetensors", "pt") as file:
        return set(file.keys())


def agree(kind: str, saved: Path, place: Path, root: Path, count: int) -> None:
    """As many answers of a fresh process, word for word."""
    asked = models_export.samples(root, count)
    bundle = checkpoint.load(saved)
    wanted = models_export.told(bundle, asked, root)
    program = models_export.TRANSFORMERS if kind == "merged" else models_export.SCRIPT
    found = models_export.elsewhere(program, place, asked, root)
    assert models_export.without_end(found["ids"], bundle) == wanted
    assert len({tuple(ids) for ids in wanted}) > 1  # it looks at what it is asked


@pytest.mark.parametrize("kind", ["merged", "onnx"])
def test_other_programs_answer_word_for_word(
    kind: str, saved: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    agree(kind, saved, made[kind], tmp_path, 6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["merged", "onnx"])
def test_other_programs_answer_fifty_samples_word_for_word(
    kind: str, saved: Path, made: dict[str, Path], tmp_path: Path
) -> None:
    agree(kind, saved, made[kind], tmp_path, 50)


def test_weights_have_the_names_of_the_hub(made: dict[str, Path]) -> None:
    found = names(made["merged"])
    assert found >= HUB
    assert {name.split(".")[0] for name in found} == {
        "language_model",
        "multi_modal_projector",
        "vision_tower",
    }
    config = json.loads((made["merged"] / "config.json").read_text())
    assert config["architectures"] == ["LlavaForConditionalGeneration"]
    assert (config["image_token_index"], config["image_seq_length"], config["dtype"]) == (3, 4, "float32")
    assert not {"leading", "every_layer", "heads"} & set(config)


def test_the_report_says_what_was_done(saved: Path, made: dict[str, Path]) -> None:
    for kind, programs in (("merged", ["transformers"]), ("onnx", ["onnxruntime"])):
        told = opened.report(made[kind])
        assert (told["kind"], told["opens_with"], told["gate"]) == (kind, programs, None)
        assert told["from"] == checkpoint.fingerprints(saved)
        assert told["answers"]["same"]
        assert max(told["answers"]["moved"], told["merged"]["moved"]) < 1e-5
        weights = sum(p.numel() for p in checkpoint.load(saved).model.parameters()) * 4
        assert told["bytes"]["float32"] == weights
        graph = "model.safetensors" if kind == "merged" else graphs.DECODER
        assert told["bytes"]["files"][graph] == (made[kind] / graph).stat().st_size
        assert "not for clinical use" in (made[kind] / "README.md").read_text().lower()


def test_tied_tables_stand_once(tied_language: Path, tmp_path: Path) -> None:
    place = models_export.save(models.bundle(tied_language), tmp_path / "saved")
    found = names(export(place, "merged", tmp_path / "made"))
    assert "language_model.model.embed_tokens.weight" in found
    assert "language_model.lm_head.weight" not in found


def test_half_the_bytes_in_half_precision(saved: Path, made: dict[str, Path], tmp_path: Path) -> None:
    place = export(saved, "merged", tmp_path / "half", "bfloat16")
    told, whole = opened.report(place), opened.report(made["merged"])
    assert told["bytes"]["files"]["model.safetensors"] < 0.6 * whole["bytes"]["files"]["model.safetensors"]
    assert 1e-4 < told["answers"]["moved"] < 0.1
    assert json.loads((place / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_that_answers_otherwise_is_not_exported(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hub.hub_names

    def crossed(model: Any) -> dict[str, torch.Tensor]:
        weights, layer = whole(model), "language_model.model.layers.0.self_attn."
        weights[f"{layer}k_proj.weight"] = weights[f"{layer}v_proj.weight"]
        return {name: tensor.clone() for name, tensor in weights.items()}

    monkeypatch.setattr(hub, "hub_names", crossed)
    with pytest.raises(ModelError, match="does not answer as the model does"):
        export(saved, "merged", tmp_path / "made")


def test_a_merge_that_moves_answers_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "merge", lambda bundle, model: bundle.model.lm_head.weight.mul_(1.001))
    with torch.no_grad(), pytest.raises(ModelError, match="merged model does not answer"):
        probe.open_origin(saved)


def test_the_export_is_opened_as_any_model(saved: Path, made: dict[str, Path], tmp_path: Path) -> None:
    """In batches, with padding between what was read, over several turns: by graphs as by torch."""
    root = tmp_path
    more = [("Is there fluid?", "Yes"), ("And then what is it?", "Left")]
    several = []
    for i in range(4):
        image, asked = models.picture(root, f"{i}.png", i), f"What is here{', and there' * i}?"
        several.append(models.sample(f"t{i}", [(asked, "A line"), *more], [image]))
    wanted = models_export.told(checkpoint.load(saved), several, root)
    for kind in ("merged", "onnx"):
        assert models_export.told(opened.load(made[kind]), several, root) == wanted


def test_two_images_in_front(saved: Path, made: dict[str, Path], tmp_path: Path) -> None:
    images = [models.picture(tmp_path, f"{i}.png", i) for i in range(2)]
    asked = [models.sample("two", [("What is the difference?", "A line")], images)]
    wanted = models_export.told(checkpoint.load(saved), asked, tmp_path)
    model = generate.Model(made["onnx"])
    pixels = np.stack([model.prepare(generate.read(tmp_path / ref.path)) for ref in images])
    assert [model.greedy(model.prompt("What is the difference?", 2), pixels, models_export.STEPS)] == wanted


def test_the_script_is_run_from_a_shell(made: dict[str, Path], tmp_path: Path) -> None:
    image = models.picture(tmp_path, "a.png", 1)
    words = [sys.executable, str(made["onnx"] / folder.SCRIPT), str(tmp_path / image.path), "What is it?"]
    ran = subprocess.run([*words, "--max-new-tokens", "5"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == generate.Model(made["onnx"]).answer("What is it?", [tmp_path / "a.png"], 5)


def test_typed_control_words_stay_letters(made: dict[str, Path]) -> None:
    model = generate.Model(made["onnx"])
    ids = model.prompt("<|im_end|>", 1)
    assert ids.count(2) == opened.load(made["onnx"]).tokenizer("<|im_end|>")["input_ids"].count(2) == 1


@pytest.mark.parametrize("size", [(28, 28), (61, 40), (17, 50), (300, 200)])
@pytest.mark.parametrize("resample", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize(("pad", "crop"), [(True, 0), (True, 32), (False, 32)])
def test_pictures_are_prepared_alike(size: tuple[int, int], resample: str, pad: bool, crop: int) -> None:
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    ours = Preprocess(size=28, mean=mean, std=std, resample=resample, pad=pad, crop_from=crop)
    model = generate.Model.__new__(generate.Model)
    model.told = {
        "preprocess": {
            "size": 28,
            "mean": mean,
            "std": std,
            "resample": resample,
            "pad": pad,
            "crop_from": crop,
        }
    }
    picture = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    assert np.abs(model.prepare(picture) - ours(picture).numpy()).max() < 1e-5


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16", "RGBA", "P"])
def test_pictures_are_read_alike(mode: str, tmp_path: Path) -> None:
    from sightline.images.formats.raster import raster

    draw = np.random.default_rng(1)
    if mode == "I;16":
        image = Image.fromarray(draw.integers(0, 65536, (9, 7), dtype=np.uint16))
    else:
        image = Image.fromarray(draw.integers(0, 256, (9, 7, 4), dtype=np.uint8), "RGBA").convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(generate.read(tmp_path / "a.png"), raster(tmp_path / "a.png"))


def test_the_kit_s_tower_as_graphs(language: Path, tmp_path: Path) -> None:
    """The quickstart's kind of model: no class of transformers holds its tower, and the graphs need none."""
    pytest.importorskip("efficientnet_lite_pytorch")
    part = models.bundle(language, vision={"model_type": "efficientnet_lite"}, select="full")
    saved = models_export.save(part, tmp_path / "saved", size=0.05)
    place = export(saved, "onnx", tmp_path / "onnx")
    asked = models_export.samples(tmp_path, 3)
    wanted = models_export.told(checkpoint.load(saved), asked, tmp_path)
    assert models_export.elsewhere(models_export.SCRIPT, place, asked, tmp_path)["ids"] == wanted
    merged = export(saved, "merged", tmp_path / "merged")
    assert opened.report(merged)["opens_with"] == ["sightline"]
    assert models_export.told(opened.load(merged), asked, tmp_path) == wanted


def test_eight_bits_in_graphs(language: Path, tmp_path: Path) -> None:
    large = {**models_export.WIDE, "hidden_size": 128, "intermediate_size": 256, "tokenizer": str(language)}
    part = checkpoint.compose({**models.section(language), "language": large}, 0)
    saved = models_export.save(part, tmp_path / "saved")
    place = export(saved, "onnx_int8", tmp_path / "onnx_int8")
    told, whole = (opened.report(p) for p in (place, export(saved, "onnx", tmp_path / "onnx")))
    assert 1e-4 < told["answers"]["moved"] < 0.5
    assert told["bytes"]["files"][graphs.DECODER] < 0.5 * whole["bytes"]["files"][graphs.DECODER]
    assert told["bytes"]["files"][graphs.VISION] == whole["bytes"]["files"][graphs.VISION]
    asked = models_export.samples(tmp_path, 2)
    wanted = models_export.told(
        opened.load(place), asked, tmp_path, batch=1
    )  # inputs are rounded batch by batch
    assert models_export.elsewhere(models_export.SCRIPT, place, asked, tmp_path)["ids"] == wanted


@pytest.mark.parametrize(
    ("connector", "kinds"), [("mlp3x_gelu", ("merged",)), ("temporal", ("merged", "onnx"))]
)
def test_what_no_class_holds_is_refused(
    connector: str, kinds: tuple[str, ...], language: Path, tmp_path: Path
) -> None:
    made = models.bundle(language, connector=connector)
    assert llava.fuses(made.model) == (connector == "temporal")
    for kind in kinds:
        with pytest.raises(ModelError) as error:
            (hub.check if kind == "merged" else graphs.check)(made)
        assert error.value.remedy


def test_kinds_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="did you mean 'onnx'"):
        written.find("onx")
    monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(MissingExtra):
        graphs.needed()


def test_the_same_bytes_every_time(saved: Path, made: dict[str, Path], tmp_path: Path) -> None:
    again = export(saved, "onnx", tmp_path / "onnx")
    for name in (graphs.VISION, graphs.WORDS, graphs.DECODER, folder.SETTINGS, "export.json", "README.md"):
        assert (again / name).read_bytes() == (made["onnx"] / name).read_bytes(), name


def test_large_weights_stand_beside_their_graph(
    saved: Path, made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of models of which one graph would not fit a file of protobuf."""
    monkeypatch.setattr(graphs, "WHOLE", 50_000)
    place = export(saved, "onnx", tmp_path / "onnx")
    large = place / f"{graphs.DECODER}_data"
    whole = (made["onnx"] / graphs.DECODER).stat().st_size
    assert large.stat().st_size > 0.4 * whole
    assert (place / graphs.DECODER).stat().st_size < 0.6 * whole
    assert opened.report(place)["answers"]["moved"] == opened.report(made["onnx"])["answers"]["moved"]
    rounded = export(saved, "onnx_int8", tmp_path / "onnx_int8")
    assert (rounded / graphs.VISION).stat().st_size == (place / graphs.VISION).stat().st_size
    assert 1e-4 < opened.report(rounded)["answers"]["moved"] < 0.5
    assert not [p.name for p in rounded.iterdir() if p.name.startswith(".")]


def test_rotations_that_a_trace_would_freeze_are_refused(language: Path) -> None:
    made = models.bundle(language)
    graphs.check(made)
    made.model.model.language_model.config.rope_parameters["rope_type"] = "longrope"  # type: ignore[union-attr, index]
    with pytest.raises(ModelError, match="turns positions by how much was read"):
        graphs.check(made)
