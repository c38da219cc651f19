"""What a model is calibrated on before its weights are rounded: samples that it was taught on, read as it reads them.

Pictures, questions and answers pass through the same code as in training, as far as the language model's door. Samples
come from the train split alone; which ones, a hash of seed and id decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .. import runs
from ..data.chat import Chat
from ..data.collate import Plan, SupervisedCollator, Together
from ..data.line import Row
from ..data.prepare import Prepared
from ..data.rows import encode_samples, select
from ..errors import ModelError, RunError
from ..models.family import Bundle
from ..models.features import Pixels, gridder
from ..recipe import Calibrate
from ..types import Sample

SPLIT = "train"


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What there is to calibrate on.

    Args:
        root: data root of the images.
        samples: of the train split, in the order in which they are taken.
        read: what the model reads of a sample: with the reports that were retrieved for it, where there are any.
        asked: how many samples, and how long.
        seed: decided the order.
        data: SHA-256 of the split's file, which holds the hash of every image.
    """

    root: Path
    samples: Sequence[Sample]
    read: Callable[[Sample], Sample]
    asked: Calibrate
    seed: int
    data: str


def of(data: Prepared, asked: Calibrate, read: Callable[[Sample], Sample], seed: int) -> Calibration:
    """The train split of a prepared data set, to calibrate on. The rest as in `Calibration`.

    Raises:
        RunError: the data set holds preferences, or nothing to learn from.
    """
    if data.kind != "samples" or not data.counts.get(SPLIT):
        raise RunError(
            "there is nothing to calibrate on", where=data.folder.name,
            found=data.kind if data.kind != "samples" else f"splits {', '.join(data.counts) or 'without samples'}",
            expected="samples in the train split", remedy="name the prepared data set that the model was taught on",
        )  # fmt: skip
    samples = select(data.samples(SPLIT), asked.where)
    if not samples:
        raise RunError(
            "there is nothing to calibrate on", where="calibrate.where", found=f"no sample of split '{SPLIT}'",
            expected="at least one sample", remedy="check `where`",
        )  # fmt: skip
    return Calibration(
        root=data.root, samples=sorted(samples, key=lambda s: runs.digest(str(seed), "calibrate", s.id)), read=read,
        asked=asked, seed=seed, data=runs.hash_file(data.folder / f"{SPLIT}.parquet"),
    )  # fmt: skip


@dataclass(frozen=True)
class Given:
    """What the language model is given of the samples that were taken.

    Args:
        inputs: one row each: `inputs_embeds` [1, T, hidden], with what its family tells of masks and positions.
        facts: what `export.json` says of them: counts and hashes.
    """

    inputs: list[dict[str, Any]]
    facts: dict[str, Any]


def take(bundle: Bundle, held: Calibration) -> Given:
    """Read samples until there are enough, and keep what the language model is given of each.

    Args:
        bundle: the model; its attention is set to `eager`, which is what calibration computes with.
        held: what there is.

    Raises:
        ModelError: no sample fits, or none that fits shows an image.
    """
    rows, aside = _rows(bundle, held)
    seen = {view.image.sha256 for row in rows for view in row.views}
    if not seen:
        raise ModelError(
            "no sample to calibrate on shows an image", where="calibrate",
            found=f"{len(rows)} without, {aside} that do not fit", expected="samples with images",
            remedy="raise `max_tokens`, or name the data set that the model was taught on",
        )  # fmt: skip
    owner = {sample.id: sample.patient for sample in held.samples}
    facts = {
        "split": SPLIT, "data": held.data, "seed": held.seed, "samples": len(rows),
        "patients": len({owner[row.id] for row in rows}), "images": len(seen),
        "tokens": sum(len(row.encoded.ids) for row in rows), "too_long": aside,
        "chosen": runs.digest(*(row.id for row in rows)),
    }  # fmt: skip
    return Given(inputs(bundle, rows, held.root), facts)


def _rows(bundle: Bundle, held: Calibration) -> tuple[list[Row], int]:
    """The first samples that fit, encoded as in training, and how many were passed over."""
    chat, grid = Chat.of(bundle), gridder(bundle, held.root)
    rows: list[Row] = []
    aside = 0
    for sample in held.samples:
        made, left = encode_samples([held.read(sample)], chat, held.asked.max_tokens, grid)
        rows, aside = [*rows, *made], aside + len(left)
        if len(rows) == held.asked.samples:
            break
    return rows, aside


@torch.no_grad()
def inputs(bundle: Bundle, rows: Sequence[Row], root: Path) -> list[dict[str, Any]]:
    """What the language model is given for each row, alone in its batch: no padding is calibrated on.

    Args:
        bundle: the model.
        rows: encoded conversations.
        root: data root of their images.

    Returns:
        Keyword arguments of the language model; those that are None are left out.
    """
    bundle.attend("eager")
    made: list[dict[str, Any]] = []

    def note(model: nn.Module, inputs_embeds: Tensor, **told: Any) -> Any:
        """Stands at the language model's door, and lets nothing in."""
        made.append({"inputs_embeds": inputs_embeds, **{k: v for k, v in told.items() if v is not None}})
        return SimpleNamespace(last_hidden_state=inputs_embeds)

    watched = replace(bundle, family=replace(bundle.family, hidden=note))
    chat = Chat.of(bundle)
    plan = Plan(look=Pixels(bundle, root), pad=chat.pad, image_token=chat.image_token, share=False)
    collate = SupervisedCollator(plan)
    dtype = next(bundle.family.module(bundle.model, bundle.family.parts["vision"][0]).parameters()).dtype
    for row in rows:
        batch = collate([Together((row,))])
        batch["images"] = [image.to(dtype) for image in batch["images"]]
        # Masks and positions are told: Mistral and Phi-3 make none while llm-compressor traces them.
        batch["plain"] = False
        watched.forward(batch, given="pixels")
    return made
