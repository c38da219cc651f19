"""align: preference training from the parent merged, with a fresh adapter on top; the reference never drifts.

Reference log-probabilities are computed once, before the first step, and stored under all that they depend on: a
run that differs only in beta, loss or learning rate reads them instead.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm

from .. import plugins
from ..data import prepare
from ..data.chat import Chat
from ..data.collate import Pair, PairCollator, Plan
from ..data.rows import encode_pairs, select
from ..losses.pairs import PairLoss
from ..models import checkpoint, trainable
from ..models.family import Bundle
from ..models.features import Features, Pixels, looker
from ..recipe import Align
from ..runs import Run, canonical, digest, read_json, write_json
from ..train.fit import Job, fit
from ..train.trainers import Answers, PairTrainer, reference_logps

VERSION = 1
Reference = dict[str, tuple[float, float]]


def run(run: Run, section: Align, seed: int) -> None:
    """Encode the pairs, find the reference's log-probabilities, train, save."""
    data = prepare.load(run.parents[section.data])
    parent = checkpoint.folder_of(run.parents[section.model])
    bundle = checkpoint.load(parent)
    chat = Chat.of(bundle)
    pairs, aside = encode_pairs(select(data.preferences("train"), section.where), chat, section.max_tokens)
    run.set_aside(aside, len(pairs), "pairs")
    frozen = trainable.is_frozen(section.trainable, "vision")
    look = looker(bundle, data.root, run.folder.parent / ".features", frozen=frozen)
    look.prepare([v for p in pairs for v in p.views], what="images of pairs")

    plugin: PairLoss = plugins.load("losses", section.loss.name)
    known: Reference = {}
    if plugin.needs_reference:
        known = reference(run, section, bundle, pairs, look, frozen=frozen)
    trained = trainable.apply(bundle, section.trainable, seed)
    trainable.silence(bundle.model)
    print(trainable.text(trainable.table(bundle, section.trainable)))
    job = Job(
        answers=Answers(bundle, trained, frozen_features=frozen),
        asked=section.trainable,
        rows=pairs,
        ids=[p.id for p in pairs],
        collator=PairCollator(plan_of(chat, look), known),
        train=section.train,
        seed=seed,
    )
    options = plugins.bind("losses", section.loss.name, section.loss.options)
    curve = fit(run, job, PairTrainer, loss=partial(plugin.loss, **options))
    write_json(run.work / "curve.json", curve)
    asked = section.model_dump(mode="json")["trainable"]
    home = run.folder / "model"
    checkpoint.save(run.work / "model", bundle, trained, parent=parent, trained=asked, home=home)


def plan_of(chat: Chat, look: Features | Pixels) -> Plan:
    """How this model's pairs become batches."""
    return Plan(look=look, pad=chat.pad, image_token=chat.image_token)


def reference(
    run: Run, section: Align, bundle: Bundle, pairs: list[Pair], look: Features | Pixels, *, frozen: bool
) -> Reference:
    """Reference log-probabilities, read where they are known and computed where not.

    Args:
        run: the stage at work.
        section: its recipe section.
        bundle: the parent, merged, before any new adapter.
        pairs: encoded pairs.
        look: a view to features or pixels.
        frozen: whether `look` gives features.
    """
    folder = run.folder.parent / ".references"
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / f"{reference_key(run, section, bundle, pairs, look)}.json"
    if stored.exists():
        run.event("reference", computed=0, known=len(pairs))
        return {k: (v[0], v[1]) for k, v in read_json(stored).items()}
    if section.reference == "base":
        base = checkpoint.compose(bundle.base["model"], bundle.base["seed"])
        look = looker(base, look.root, run.folder.parent / ".features", frozen=frozen)
        look.prepare([v for p in pairs for v in p.views], what="images of pairs")
        bundle = base
    collator = PairCollator(plan_of(Chat.of(bundle), look), {})
    loader: Any = DataLoader(pairs, batch_size=section.train.batch, collate_fn=collator)
    answers = Answers(bundle, bundle.model, frozen_features=frozen)
    found = reference_logps(answers, tqdm(loader, desc="  reference", unit="batch"), section.train.precision)
    write_json(stored, found)
    run.event("reference", computed=len(found), known=0)
    return found


def reference_key(
    run: Run, section: Align, bundle: Bundle, pairs: list[Pair], look: Features | Pixels
) -> str:
    """Everything that reference log-probabilities depend on, as one hash."""
    model = canonical(bundle.base) if section.reference == "base" else fingerprint(run, section)
    rows = [
        canonical([p.id, row.encoded.ids, row.encoded.learned, [_image(look, v) for v in row.views]])
        for p in pairs
        for row in (p.chosen, p.rejected)
    ]
    batching = [section.train.precision, section.train.batch]
    return digest(section.reference, model, canonical(batching), *rows)[:32]


def fingerprint(run: Run, section: Align) -> str:
    """The parent's saved model and those below it, as one hash."""
    return digest(*checkpoint.fingerprints(checkpoint.folder_of(run.parents[section.model])))


def _image(look: Features | Pixels, view: Any) -> str:
    """What a view's tensor depends on."""
    if isinstance(look, Features):
        return look.key(view)
    return canonical([view.image.sha256, str(view.degrade), view.record, look.bundle.preprocess.key()])
