"""Reference log-probabilities: computed once, before the first step, and stored under all that they depend on.

A run that differs only in beta, loss or learning rate reads them instead: it makes no reference forward at all.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..data.chat import Chat
from ..data.collate import Pair, PairCollator, Plan
from ..models import checkpoint, device
from ..models.family import Bundle
from ..models.features import Features, Look
from ..recipe import Align
from ..runs import Run, canonical, digest, read_json, write_json
from ..settings import Model
from .processes import here
from .trainers import Answers

Reference = dict[str, tuple[float, ...]]


def reference(
    run: Run, section: Align, bundle: Bundle, pairs: list[Pair], look: Look, *, apart: bool
) -> Reference:
    """Reference log-probabilities, read where they are known and computed where not.

    Args:
        run: the stage at work.
        section: its recipe section.
        bundle: the parent, merged, before any new adapter.
        pairs: encoded pairs.
        look: a view to features or pixels.
        apart: third answers are the policy's own and have no stored reference.
    """
    if section.reference == "none":
        return {p.id: (0.0,) * (2 if apart else len(p.rows)) for p in pairs}
    folder = run.folder.parent / ".references"
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / f"{reference_key(run, section, bundle, pairs, look)}.json"
    if stored.exists():
        run.event("reference", computed=0, known=len(pairs))
        return {k: tuple(v) for k, v in read_json(stored).items()}
    if section.reference == "base":
        base = checkpoint.compose(bundle.base["model"], bundle.base["seed"])
        base.attend(section.speed.attention)
        look = look.of(base)
        look.prepare([v for p in pairs for v in p.views], what="images of pairs")
        bundle = base
    collator = PairCollator(Plan.of(Chat.of(bundle), look, section.speed), {}, apart=apart)
    loader: Any = DataLoader(pairs, batch_size=section.train.batch, collate_fn=collator)
    answers = Answers(bundle, bundle.model, given=look.given)
    whole = here().kind in ("", "ddp")  # else one GPU may not hold it, and it stays where it is
    with device.lent(bundle, whole=True) if whole else nullcontext():
        found = reference_logps(
            answers, tqdm(loader, desc="  reference", unit="batch"), section.train.precision
        )
    write_json(stored, found)
    run.event("reference", computed=len(found), known=0)
    return found


def reference_key(run: Run, section: Align, bundle: Bundle, pairs: list[Pair], look: Look) -> str:
    """Everything that reference log-probabilities depend on, as one hash."""
    model = fingerprint(run, section, bundle)
    rows = [
        canonical([p.id, row.encoded.ids, row.encoded.learned, [_image(look, v) for v in row.views]])
        for p in pairs
        for row in p.rows
    ]
    speed, train = section.speed, section.train
    batching = [train.precision, train.batch, look.given, speed.share, speed.pack, speed.attention]
    return digest(section.reference, model, canonical(batching), *rows)[:32]


def fingerprint(run: Run, section: Align, bundle: Bundle) -> str:
    """The base with the weights in its folders and, unless the reference is the base, all that stands on it."""
    base = [canonical(bundle.base), *checkpoint.base_weights(bundle.base)]
    if section.reference == "base" or isinstance(section.model, Model):
        return digest(*base)
    return digest(*base, *checkpoint.fingerprints(checkpoint.folder_of(run.parents[section.model])))


def _image(look: Look, view: Any) -> str:
    """What a view's tensor depends on."""
    if isinstance(look, Features):
        return look.key(view)
    return canonical([view.image.sha256, str(view.degrade), view.record, look.bundle.preprocess.key()])


@torch.no_grad()
def reference_logps(answers: Answers, batches: Any, precision: str) -> dict[str, tuple[float, ...]]:
    """Summed log-probabilities of every pair under the model as it is.

    Args:
        answers: the reference.
        batches: collated pairs, with a progress bar around them.
        precision: `float32` or `bfloat16`, as training will use.

    Returns:
        pair id -> (chosen, rejected) in nats, and the third answer's where there is one.
    """
    home = next(answers.parameters()).device
    found: dict[str, tuple[float, ...]] = {}
    answers.eval()
    for batch in batches:
        inputs = device.moved(batch, home)
        with torch.autocast(home.type, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            sums = answers(inputs).view(-1, len(inputs["ids"]))  # [2 or 3, pairs]
        found.update(zip(inputs["ids"], map(tuple, sums.T.tolist()), strict=True))
    return found
