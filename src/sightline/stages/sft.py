"""sft: teach a model to answer, by cross-entropy on the assistant's words only."""

from __future__ import annotations

from collections.abc import Sequence

from ..data import prepare
from ..data.chat import Chat
from ..data.collate import Plan, SupervisedCollator, one_of_each, together
from ..data.prepare import Prepared
from ..data.rows import encode_samples, select
from ..models import checkpoint, trainable
from ..models.features import gridder, looker
from ..recipe import Sft
from ..runs import Run, digest, write_json
from ..settings import Model
from ..train.fit import Job, fit
from ..train.processes import turns
from ..train.trainers import Answers, SupervisedTrainer
from ..types import Sample
from . import watched
from .answers import aided, unaided

VERSION = 2


def run(run: Run, section: Sft, seed: int) -> None:
    """Encode the training samples, train what the recipe says, save it."""
    data = prepare.load(run.parents[section.data])
    if isinstance(section.model, Model):
        parent = None
        bundle = checkpoint.compose(section.model.model_dump(), seed)
    else:
        parent = checkpoint.folder_of(run.parents[section.model])
        bundle = checkpoint.load(parent)
    bundle.attend(section.speed.attention)
    trained = trainable.apply(bundle, section.trainable, seed)
    print(trainable.text(trainable.table(bundle, section.trainable)))

    chat = Chat.of(bundle)
    grid = gridder(bundle, data.root)
    samples = read(data, select(data.samples("train"), section.where), section.reports, seed)
    rows, aside = encode_samples(samples, chat, section.max_tokens, grid)
    run.set_aside(aside, len(rows), "samples")
    seen = watched.choose(data, section, chat, grid, lambda s: read(data, s, section.reports, seed), seed)
    views = [v for r in rows for v in r.views]
    shown = [*views, *seen.views]
    frozen = trainable.frozen(bundle, section.trainable)
    with turns():
        look = looker(bundle, data.root, run.folder.parent / ".features", shown, frozen, section.speed)
        look.prepare(shown, what="training images")

    groups = together(rows, section.together, seed)
    answers = Answers(bundle, trained, given=look.given)
    plan = Plan.of(chat, look, section.speed, one_of_each(views))
    job = Job(
        answers=answers,
        asked=section.trainable,
        rows=groups,
        ids=[g.id for g in groups],
        collator=SupervisedCollator(plan),
        train=section.train,
        seed=seed,
    )
    best = watched.watcher(run, section, answers, seen, plan)
    curve = fit(run, job, SupervisedTrainer, best=best)
    write_json(run.work / "curve.json", curve)
    if best is not None:
        write_json(run.work / "validation.json", {"best": best.step, "history": best.history})
    asked = section.model_dump(mode="json")["trainable"]
    home = run.folder / "model"
    checkpoint.save(run.work / "model", bundle, trained, parent=parent, trained=asked, home=home)


def read(data: Prepared, samples: Sequence[Sample], share: float, seed: int) -> list[Sample]:
    """What the model reads of the samples: a share of them, chosen by hash, with the reports retrieved for them."""
    helped, alone = aided(data), unaided(data)
    return [(helped if part(s.id, seed) < share else alone)(s) for s in samples]


def part(sample: str, seed: int) -> float:
    """Where a sample stands between 0 and 1, as a function of seed and id."""
    return int(digest(str(seed), "reports", sample)[:13], 16) / 16**13
