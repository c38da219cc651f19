"""Answers of models, kept beside the stages under all that they depend on: what was asked once is known for good.

A set of answers is a file of `.answers`, one line per sample, appended as answers come; so a killed run goes on where
it stood, and another metric, or another kind of pair, needs no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import runs
from ..data.chat import Chat
from ..data.prepare import Prepared
from ..data.prompts import with_reports
from ..errors import RunError
from ..inference import PLAIN, Ledger, Manner, ask, in_precision, items, predictions
from ..models.family import Bundle
from ..models.features import Features, gridder
from ..settings import Generate, Template
from ..types import ImageRef, Sample, View
from .far import Far

VERSION = 1  # raised whenever the same question would be answered otherwise
See = Callable[[Sample, int], View]
Read = Callable[[Sample], Sample]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One set of answers.

    Args:
        name: what progress calls it.
        shown: which images it sees; what events call it.
        samples: what is asked, in order.
        see: (sample, image index) -> the view that is shown in its place.
        read: what the model reads of a sample.
        key: all that the answers depend on; see `key_of`.
        manner: how conversations are led.
    """

    name: str
    shown: str
    samples: Sequence[Sample]
    see: See
    read: Read
    key: str
    manner: Manner = PLAIN


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where questions are asked and answers are kept.

    Args:
        root: data root of the images.
        home: folder of the stages; answers go to `.answers` there, features to `.features`.
        generate: how answers are produced.
    """

    root: Path
    home: Path
    generate: Generate

    def ledger(self, asked: Asked) -> Ledger:
        """The answers of a set that are known so far."""
        return Ledger(self.place(asked))

    def place(self, asked: Asked) -> Path:
        """The file of a set of answers, in a folder that is there."""
        folder = self.home / ".answers"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{asked.key[:32]}.jsonl"

    def made_with(self, asked: Asked) -> list[dict[str, str]]:
        """Versions of the libraries that answers of a set came from; several where it was answered in parts.

        Empty for answers that were kept before this was noted.
        """
        path = self.place(asked).with_suffix(".json")
        return list(runs.read_json(path)) if path.is_file() else []

    def sign(self, asked: Asked) -> None:
        """Note the versions that the answers of a set will come from."""
        known, now = self.made_with(asked), runs.versions()
        if now not in known:
            runs.write_json(self.place(asked).with_suffix(".json"), [*known, now])


def answer(
    desk: Desk,
    sets: Sequence[Asked],
    open_model: Callable[[], Bundle | Far],
    note: Callable[[Asked, int], None],
) -> list[Ledger]:
    """Answer what is not known yet; the model is opened only if there is any such thing.

    Args:
        desk: where.
        sets: what is asked of one model.
        open_model: gives that model.
        note: called with each set that was not complete and the number of samples that were missing.

    Returns:
        The ledgers of the sets, complete.
    """
    ledgers = [desk.ledger(asked) for asked in sets]
    missing = [
        [s for s in a.samples if s.id not in kept.known] for a, kept in zip(sets, ledgers, strict=True)
    ]
    if not any(missing):
        return ledgers
    ask_set = _asker(desk, open_model())
    for asked, ledger, samples in zip(sets, ledgers, missing, strict=True):
        if samples:
            desk.sign(asked)
            ask_set(replace(asked, samples=samples), ledger)
            note(asked, len(samples))
    return ledgers


def _asker(desk: Desk, model: Bundle | Far) -> Callable[[Asked, Ledger], None]:
    """What answers the samples of a set: a model in this process, or one behind an address."""
    if isinstance(model, Far):
        return lambda asked, ledger: model.ask(desk, asked, ledger)
    look = Features(model, desk.root, desk.home / ".features")
    in_precision(model, desk.generate)
    return lambda asked, ledger: _ask(desk, model, look, ledger, asked)


def _ask(desk: Desk, bundle: Bundle, look: Features, ledger: Ledger, asked: Asked) -> None:
    """Answer the samples of a set and note each at once."""
    print(f"  {asked.name}")
    todo = items(asked.samples, Chat.of(bundle), asked.see, gridder(bundle, desk.root), asked.read)
    look.prepare([v for item in todo for v in item.views], what=asked.name)
    ask(
        bundle,
        todo,
        look,
        desk.generate,
        lambda item, made: ledger.add(item.sample.id, predictions(item, made)),
        asked.manner,
    )


def key_of(
    desk: Desk, model: dict[str, Any], samples: Sequence[Sample], read: Read, *, shown: str, seed: int
) -> str:
    """What names a set of answers.

    Args:
        desk: how answers are produced.
        model: what the model is made of, as plain values.
        samples: what is asked.
        read: what the model reads of a sample.
        shown: which images it sees, and how it is led.
        seed: what chance depends on.
    """
    asked = [
        runs.canonical([s.id, s.patient, [_seen(r) for r in s.images], _texts(read(s))]) for s in samples
    ]
    settings = runs.canonical(desk.generate.model_dump(mode="json"))
    return runs.digest(runs.canonical(model), shown, str(seed), settings, str(VERSION), *asked)


def _seen(ref: ImageRef) -> str | list[str]:
    """What decides how an image is seen; that of current ones is as it was before there were prior ones."""
    return ref.sha256 if ref.when == "current" else [ref.sha256, ref.when]


def _texts(sample: Sample) -> list[list[Any]]:
    return [[m.role, list(m.parts), m.topic] for m in sample.messages]


def aided(data: Prepared) -> Read:
    """How a model reads the samples of a data set: with the reports retrieved for them, where there are any."""
    template = template_of(data)
    return (lambda sample: sample) if template is None else (lambda sample: with_reports(sample, template))


def unaided(data: Prepared) -> Read:
    """The same without the reports, in the wording that the template has for that."""
    read = aided(data)
    return lambda sample: read(replace(sample, references=()))


def template_of(data: Prepared) -> Template | None:
    """How reports stand in prompts; None for a data set without retrieved reports."""
    return None if data.template is None else Template.model_validate(dict(data.template))


def check_reports(data: Prepared, what: str, where: str) -> None:
    """Refuse what needs retrieved reports where there are none.

    Raises:
        RunError: the data set is not one of a `retrieve` stage.
    """
    if data.template is None:
        raise RunError(
            f"{what} needs the reports that were retrieved for each sample, and this data set has none",
            where=where,
            found=f"data set '{data.folder.name}' without retrieved reports",
            expected="the data set of a `retrieve` stage",
            remedy="name a `retrieve` stage as `data`, or leave this out",
        )
