"""The folder of an ONNX export: graphs, tokenizer, settings, and a plain script that asks the model."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import runs
from ..data.chat import ANCHOR, Chat
from ..errors import ModelError
from ..images.transforms import Preprocess
from ..models.family import Bundle
from ..types import Message
from . import graphs

SETTINGS, SCRIPT = "generate.json", "generate.py"
FORMAT = 1
ONE, OTHER = "A", "7"  # questions that share no letter


def write(bundle: Bundle, to: Path, ends: Collection[int]) -> None:
    """Write a model as graphs, with all that asks it.

    Args:
        bundle: the model, merged, in float32.
        to: folder to write into; made here.
        ends: ids that end an answer.
    """
    graphs.write(bundle, to)
    tokenizer = bundle.tokenizer
    tokenizer.save_pretrained(to)
    shutil.copyfile(Path(__file__).with_name(SCRIPT), to / SCRIPT)
    layers, heads, size = graphs.cache_shape(bundle)
    assert isinstance(bundle.preprocess, Preprocess)
    told = {
        "format": FORMAT,
        "graphs": [graphs.VISION, graphs.WORDS, graphs.DECODER],
        "preprocess": asdict(bundle.preprocess),
        "image_token": bundle.image_token,
        "tokens_per_image": bundle.tokens_per_image,
        "hidden": bundle.model.get_input_embeddings().weight.shape[1],
        "ends": sorted(ends),
        "never": never(bundle),
        "prompt": prompt(bundle),
        "longest": int(
            getattr(bundle.family.language(bundle.model).config, "max_position_embeddings", 0) or 0
        ),
        "cache": {"layers": layers, "heads": heads, "size": size},
        "system": bundle.system,
        "prior": bundle.prior,
        "template": bundle.base["model"].get("template"),
    }
    runs.write_json(to / SETTINGS, told)


def never(bundle: Bundle) -> list[int]:
    """Ids that no answer holds: the image token, where the head knows it."""
    head: Any = bundle.model.get_submodule("lm_head")
    return [bundle.image_token] if bundle.image_token < head.out_features else []


def prompt(bundle: Bundle) -> dict[str, Any]:
    """The ids around a question: in front of the pictures, of each picture, and from the question to the answer.

    Found by asking two questions that share nothing: what is alike in front and behind is not theirs.

    Raises:
        ModelError: the template writes a question in a way that ids cannot be put around.
    """
    chat = Chat.of(bundle)
    one, other, two = (_asked(chat, q, n) for q, n in ((ONE, 1), (OTHER, 1), (ONE, 2)))
    front, behind = _alike(one, other), _alike(one[::-1], other[::-1])
    if not one.count(bundle.image_token):
        raise ModelError("the conversation format shows no image", found=str(one[:8]))
    first = one.index(bundle.image_token)
    made = {"before": one[:first], "image": one[first:front], "after": one[len(one) - behind :]}
    asked = one[front : len(one) - behind]
    whole = [*made["before"], *made["image"] * 2, *asked, *made["after"]]
    anchors = [a for a in ("", ANCHOR) if _plain(bundle.tokenizer, ONE, a) == asked]
    if whole != two or not anchors:
        raise ModelError(
            "the conversation format cannot be written as ids around a question", found=f"{len(two)} ids",
            expected=f"{len(whole)}", remedy="`--to merged` keeps the format as a template",
        )  # fmt: skip
    return {**made, "anchor": anchors[0]}


def _asked(chat: Chat, question: str, images: int) -> list[int]:
    """The ids of a question about so many images, up to where the answer begins."""
    said = [Message(role="user", parts=(*range(images), question))]
    return list(chat.encode(said, [()] * images, prompt=True).ids)


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids from the start are the same."""
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _plain(tokenizer: Any, text: str, anchor: str) -> list[int]:
    """A text's ids behind an anchor, as the script makes them."""
    how = {"add_special_tokens": False, "split_special_tokens": True}
    start = len(tokenizer(anchor, **how)["input_ids"]) if anchor else 0
    return list(tokenizer(anchor + text, **how)["input_ids"])[start:]
