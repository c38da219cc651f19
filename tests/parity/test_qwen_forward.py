"""Our split forward of Qwen2.5-VL and Qwen3-VL equals the stock model's on the stock processor's output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

import models
import models_qwen
from sightline.data.chat import Chat
from sightline.data.collate import Plan, collate
from sightline.data.line import Row, alone, shared
from sightline.errors import ImageError, ModelError
from sightline.images.seen import Seen
from sightline.models import checkpoint, trainable
from sightline.models.families import qwen2_5_vl
from sightline.models.family import Bundle
from sightline.settings import Full, Lora
from sightline.settings import Plan as Part
from sightline.types import ImageRef, Message, View

Size = tuple[int, int]  # height, width
FAMILIES = {"qwen2_5_vl": models_qwen.qwen2_5_vl, "qwen3_vl": models_qwen.qwen3_vl}
STOCK = {
    "qwen2_5_vl": (Qwen2_5_VLProcessor, Qwen2VLVideoProcessor),
    "qwen3_vl": (Qwen3VLProcessor, Qwen3VLVideoProcessor),
}
GRIDS = {
    (28, 28): (1, 8, 8),    # 3.5 tokens round to 4
    (40, 24): (1, 10, 6),
    (17, 50): (1, 4, 12),
    (6, 6): (1, 4, 4),      # raised to the least number of pixels
    (200, 90): (1, 22, 10), # lowered to the most
}  # fmt: skip
IMAGE, TALL, WIDE = "<|vision_start|><|image_pad|><|vision_end|>", (40, 24), (17, 50)


@pytest.fixture(scope="module", params=list(FAMILIES))
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param) / "language")


def picture(size: Size, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def processor(made: Bundle) -> Any:
    kind, video = STOCK[made.family.name]
    stock = made.preprocess.processor  # type: ignore[attr-defined]
    return kind(image_processor=stock, tokenizer=made.tokenizer, video_processor=video())


def rows(made: Bundle, texts: Sequence[str], shown: Sequence[Size], side: str = "right") -> dict[str, Any]:
    """What the stock processor makes of texts with pictures."""
    images = [Image.fromarray(picture(size, seed=i)) for i, size in enumerate(shown)]
    made.tokenizer.padding_side = side
    return dict(
        processor(made)(text=list(texts), images=images or None, padding=True, return_tensors="pt").items()
    )


def ours(made: Bundle, stock: dict[str, Any], shown: Sequence[Size], given: Any = "pixels") -> Tensor:
    """Our logits for the same ids and pictures."""
    images = [made.preprocess(picture(s, i).astype(np.float32) / 255) for i, s in enumerate(shown)]
    grids = [made.preprocess.grid(*size) for size in shown]
    if given != "pixels" and images:
        images = made.family.encode_images(made.model, images, grids)
    if given == "tokens" and images:
        images = made.family.connect(made.model, images, grids)
    ids = {key: stock[key] for key in ("input_ids", "attention_mask")}
    return made.head(made.forward({**ids, "images": images, "grids": grids}, given=given))


CASES: dict[str, tuple[list[str], list[Size], str]] = {
    "one": ([f"a{IMAGE}Is there fluid?"], [TALL], "right"),
    "two sizes in a row": ([f"a{IMAGE}and{IMAGE}Is it?"], [TALL, WIDE], "right"),
    "padding right": ([f"{IMAGE}Is there fluid?", f"ab{IMAGE}c{IMAGE}"], [WIDE, TALL, (28, 28)], "right"),
    "padding left": ([f"{IMAGE}Is there fluid?", f"ab{IMAGE}c{IMAGE}"], [WIDE, TALL, (28, 28)], "left"),
    "text beside images": (["No image here", f"a{IMAGE}{IMAGE}b"], [WIDE, (28, 28)], "right"),
    "text only": (["Is there fluid?", "No"], [], "right"),
}


@pytest.mark.parametrize("case", list(CASES))
@torch.no_grad()
def test_forward_equals_the_stock_one(made: Bundle, case: str) -> None:
    texts, shown, side = CASES[case]
    stock = rows(made, texts, shown, side)
    wanted = made.model(**stock).logits
    found = ours(made, stock, shown)
    real = stock["attention_mask"].bool()
    assert bool((~real).any()) == (len(texts) == 2)
    assert float((found - wanted)[real].abs().max()) <= 1e-5
    assert float(wanted[real].std()) > 0.1
    assert torch.equal(ours(made, stock, shown, "features"), found)
    assert torch.equal(ours(made, stock, shown, "tokens"), found)


@pytest.mark.parametrize("size", list(GRIDS))
def test_patches_of_eight_bits_are_the_stock_processor_s(made: Bundle, size: Size) -> None:
    stock = rows(made, [IMAGE], [size])
    found = made.preprocess(picture(size).astype(np.float32) / 255)
    assert torch.equal(found, stock["pixel_values"])
    assert stock["image_grid_thw"].tolist() == [list(GRIDS[size])]
    assert made.preprocess.grid(*size) == GRIDS[size]
    assert made.words(GRIDS[size]) == tuple(stock["input_ids"][0].tolist())


def test_more_than_eight_bits_are_kept(made: Bundle) -> None:
    exact = picture(TALL).astype(np.float32) / 255 * 0.9
    rounded = np.rint(exact * 255).astype(np.float32) / 255
    fine, coarse = made.preprocess(exact), made.preprocess(rounded)
    step = 1 / 255 / min(made.preprocess.processor.image_std)  # type: ignore[attr-defined]
    assert 0.05 * step < float((fine - coarse).abs().max()) < 1.1 * step


def test_a_thread_of_an_image_is_refused(made: Bundle) -> None:
    with pytest.raises(ImageError, match="too long and thin"):
        made.preprocess.grid(3, 700)


def test_a_key_follows_the_settings(made: Bundle) -> None:
    its = made.preprocess.processor  # type: ignore[attr-defined]
    other = type(its)(**{**its.to_dict(), "size": {"shortest_edge": 256, "longest_edge": 2048}})
    assert made.preprocess.key() == qwen2_5_vl.Patches(its).key()
    assert made.preprocess.key() != qwen2_5_vl.Patches(other).key()


@torch.no_grad()
def test_both_halves_of_the_tower_make_the_stock_features(made: Bundle) -> None:
    shown = [TALL, WIDE]
    stock = rows(made, [IMAGE * 2], shown)
    wanted = made.model.model.get_image_features(stock["pixel_values"], stock["image_grid_thw"])  # type: ignore
    images = [made.preprocess(picture(s, i).astype(np.float32) / 255) for i, s in enumerate(shown)]
    grids = [made.preprocess.grid(*size) for size in shown]
    features = made.family.encode_images(made.model, images, grids)
    tokens = made.family.connect(made.model, features, grids)
    deep = wanted.deepstack_features if made.family.name == "qwen3_vl" else []
    whole = torch.cat([torch.cat(wanted.pooler_output), *deep], dim=-1)
    assert [len(f) for f in features] == [len(t) for t in tokens] == [15, 12]
    assert features[0].shape[1] == made.feature_width
    assert whole.shape[1] == {"qwen2_5_vl": 32, "qwen3_vl": 96}[made.family.name]
    assert float((torch.cat(tokens) - whole).abs().max()) <= 1e-6


def test_chat_writes_images_as_the_stock_processor(made: Bundle) -> None:
    messages = [Message(role="user", parts=("See ", 0, "and ", 1, "Is it?"))]
    shown = [TALL, WIDE]
    grids = [made.preprocess.grid(*size) for size in shown]
    found = Chat.of(made).encode(messages, grids, prompt=True)
    text = f"<|im_start|>user\nSee{IMAGE}and{IMAGE}Is it?<|im_end|>\n<|im_start|>assistant\n"
    assert found.ids == tuple(rows(made, [text], shown)["input_ids"][0].tolist())


def test_positions_by_hand(made: Bundle) -> None:
    # a picture of 2 x 3 tokens; two answers of which the second begins anew; another document with 3 x 1 tokens
    i, s = made.image_token, 9
    ids = torch.tensor([[0, s, s, i, i, i, i, i, i, s, s, s, s, i, i, i, s]])
    batch = {
        "input_ids": ids,
        "position": torch.tensor([[0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 0, 1, 2, 3, 4]]),
        "document": torch.tensor([[-1, *[4] * 11, *[2] * 5]]),
    }
    found = qwen2_5_vl.positions(made, batch, [(1, 4, 6), (1, 6, 2)])
    assert found[:, 0].tolist() == [
        [0, 0, 1, 2, 2, 2, 2, 2, 2, 5, 6, 5, 0, 1, 1, 1, 4],
        [0, 0, 1, 2, 2, 2, 3, 3, 3, 5, 6, 5, 0, 1, 2, 3, 4],
        [0, 0, 1, 2, 3, 4, 2, 3, 4, 5, 6, 5, 0, 1, 1, 1, 4],
    ]


def test_windows_change_the_order(tmp_path: Path) -> None:
    made = models_qwen.qwen2_5_vl(tmp_path / "language")
    count = 9
    features = torch.arange(count * made.feature_width, dtype=torch.float32).view(count, -1).sin()
    with torch.no_grad():
        placed = qwen2_5_vl.connect(made.model, [features], [(1, 6, 6)])[0]
        plain = made.model.get_submodule("model.visual.merger")(features.view(4 * count, -1))
    # windows of 2 x 2 tokens over 3 x 3: 0 1 3 4 | 2 5 | 6 7 | 8
    assert torch.equal(placed[[0, 1, 3, 4, 2, 5, 6, 7, 8]], plain)


def lines(made: Bundle) -> tuple[list[Any], dict[str, Size]]:
    """Three prompts with two answers each, with pictures of different size, with both, and with none."""
    known = {"t": TALL, "w": WIDE, "s": (28, 28)}
    chat, out = Chat.of(made), []
    for shown in (["t"], ["w", "s"], []):
        both = []
        for answer in ("Yes", "No fluid there"):
            said = [
                Message(role="user", parts=(*range(len(shown)), "Is there fluid?")),
                Message(role="assistant", parts=(answer,)),
            ]
            encoded = chat.encode(said, [made.preprocess.grid(*known[name]) for name in shown])
            views = tuple(View(ImageRef(path=name, sha256=name), "r") for name in shown)
            both.append(Row("r", encoded, views))
        out.append(both)
    return out, known


def laid(made: Bundle, each: Sequence[Any], known: dict[str, Size], **how: Any) -> dict[str, Any]:
    def look(view: View) -> Seen:
        size = known[view.image.path]
        pixels = made.preprocess(picture(size, seed=size[0]).astype(np.float32) / 255)
        return Seen(pixels, made.preprocess.grid(*size))

    plan = Plan(look=look, pad=0, image_token=made.image_token, **how)
    starts = np.cumsum([0, *[line.rows for line in each]])
    return collate([(line, range(a, a + line.rows)) for line, a in zip(each, starts, strict=False)], plan)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    "how", [{}, {"side": "left"}, {"pack": 150}, {"pack": 1000, "side": "left"}], ids=str
)
@torch.no_grad()
def test_shared_and_packed_rows_equal_the_stock_ones(
    made: Bundle, how: dict[str, Any], attention: str
) -> None:
    prompts, known = lines(made)
    together = laid(made, [shared(both, made.image_token) for both in prompts], known, **how)
    assert not together["plain"]
    made.attend(attention)
    states = made.forward(together, given="pixels")
    made.attend("sdpa")
    logits = made.head(states)
    for number, row in enumerate(row for both in prompts for row in both):
        one = laid(made, [alone(row)], known)
        pixels = {
            "pixel_values": torch.cat(one["images"]), "image_grid_thw": torch.tensor(one["grids"])
        } if one["images"] else {}  # fmt: skip
        kinds = (one["input_ids"] == made.image_token).int()
        stock = made.model(input_ids=one["input_ids"], mm_token_type_ids=kinds, **pixels).logits[0]
        learned = together["answer"] == number
        sources = together["source"][learned]
        at = learned.nonzero()[:, 0]
        wanted = stock[one["source"][0][one["answer"][0] == 0]]
        assert len(wanted) == len(sources) > 1
        assert float((logits[at, sources] - wanted).abs().max()) <= 1e-5


def test_every_weight_belongs_to_one_part(made: Bundle) -> None:
    homes = {name: trainable.part_of(made.family, name) for name, _ in made.model.named_parameters()}
    assert set(homes.values()) == {"vision", "connector", "language"}
    assert {n.split(".")[2] for n, part in homes.items() if part == "connector"} == {
        "qwen2_5_vl": {"merger"}, "qwen3_vl": {"merger", "deepstack_merger_list"}
    }[made.family.name]  # fmt: skip


@pytest.mark.parametrize(
    "vision", [Part(full=Full(lr=1e-3)), Part(lora=Lora(r=2, lr=1e-3))], ids=["full", "lora"]
)
@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_part_trains_beside_lora(tmp_path: Path, name: str, vision: Part) -> None:
    made = FAMILIES[name](tmp_path / "language")
    asked = {
        "vision": vision, "connector": Part(full=Full(lr=1e-3)), "language": Part(lora=Lora(r=2, lr=1e-3))
    }  # fmt: skip
    trained = trainable.apply(made, asked, 0)
    assert made.tower_trains
    prompts, known = lines(made)
    made.forward(laid(made, [alone(prompts[0][0])], known), given="pixels").square().sum().backward()
    missing = [n for n, p in trained.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_was_trained_opens_again(tmp_path: Path, name: str) -> None:
    made = FAMILIES[name](tmp_path / "language")
    asked = {"connector": Part(full=Full(lr=1e-3)), "language": Part(lora=Lora(r=2, lr=1e-3))}
    trained = trainable.apply(made, asked, 0)
    models.stir(trained.parameters(), seed=3)
    prompts, known = lines(made)
    batch = laid(made, [alone(prompts[1][0])], known)
    with torch.no_grad():
        before = made.forward(batch, given="pixels")
    recipe = {part: plan.model_dump() for part, plan in asked.items()}
    checkpoint.save(tmp_path / "kept", made, trained, parent=None, trained=recipe, home=tmp_path / "kept")
    with torch.no_grad():
        after = checkpoint.load(tmp_path / "kept").forward(batch, given="pixels")
    assert float((before - after).abs().max()) <= 1e-4


@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_cannot_be_opened_is_refused(tmp_path: Path, name: str) -> None:
    other = {"qwen2_5_vl": models_qwen.write_3, "qwen3_vl": models_qwen.write_2_5}[name](tmp_path / "other")
    own = {"qwen2_5_vl": models_qwen.write_2_5, "qwen3_vl": models_qwen.write_3}[name](tmp_path / "own")
    with pytest.raises(ModelError, match="opened, not composed"):
        checkpoint.compose({"family": name, "path": None}, 0)
    with pytest.raises(ModelError, match="is another model"):
        checkpoint.compose({"family": name, "path": str(other)}, 0)
    made = checkpoint.compose({"family": name, "path": str(own)}, 0)
    made.preprocess.processor.patch_size = 7  # type: ignore[attr-defined]
    made.preprocess.processor.save_pretrained(own)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="does not fit the tower"):
        checkpoint.compose({"family": name, "path": str(own)}, 0)


def test_sliding_windows_are_refused(tmp_path: Path) -> None:
    place = models_qwen.write_2_5(
        tmp_path / "own", use_sliding_window=True, sliding_window=8, max_window_layers=1
    )
    with pytest.raises(ModelError, match="sliding windows"):
        checkpoint.compose({"family": "qwen2_5_vl", "path": str(place)}, 0)
