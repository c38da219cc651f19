"""Samples to reports: route each to its index, search there with the images, choose how many are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import RecipeError
from ..models.encoder import DualEncoder
from ..settings import Choose
from ..types import Sample
from . import embed
from .calibrate import Calibration, calibrate, contradicts, loss_curve, truth
from .choose import kept
from .domain import Router, fit, held_out
from .found import Found
from .opened import Index
from .search import Asker, search

Load = Callable[[Path], DualEncoder]


class Library:
    """Indexes by domain, and their encoders, of which equal ones are opened once.

    The first index's encoder embeds the images that a domain is told from.

    Args:
        indexes: by the recipe's name of their domain; "" where there is only one.
        load: opens a saved encoder.
        features: folder where features of towers are kept; None keeps nothing.
        seed: of the recipe.
        router: tells images of one domain from those of another; None teaches one, where there are several.
    """

    def __init__(
        self,
        indexes: Mapping[str, Index],
        load: Load,
        features: Path | None,
        seed: int,
        router: Router | None = None,
    ) -> None:
        self.indexes, self.features = dict(indexes), features
        self.encoders = {place: load(place) for place in {i.encoder for i in indexes.values()}}
        self.router = router
        self.routed: float | None = None
        if len(self.indexes) > 1 and router is None:
            first = next(iter(self.indexes.values()))
            rows = {name: self._images(index, first.encoder) for name, index in self.indexes.items()}
            self.router, self.routed = fit(rows), held_out(rows, seed)

    def _images(self, index: Index, encoder: Path) -> np.ndarray:
        """Embeddings of an index's images by one encoder, which need not be the index's own."""
        if index.encoder == encoder:
            return index.embeddings
        return embed.pictures(self.encoders[encoder], index.root, self.features)(index.studies)

    def find(
        self, samples: Sequence[Sample], root: Path, k: int, held: Mapping[str, np.ndarray] | None = None
    ) -> list[Found]:
        """The k best reports of other patients for each sample; none for a sample without images.

        Args:
            samples: who asks.
            root: data root of their images.
            k: at least 1.
            held: pixels [H, W, 3] by path, of images that are in no file.
        """
        names = self._names(samples, root, held)
        found = {s.id: Found(sample=s) for s in samples}
        for name, index in self.indexes.items():
            part = [s for s in samples if names.get(s.id) == name]
            if not part:
                continue
            look = embed.pictures(self.encoders[index.encoder], root, self.features, held)
            askers = [Asker(patient=s.patient, pictures=tuple(r.sha256 for r in s.images)) for s in part]
            hits = search(index.store, look([s.images for s in part]), askers, k)
            reports = iter(index.store.reports([h.row for each in hits for h in each]))
            for sample, each in zip(part, hits, strict=True):
                found[sample.id] = Found(
                    sample=sample, index=name, kept=len(each), reports=tuple(next(reports) for _ in each),
                    similarities=tuple(h.similarity for h in each), behind=tuple(h.behind for h in each),
                )  # fmt: skip
        return list(found.values())

    def _names(
        self, samples: Sequence[Sample], root: Path, held: Mapping[str, np.ndarray] | None
    ) -> dict[str, str]:
        """The index of each sample that has images."""
        seen = [s for s in samples if s.images]
        if self.router is None or not seen:
            return {s.id: next(iter(self.indexes)) for s in seen}
        first = next(iter(self.indexes.values()))
        look = embed.pictures(self.encoders[first.encoder], root, self.features, held)
        return dict(zip((s.id for s in seen), self.router(look([s.images for s in seen])), strict=True))


def calibrated(found: Sequence[Found], indexes: Mapping[str, Index], choose: Choose) -> Calibration:
    """Calibrate K on what was found for the samples of the valid split.

    Samples whose findings are unknown, and those for whom nothing was found, are left out.

    Raises:
        RecipeError: an index holds reports of the valid split.
        DataError: nobody to calibrate on.
    """
    if any("valid" in index.splits for index in indexes.values()):
        raise RecipeError(
            "K cannot be calibrated on the valid split while an index holds its reports",
            remedy="set `split: [train]` in the stage `index`",
        )
    losses, patients = [], []
    for each in found:
        known = truth(each.sample, _topic(each, indexes)) if each.reports else {}
        if known:
            flags = [contradicts(report.text, known) for report in each.reports]
            losses.append(loss_curve(flags, choose.k))
            patients.append(each.sample.patient)
    return calibrate(losses, patients, choose.alpha)


def _topic(found: Found, indexes: Mapping[str, Index]) -> str:
    return indexes[found.index].topic


def cut(found: Sequence[Found], choose: Choose, calibration: Calibration | None) -> list[Found]:
    """Decide how many of the reports found are shown."""
    rule, k = (choose.rule, choose.k) if calibration is None else ("top", calibration.k)
    counts = [kept(f.similarities, rule, k, gamma=choose.gamma, floor=choose.floor) for f in found]
    return [replace(f, kept=count) for f, count in zip(found, counts, strict=True)]
