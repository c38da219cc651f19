"""What all contenders of `align.py` stand on: random weights of a shape, random pictures, and pairs of exact length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from shapes import Shape
from tokenizers import AddedToken, Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForImageTextToText,
    CLIPImageProcessor,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from sightline import runs
from sightline.data.chat import Chat
from sightline.data.collate import Pair
from sightline.data.rows import encode_pairs
from sightline.images.transforms import Preprocess
from sightline.models.families import gemma3, llava, llava_next
from sightline.models.family import Bundle
from sightline.types import ImageRef, Message, Preference

CONTROL = ("<pad>", "<user>", "<assistant>", "<end>", "<image>", "<open>", "<close>")
PAD, IMAGE, OPEN, CLOSE = (CONTROL.index(name) for name in ("<pad>", "<image>", "<open>", "<close>"))
OTHERS = ("\n", "?unknown?")
# One template for both: Sightline gives plain strings, TRL gives lists of parts. SHOWN is what stands for an image.
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<user>{% else %}<assistant>{% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}{{ 'SHOWN' }}{% else %}{{ p['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{% if m['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SHOWN = {"llava": "<image>\\n", "llava_next": "<image>\\n", "gemma3": "<open>"}
# Tokens of a prompt's text that are no words: <user>, <assistant>, and what stands around the image's tokens.
AROUND = {"llava": 3, "llava_next": 3, "gemma3": 8}
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What all contenders stand on.

    Args:
        shape: sizes.
        count: how many pairs there are, each with a picture of its own.
        batch: pairs in a step.
        checkpointing: whether layers are computed again in the backward pass.
        device, dtype: where and how precisely.
        work: an empty folder.
    """

    shape: Shape
    count: int
    batch: int
    checkpointing: bool
    device: str
    dtype: torch.dtype
    work: Path
    tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokenizer", vocabulary(self.shape))

    @property
    def root(self) -> Path:
        """Where the pictures are."""
        return self.work / "images"

    @cached_property
    def chat(self) -> Chat:
        """How rows are written."""
        return Chat.of(bundled(self, "meta"))

    @cached_property
    def preferences(self) -> list[Preference]:
        """Random words about random pictures, of exactly the asked lengths."""
        draw, shape = np.random.default_rng(0), self.shape
        free = shape.language["vocab_size"] - len(CONTROL) - len(OTHERS)
        self.root.mkdir()

        def say(count: int) -> str:
            return " ".join(f"w{i}" for i in draw.integers(0, free, count))

        made = []
        for i in range(self.count):
            file = self.root / f"{i}.png"
            Image.fromarray(draw.integers(0, 256, (*shape.picture, 3), dtype=np.uint8)).save(file)
            ref = ImageRef(path=file.name, sha256=runs.hash_file(file))
            asked = Message(role="user", parts=(0, say(shape.text - AROUND[shape.family])))
            chosen, rejected = say(shape.answer - 1), say(shape.answer - 1)
            made.append(
                Preference(
                    id=str(i),
                    patient=str(i),
                    images=(ref,),
                    prompt=(asked,),
                    chosen=chosen,
                    rejected=rejected,
                )
            )
        return made

    @cached_property
    def pairs(self) -> list[Pair]:
        """The same as encoded rows."""
        sight = bundled(self, "meta").preprocess.grid(*self.shape.picture)
        pairs, aside = encode_pairs(self.preferences, self.chat, 10_000, grid=lambda ref: sight)
        assert not aside
        assert all(len(row.encoded.ids) == self.shape.row for pair in pairs for row in pair.rows)
        return pairs

    def records(self) -> list[dict[str, Any]]:
        """The same as TRL wants them."""
        return [
            {
                "images": [Image.open(self.root / p.images[0].path)],
                "prompt": [{"role": "user", "content": p.prompt[0].text}],
                "chosen": [{"role": "assistant", "content": p.chosen}],
                "rejected": [{"role": "assistant", "content": p.rejected}],
            }
            for p in self.preferences
        ]


def vocabulary(shape: Shape) -> PreTrainedTokenizerFast:
    """One id per word."""
    known = [*CONTROL, *OTHERS]
    names = [*known, *(f"w{i}" for i in range(shape.language["vocab_size"] - len(known)))]
    core = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token="?unknown?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|\w+"), behavior="removed", invert=True)
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in CONTROL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<end>", pad_token="<pad>",
        extra_special_tokens={"boi_token": "<open>", "eoi_token": "<close>", "image_token": "<image>"},
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE.replace("SHOWN", SHOWN[shape.family])
    return tokenizer


def config(shape: Shape) -> PreTrainedConfig:
    """The whole model's."""
    both = {"vision_config": dict(shape.vision), "text_config": dict(shape.language)}
    tied = shape.language["tie_word_embeddings"]
    if shape.family == "gemma3":
        return Gemma3Config(
            **both, mm_tokens_per_image=shape.image, boi_token_index=OPEN, eoi_token_index=CLOSE,
            image_token_index=IMAGE, tie_word_embeddings=tied,
        )  # fmt: skip
    both |= {"vision_feature_layer": shape.layer, "vision_feature_select_strategy": shape.select}
    both |= {"projector_hidden_act": "gelu", "image_token_index": IMAGE, "tie_word_embeddings": tied}
    if shape.family == "llava":
        return LlavaConfig(**both)
    return LlavaNextConfig(**both, image_grid_pinpoints=pinpoints(shape))


def pinpoints(shape: Shape) -> list[list[int]]:
    """LLaVA-1.6's grids of tiles, in pixels."""
    return [[a * shape.side, b * shape.side] for a, b in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))]


def seer(shape: Shape) -> Any:
    """The stock image processor of the model; LLaVA's stands for `Preprocess` as well."""
    size = {"height": shape.side, "width": shape.side}
    if shape.family == "gemma3":
        return Gemma3ImageProcessor(size=size, image_mean=HALF, image_std=HALF)
    if shape.family == "llava_next":
        return LlavaNextImageProcessor(
            size={"shortest_edge": shape.side}, crop_size=size, image_mean=HALF, image_std=HALF,
            image_grid_pinpoints=pinpoints(shape),
        )  # fmt: skip
    return CLIPImageProcessor(size=size, do_center_crop=False, image_mean=HALF, image_std=HALF)


def bundled(ground: Ground, device: str) -> Bundle:
    """The model as Sightline has it, with weights that are the same at each call."""
    shape = ground.shape
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config(shape), dtype=ground.dtype)
    if shape.family == "gemma3" and device != "meta":  # its connector starts at zero
        with torch.no_grad():
            model.model.multi_modal_projector.mm_input_projection_weight.normal_(std=0.02)
    families = {"llava": llava, "llava_next": llava_next, "gemma3": gemma3}
    sees: dict[str, Callable[[], Any]] = {
        "llava": lambda: Preprocess(size=shape.side, mean=HALF, std=HALF),
        "llava_next": lambda: llava_next.Tiles(seer(shape)),
        "gemma3": lambda: gemma3.Square(seer(shape)),
    }
    return Bundle(
        family=families[shape.family].FAMILY, model=model.eval(), tokenizer=ground.tokenizer, image_token=IMAGE,
        preprocess=sees[shape.family](), tokens_per_image=shape.image, feature_width=shape.vision["hidden_size"],
        fixed=shape.family != "llava_next",
    )  # fmt: skip


def build(ground: Ground) -> Bundle:
    """The model, where it is measured."""
    return bundled(ground, ground.device)


def processor(ground: Ground) -> Any:
    """The stock processor that writes and sees what Sightline does."""
    shape, words = ground.shape, ground.tokenizer
    if shape.family == "gemma3":
        return Gemma3Processor(
            seer(shape), words, chat_template=words.chat_template, image_seq_length=shape.image
        )
    kind = LlavaNextProcessor if shape.family == "llava_next" else LlavaProcessor
    return kind(
        image_processor=seer(shape), tokenizer=words, patch_size=14, chat_template=words.chat_template,
        vision_feature_select_strategy=shape.select, num_additional_image_tokens=int(shape.has_class),
    )  # fmt: skip


def shown(ground: Ground, batch: dict[str, Any]) -> dict[str, Any]:
    """What the stock model is given of a batch's images: one for each row, though the rows of a pair show the same."""
    order = batch["shown"].tolist()
    values = torch.stack([batch["images"][i] for i in order])
    if ground.shape.family == "llava_next":
        sizes = torch.tensor([batch["grids"][i] for i in order], device=values.device)
        return {"pixel_values": values, "image_sizes": sizes}
    if ground.shape.family == "gemma3":
        return {"pixel_values": values, "token_type_ids": (batch["input_ids"] == IMAGE).long()}
    return {"pixel_values": values}
