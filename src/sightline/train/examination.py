"""An encoder measured on one split: embeddings of both sides, the loss, and retrieval both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..losses.similarity import alike, together
from ..metrics import recall
from ..metrics.measure import Measure
from .captions import CaptionCollator, Captioned
from .contrast import Formula, Towers


@dataclass(frozen=True)
class Examination:
    """Rows that are embedded and measured, as they are: eval mode, float32, no gradients.

    Args:
        rows: the rows of one split.
        collate: to a batch.
        batch: pairs at a time; also the pairs that the loss compares at a time, as in training.
    """

    rows: Sequence[Captioned]
    collate: CaptionCollator
    batch: int

    def embed(self, towers: Towers) -> tuple[np.ndarray, np.ndarray]:
        """Unit embeddings of images and of texts. [rows, width] float32 each."""
        device = next(towers.parameters()).device
        training = towers.training
        towers.eval()
        made: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for at in self._blocks():
                batch = _moved(self.collate(self.rows[at]), device)
                # Not through `__call__`: the Trainer wraps that in autocast.
                images, texts, *_ = Towers.forward(towers, batch)
                made.append((images.float().cpu(), texts.float().cpu()))
        towers.train(training)
        images, texts = (torch.cat(side).numpy() for side in zip(*made, strict=True))
        return images, texts

    def measures(self, images: np.ndarray, texts: np.ndarray) -> list[Measure]:
        """Retrieval both ways; see `metrics.recall`."""
        return recall.measures(
            images, texts, [r.words for r in self.rows], [(r.sample, r.number) for r in self.rows],
            [r.patient for r in self.rows],
        )  # fmt: skip

    def loss(self, towers: Towers, formula: Formula, images: np.ndarray, texts: np.ndarray) -> float:
        """The loss over blocks of `batch` rows in their order, averaged over rows; the last block may be smaller."""
        scale, bias = (None if v is None else v.detach().cpu() for v in towers.bundle.scale())
        assert scale is not None
        total = 0.0
        for at in self._blocks():
            keys = torch.tensor([row.keys for row in self.rows[at]])
            same = alike(keys, keys)
            block = together(torch.from_numpy(images[at]), torch.from_numpy(texts[at]), scale, bias, same)
            total += float(formula(block)) * len(keys)
        return total / len(self.rows)

    def validate(self, towers: Towers, formula: Formula) -> dict[str, float]:
        """The loss, and the value of every measure by its name."""
        images, texts = self.embed(towers)
        values = {m.name: m.value() for m in self.measures(images, texts)}
        return {"loss": self.loss(towers, formula, images, texts), **values}

    def _blocks(self) -> list[slice]:
        return [slice(i, i + self.batch) for i in range(0, len(self.rows), self.batch)]


def _moved(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with all that the towers are given on their device."""
    moved = {**batch, "images": [values.to(device) for values in batch["images"]]}
    if "readings" in batch:
        return {**moved, "readings": batch["readings"].to(device)}
    return {**moved, "tokens": {name: values.to(device) for name, values in batch["tokens"].items()}}


def order(figures: Mapping[str, float]) -> tuple[float, float]:
    """What makes one validation better than another: the mean of both recalls at 5, then the loss."""
    recalls = figures["r_at_5_image_to_text"] + figures["r_at_5_text_to_image"]
    return recalls / 2, -figures["loss"]
