"""Our Gemma 3 equals the stock model on the stock processor's own output: ids, pixels, masks, logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3ForConditionalGeneration

import models
import models_gemma3
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.losses.logps import token_logps
from sightline.models import checkpoint, trainable
from sightline.models.families import gemma3
from sightline.models.family import Bundle
from sightline.settings import Full, Lora, Plan
from sightline.types import Message

SIZES = [(28, 28), (40, 33), (19, 90)]
ASKED = "Is there fluid on the left side of the chest?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models_gemma3.write(tmp_path_factory.mktemp("gemma3"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return checkpoint.compose(models_gemma3.section(folder), 0)


@pytest.fixture(scope="module")
def stock(folder: Path) -> Gemma3ForConditionalGeneration:
    return Gemma3ForConditionalGeneration.from_pretrained(folder).eval()


def pictures(count: int) -> list[np.ndarray]:
    draw = np.random.default_rng(4)
    return [draw.integers(0, 256, (*SIZES[i], 3), dtype=np.uint8) for i in range(count)]


def talk(images: int, answer: str) -> list[Message]:
    """Images in front of, between and behind the words of one question."""
    shown = (0, ASKED, *range(1, images)) if images else (ASKED,)
    return [Message(role="user", parts=shown), Message(role="assistant", parts=(answer,))]


def processed(
    folder: Path, rows: list[list[Message]], images: list[list[np.ndarray]], side: str = "right"
) -> dict[str, Tensor]:
    """What the stock processor makes of conversations."""
    made = models_gemma3.processor(folder)
    made.tokenizer.padding_side = side
    plain = [
        [
            {"role": m.role, "content": [
                {"type": "image"} if isinstance(p, int) else {"type": "text", "text": p} for p in m.parts
            ]} for m in row
        ] for row in rows
    ]  # fmt: skip
    out = made(
        text=[made.apply_chat_template(row) for row in plain], images=images if any(images) else None,
        add_special_tokens=False, padding=True, return_tensors="pt",
    )  # fmt: skip
    return {k: v for k, v in out.items() if k != "num_crops"}


def seen(bundle: Bundle, images: list[list[np.ndarray]]) -> list[Tensor]:
    return [bundle.preprocess(image.astype(np.float32) / 255) for row in images for image in row]


@pytest.mark.parametrize(
    ("images", "side"),
    [([1], "right"), ([1, 2], "right"), ([3, 1], "left"), ([0, 0], "right"), ([0, 1], "right")],
)
def test_rows_equal_the_stock_model_s(
    folder: Path, bundle: Bundle, stock: Gemma3ForConditionalGeneration, images: list[int], side: str
) -> None:
    rows = [talk(n, answer) for n, answer in zip(images, ("Yes, a little", "No"), strict=False)]
    shown = [pictures(n) for n in images]
    made = processed(folder, rows, shown, side)
    chat = Chat.of(bundle)
    for row, ids, mask in zip(rows, made["input_ids"], made["attention_mask"], strict=True):
        assert list(chat.encode(row).ids) == ids[mask.bool()].tolist()
    pixels = seen(bundle, shown)
    if pixels:
        assert torch.equal(torch.stack(pixels), made["pixel_values"])
    batch = {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"], "images": pixels}
    with torch.no_grad():
        wanted = stock(**made).logits
        ours = bundle.head(bundle.forward(batch, given="pixels"))
    real = made["attention_mask"].bool()
    assert real.shape[1] > 5 * models_gemma3.WINDOW
    assert float(wanted.abs().max()) > 1
    assert float((ours - wanted)[real].abs().max()) <= 1e-5


def test_features_can_be_kept_on_both_sides_of_the_connector(
    bundle: Bundle, stock: Gemma3ForConditionalGeneration
) -> None:
    pixels = seen(bundle, [pictures(3)])
    with torch.no_grad():
        wanted = stock.get_image_features(torch.stack(pixels)).pooler_output
        features = bundle.family.encode_images(bundle.model, pixels, [()] * 3)
        tokens = bundle.tokens(features, [()] * 3, "features")
    assert [tuple(f.shape) for f in features] == [(bundle.tokens_per_image, bundle.feature_width)] * 3
    assert (bundle.tokens_per_image, bundle.feature_width) == (4, 16)
    assert [tuple(t.shape) for t in tokens] == [(4, 32)] * 3
    assert float(wanted.std()) > 0.3
    assert float((torch.stack(tokens) - wanted).abs().max()) <= 1e-6


@pytest.mark.parametrize("size", SIZES)
def test_an_image_is_prepared_as_the_stock_processor_does(
    folder: Path, bundle: Bundle, size: tuple[int, int]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = models_gemma3.processor(folder).image_processor(images=image, return_tensors="pt")
    assert torch.equal(bundle.preprocess(image.astype(np.float32) / 255), wanted["pixel_values"][0])
    assert bundle.preprocess.grid(*size) == ()
    assert bundle.fixed


def test_the_key_of_the_preprocessing_follows_its_settings(folder: Path, bundle: Bundle) -> None:
    again = gemma3.Square(models_gemma3.processor(folder).image_processor)
    assert bundle.preprocess.key() == again.key()
    again.processor.image_mean = [0.1, 0.2, 0.3]
    assert bundle.preprocess.key() != again.key()


def test_one_image_is_written_with_its_marks(bundle: Bundle) -> None:
    assert bundle.tokenizer.convert_ids_to_tokens(bundle.words(())) == [
        "<start_of_image>", *["<image_soft_token>"] * 4, "<end_of_image>"
    ]  # fmt: skip
    row = [Message(role="user", parts=(0, 1, "Is")), Message(role="assistant", parts=("No",))]
    words = bundle.tokenizer.convert_ids_to_tokens(Chat.of(bundle).encode(row).ids)
    assert [w for w in words if "Ċ" in w] == ["ĊĊĊ", "ĊĊĊĊ", *["Ċ"] * 5]


def told(bundle: Bundle, attention: str = "sdpa") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The row of the file's picture, then another document that begins with an image, then padding; window 3."""
    i, image = 9, bundle.image_token
    batch: dict[str, Any] = {
        "input_ids": torch.tensor([[i, image, image, image, i, i, i, i, i, image, image, i, 0]]),
        "document": torch.tensor([[0] * 9 + [1] * 3 + [-1]]),
        "segment": torch.tensor([[0, 0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 0, 0]]),
        "position": torch.tensor([[0, 1, 2, 3, 4, 5, 6, 5, 6, 0, 1, 2, 0]]),
        "plain": False,
    }
    language = bundle.family.language(bundle.model)
    before = language.config._attn_implementation, language.config.sliding_window
    language.config._attn_implementation, language.config.sliding_window = attention, 3
    try:
        out = gemma3.tell(bundle, batch, [torch.zeros(3, 32), torch.zeros(2, 32)], [(), ()], torch.float32)
    finally:
        language.config._attn_implementation, language.config.sliding_window = before
    return out, batch


PICTURE = [  # of the file's head, with the second document j j q and a padding
    "1............",
    "1111.........",
    "1111.........",
    "f111.........",
    "ff111........",
    "fff111.......",
    "ffff111......",
    "fff11..1.....",
    "ffff1..11....",
    ".........11..",
    ".........11..",
    ".........111.",
    "............1",
]


def test_who_sees_whom(bundle: Bundle) -> None:
    out, batch = told(bundle)
    masks = out["attention_mask"]
    drawn = [
        "".join("1" if near else "f" if whole else "." for whole, near in zip(*rows, strict=True))
        for rows in zip(masks["full_attention"][0, 0], masks["sliding_attention"][0, 0], strict=True)
    ]
    assert drawn == PICTURE
    assert not (masks["sliding_attention"] & ~masks["full_attention"]).any()
    assert torch.equal(out["position_ids"], batch["position"])


def test_images_side_by_side_in_two_documents_stay_apart() -> None:
    places = torch.tensor([[True, True, True, False, True]])
    document = torch.tensor([[0, 0, 1, 1, 1]])
    assert gemma3.blocks_of_images(places, document).tolist() == [[0, 0, 1, -1, 2]]


def test_flex_attention_s_masks_say_the_same(bundle: Bundle) -> None:
    dense, flex = told(bundle)[0]["attention_mask"], told(bundle, "flex_attention")[0]["attention_mask"]
    grid = torch.arange(13)
    for kind in ("full_attention", "sliding_attention"):
        made = flex[kind].mask_mod(
            torch.tensor(0), torch.tensor(0), grid[:, None].expand(13, 13), grid.expand(13, 13)
        )
        assert torch.equal(made, dense[kind][0, 0])


def test_eager_attention_gives_the_same(folder: Path, bundle: Bundle) -> None:
    shown = [pictures(1), pictures(2)]
    made = processed(folder, [talk(1, "Yes, a little"), talk(2, "No")], shown)
    batch = {
        "input_ids": made["input_ids"],
        "attention_mask": made["attention_mask"],
        "images": seen(bundle, shown),
    }
    with torch.no_grad():
        one = bundle.forward(batch, given="pixels")
        bundle.attend("eager")
        other = bundle.forward(batch, given="pixels")
        bundle.attend("sdpa")
    assert float((one - other)[made["attention_mask"].bool()].abs().max()) <= 1e-5


def test_soft_capping_is_that_of_the_text_model(tmp_path: Path) -> None:
    place = models_gemma3.write(tmp_path, final_logit_softcapping=2.0)
    made = checkpoint.compose(models_gemma3.section(place), 0)
    text = Gemma3ForCausalLM(made.model.config.text_config).eval()
    text.model.load_state_dict(made.model.model.language_model.state_dict())
    ids = torch.tensor([[9, 40, 50, 60, 70, 41, 42, 43, 44, 45]])
    with torch.no_grad():
        wanted = text(ids).logits
        states = made.forward({"input_ids": ids, "images": []}, given="pixels")
        ours = made.head(states)
        logps = token_logps(states, ids, made.head)
    assert 1.5 < float(wanted.abs().max()) <= 2
    assert float((ours - wanted).abs().max()) <= 1e-5
    right = wanted[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
    assert float((logps[0, 1:] - right).abs().max()) <= 1e-5


def test_a_full_head_stays_a_plain_matrix(bundle: Bundle) -> None:
    assert bundle.head is bundle.model.lm_head


def test_training_the_tower_reaches_its_weights(
    bundle: Bundle, stock: Gemma3ForConditionalGeneration
) -> None:
    """Pooling first and repeating later changes no gradient."""
    pixels, weights = seen(bundle, [pictures(2)]), "vision_tower.embeddings.patch_embedding.weight"
    sums = []
    for model, tokens in (
        (stock.model, lambda m: m.get_image_features(torch.stack(pixels)).pooler_output),
        (bundle.model.model, lambda m: torch.stack(gemma3.connect(
            bundle.model, gemma3.encode_images(bundle.model, pixels, [(), ()]), [(), ()]))),
    ):  # fmt: skip
        parameter = model.get_parameter(weights).requires_grad_()
        (sums_of,) = torch.autograd.grad(tokens(model).square().sum(), parameter)
        sums.append(sums_of)
    torch.testing.assert_close(sums[1], sums[0], rtol=1e-4, atol=1e-4 * float(sums[0].abs().max()))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"image": {"do_pan_and_scan": True}}, "pan and scan"),
        ({"image": {"size": {"height": 14, "width": 14}}}, "size of the image processor"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_settings_that_are_not_done_here_are_refused(
    tmp_path: Path, change: dict[str, Any], where: str
) -> None:
    place = models_gemma3.write(tmp_path, **change)
    with pytest.raises(ModelError, match="set in a way that is not supported") as caught:
        checkpoint.compose(models_gemma3.section(place), 0)
    assert caught.value.where == where


def test_no_path_another_model_and_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="opened, not composed"):
        checkpoint.compose({"family": "gemma3", "path": None}, 0)
    with pytest.raises(ModelError, match="no Gemma 3 with images"):
        checkpoint.compose(models_gemma3.section(models.write_language(tmp_path / "llama")), 0)
    models.copy_without(folder, tmp_path, "layers.1.self_attn.q_proj.weight")
    with pytest.raises(ModelError, match="not a complete Gemma 3") as caught:
        checkpoint.compose(models_gemma3.section(tmp_path), 0)
    assert "layers.1.self_attn.q_proj.weight" in str(caught.value.where)


def test_a_checkpoint_without_a_chat_template_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        checkpoint.compose(models_gemma3.section(tmp_path), 0)


def test_a_trained_model_is_saved_and_opened_again(folder: Path, tmp_path: Path) -> None:
    """The connector's weight is no layer of its own, and input and output words are tied."""
    made = checkpoint.compose(models_gemma3.section(folder), 0)
    assert made.model.lm_head.weight is made.model.get_input_embeddings().weight
    plans = {"connector": Plan(full=Full(lr=1e-3)), "language": Plan(lora=Lora(r=4, lr=1e-3))}
    trained = trainable.apply(made, plans, 0)
    models.stir(trained.parameters(), seed=1)
    rows = [r.__dict__ for r in trainable.table(made, plans)]
    assert [(r["part"], r["how"], r["trainable"]) for r in rows if r["part"] == "connector"] == [
        ("connector", "full", 16 + 16 * 32)
    ]
    shown = [pictures(1)]
    inputs = processed(folder, [talk(1, "Yes")], shown)
    batch = {"input_ids": inputs["input_ids"], "images": seen(made, shown)}
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
