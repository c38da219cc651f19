"""Our Mllama equals the stock model on the stock processor's own output: ids, pixels, tiles, logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MllamaForConditionalGeneration
from transformers.models.mllama.modeling_mllama import _prepare_cross_attention_mask

import models
import models_mllama
from sightline.data.chat import Chat
from sightline.errors import DataError, ModelError
from sightline.images.seen import Seen
from sightline.models import checkpoint, features, pairpass, trainable
from sightline.models.families import mllama
from sightline.models.family import Bundle
from sightline.settings import Full, Lora, Plan
from sightline.types import Message

SIZES = [(28, 28), (40, 33), (19, 90)]
GRIDS = [(1, 1), (2, 2), (1, 4)]
ASKED = "Is there fluid on the left side of the chest?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models_mllama.write(tmp_path_factory.mktemp("mllama"))


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return checkpoint.compose(models_mllama.section(folder), 0)


@pytest.fixture(scope="module")
def stock(folder: Path) -> MllamaForConditionalGeneration:
    return MllamaForConditionalGeneration.from_pretrained(folder).eval()


def pictures(*numbers: int) -> list[np.ndarray]:
    return [
        np.random.default_rng(i).integers(0, 256, (*SIZES[i], 3), dtype=np.uint8) for i in numbers
    ]  # fmt: skip


def talk(order: str, answer: str = "Yes, a little") -> list[Message]:
    """`i` is an image, `w` are words, in one question."""
    shown = iter(range(order.count("i")))
    parts = tuple(next(shown) if letter == "i" else ASKED for letter in order)
    return [Message(role="user", parts=parts), Message(role="assistant", parts=(answer,))]


def processed(
    folder: Path, rows: list[list[Message]], images: list[list[np.ndarray]], side: str = "right"
) -> dict[str, Tensor]:
    """What the stock processor makes of conversations."""
    made = models_mllama.processor(folder)
    made.tokenizer.padding_side = side
    plain = [
        [
            {"role": m.role, "content": [
                {"type": "image"} if isinstance(p, int) else {"type": "text", "text": p} for p in m.parts
            ]} for m in row
        ] for row in rows
    ]  # fmt: skip
    return dict(
        made(
            text=[made.apply_chat_template(row, date_string="26 Jul 2024") for row in plain],
            images=images if any(images) else None,
            add_special_tokens=False, padding=True, return_tensors="pt",
        )
    )  # fmt: skip


def seen(bundle: Bundle, images: list[list[np.ndarray]]) -> dict[str, Any]:
    each = [image for row in images for image in row]
    return {
        "images": [bundle.preprocess(image.astype(np.float32) / 255) for image in each],
        "grids": [bundle.preprocess.grid(*image.shape[:2]) for image in each],
    }


@pytest.mark.parametrize(
    ("orders", "shown", "side"),
    [
        (["iw"], [[1]], "right"),
        (["wiw"], [[2]], "right"),
        (["iw", "wiw"], [[2], [0]], "right"),
        (["iiw", "iwi"], [[0, 1], [2, 0]], "right"),
        (["iwiwi", "wiiwi"], [[0, 1, 2], [2, 2, 1]], "left"),
        (["w", "ww"], [[], []], "right"),
    ],
    ids=str,
)
def test_rows_equal_the_stock_model_s(
    folder: Path, bundle: Bundle, stock: Any, orders: list[str], shown: list[list[int]], side: str
) -> None:
    rows = [talk(order, answer) for order, answer in zip(orders, ("Yes, a little", "No"), strict=False)]
    images = [pictures(*each) for each in shown]
    made = processed(folder, rows, images, side)
    chat = Chat.of(bundle)
    for row, ids, mask in zip(rows, made["input_ids"], made["attention_mask"], strict=True):
        assert list(chat.encode(row).ids) == ids[mask.bool()].tolist()
    look = seen(bundle, images)
    if look["images"]:
        assert torch.equal(torch.stack(look["images"]), made["pixel_values"].flatten(0, 1))
        assert look["grids"] == [GRIDS[i] for each in shown for i in each]
    batch = {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"], **look}
    with torch.no_grad():
        wanted = stock(**made).logits
        ours = bundle.head(bundle.forward(batch, given="pixels"))
    real = made["attention_mask"].bool()
    assert float(wanted.abs().max()) > 1
    assert float((ours - wanted)[real].abs().max()) <= 1e-5


LINES = [("iw", [0]), ("w", []), ("wiwiiw", [1, 2, 0]), ("iw", [2]), ("ww", [])]


def laid_out(ids: list[Tensor], how: str) -> tuple[dict[str, Any], list[tuple[int, slice]]]:
    """Documents behind one another in one row, or each in its own, and where each stands."""
    sizes = [len(i) for i in ids]
    length = sum(sizes) + 3 if how == "packed" else max(sizes)
    if how == "packed":
        places = [(0, sum(sizes[:i])) for i in range(len(sizes))]
    else:
        places = [(i, length - n if how == "left" else 0) for i, n in enumerate(sizes)]
    shape = (places[-1][0] + 1, length)
    batch: dict[str, Any] = {
        k: torch.zeros(shape, dtype=torch.long) for k in ("input_ids", "position", "segment")
    }
    batch |= {"document": torch.full(shape, -1), "plain": how == "right"}
    spots = [(at, slice(start, start + n)) for (at, start), n in zip(places, sizes, strict=True)]
    for number, (one, spot) in enumerate(zip(ids, spots, strict=True)):
        batch["input_ids"][spot], batch["document"][spot] = one, number
        batch["position"][spot] = torch.arange(len(one))
    return batch, spots


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("how", ["packed", "right", "left"])
def test_each_document_is_what_the_stock_model_makes_of_it_alone(
    folder: Path, how: str, attention: str
) -> None:
    """Several images, one and none in one batch: the stock processor refuses it, the stock model mixes it up."""
    bundle = checkpoint.compose(models_mllama.section(folder), 0)
    bundle.model.double()
    stock = MllamaForConditionalGeneration.from_pretrained(folder).double().eval()
    alone = [processed(folder, [talk(order)], [pictures(*numbers)]) for order, numbers in LINES]
    batch, spots = laid_out([one["input_ids"][0] for one in alone], how)
    batch |= seen(bundle, [pictures(*numbers) for _, numbers in LINES])
    bundle.attend(attention)
    with torch.no_grad(), models.doubled():
        ours = bundle.head(bundle.forward(batch, given="pixels"))
        wanted = [stock(**one).logits[0] for one in alone]
    assert ours.dtype == torch.float64
    assert bool(torch.isfinite(ours).all())
    for spot, expected in zip(spots, wanted, strict=True):
        assert float((ours[spot] - expected).abs().max()) <= 1e-9


def test_features_can_be_kept_on_both_sides_of_the_connector(
    folder: Path, bundle: Bundle, stock: Any
) -> None:
    made = processed(folder, [talk("iiiw")], [pictures(0, 1, 2)])
    look = seen(bundle, [pictures(0, 1, 2)])
    with torch.no_grad():
        tower = stock.model.vision_model(
            **{k: made[k] for k in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}
        ).last_hidden_state
        wanted = stock.model.multi_modal_projector(tower)[0].flatten(1, 2)
        states = bundle.family.encode_images(bundle.model, look["images"], look["grids"])
        tokens = bundle.tokens(states, look["grids"], "features")
    assert [tuple(f.shape) for f in states] == [(bundle.tokens_per_image, bundle.feature_width)] * 3
    assert (bundle.tokens_per_image, bundle.feature_width) == (4 * 5, 48)
    assert [tuple(t.shape) for t in tokens] == [(20, 32)] * 3
    assert float(wanted.std()) > 0.3
    assert float((torch.stack(tokens) - wanted).abs().max()) <= 1e-5


def test_kept_features_do_not_depend_on_what_fills_their_batch_up(bundle: Bundle) -> None:
    """Images of every shape go through the tower together: their tensors are alike, their grids are not."""
    look = seen(bundle, [pictures(0, 1, 2)])
    with torch.no_grad():
        wanted = bundle.family.encode_images(bundle.model, look["images"], look["grids"])
    several = [Seen(i, g) for i, g in zip(look["images"], look["grids"], strict=True)]
    made = features.encode(bundle, several)
    for one, single, expected in zip(made, several, wanted, strict=True):
        assert torch.equal(features.encode(bundle, [single])[0], one)
        assert float((one - expected).abs().max()) <= 1e-5
    assert bundle.fixed


@pytest.mark.parametrize(
    "size", [*SIZES, (1, 1), (28, 29), (29, 28), (200, 30), (500, 500), (13, 400), (60, 31), (84, 28)]
)
def test_an_image_is_prepared_as_the_stock_processor_does(
    folder: Path, bundle: Bundle, size: tuple[int, int]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    wanted = models_mllama.processor(folder).image_processor(
        images=image, return_tensors="pt", input_data_format="channels_last"
    )
    rows, columns = bundle.preprocess.grid(*size)
    assert torch.equal(bundle.preprocess(image.astype(np.float32) / 255), wanted["pixel_values"][0, 0])
    assert wanted["num_tiles"] == [[rows * columns]]
    ratios = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]
    assert wanted["aspect_ratio_ids"].tolist() == [[ratios.index((rows, columns)) + 1]]


def test_the_key_of_the_preprocessing_follows_its_settings(folder: Path, bundle: Bundle) -> None:
    again = mllama.Tiles(models_mllama.processor(folder).image_processor)
    assert bundle.preprocess.key() == again.key()
    again.processor.image_mean = [0.1, 0.2, 0.3]
    assert bundle.preprocess.key() != again.key()


PICTURE = [  # of the file's head, with images i j k of 1, 4 and 2 real tiles; the last column: behind an image
    "oooo .... .... 0",  # p
    "1... .... .... 1",  # i
    "1... .... .... 1",  # p
    "1... .... .... 1",  # a
    "1... .... .... 1",  # b
    ".... oooo oooo 0",  # q
    ".... 1111 .... 1",  # j
    ".... 1111 11.. 1",  # k
    ".... 1111 11.. 1",  # r
    ".... .... .... 0",  # s
    ".... .... .... 0",  # padding
]


def test_who_sees_which_tile() -> None:
    places = torch.tensor([[0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0]]).bool()
    document = torch.tensor([[0] * 5 + [1] * 4 + [2, -1]])
    real = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    allowed, looks = mllama.sights(places, document, real)
    drawn = [
        " ".join("".join(("1" if behind else "o") if tile else "." for tile in each) for each in row)
        + f" {int(behind)}"
        for row, behind in zip(allowed[0].tolist(), looks[0].tolist(), strict=True)
    ]
    assert drawn == PICTURE


def test_an_image_further_on_takes_the_place_of_the_one_before() -> None:
    """The stock processor's rule, also across documents that end and begin with an image."""
    places = torch.tensor([[1, 0, 1, 1, 1]]).bool()
    allowed, _ = mllama.sights(places, torch.tensor([[0, 0, 0, 1, 1]]), torch.ones(4, 1).bool())
    assert allowed[0, :, :, 0].int().tolist() == [
        [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]
    ]  # fmt: skip


def test_the_added_mask_is_the_stock_one(folder: Path, bundle: Bundle) -> None:
    made = processed(folder, [talk("wiwiiw")], [pictures(1, 2, 0)])
    wanted, rows = _prepare_cross_attention_mask(made["cross_attention_mask"], 5, torch.float32)
    bundle.attend("eager")
    tokens = [torch.zeros(20, 32)] * 3
    told = mllama.tell(bundle, made, tokens, [GRIDS[i] for i in (1, 2, 0)], torch.float32)
    bundle.attend("sdpa")
    assert torch.equal(told["cross_attention_mask"][..., 1:], wanted)
    assert bool((told["cross_attention_mask"][..., 0] == torch.finfo(torch.float32).min).all())
    assert torch.equal(told["full_text_row_masked_out_mask"], rows)
    assert tuple(told["cross_attention_states"].shape) == (1, 61, 32)


def test_flex_attention_s_mask_says_the_same() -> None:
    allowed = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    made = pairpass.mask(allowed, "flex_attention", torch.float32)
    rows, columns = torch.arange(7)[:, None].expand(7, 9), torch.arange(9).expand(7, 9)
    for b in range(2):
        assert torch.equal(made.mask_mod(torch.tensor(b), torch.tensor(0), rows, columns), allowed[b])


def test_text_is_opened_as_the_stock_template_opens_it_but_with_one_date(bundle: Bundle) -> None:
    chat = Chat.of(bundle)
    shown, text = (bundle.tokenizer.decode(chat.encode(talk(order)).ids) for order in ("iw", "w"))
    assert shown.startswith("<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<|image|>Is there")
    assert "<|start_header_id|>system<|end_header_id|>\n\nToday: 26 Jul 2024\n\n<|eot_id|>" in text


def test_a_system_text_beside_an_image_is_refused_in_words(bundle: Bundle) -> None:
    row = [Message(role="system", parts=("Be brief.",)), *talk("iw")]
    with pytest.raises(DataError, match="template refuses this conversation") as caught:
        Chat.of(bundle).encode(row)
    assert caught.value.found == "no system text with images"


def test_the_image_token_is_never_learned(bundle: Bundle) -> None:
    """It stands behind the last row of the head."""
    row = [Message(role="user", parts=("Is",)), Message(role="assistant", parts=("Yes", 0, "No"))]
    made = Chat.of(bundle).encode(row)
    learned = [i for i, flag in zip(made.ids, made.learned, strict=True) if flag]
    assert bundle.tokenizer.convert_ids_to_tokens(learned) == ["Yes", "No", "<|eot_id|>"]
    assert bundle.image_token == bundle.model.lm_head.out_features
    assert bundle.image_token in made.ids


def test_the_image_token_keeps_its_embedding(bundle: Bundle) -> None:
    ids = torch.tensor([[9, bundle.image_token, 7]])
    assert torch.equal(bundle.embed(ids, [torch.ones(20, 32)]), bundle.model.get_input_embeddings()(ids))
    with pytest.raises(ModelError) as caught:
        bundle.embed(ids, [torch.ones(20, 32)] * 2)
    assert (caught.value.found, caught.value.expected) == ("1 places", "2 images with 2 tokens together")


def test_lora_reaches_the_layers_of_both_kinds(folder: Path) -> None:
    made = checkpoint.compose(models_mllama.section(folder), 0)
    asked = {"language": Plan(lora=Lora(r=2, lr=1e-3)), "connector": Plan(full=Full(lr=1e-3))}
    trained = trainable.apply(made, asked, 0)
    found = {n for n, p in trained.named_parameters() if p.requires_grad and ".lora_A." in n}
    projections = {f"{kind}.{p}_proj" for kind in ("self_attn", "cross_attn") for p in "qkvo"}
    assert {p for p in projections if any(p in n for n in found)} == projections
    assert len(found) == 3 * (4 + 3)
    full = [tuple(p.shape) for n, p in trained.named_parameters() if p.requires_grad and ".lora_" not in n]
    assert full == [(32, 48), (32,)]


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"image": {"max_image_tiles": 2}}, "max_image_tiles of the image processor"),
        ({"image": {"size": {"height": 14, "width": 14}}}, "size of the image processor"),
        ({"supported_aspect_ratios": [[1, 1], [2, 2]]}, "supported_aspect_ratios"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], where: str) -> None:
    place = models_mllama.write(tmp_path, **change)
    with pytest.raises(ModelError, match="do not fit together") as caught:
        checkpoint.compose(models_mllama.section(place), 0)
    assert caught.value.where == where


def test_no_path_another_model_and_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="opened, not composed"):
        checkpoint.compose({"family": "mllama", "path": None}, 0)
    with pytest.raises(ModelError, match="is no Mllama"):
        checkpoint.compose(models_mllama.section(models.write_language(tmp_path / "llama")), 0)
    models.copy_without(folder, tmp_path, "layers.1.cross_attn.q_proj.weight")
    with pytest.raises(ModelError, match="not a complete Mllama") as caught:
        checkpoint.compose(models_mllama.section(tmp_path), 0)
    assert "layers.1.cross_attn.q_proj.weight" in str(caught.value.where)
