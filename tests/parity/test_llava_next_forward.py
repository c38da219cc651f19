"""Our split forward of LLaVA-NeXT equals the stock model's on the stock processor's tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import models
import models_llava_next
from sightline import runs
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.inference import ask, items
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.models.features import Features, gridder
from sightline.settings import Generate
from sightline.types import ImageRef, View

SIZES = [(28, 28), (40, 90), (90, 31), (200, 210), (33, 140)]  # height, width


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return models_llava_next.bundle(tmp_path_factory.mktemp("next") / "language")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_tiles_are_the_stock_processor_s(made: Bundle, size: tuple[int, int]) -> None:
    array = picture(*size)
    stock = made.preprocess.processor(images=Image.fromarray(array), return_tensors="pt")  # type: ignore[attr-defined]
    ours = made.preprocess(array.astype(np.float32) / 255)
    assert stock["image_sizes"].tolist() == [list(size)]
    assert made.preprocess.grid(*size) == size
    assert torch.equal(stock["pixel_values"][0], ours)


@pytest.mark.parametrize("shown", [[(28, 28)], [(40, 90), (200, 210)], [(90, 31)], [(33, 140), (28, 28)], []])
def test_forward_equals_the_stock_one(made: Bundle, shown: list[tuple[int, int]]) -> None:
    images = [
        made.preprocess(picture(*size, seed=i).astype(np.float32) / 255) for i, size in enumerate(shown)
    ]
    ids = [9]
    for size in shown:
        ids += [*made.words(size), 40]
    batch = {"input_ids": torch.tensor([[*ids, 50, 60, 2]]), "images": images, "grids": shown}
    most = max((len(i) for i in images), default=1)
    padded = [torch.cat([i, torch.zeros(most - len(i), *i.shape[1:])]) for i in images]
    stocked = {"pixel_values": torch.stack(padded), "image_sizes": torch.tensor(shown)} if shown else {}
    with torch.no_grad():
        stock = made.model(input_ids=batch["input_ids"], **stocked).logits
        ours = made.head(made.forward(batch, given="pixels"))
        features = made.family.encode_images(made.model, images, list(shown)) if shown else []
        kept = made.head(made.forward({**batch, "images": features}, given="features"))
    assert float((ours - stock).abs().max()) <= 1e-5
    assert torch.equal(kept, ours)


def test_the_number_of_words_follows_the_size(made: Bundle) -> None:
    # tiles of 2 x 2 tokens: the whole picture, then the unpadded grid with one more token at the end of each line
    assert {size: len(made.words(size)) for size in SIZES} == {
        (28, 28): 4 + 2 * (2 + 1),   # 1 x 2 tiles, half of them padding
        (40, 90): 4 + 2 * (4 + 1),   # 1 x 2 tiles
        (90, 31): 4 + 6 * (2 + 1),   # 3 x 1 tiles
        (200, 210): 4 + 4 * (4 + 1),
        (33, 140): 4 + 2 * (6 + 1),
    }  # fmt: skip
    assert made.tokens_per_image == max(len(made.words((h, w))) for h, w in models_llava_next.PINPOINTS)
    assert not made.fixed


def test_parts_are_refused() -> None:
    with pytest.raises(ModelError, match="opened, not composed"):
        checkpoint.compose({"family": "llava_next", "path": None}, 0)


def test_answers_equal_the_stock_model_s_greedy_ones(made: Bundle, tmp_path: Path) -> None:
    Image.fromarray(picture(40, 90)).save(tmp_path / "a.png")
    ref = ImageRef(path="a.png", sha256=runs.hash_file(tmp_path / "a.png"))
    sample = models.sample("s", [("What is shown?", "nothing")], [ref])
    (item,) = items([sample], Chat.of(made), lambda s, i: View(s.images[i], s.id), gridder(made, tmp_path))
    look = Features(made, tmp_path, tmp_path / "kept")
    look.prepare(item.views)
    told: list[str] = []
    ask(made, [item], look, Generate(max_new_tokens=6), lambda item, answers: told.append(answers[0].text))
    prompt = torch.tensor([item.encoded.ids[: item.encoded.turns[0].start]])
    tiles = made.preprocess(picture(40, 90).astype(np.float32) / 255)
    with torch.no_grad():
        stock = made.model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), pixel_values=tiles[None],
            image_sizes=torch.tensor([[40, 90]]), max_new_tokens=6, do_sample=False,
        )  # fmt: skip
    assert told == [made.tokenizer.decode(stock[0, prompt.shape[1] :], skip_special_tokens=True).strip()]
    assert told[0]
