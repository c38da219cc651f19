"""Pixels and features of images as a model wants them; those of frozen parts once, memory-mapped.

A feature is keyed by all that it depends on: the file's SHA-256, the preprocessing, the weights of the tower (and
of the connector, where its output is kept), the layer, and the degradation with its record. What is stored under a
key can therefore never be stale.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from .. import images, runs
from ..errors import ModelError
from ..images import degrade
from ..images.seen import Seen
from ..settings import Speed
from ..types import ImageRef, View
from . import device, volumes
from .encoder import DualEncoder, Learner
from .family import ABSENT, Bundle, Given, Grid
from .trainable import members

BATCH = 8
GIB = 2**30
FORMAT = 2


def pixels(bundle: Learner, root: Path, view: View) -> Seen:
    """One view as tower input: decoded, degraded if asked, preprocessed; a view and its prior image stacked."""
    if view.prior is not None:
        both = [pixels(bundle, root, each) for each in view.each]
        return Seen(torch.stack([seen.values for seen in both]), both[0].grid)
    if view.image.form == "volume":
        return volumes.seen(volumes.taken(bundle.preprocess, view.image, view.record), root, view)
    array = images.read(root, view.image, record=view.record)
    if view.degrade is not None:
        array = degrade.apply(array, view.degrade, view.record)
    return Seen(bundle.preprocess(array), bundle.preprocess.grid(*array.shape[:2]))


def gridder(bundle: Learner, root: Path) -> Callable[[ImageRef], Grid]:
    """What a model must know of an image's size, from the file's header alone, and whether it has tokens of its own."""
    size = _sizes(bundle, root)
    if not isinstance(bundle, Bundle) or bundle.prior == "stand":
        return size
    return lambda ref: ABSENT if ref.when == "prior" else size(ref)


def _sizes(bundle: Learner, root: Path) -> Callable[[ImageRef], Grid]:
    """What a model must know of an image's size."""
    if bundle.fixed:
        return lambda ref: ()
    known: dict[str, Grid] = {}

    def grid(ref: ImageRef) -> Grid:
        if ref.path not in known and ref.form == "volume":
            known[ref.path] = volumes.grid(volumes.taken(bundle.preprocess, ref), root, ref)
        elif ref.path not in known:
            width, height, *_ = images.header(root, ref)
            known[ref.path] = bundle.preprocess.grid(height, width)
        return known[ref.path]

    return grid


@dataclass
class Features:
    """Features of a frozen tower, or tokens of a frozen connector behind it, for any number of views.

    Args:
        bundle: the model or encoder whose tower is used.
        root: data root of the images.
        folder: where features are kept; safe to share between stages and runs.
        given: `features` of the tower, or `tokens` behind the connector.
    """

    bundle: Learner
    root: Path
    folder: Path
    given: Given = "features"
    place: dict[str, tuple[np.ndarray, dict[str, Any]]] = field(default_factory=dict)
    computed: int = 0

    def __post_init__(self) -> None:
        if not self.bundle.tower:
            self.bundle.tower = weights_hash(self.bundle, *self.bundle.family.tower)
        self.connector = weights_hash(self.bundle, *_between(self.bundle)) if self.given == "tokens" else ""
        self.folder.mkdir(parents=True, exist_ok=True)
        for index in sorted(self.folder.glob("*.json")):
            self._open(index)

    def of(self, bundle: Learner) -> Features:
        """The same for another model."""
        return Features(bundle, self.root, self.folder, self.given)

    def key(self, view: View) -> str:
        """What the feature of a view depends on, as one hash."""
        if view.prior is not None:
            return runs.digest(*(self.key(each) for each in view.each))
        spoiled = "" if view.degrade is None else degrade.key(view.degrade, view.record)
        parts = [
            view.image.sha256,
            self.bundle.preprocess.key(),
            self.bundle.tower,
            self.bundle.family.layer(self.bundle.model),
            spoiled,
        ]
        return runs.digest(*parts, *([self.connector] if self.connector else []))

    def __call__(self, view: View) -> Seen:
        """The feature [tokens, width] of a view that `prepare` has seen; those of an image and its prior as one."""
        if view.prior is not None and self.given == "features":
            both = [self(each) for each in view.each]
            return Seen(torch.cat([seen.values for seen in both]), both[0].grid)
        table, entry = self.place[self.key(view)]
        shape, start = entry["shape"], entry["start"]
        values = np.array(table[start : start + math.prod(shape)]).reshape(shape)
        return Seen(torch.from_numpy(values), tuple(entry["grid"]))

    def prepare(self, views: Sequence[View], *, what: str = "images") -> None:
        """Compute what is missing, with a progress bar, and keep it."""
        missing = {self.key(v): v for v in _kept(views, self.given)}
        missing = {k: v for k, v in missing.items() if k not in self.place}
        if not missing:
            return
        place = self.folder / f"{runs.digest(*missing)[:32]}.f32"
        part = place.with_name(f".{place.stem}.{os.getpid()}.part")
        try:
            with device.lent(self.bundle):
                entries = self._fill(part, missing, what)
            index = {"format": FORMAT, "entries": entries, "sha256": runs.hash_file(part)}
            runs.write_json(place.with_suffix(".json"), index)
            part.rename(place)
            runs.sync_parent(place)
        finally:
            part.unlink(missing_ok=True)
        self.computed += len(missing)
        self._open(place.with_suffix(".json"))

    def _fill(self, part: Path, views: Mapping[str, View], what: str) -> dict[str, dict[str, Any]]:
        """Write one feature per view, equal pixels once; return where each stands."""
        entries: dict[str, dict[str, Any]] = {}
        first: dict[str, str] = {}
        twins: list[tuple[str, str]] = []
        batch: list[tuple[str, Seen]] = []
        with (
            part.open("wb") as stream,
            tqdm(total=len(views), desc=f"  features of {what}", unit="image") as bar,
        ):
            for count, (key, view) in enumerate(views.items(), start=1):
                shown = pixels(self.bundle, self.root, view)
                same = first.setdefault(hashlib.sha256(shown.values.cpu().numpy().tobytes()).hexdigest(), key)
                if same == key:
                    batch.append((key, shown))
                else:
                    twins.append((key, same))
                if len(batch) == BATCH or (batch and count == len(views)):
                    made = encode(self.bundle, [seen for _, seen in batch], self.given)
                    for (name, seen), values in zip(batch, made, strict=True):
                        entries[name] = {
                            "start": stream.tell() // 4, "shape": list(values.shape), "grid": list(seen.grid)
                        }  # fmt: skip
                        stream.write(values.float().cpu().contiguous().numpy().tobytes())
                    batch = []
                bar.update()
            stream.flush()
            os.fsync(stream.fileno())
        return entries | {key: entries[same] for key, same in twins}

    def _open(self, index: Path) -> None:
        """Use a stored table if its bytes are what was written; say so and compute anew if not."""
        stored, path = runs.read_json(index), index.with_suffix(".f32")
        if stored.get("format") != FORMAT:
            return
        try:
            if runs.hash_file(path) != stored["sha256"]:
                raise ValueError("its bytes have changed")
            table = np.memmap(path, dtype=np.float32, mode="r")
        except (OSError, ValueError, EOFError, KeyError) as error:
            reason = "it is missing" if isinstance(error, FileNotFoundError) else "its bytes have changed"
            print(f"  stored features {path.name} are not used ({reason}); they are computed again")
            return
        self.place.update({key: (table, entry) for key, entry in stored["entries"].items()})


@torch.no_grad()
def encode(bundle: Learner, batch: Sequence[Seen], given: Given = "features") -> list[Tensor]:
    """Features or tokens [n, width] of up to 8 images, without gradients.

    Equal images make a batch that is always filled up to the same size, others are encoded one by one: an image's
    feature then never depends, not even in its last bit, on what else happened to be missing.
    """
    if not bundle.fixed:
        return [_encode(bundle, [seen], given)[0] for seen in batch]
    made: list[Tensor] = [batch[0].values] * len(batch)
    for shape in dict.fromkeys(
        seen.values.shape for seen in batch
    ):  # images alone, and images with a prior one
        places = [i for i, seen in enumerate(batch) if seen.values.shape == shape]
        own = [batch[i] for i in places]
        blank = Seen(torch.zeros_like(own[0].values), own[0].grid)
        values = _encode(bundle, [*own, *[blank] * (BATCH - len(own))], given)
        for i, value in zip(places, values, strict=False):
            made[i] = value
    return made


def _encode(bundle: Learner, batch: Sequence[Seen], given: Given) -> list[Tensor]:
    grids = [seen.grid for seen in batch]
    like = next(bundle.family.module(bundle.model, bundle.family.parts["vision"][0]).parameters())
    values = [seen.values.to(like.device, like.dtype) for seen in batch]
    made = bundle.family.encode_images(bundle.model, values, grids)
    if given != "tokens":
        return made
    assert isinstance(bundle, Bundle), "an encoder has no connector"
    return bundle.family.connect(bundle.model, made, grids)


def _between(bundle: Learner) -> tuple[str, ...]:
    """The parts that make tokens of features; an encoder has none."""
    return bundle.family.between if isinstance(bundle, Bundle) else ()


def weights_hash(bundle: Learner, *parts: str) -> str:
    """SHA-256 of the weights of parts, with names and shapes."""
    mixed = hashlib.sha256()
    for member in [member for part in parts for _, member in members(bundle, part)]:
        bare = isinstance(member, nn.Parameter)
        for key, value in sorted({"": member}.items() if bare else member.state_dict().items()):
            mixed.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
            mixed.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return mixed.hexdigest()


@dataclass
class Pixels:
    """Pixels of views, read anew each time: for towers that train, and where features would not fit."""

    bundle: Learner
    root: Path
    given: Given = "pixels"

    def of(self, bundle: Learner) -> Pixels:
        """The same for another model."""
        return Pixels(bundle, self.root)

    def __call__(self, view: View) -> Seen:
        """Tower input of a view."""
        return pixels(self.bundle, self.root, view)

    def prepare(self, views: Sequence[View], *, what: str = "images") -> None:
        """Nothing is computed beforehand."""


Look = Features | Pixels


def looker(
    bundle: Learner,
    root: Path,
    folder: Path,
    views: Sequence[View],
    frozen: Mapping[str, bool],
    speed: Speed,
) -> Look:
    """What turns a view into a tensor, and what is kept of it: decided by what trains and what fits.

    Args:
        bundle: the model or encoder, before adapters.
        root: data root of the images.
        folder: where features are kept.
        views: all views that will be shown, for the estimate of the size, which is printed.
        frozen: whether nothing of `vision` and of `connector` trains; an encoder has no connector.
        speed: `cache` and its limit.

    Raises:
        ModelError: the recipe asks for what cannot be kept, or for more than the limit.
    """
    if speed.cache == "off" or not frozen["vision"]:
        if speed.cache in ("before", "after"):
            raise ModelError(
                "features of a tower that trains cannot be kept", where="speed.cache", found=speed.cache,
                expected="auto or off, or a frozen vision part",
            )  # fmt: skip
        return Pixels(bundle, root)
    connector = frozen.get("connector", False)
    if speed.cache == "after" and not connector:
        raise ModelError(
            "tokens of a connector that trains cannot be kept", where="speed.cache",
            found="after", expected="auto, before or off, or a frozen connector",
        )  # fmt: skip
    choices: dict[str, list[Given]] = {
        "auto": ["tokens", "features"], "after": ["tokens"], "before": ["features"]
    }  # fmt: skip
    wanted: list[Given] = choices[speed.cache] if connector else ["features"]
    sizes = {given: _size(bundle, root, views, given) for given in wanted}
    for given, size in sizes.items():
        if size <= speed.cache_gb * GIB:
            print(
                f"  {given} of {_count(views)} images: {size / GIB:.2f} GiB to keep in {folder.name}/ at most"
            )
            return Features(bundle, root, folder, given)
    least = min(sizes.values()) / GIB
    if speed.cache != "auto":
        raise ModelError(
            f"the {wanted[0]} of {_count(views)} images do not fit", where="speed.cache_gb",
            found=f"{least:.1f} GiB", expected=f"at most {speed.cache_gb:g} GiB",
            remedy="raise speed.cache_gb, or set speed.cache: auto",
        )  # fmt: skip
    print(f"  features are not kept: {least:.1f} GiB, more than speed.cache_gb = {speed.cache_gb:g}")
    return Pixels(bundle, root)


def _kept(views: Sequence[View], given: Given) -> list[View]:
    """What is kept for these views: features image by image, tokens as the connector makes them."""
    return list(views) if given == "tokens" else [each for view in views for each in view.each]


def _count(views: Sequence[View]) -> int:
    """How many different pictures there are, degraded ones counted by record."""
    return len({v.sight for v in views})


def _size(bundle: Learner, root: Path, views: Sequence[View], given: Given) -> int:
    """Bytes that all features take, if none is kept yet: from the sizes of the images, or an encoder's first one."""
    if isinstance(bundle, DualEncoder):
        first = [pixels(bundle, root, view) for view in views[:1]]
        return sum(made.numel() for made in encode(bundle, first)) * _count(views) * 4 if first else 0
    width, views = bundle.feature_width, _kept(views, given)
    if given == "tokens":
        embeddings: nn.Module = bundle.model.get_input_embeddings()
        width = bundle.token_width or embeddings.weight.shape[1]
    if bundle.fixed:
        return _count(views) * bundle.tokens_per_image * width * 4
    grid = _sizes(bundle, root)
    different = {v.sight: v.image for v in views}
    return sum(len(bundle.words(grid(image))) for image in different.values()) * width * 4
