"""One question about one made-up picture, the same for ever: what a model and its export must answer alike."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import runs
from ..data.chat import Chat
from ..errors import ModelError
from ..images.seen import Seen
from ..models import checkpoint
from ..models.context import Context
from ..models.encoder import Learner
from ..models.family import Bundle
from ..types import Message

HEIGHT, WIDTH = 96, 72  # no square, so that padding and tiles take part
QUESTION, ANSWER = "What is seen in this image?", "There is no finding."
MERGED = 1e-4  # how far logits may move where only the order of float32 sums changed, of their own length


@dataclass(kw_only=True)
class Origin:
    """A saved model that is exported.

    Args:
        place: its folder.
        bundle: its whole line merged, in float32.
        batch: the probe, as `Bundle.forward` takes it.
        logits: [T, vocabulary] of the probe, made before the last adapter was merged.
        merged: how far merging moved them, of their own length.
    """

    place: Path
    bundle: Bundle
    batch: dict[str, Any]
    logits: Tensor
    merged: float


def open_origin(place: Path) -> Origin:
    """Open a saved model, and see to it that merging its adapter changes nothing.

    Raises:
        ModelError: no saved model, or one that answers otherwise once merged.
    """
    before: list[Tensor] = []

    def acting(learner: Learner) -> None:
        assert isinstance(learner, Bundle)
        before.append(logits(learner, probe(learner)))

    bundle = checkpoint.load(place, acting)
    batch = probe(bundle)
    moved = distance(logits(bundle, batch), before[-1])
    if moved > MERGED:
        raise ModelError(
            "the merged model does not answer as the model with its adapter does", where=str(place),
            found=f"logits {moved:.1e} away", expected=f"at most {MERGED:g} of their length",
            remedy="check the adapter: weights that are not finite, or very large ones, cannot be merged",
        )  # fmt: skip
    return Origin(place=place, bundle=bundle, batch=batch, logits=before[-1], merged=moved)


def probe(bundle: Bundle) -> dict[str, Any]:
    """The picture and the conversation as this model reads them: a batch of one row for `Bundle.forward`.

    Raises:
        ModelError: the model reads no pictures.
    """
    if "pictures" in bundle.family.cannot or bundle.base.get("model", {}).get("patches"):
        raise ModelError(
            f"models of the family '{bundle.family.name}' are not exported: no other program has their tower",
            expected="a model that reads pictures",
        )  # fmt: skip
    draw = np.random.default_rng(int(runs.digest("export", "probe")[:16], 16))
    picture = draw.random((HEIGHT, WIDTH, 3), dtype=np.float32)
    grid = bundle.preprocess.grid(HEIGHT, WIDTH)
    said = [Message(role="user", parts=(0, QUESTION)), Message(role="assistant", parts=(ANSWER,))]
    ids = torch.tensor([Chat.of(bundle).encode(said, [grid]).ids])
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "images": [bundle.preprocess(picture)],
        "grids": [grid],
    }


@torch.no_grad()
def logits(bundle: Bundle, batch: dict[str, Any]) -> Tensor:
    """Logits of the probe [T, vocabulary], float32; the row may say any token but the image token."""
    made = bundle.head(bundle.forward(batch, given="pixels"))[0].float()
    made[:, bundle.image_token : bundle.image_token + 1] = 0  # never said, so rounded as one likes
    return made


def distance(made: Tensor, wanted: Tensor) -> float:
    """How far logits are from others, as a share of the others' length; infinite where they are not finite."""
    found = float((made - wanted).norm() / wanted.norm())
    return found if np.isfinite(found) else float("inf")


def same_words(made: Tensor, wanted: Tensor) -> bool:
    """Whether the likeliest next token is the same at every place."""
    return bool(torch.equal(made.argmax(-1), wanted.argmax(-1)))


@torch.no_grad()
def stock(bundle: Bundle, batch: dict[str, Any]) -> Tensor:
    """The same from the forward of transformers' own LLaVA, without any code of a family."""
    model: Any = bundle.model
    pixels = torch.stack(batch["images"]).to(model.dtype)
    made = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], pixel_values=pixels)
    found: Tensor = made.logits[0].float()
    found[:, bundle.image_token : bundle.image_token + 1] = 0
    return found


@torch.no_grad()
def continued(bundle: Bundle, batch: dict[str, Any]) -> Tensor:
    """Logits [1, vocabulary] after the probe's last token, where its last two are read behind what is in a cache."""
    ids = batch["input_ids"][0].tolist()
    tokens = bundle.tokens(batch["images"], batch["grids"], "pixels")
    context = Context(bundle, 1)
    context.read([ids[:-2]], [[Seen(*each) for each in zip(tokens, batch["grids"], strict=True)]])
    made = context.read([ids[-2:]]).float()
    made[:, bundle.image_token : bundle.image_token + 1] = 0
    return made
