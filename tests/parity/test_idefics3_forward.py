"""Our Idefics3 and SmolVLM2 equal the stock models on the stock processors' own output: ids, pixels, logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoImageProcessor,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.smolvlm import processing_smolvlm

import models
import models_idefics3
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.models import checkpoint, trainable
from sightline.models.families.idefics3 import Tiles
from sightline.models.family import Bundle
from sightline.settings import Full, Lora, Plan
from sightline.types import Message

SIZES = [(28, 28), (40, 93), (90, 19)]  # height and width; 3 x 3, 2 x 3 and 3 x 1 tiles
ASKED = "Is there fluid on the left side of the chest?"


@pytest.fixture(scope="module", params=["idefics3", "smolvlm"])
def name(request: Any) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models_idefics3.write(tmp_path_factory.mktemp(name), small=name == "smolvlm")


@pytest.fixture(scope="module")
def bundle(name: str, folder: Path) -> Bundle:
    return checkpoint.compose(models_idefics3.section(folder, small=name == "smolvlm"), 0)


def stock(folder: Path) -> Any:
    kinds = {"idefics3": Idefics3ForConditionalGeneration, "smolvlm": SmolVLMForConditionalGeneration}
    kind: Any = kinds[json.loads((folder / "config.json").read_text())["model_type"]]
    return kind.from_pretrained(folder).eval()


def processor(folder: Path) -> Any:
    """The stock processor of such a folder."""
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    images = AutoImageProcessor.from_pretrained(folder)
    told = {"image_seq_len": 4, "chat_template": models_idefics3.TEMPLATE}
    if type(images).__name__.startswith("Idefics3"):
        return Idefics3Processor(images, words, **told)
    with pytest.MonkeyPatch.context() as patch:  # it asks for a package that writes numbers of films' frames
        patch.setattr(processing_smolvlm, "num2words", str)
        return SmolVLMProcessor(images, words, SmolVLMVideoProcessor(), **told)


def pictures(count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(4)
    return [draw.integers(0, 256, (*SIZES[i], 3), dtype=np.uint8) for i in range(count)]


def talk(images: int, answer: str, *, first: bool = True) -> list[Message]:
    """Images in front of, between and behind the words of one question; with `first`, one opens it."""
    shown: tuple[int | str, ...] = (*range(min(images, 1)), ASKED, *range(1, images))
    if not first and images:
        shown = (ASKED, *range(images), "No?")
    return [Message(role="user", parts=shown), Message(role="assistant", parts=(answer,))]


def plain(row: list[Message]) -> list[dict[str, Any]]:
    """A conversation as the stock template takes it."""
    return [
        {"role": m.role, "content": [
            {"type": "image"} if isinstance(p, int) else {"type": "text", "text": p} for p in m.parts
        ]} for m in row
    ]  # fmt: skip


def processed(
    folder: Path, rows: list[list[Message]], images: list[list[np.ndarray]], side: str = "right"
) -> dict[str, Tensor]:
    """What the stock processor makes of conversations."""
    made = processor(folder)
    made.tokenizer.padding_side = side
    out = made(
        text=[made.apply_chat_template(plain(row)) for row in rows], images=images if any(images) else None,
        add_special_tokens=False, padding=True, return_tensors="pt",
    )  # fmt: skip
    return dict(out)


def seen(bundle: Bundle, images: list[list[np.ndarray]]) -> list[Tensor]:
    return [bundle.preprocess(image.astype(np.float32) / 255) for row in images for image in row]


def sizes(bundle: Bundle, images: list[np.ndarray]) -> list[tuple[int, ...]]:
    return [bundle.preprocess.grid(*image.shape[:2]) for image in images]


@pytest.mark.parametrize(
    ("images", "side", "first"),
    [
        ([1], "right", True), ([1, 2], "right", True), ([3, 1], "left", True), ([0, 0], "right", True),
        ([1, 2], "right", False), ([0, 2], "right", True),
    ],
)  # fmt: skip
def test_rows_equal_the_stock_model_s(
    folder: Path, bundle: Bundle, images: list[int], side: str, first: bool
) -> None:
    rows = [talk(n, a, first=first) for n, a in zip(images, ("Yes, a little", "No"), strict=False)]
    shown = [pictures(n) for n in images]
    made = processed(folder, rows, shown, side)
    chat = Chat.of(bundle)
    for row, of_row, ids, mask in zip(rows, shown, made["input_ids"], made["attention_mask"], strict=True):
        encoded = chat.encode(row, sizes(bundle, of_row))
        assert list(encoded.ids) == ids[mask.bool()].tolist()
        assert encoded.images == tuple(range(len(of_row)))
    pixels = seen(bundle, shown)
    for i, of_row in enumerate(shown if pixels else []):
        ours = torch.cat([*seen(bundle, [of_row]), made["pixel_values"][0, :0]])
        assert torch.equal(ours, made["pixel_values"][i, : len(ours)])
        assert not made["pixel_values"][i, len(ours) :].any()
    batch = {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"], "images": pixels}
    with torch.no_grad():
        wanted = stock(folder)(**made).logits
        found = bundle.head(bundle.forward(batch, given="pixels"))
    real = made["attention_mask"].bool()
    assert float(wanted.abs().max()) > 1
    assert float((found - wanted)[real].abs().max()) <= 1e-5


def test_features_can_be_kept_on_both_sides_of_the_connector(folder: Path, bundle: Bundle) -> None:
    pixels, grids = seen(bundle, [pictures(3)]), sizes(bundle, pictures(3))
    assert grids == [(3, 3), (2, 3), (3, 1)]
    with torch.no_grad():
        wanted = stock(folder).get_image_features(torch.cat(pixels)[None]).pooler_output
        features = bundle.family.encode_images(bundle.model, pixels, grids)
        tokens = bundle.tokens(features, grids, "features")
    assert [tuple(f.shape) for f in features] == [(10, 16, 16), (7, 16, 16), (4, 16, 16)]
    assert bundle.feature_width == 4 * 16  # of the four patches of a token
    assert [tuple(t.shape) for t in tokens] == [(40, 32), (28, 32), (16, 32)]
    assert (bundle.tokens_per_image, bundle.fixed) == (40, False)
    assert float(wanted.std()) > 0.3
    assert float((torch.cat(tokens) - wanted.flatten(0, 1)).abs().max()) <= 1e-6


@pytest.mark.parametrize("longest", [84, 90, 20])
def test_the_grid_follows_from_the_size_alone(folder: Path, longest: int) -> None:
    made = AutoImageProcessor.from_pretrained(folder)
    made.size = type(made.size)(longest_edge=longest)
    tiles, draw = Tiles(made), np.random.default_rng(2)
    found = set()
    for height, width in [(28, 28), (1, 90), (90, 1), *draw.integers(1, 200, (60, 2)).tolist()]:
        image = np.full((height, width, 3), 7, np.uint8)
        wanted = made(
            images=image, return_tensors="pt", return_row_col_info=True, input_data_format="channels_last"
        )
        grid = tiles.grid(height, width)
        assert grid == (wanted["rows"][0][0], wanted["cols"][0][0])
        assert len(wanted["pixel_values"][0]) == grid[0] * grid[1] + 1
        found.add(grid)
    assert found == {(0, 0)} if longest == 20 else len(found) > 4


def test_one_image_is_written_with_its_marks(name: str, bundle: Bundle) -> None:
    back = bundle.tokenizer.convert_ids_to_tokens
    around, image = "<fake_token_around_image>", ["<image>"] * 4
    marks = {
        mark: [mark] if name == "smolvlm" else list(mark)
        for mark in ("<row_1_col_1>", "<row_2_col_1>", "<global-img>")
    }
    whole = [around, *marks["<global-img>"], *image, around]
    assert back(bundle.words((0, 0))) == back(bundle.words(())) == whole
    assert back(bundle.words((2, 1))) == [
        around, *marks["<row_1_col_1>"], *image, "Ċ", around, *marks["<row_2_col_1>"], *image, "ĊĊ", *whole
    ]  # fmt: skip


def test_a_blank_opens_texts_and_not_images(folder: Path, bundle: Bundle) -> None:
    chat, back = Chat.of(bundle), bundle.tokenizer.convert_ids_to_tokens
    for row in (talk(0, "Yes"), talk(1, "Yes")):
        grids = [(0, 0)]
        whole, prompt = chat.encode(row, grids), chat.encode(row[:1], grids, prompt=True)
        assert whole.ids[: len(prompt.ids)] == prompt.ids
        assert back(prompt.ids)[-1] == ":"
        assert back(whole.ids[len(prompt.ids) :]) == ["ĠYes", "<end_of_utterance>", "Ċ"]
        assert whole.learned[len(prompt.ids) :] == (True, True, False)
        assert not any(whole.learned[: len(prompt.ids)])
        wanted = processor(folder).apply_chat_template(plain(row[:1]), add_generation_prompt=True)
        shown = bundle.tokenizer.decode(bundle.words((0, 0)))
        assert bundle.tokenizer.decode(prompt.ids) == wanted.replace("<image>", shown)
    texts = back(chat.encode(talk(0, "Yes")).ids)
    assert texts[texts.index(":") : texts.index(":") + 2] == [":", "ĠIs"]
    shown = back(chat.encode(talk(1, "Yes"), [(0, 0)]).ids)
    assert shown[shown.index(":") : shown.index(":") + 2] == [":", "<fake_token_around_image>"]
    assert "ĠIs" not in shown


def test_the_key_of_the_preprocessing_follows_its_settings(folder: Path, bundle: Bundle) -> None:
    again = Tiles(AutoImageProcessor.from_pretrained(folder))
    assert bundle.preprocess.key() == again.key()
    again.processor.image_mean = [0.1, 0.2, 0.3]
    assert bundle.preprocess.key() != again.key()


def test_without_tiles_all_images_are_alike(tmp_path: Path) -> None:
    place = models_idefics3.write(tmp_path, image={"do_image_splitting": False})
    made = checkpoint.compose(models_idefics3.section(place), 0)
    assert (made.fixed, made.tokens_per_image) == (True, 4)
    shown = [pictures(1), pictures(2)]
    inputs = processed(place, [talk(1, "Yes"), talk(2, "No")], shown)
    assert inputs["pixel_values"].shape == (2, 2, 3, 28, 28)
    batch = {
        "input_ids": inputs["input_ids"],
        "attention_mask": inputs["attention_mask"],
        "images": seen(made, shown),
    }
    with torch.no_grad():
        wanted = stock(place)(**inputs).logits
        ours = made.head(made.forward(batch, given="pixels"))
    assert float((ours - wanted)[inputs["attention_mask"].bool()].abs().max()) <= 1e-5


def test_a_tile_of_zeros_is_part_of_its_picture(tmp_path: Path) -> None:
    """The stock model takes it for padding, and is then short of tokens."""
    place = models_idefics3.write(tmp_path, image={"do_normalize": False})
    made = checkpoint.compose(models_idefics3.section(place), 0)
    black = np.zeros((28, 56, 3), np.uint8)
    black[:, 28:] = 200
    inputs = processed(place, [talk(1, "Yes")], [[black]])
    with pytest.raises((ValueError, RuntimeError)):
        stock(place)(**inputs)
    pixels = seen(made, [[black]])
    assert not pixels[0][0].any()
    with torch.no_grad():
        (tokens,) = made.tokens(pixels, [(2, 3)], "pixels")
        (alone,) = made.tokens([pixels[0][:1]], [(0, 0)], "pixels")
    assert made.preprocess.grid(28, 56) == (2, 3)
    assert len(tokens) == 4 * len(pixels[0]) == 28
    assert float((tokens[:4] - alone).abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"image": {"do_resize": False}}, "do_resize of the image processor"),
        ({"image": {"size": {"height": 84, "width": 84}}}, "size of the image processor"),
        ({"image": {"max_image_size": {"longest_edge": 21}}}, "max_image_size of the image processor"),
        ({"image_token_id": 7}, "image_token_id"),
    ],
)
def test_settings_that_are_not_done_here_are_refused(
    tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    place = models_idefics3.write(tmp_path, **change)
    with pytest.raises(ModelError, match="set in a way that is not supported") as caught:
        checkpoint.compose(models_idefics3.section(place), 0)
    assert caught.value.where == where


def test_no_path_another_model_and_missing_weights_are_refused(
    name: str, folder: Path, tmp_path: Path
) -> None:
    small = name == "smolvlm"
    with pytest.raises(ModelError, match="opened, not composed"):
        checkpoint.compose({"family": name, "path": None}, 0)
    with pytest.raises(ModelError, match="is no ") as caught:
        checkpoint.compose(models_idefics3.section(folder, small=not small), 0)
    assert caught.value.found == name
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    lost = "model.connector.modality_projection.proj.weight"
    save_file(
        {k: v for k, v in weights.items() if k != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match="not a complete") as caught:
        checkpoint.compose(models_idefics3.section(tmp_path, small=small), 0)
    assert lost in str(caught.value.where)


def test_the_template_of_older_checkpoints_is_found_and_none_is_refused(folder: Path, tmp_path: Path) -> None:
    small = "smolvlm" in (folder / "config.json").read_text()
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        checkpoint.compose(models_idefics3.section(tmp_path, small=small), 0)
    older = json.dumps({"chat_template": models_idefics3.TEMPLATE})
    (tmp_path / "chat_template.json").write_text(older, encoding="utf-8")
    made = checkpoint.compose(models_idefics3.section(tmp_path, small=small), 0)
    row = made.tokenizer.decode(Chat.of(made).encode(talk(0, "Yes")).ids)
    assert row == f"<|im_start|>User: {ASKED}<end_of_utterance>\nAssistant: Yes<end_of_utterance>\n"


def test_a_trained_model_is_saved_and_opened_again(name: str, folder: Path, tmp_path: Path) -> None:
    made = checkpoint.compose(models_idefics3.section(folder, small=name == "smolvlm"), 0)
    plans = {"connector": Plan(full=Full(lr=1e-3)), "language": Plan(lora=Lora(r=4, lr=1e-3))}
    trained = trainable.apply(made, plans, 0)
    models.stir(trained.parameters(), seed=1)
    rows = [r.__dict__ for r in trainable.table(made, plans)]
    assert [(r["how"], r["trainable"]) for r in rows if r["part"] == "connector"] == [("full", 64 * 32)]
    shown = [pictures(1)]
    batch = {
        "input_ids": processed(folder, [talk(1, "Yes")], shown)["input_ids"],
        "images": seen(made, shown),
    }
    with torch.no_grad():
        wanted = made.head(made.forward(batch, given="pixels"))
        with trained.disable_adapter():
            before = made.head(made.forward(batch, given="pixels"))
    checkpoint.save(tmp_path / "m", made, trained, parent=None, trained={}, home=tmp_path / "m")
    opened = checkpoint.load(tmp_path / "m")
    with torch.no_grad():
        found = opened.head(opened.forward(batch, given="pixels"))
    assert float((wanted - before).abs().max()) > 0.1
    assert float((found - wanted).abs().max()) <= 1e-4
    assert Chat.of(opened).encode(talk(0, "Yes")) == Chat.of(made).encode(talk(0, "Yes"))
