"""What `sft` looks at while a model learns: answers to samples of the valid split, which are not learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .. import judging
from ..data.chat import Chat
from ..data.collate import Plan, SupervisedCollator
from ..data.line import Row
from ..data.prepare import Prepared
from ..data.rows import GridOf, encode_samples, select
from ..recipe import Sft
from ..runs import Run, digest
from ..train.callbacks import Best
from ..train.forced import Forced, Scored
from ..train.trainers import Answers
from ..types import Sample, View

SPLIT = "valid"
Read = Callable[[Sequence[Sample]], list[Sample]]


@dataclass(frozen=True)
class Watched:
    """The rows that are looked at, their samples as they are, and what is measured; empty where nothing is asked."""

    rows: Sequence[Row] = ()
    samples: Mapping[str, Sample] = field(default_factory=dict)
    metrics: Sequence[Scored] = ()

    @property
    def views(self) -> list[View]:
        """What the rows' image tokens stand for."""
        return [view for row in self.rows for view in row.views]


def choose(data: Prepared, section: Sft, chat: Chat, grid: GridOf, read: Read, seed: int) -> Watched:
    """The samples of the valid split that the recipe asks for, encoded as training samples are.

    Args:
        data: the data set.
        section: the stage's section.
        chat: how the model writes conversations.
        grid: what the model must know of an image's size.
        read: what the model reads of samples.
        seed: decides which samples, where `limit` leaves some out.

    Raises:
        RecipeError: options of a metric that do not fit.
    """
    if section.watch is None:
        return Watched()
    metrics = judging.loaded(section.watch.metrics)
    known = select(data.samples(SPLIT), section.where) if SPLIT in data.counts else []
    chosen = sorted(known, key=lambda s: digest(str(seed), "watch", s.id))[: section.watch.limit]
    rows, _ = encode_samples(read(chosen), chat, section.max_tokens, grid)
    return Watched(rows, {s.id: s for s in chosen}, metrics)


def watcher(run: Run, section: Sft, answers: Answers, watched: Watched, plan: Plan) -> Best | None:
    """What measures every so many steps; None, and said so, where there is nothing to look at.

    Args:
        run: the stage; every measurement becomes an event.
        section: its section.
        answers: the model that learns.
        watched: what is looked at.
        plan: how training rows become batches.
    """
    if section.watch is None:
        return None
    if not watched.rows:
        print(f"  the {SPLIT} split has no such samples: nothing is watched")
        run.event("not_watched")
        return None
    apart = Plan(look=plan.look, pad=plan.pad, image_token=plan.image_token, share=False)
    forced = Forced(
        answers=answers,
        rows=watched.rows,
        samples=watched.samples,
        collate=SupervisedCollator(apart),
        batch=section.train.batch,
        metrics=watched.metrics,
        half=section.train.precision == "bfloat16",
    )
    return Best(
        dict,  # figures alone: no weights are kept
        section.watch.every,
        forced.validate,
        lambda found: (-found["loss"],),
        lambda entry: run.event("validation", **entry),
    )
