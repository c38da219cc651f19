"""Encoders: what is refused and why, texts that are too long, random weights by seed, features that are kept."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GemmaTokenizer

import models
import models_encoders as tiny
from sightline.errors import MissingExtra, ModelError
from sightline.models.encoder_checkpoint import compose_encoder
from sightline.models.features import Features, Pixels, encode, looker, pixels, weights_hash
from sightline.settings import Speed
from sightline.types import Degrade, View

KINDS = ("siglip", "clip", "openclip/resnet", "openclip/bert", "kit")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


def refused(**section: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        compose_encoder(tiny.section(**section), 0)
    return caught.value


def edited(source: Path, place: Path, **config: Any) -> Path:
    """A copy of a folder with another config.json."""
    shutil.copytree(source, place)
    path = place / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | config), encoding="utf-8")
    return place


def test_a_folder_of_another_kind_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("clip", root, monkeypatch)
    tiny.opened("siglip", root, monkeypatch)
    error = refused(encoder="siglip", path=str(root / "clip"))
    assert (error.found, error.expected) == ("model_type 'clip'", "'siglip'")
    assert error.remedy == "say `encoder: clip`"
    assert refused(encoder="clip", path=str(root / "siglip")).remedy == "say `encoder: siglip`"
    naflex = edited(root / "siglip", tmp_path / "naflex", model_type="siglip2")
    assert "one of fixed resolution" in refused(encoder="siglip", path=str(naflex)).remedy


@pytest.mark.parametrize("encoder", ["siglip", "clip"])
def test_a_folder_is_asked_for(encoder: str, tmp_path: Path) -> None:
    assert refused(encoder=encoder).found == "no path"
    assert "no model folder" in refused(encoder=encoder, path=str(tmp_path / "none")).what


def test_incomplete_weights_and_pickles_are_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("clip", root, monkeypatch)
    place = edited(root / "clip", tmp_path / "clip")
    stored = load_file(place / "model.safetensors")
    del stored["visual_projection.weight"]
    save_file(stored, place / "model.safetensors", metadata={"format": "pt"})
    assert "visual_projection.weight" in refused(encoder="clip", path=str(place)).where
    (place / "model.safetensors").rename(place / "pytorch_model.bin")
    assert "pickles are not opened" in refused(encoder="clip", path=str(place)).remedy


def test_a_folder_without_tokenizer_or_processor_says_so(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("siglip", root, monkeypatch)
    place = edited(root / "siglip", tmp_path / "siglip")
    (place / "preprocessor_config.json").unlink()
    assert "the image processor cannot be opened" in refused(encoder="siglip", path=str(place)).what
    for file in place.glob("tokenizer*"):
        file.unlink()
    error = refused(encoder="siglip", path=str(place))
    assert "the tokenizer cannot be opened" in error.what
    assert error.where == str(place)


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_images_smaller_than_a_patch_are_refused(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="hold no patch") as caught:
        tiny.opened(kind, root, monkeypatch, size=13)
    assert caught.value.expected == "14 px or more; the checkpoint's own size is 28 px"


def test_an_old_clip_with_its_positions_stored_opens(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("clip", root, monkeypatch)
    place = edited(root / "clip", tmp_path / "clip")
    stored = load_file(place / "model.safetensors")
    stored["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    stored["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    save_file(stored, place / "model.safetensors", metadata={"format": "pt"})
    made = compose_encoder(tiny.section("clip", path=str(place)), 0)
    assert made.width == 24


@pytest.mark.parametrize(
    ("kind", "length"), [("siglip", 16), ("clip", 20), ("openclip/vit", 12), ("kit", 32)]
)
def test_long_texts_are_cut_at_what_the_tower_reads(
    kind: str, length: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    words = "the heart is large . " * 50
    ids = made.tokenize([words, "no"])["input_ids"]
    assert ids.shape == (2, length)
    assert made.tokenize(["no"])["input_ids"].shape[1] == {"clip": 4, "kit": 3}.get(kind, length)
    with torch.no_grad():
        assert torch.isfinite(made.texts(made.tokenize([words, "no"]))).all()
    if kind == "clip":
        assert ids[0, -1] == 1  # the end of the text is kept: the tower reads the state that stands there


def test_siglip_reads_small_letters(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.opened("siglip", root, monkeypatch)
    one, other = (made.tokenize([text])["input_ids"] for text in ("LEFT Effusion", "left effusion"))
    assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["clip", "kit"])
def test_a_text_s_embedding_does_not_depend_on_its_neighbours(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    with torch.no_grad():
        alone, beside = made.texts(made.tokenize(tiny.TEXTS[:1])), made.texts(made.tokenize(tiny.TEXTS))
    torch.testing.assert_close(alone[0], beside[0], atol=1e-6, rtol=1e-5)


def test_random_weights_are_a_function_of_the_seed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.opened("kit", root, monkeypatch)
    before = torch.random.get_rng_state()
    heads = [compose_encoder(tiny.section("kit"), seed).model.image_head.squeeze.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("more", [{"path": "somewhere"}, {"name": "RN50"}, {"size": 384}])
def test_the_kit_takes_a_width_alone(
    more: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=f"takes no {next(iter(more))}") as caught:
        tiny.opened("kit", root, monkeypatch, **more)
    assert caught.value.expected == "width alone; its images are 224 px"
    assert tiny.opened("kit", root, monkeypatch, size=224, width=40).width == 40


def test_openclip_says_what_it_cannot_open(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("openclip/resnet", root, monkeypatch)
    assert refused(encoder="openclip").what == "which OpenCLIP model?"
    assert "'RN49'; did you mean 'RN" in refused(encoder="openclip", name="RN49").what
    hub = refused(encoder="openclip", name="hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224")
    assert "downloaded by you and opened with `path`" in hub.remedy
    assert "no checkpoint" in refused(encoder="openclip", path=str(tmp_path / "none")).what
    (tmp_path / "weights.pt").write_bytes(b"x")
    assert "pickles" in refused(encoder="openclip", name="RN50", path=str(tmp_path / "weights.pt")).remedy
    assert "holds no OpenCLIP model" in refused(encoder="openclip", path=str(tmp_path)).what
    assert "CoCa" in refused(encoder="openclip", name="coca_ViT-B-32").what
    place = shutil.copytree(root / "resnet", tmp_path / "resnet")
    (place / "open_clip_model.safetensors").rename(place / "open_clip_pytorch_model.bin")
    assert "pickles" in refused(encoder="openclip", path=str(place)).remedy


def test_openclip_without_its_text_tower_s_files_says_where_they_go(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("openclip/bert", root, monkeypatch)
    assert "lacks the config of its text tower" in refused(encoder="openclip", name="roberta-ViT-B-32").what
    place = shutil.copytree(root / "bert", tmp_path / "bert")
    (place / "text" / "tokenizer_config.json").unlink()
    error = refused(encoder="openclip", path=str(place))
    assert error.what == "an OpenCLIP model lacks its tokenizer"
    assert (error.where, error.expected) == (str(place / "text"), "tokenizer_config.json of 'someone/a-bert'")
    (place / "text" / "config.json").unlink()
    assert refused(encoder="openclip", path=str(place)).expected == "config.json of 'someone/a-bert'"


@pytest.mark.parametrize("change", ["missing", "unexpected", "bias", "shape"])
def test_openclip_weights_that_do_not_fit_are_refused(
    change: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("openclip/vit", root, monkeypatch)
    place = shutil.copytree(root / "vit", tmp_path / "vit")
    path = place / "open_clip_model.safetensors"
    stored = load_file(path)
    word = {"missing": "visual.proj", "unexpected": "something.else", "bias": "logit_bias"}.get(change, "")
    if change == "unexpected":
        stored[word] = torch.zeros(1)
    elif change == "shape":
        word = "visual.class_embedding"
        stored[word] = torch.zeros(3)
    else:
        del stored[word]
    save_file(stored, path)
    error = refused(encoder="openclip", path=str(place))
    assert error.what == "the weights do not fit the architecture"
    assert word in error.found


def test_an_absent_library_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtra, match="open_clip_torch"):
        compose_encoder(tiny.section("openclip", name="RN50"), 0)


@pytest.mark.parametrize("kind", KINDS)
def test_features_of_an_encoder_are_kept(
    kind: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    images = tmp_path / "images"
    refs = [models.picture(images, f"{i}.png", i) for i in range(3)]
    views = [*(View(ref, f"r{i}") for i, ref in enumerate(refs))]
    views.append(View(refs[0], "r0", Degrade(kind="replace", seed=1)))
    look = Features(made, images, tmp_path / "kept")
    look.prepare(views)
    assert look.computed == 4
    expected = encode(made, [pixels(made, images, v) for v in views])
    shape = {"kit": (49, 1280)}.get(kind, (16,))
    assert [look(v).values.shape for v in views] == [shape] * 4
    assert all(torch.equal(look(v).values, e) for v, e in zip(views, expected, strict=True))
    with torch.no_grad():
        embedded = made.images([look(v).values for v in views])
    assert embedded.shape == (4, made.width)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(4))
    again = Features(tiny.opened(kind, root, monkeypatch), images, tmp_path / "kept")
    again.prepare(views)
    assert again.computed == 0


def test_another_size_or_tower_makes_other_features(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = View(models.picture(tmp_path / "images", "0.png", 0), "r0")
    plain = tiny.opened("clip", root, monkeypatch)
    encoders = [
        plain,
        tiny.opened("clip", root, monkeypatch, size=42),
        tiny.opened("siglip", root, monkeypatch),
    ]
    keys = {Features(e, tmp_path / "images", tmp_path / "kept").key(view) for e in encoders}
    assert len(keys) == 3
    assert len({weights_hash(e, "vision") for e in encoders}) == 3


def test_sixteen_bits_and_grey_pictures_go_through(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.linspace(0, 1, 30 * 40 * 3, dtype=np.float32).reshape(30, 40, 3)
    for kind, edge in (("siglip", 28), ("clip", 28), ("openclip/resnet", 64), ("kit", 224)):
        made = tiny.opened(kind, root, monkeypatch)
        values = made.preprocess(image)
        assert values.shape == (3, edge, edge)
        assert values.dtype == torch.float32
        assert made.preprocess.grid(30, 40) == ()
        assert len(made.preprocess.key()) == 32


@pytest.mark.parametrize(("kind", "each"), [("clip", 16 * 4), ("kit", 49 * 1280 * 4)])
def test_what_is_kept_of_an_encoder_is_decided_by_what_trains_and_what_fits(
    kind: str, each: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.opened(kind, root, monkeypatch)
    views = [View(models.picture(tmp_path / "images", f"{i}.png", i), f"r{i}") for i in range(3)]

    def choose(vision: bool, room: float) -> object:
        speed = Speed(cache_gb=room / 2**30)
        return looker(made, tmp_path / "images", tmp_path / "kept", views, {"vision": vision}, speed)

    assert isinstance(choose(True, 3 * each), Features)
    assert isinstance(choose(True, 3 * each - 1), Pixels)
    assert isinstance(choose(False, 3 * each), Pixels)


def test_siglip_2_brings_gemma_s_tokenizer(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("siglip", root, monkeypatch)
    place = edited(root / "siglip", tmp_path / "siglip2")
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyzL"]
    tokenizer = GemmaTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_input_names=["input_ids"]
    )
    tokenizer.save_pretrained(place)
    made = compose_encoder(tiny.section("siglip", path=str(place)), 0)
    assert isinstance(made.tokenize.tokenizer, GemmaTokenizer)  # type: ignore[attr-defined]
    tokens = made.tokenize(["Left lung", "a"])
    assert set(tokens) == {"input_ids"}
    assert tokens["input_ids"].shape == (2, 16)
    said = [words[i] for i in tokens["input_ids"][0].tolist() if words[i] not in ("<pad>", "<eos>", "<bos>")]
    assert "".join(said) == "left▁lung"


def test_a_damaged_tokenizer_and_one_that_needs_a_package_are_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.opened("siglip", root, monkeypatch)
    place = edited(root / "siglip", tmp_path / "siglip")
    settings = place / "tokenizer_config.json"
    plain = json.loads(settings.read_text(encoding="utf-8"))
    if importlib.util.find_spec("sentencepiece") is None:
        settings.write_text(json.dumps({**plain, "tokenizer_class": "SiglipTokenizer"}), encoding="utf-8")
        error = refused(encoder="siglip", path=str(place))
        assert "SentencePiece" in error.found
        assert "sentencepiece" in error.remedy
        settings.write_text(json.dumps(plain), encoding="utf-8")
    (place / "tokenizer.json").write_text("{}", encoding="utf-8")
    error = refused(encoder="siglip", path=str(place))
    assert error.what == "the tokenizer cannot be opened"
    assert error.where == str(place)
