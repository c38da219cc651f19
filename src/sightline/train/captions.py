"""Rows of images and the texts that belong to them, their batches, and what is kept of a frozen tower's features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RecipeError
from ..models.encoder import DualEncoder
from ..models.features import GIB, Features, Look, Pixels, encode, pixels
from ..models.readings import Readings
from ..recipe import Contrast
from ..runs import digest
from ..settings import Speed
from ..types import ImageRef, Sample, View


@dataclass(frozen=True)
class Captioned:
    """One image and the text that belongs to it.

    Args:
        sample: the sample's id.
        number: which of its images.
        patient, study: whose it is; "" for an unknown study.
        view: the image.
        text: the answers asked for, joined, single spaces between words.
    """

    sample: str
    number: int
    patient: str
    study: str
    view: View
    text: str

    @property
    def id(self) -> str:
        """The sample's id, and the image's number from the second one on."""
        return f"{self.sample}+{self.number}" if self.number else self.sample

    @property
    def words(self) -> str:
        """A key that equal texts share."""
        return digest(self.text)

    @property
    def keys(self) -> tuple[int, int]:
        """The text, and the patient's study, as numbers below 2^60."""
        examined = digest(self.patient, self.study or f"sample {self.sample}")
        return int(self.words[:15], 16), int(examined[:15], 16)


def captioned(samples: Iterable[Sample], topic: str) -> tuple[list[Captioned], list[dict[str, Any]]]:
    """One row for each current image of each sample with an answer on a topic, and what was set aside.

    Args:
        samples: conversations; those without such an answer are passed over.
        topic: whose answers make the text, in order; "" for all answers.
    """
    rows, aside = [], []
    for sample in samples:
        told = [m for m in sample.messages if m.role == "assistant" and topic in ("", m.topic)]
        if not told:
            continue
        text = " ".join(" ".join(m.text for m in told).split())
        shown = [(i, ref) for i, ref in enumerate(sample.images) if _usable(ref)]
        if not text or not shown:
            aside.append(
                {
                    "id": sample.id,
                    "reason": "its text is empty" if not text else "it shows no current 2-D image",
                }
            )
        else:
            rows += [
                Captioned(sample.id, i, sample.patient, sample.study, View(ref, sample.id), text)
                for i, ref in shown
            ]
    return rows, aside


def _usable(ref: ImageRef) -> bool:
    return ref.when == "current" and ref.form == "raster"


@dataclass(frozen=True)
class CaptionCollator:
    """Rows to a batch: `images` and `grids`, lists of n; `tokens`, [n, T] each; `keys` [n, 2]; `ids`.

    Args:
        tokenize: texts to padded tokens.
        look: a view to features or pixels.
        readings: features of the texts, where they are kept; a batch then holds `readings` [n, w] and no `tokens`.
    """

    tokenize: Callable[[Sequence[str]], Mapping[str, Tensor]]
    look: Look
    readings: Readings | None = None

    def __call__(self, rows: Sequence[Captioned]) -> dict[str, Any]:
        """Collate n rows."""
        seen = [self.look(row.view) for row in rows]
        return {
            "images": [s.values for s in seen],
            "grids": [s.grid for s in seen],
            **self._told([row.text for row in rows]),
            "keys": torch.tensor([row.keys for row in rows]),
            "ids": [row.id for row in rows],
        }

    def _told(self, texts: Sequence[str]) -> dict[str, Any]:
        if self.readings is None:
            return {"tokens": dict(self.tokenize(texts))}
        return {"readings": self.readings(texts)}


def check(section: Contrast, samples: Iterable[Sample], name: str) -> None:
    """Refuse what could only end in a model that has learned nothing.

    Args:
        section: the stage's section.
        samples: the training samples, selected.
        name: the stage's.

    Raises:
        RecipeError: a batch of one pair, or no training sample with an answer on the topic.
    """
    if section.train.batch < 2:
        raise RecipeError(
            "one pair has no negatives", where=f"{name}.train.batch", found=str(section.train.batch),
            expected="at least 2", remedy="`train.accumulate` adds none; `chunk` makes large batches fit",
        )  # fmt: skip
    topics = sorted({m.topic for s in samples for m in s.messages if m.role == "assistant"})
    if section.topic and section.topic not in topics:
        raise RecipeError(
            f"no answer of the training samples is about '{section.topic}'", where=f"{name}.topic",
            found=", ".join(map(repr, topics)) or "no sample", remedy="name one of these, or '' for all answers",
        )  # fmt: skip


def keep(encoder: DualEncoder, root: Path, folder: Path, views: Sequence[View], *, frozen: bool) -> Look:
    """What turns a view into a tensor: features of a frozen tower, kept if they fit, else pixels.

    Args:
        encoder: the encoder.
        root: data root of the images.
        folder: where features are kept.
        views: all views that will be shown.
        frozen: whether nothing of the vision tower trains.
    """
    if not frozen or not views:
        return Pixels(encoder, root)
    one = encode(encoder, [pixels(encoder, root, views[0])])[0]
    count, limit = len({v.sight for v in views}), Speed().cache_gb
    size = count * one.numel() * 4 / GIB
    if size > limit:
        print(f"  features are not kept: {size:.1f} GiB, more than {limit:g}")
        return Pixels(encoder, root)
    print(f"  features of {count} images: {size:.2f} GiB to keep in {folder.name}/ at most")
    return Features(encoder, root, folder)
