"""prefer: preference pairs from samples; with a model, pairs are made where that model errs most."""

from __future__ import annotations

import os
from pathlib import Path

from ..data import pairs, prepare
from ..data.chat import Chat
from ..data.store import write_preferences
from ..errors import DataError
from ..inference import Answer, Item, ask, in_precision, items
from ..models import checkpoint
from ..models.features import Features, gridder
from ..recipe import Prefer
from ..runs import Run, digest, write_json
from ..settings import Generate
from ..types import Degrade, Preference, Sample, View

VERSION = 1
ASKED = Generate(max_new_tokens=1, batch=64, precision="bfloat16")


def run(run: Run, section: Prefer, seed: int) -> None:
    """Choose samples, make each kind's pairs, write them as a data set of preferences."""
    data = prepare.load(run.parents[section.data])
    samples = chosen(list(data.samples("train")), section, seed)
    hardest = {}
    if section.model is not None:
        place = checkpoint.folder_of(run.parents[section.model])
        hardest = ask_for_hardest(samples, place, data.root, run.folder.parent / ".features", section)
    made: list[Preference] = []
    spec = Degrade(kind=section.degrade.kind, strength=section.degrade.strength, seed=seed)
    for kind, share in section.kinds.items():
        part = samples[: round(share * len(samples))]
        if kind == "wrong_finding":
            made += pairs.wrong(part, seed, section.topics, hardest)
        else:
            made += pairs.degraded(part, seed, section.topics, spec)
    if not made:
        raise DataError(
            "no pair could be made", where=f"stage {run.name}", remedy="look at `topics` and `kinds`"
        )
    write_preferences(run.work / "train.parquet", made)
    counts = {kind: sum(p.why == kind for p in made) for kind in section.kinds}
    generated = data.root.is_relative_to(data.folder)
    root = os.path.relpath(data.root, run.folder) if generated else str(data.root)
    about = {"kind": "preferences", "root": root, "generated": generated, "rejected": 0}
    write_json(run.work / "dataset.json", {**about, "counts": {"train": len(made)}, "kinds": counts})
    run.event("pairs", **counts)
    print("  " + ", ".join(f"{count} {kind} pairs" for kind, count in counts.items()))


def chosen(samples: list[Sample], section: Prefer, seed: int) -> list[Sample]:
    """The samples that pairs are made from: all, or `limit` of them by hash."""
    ordered = sorted(samples, key=lambda s: digest(str(seed), "prefer", s.id))
    return ordered[: section.limit]


def ask_for_hardest(
    samples: list[Sample], place: Path, root: Path, folder: Path, section: Prefer
) -> dict[str, int]:
    """For each sample the closed turn at which the model prefers the wrong answer most.

    Returns:
        sample id -> position of that assistant message.
    """
    bundle = checkpoint.load(place)
    look = Features(bundle, root, folder)
    chat = Chat.of(bundle)
    todo = [
        i
        for i in items(samples, chat, lambda s, i: View(s.images[i], s.id), gridder(bundle, root))
        if any(i.closed)
    ]
    look.prepare([v for i in todo for v in i.views], what="images to ask about")
    found: dict[str, int] = {}

    def note(item: Item, answers: list[Answer]) -> None:
        places = [i for i, m in enumerate(item.sample.messages) if m.role == "assistant"]
        usable = set(pairs.turns(item.sample, section.topics))
        margins = [
            (_margin(answer, item.sample.messages[place].text), place)
            for answer, place in zip(answers, places, strict=True)
            if answer.choices and place in usable
        ]
        if margins:
            found[item.sample.id] = min(margins)[1]

    in_precision(bundle, ASKED)
    ask(bundle, todo, look, ASKED, note)
    return found


def _margin(answer: Answer, right: str) -> float:
    """Log p(right) - log p(wrong) of a closed turn, in nats."""
    margin = answer.choices["yes"] - answer.choices["no"]
    return margin if right.lower().startswith("yes") else -margin
