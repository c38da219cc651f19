"""prefer: preference pairs from samples; with a model, pairs are made where that model errs.

Three ways lead to pairs: from the samples alone, by a model's answers with and without image and reports (MMed-RAG),
and by answers that a second model judges (RLAIF-V). The result holds Sightline's pairs and MMed-RAG's JSON of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data import alignment, judged, pairs, prepare, reliance
from ..data.audit import across
from ..data.chat import Chat
from ..data.prepare import Prepared
from ..data.reliance import Key, Made
from ..data.store import write_preferences
from ..errors import DataError
from ..inference import Answer, Item, Ledger, Manner, ask, in_precision, items
from ..metrics.answers import closed
from ..models import checkpoint
from ..models.chance import Chance
from ..models.features import Features, gridder
from ..recipe import Kind, Prefer
from ..runs import Run, digest, write_json
from ..settings import Generate
from ..types import Degrade, Preference, Sample, View
from .answers import Asked, Desk, Read, aided, answer, check_reports, key_of, unaided

VERSION = 2
ASKED = Generate(max_new_tokens=1, batch=64, precision="bfloat16")
ORIGINAL = "mmed_rag.json"


@dataclass(frozen=True)
class Task:
    """What a stage makes pairs from.

    Args:
        run, section: the stage.
        data: the data set.
        samples: those that pairs may be made from.
        spec: the degraded image.
        seed: the recipe's.
    """

    run: Run
    section: Prefer
    data: Prepared
    samples: list[Sample]
    spec: Degrade
    seed: int

    def first(self, kind: Kind) -> list[Sample]:
        """The samples that a kind may use."""
        return self.samples[: round(self.section.kinds[kind] * len(self.samples))]

    @property
    def desk(self) -> Desk:
        """Where models are asked."""
        return Desk(root=self.data.root, home=self.run.folder.parent, generate=self.section.generate)


def run(run: Run, section: Prefer, seed: int) -> None:
    """Choose samples, make each kind's pairs, write them as a data set of preferences."""
    data = prepare.load(run.parents[section.data])
    spec = Degrade(kind=section.degrade.kind, strength=section.degrade.strength, seed=seed)
    samples = chosen(list(data.samples(section.split)), section, seed)
    task = Task(run, section, data, samples, spec, seed)
    made = {**from_samples(task), **from_answers(task), **from_judge(task)}
    found = [pair for kind in section.kinds for pair in made[kind].pairs]
    if not found:
        raise DataError(
            "no pair could be made", where=f"stage {run.name}", found=_outcome(made),
            remedy="look at `topics` and `kinds`",
        )  # fmt: skip
    write(task, found, {kind: made[kind].counts for kind in section.kinds})


def write(task: Task, found: list[Preference], counts: Mapping[str, Counter[str]]) -> None:
    """Write the pairs, MMed-RAG's JSON of them, what became of the turns, and what pairs and test share."""
    work, data = task.run.work, task.data
    write_preferences(work / "train.parquet", found)
    alignment.write(work / ORIGINAL, found)
    kinds = {kind: sum(p.why == kind for p in found) for kind in counts}
    generated = data.root.is_relative_to(data.folder)
    root = os.path.relpath(data.root, task.run.folder) if generated else str(data.root)
    about = {"kind": "preferences", "root": root, "generated": generated, "rejected": 0}
    turns = {kind: dict(each) for kind, each in counts.items() if each}
    write_json(
        work / "dataset.json", {**about, "counts": {"train": len(found)}, "kinds": kinds, "turns": turns}
    )
    if "test" in data.counts:
        leak = across(found, data.samples("test"), names=("pairs", "test"))
        write_json(work / "audit.json", {leak.name: leak.to_dict()})
        if leak.warning:
            print(f"  warning: {leak.warning}")
    task.run.event("pairs", **kinds)
    task.run.event("turns", **turns)
    print("  " + ", ".join(f"{count} {kind} pairs" for kind, count in kinds.items()))


def chosen(samples: list[Sample], section: Prefer, seed: int) -> list[Sample]:
    """The samples that pairs are made from: all, or `limit` of them by hash."""
    ordered = sorted(samples, key=lambda s: digest(str(seed), "prefer", s.id))
    return ordered[: section.limit]


def from_samples(task: Task) -> dict[str, Made]:
    """The kinds that need no answers; a model, if there is one, says where it errs most."""
    section, read, found = task.section, aided(task.data), dict[str, Made]()
    if "wrong_finding" in section.kinds:
        hardest = {}
        if section.model is not None:
            place = checkpoint.folder_of(task.run.parents[section.model])
            home = task.run.folder.parent / ".features"
            hardest = ask_for_hardest(task.samples, place, task.data.root, home, section, read)
        part = [read(sample) for sample in task.first("wrong_finding")]
        found["wrong_finding"] = Made(pairs.wrong(part, task.seed, section.topics, hardest))
    if "degraded" in section.kinds:
        part = [read(sample) for sample in task.first("degraded")]
        found["degraded"] = Made(pairs.degraded(part, task.seed, section.topics, task.spec))
    return found


def from_answers(task: Task) -> dict[str, Made]:
    """MMed-RAG's kinds: the model is asked with and without image and reports, as far as the kinds need it."""
    section = task.section
    names = reliance.sets_of(list(section.kinds))
    if not names or section.model is None:
        return {}
    if any(name.startswith("aided") for name in names):
        check_reports(
            task.data, "a kind that compares answers with and without reports", f"stage {task.run.name}"
        )
    shares = {str(kind): share for kind, share in section.kinds.items() if kind in reliance.RULES}
    part = task.samples[: round(max(shares.values()) * len(task.samples))]
    sets = [_set(task, name, part) for name in names]
    ledgers = _answered(task, section.model, task.desk, sets)
    study = reliance.Study(
        samples=task.samples,
        said={name: _texts(ledger) for name, ledger in zip(names, ledgers, strict=True)},
        aided=aided(task.data),
        unaided=unaided(task.data),
        degrade=task.spec,
        topics=section.topics,
        judge=section.judge,
        even=section.even,
        seed=task.seed,
    )
    return reliance.build(study, shares)


def from_judge(task: Task) -> dict[str, Made]:
    """RLAIF-V's kind: answers drawn by chance, each sentence put to the judge."""
    section = task.section
    if "judged" not in section.kinds or section.model is None or section.judge.model is None:
        return {}
    part, read = task.first("judged"), aided(task.data)
    usable = {s.id: _open_turns(s, section.topics) for s in part}
    part = [s for s in part if usable[s.id]]
    attempts = [
        _set(task, "aided", part, Chance(task.seed, attempt)) for attempt in range(section.judge.candidates)
    ]
    said = [_texts(ledger) for ledger in _answered(task, section.model, task.desk, attempts)]
    tried = {(s.id, turn): [each[s.id, turn] for each in said] for s in part for turn in usable[s.id]}
    asked = judged.questions(part, tried)
    desk = replace(task.desk, generate=section.generate.model_copy(update={"max_new_tokens": 1}))
    judge = _named(task, section.judge.model)
    claims = Asked(
        name=f"judging {len(asked)} claims",
        shown="judged",
        samples=asked,
        see=lambda sample, i: View(sample.images[i], sample.id.rpartition("/")[0]),
        read=lambda sample: sample,
        key=key_of(desk, judge, asked, lambda sample: sample, shown="judged", seed=task.seed),
    )
    (ledger,) = _answered(task, section.judge.model, desk, [claims]) if asked else (None,)
    leads = {} if ledger is None else {name: _lead(rows[0]["choices"]) for name, rows in ledger.known.items()}
    return {"judged": judged.build(part, tried, leads, read)}


def _set(task: Task, name: str, part: list[Sample], chance: Chance | None = None) -> Asked:
    """One of the four answer sets, or an attempt at answers by chance; every turn is asked after right answers."""
    spec = task.spec if name.endswith("_degraded") else None
    helped = name.startswith("aided")
    read = (aided if helped else unaided)(task.data)
    attempt = "" if chance is None else f", attempt {chance.attempt + 1}"
    reports = "with" if helped and task.data.template is not None else "without"
    assert task.section.model is not None, "the recipe's check asks for it"
    model = _named(task, task.section.model)
    return Asked(
        name=f"{'degraded' if spec else 'clean'} images, {reports} reports{attempt}",
        shown=name + attempt,
        samples=part,
        see=lambda sample, i: View(sample.images[i], sample.id, spec),
        read=read,
        key=key_of(task.desk, model, part, read, shown=f"prefer/{spec}/{chance}", seed=task.seed),
        manner=Manner(right=True, chance=chance),
    )


def _answered(task: Task, model: str, desk: Desk, sets: list[Asked]) -> list[Ledger]:
    place = checkpoint.folder_of(task.run.parents[model])
    return answer(
        desk,
        sets,
        lambda: checkpoint.load(place),
        lambda one, count: task.run.event("answered", model=model, image=one.shown, samples=count),
    )


def _named(task: Task, model: str) -> dict[str, Any]:
    """What a saved model is made of, for the name of its answers."""
    return {"line": checkpoint.fingerprints(checkpoint.folder_of(task.run.parents[model]))}


def _texts(ledger: Ledger) -> dict[Key, str]:
    """The answers of a ledger by sample and turn."""
    return {(sample, p["turn"]): p["text"] for sample, made in ledger.known.items() for p in made}


def _open_turns(sample: Sample, topics: tuple[str, ...]) -> list[int]:
    """The turns that a judge can compare answers to: those that no yes or no answers."""
    places, usable, found = pairs.turns(sample, ()), pairs.turns(sample, topics), []
    for turn, place in enumerate(places):
        right = sample.messages[place]
        asked = next(m.text for m in reversed(sample.messages[:place]) if m.role == "user")
        if place in usable and (right.topic == reliance.REPORT or closed(asked, right.text) is None):
            found.append(turn)
    return found


def _lead(choices: Mapping[str, float]) -> float:
    """Log p(yes) - log p(no), in nats."""
    return choices["yes"] - choices["no"]


def _outcome(made: Mapping[str, Made]) -> str:
    """What became of the turns of each kind, in one line."""
    shown = {kind: ", ".join(f"{n} {what}" for what, n in each.counts.items()) for kind, each in made.items()}
    return "; ".join(f"{kind}: {text or 'no turn could be used'}" for kind, text in shown.items())


def ask_for_hardest(
    samples: list[Sample], place: Path, root: Path, folder: Path, section: Prefer, read: Read
) -> dict[str, int]:
    """For each sample the closed turn at which the model prefers the wrong answer most.

    Returns:
        sample id -> position of that assistant message.
    """
    bundle = checkpoint.load(place)
    look = Features(bundle, root, folder)
    in_precision(bundle, ASKED)
    chat = Chat.of(bundle)
    todo = [
        i
        for i in items(samples, chat, lambda s, i: View(s.images[i], s.id), gridder(bundle, root), read)
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

    ask(bundle, todo, look, ASKED, note)
    return found


def _margin(answer: Answer, right: str) -> float:
    """Log p(right) - log p(wrong) of a closed turn, in nats."""
    margin = answer.choices["yes"] - answer.choices["no"]
    return margin if right.lower().startswith("yes") else -margin
