"""An evaluation computed again from the answers that it keeps, and compared with what it wrote, number by number.

Three witnesses are heard: the scores themselves; the data set, which knows questions, right answers and patients; and
the answers kept beside the stages, which know what the models said. So an answer that was changed is found where its
hash was made anew, too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import plugins, runs
from ..data import prepare
from ..data.turns import exchanges
from ..errors import DataError, RunError
from ..images import files
from ..judging import Side
from ..recipe import Evaluate
from ..types import Prediction, Sample
from . import kept
from .compared import Fault, compare, short, values
from .confidence import thresholds
from .occlusion import KINDS, MARK
from .result import RESULT, options_of, scoring
from .scores import scored

SCORES, ABSTAIN = "scores.json", "abstain.json"
TOLD = ("patient", "question", "answer", "topic")
SAID = ("text", "choices", "logp")
NOTHING = "nothing"


@dataclass(kw_only=True)
class Recount:
    """What was computed again.

    Args:
        numbers: how many rows of scores were compared.
        faults: what differs.
        notes: what a reader should know: metrics left out, code that has changed since.
    """

    numbers: int = 0
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """A finished evaluation as it stands."""

    folder: Path
    section: Evaluate
    seed: int
    names: Sequence[str]
    data: prepare.Prepared
    made: Mapping[Side, Sequence[Prediction]]
    result: Mapping[str, Any]


def recount(
    folder: Path, parents: Mapping[str, Path], *, models: bool = False, tolerance: float = 0.0
) -> Recount:
    """Score the answers of a finished evaluation again.

    Args:
        folder: the stage's.
        parents: the folders of the stages that it read, by name.
        models: also run metrics that need a model.
        tolerance: largest relative difference of two numbers that counts as none.

    Raises:
        DataError: a file of predictions cannot be read, or the data set is not there.
        RunError: a file of the run is missing or damaged.
    """
    case = _open(folder, parents)
    found = Recount()
    _same_words(case, found)
    found.faults += list(_complete(case))
    found.faults += list(_answers(case))
    found.faults += list(_numbers(case, found, models=models, tolerance=tolerance))
    found.faults += list(_pictures(case, found))
    found.faults += list(_abstain(case, found, tolerance))
    return found


def _open(folder: Path, parents: Mapping[str, Path]) -> _Case:
    """Everything that the scores were made from."""
    manifest = runs.read_json(folder / runs.MANIFEST)
    section = Evaluate.model_validate(manifest["section"])
    names = kept.names_of(section.models, manifest["parents"])
    result = runs.read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    try:
        made = kept.read(folder, names, section.images)
    except OSError as error:
        raise RunError("a file of predictions is missing", where=str(error.filename)) from None
    return _Case(
        folder=folder, section=section, seed=manifest["seed"], names=names, data=prepare.load(parents[section.data]),
        made=made, result=result,
    )  # fmt: skip


def _numbers(case: _Case, found: Recount, *, models: bool, tolerance: float) -> Iterator[Fault]:
    """Every score against the same computed again; one fault where that is not possible."""
    stored = runs.read_json(case.folder / SCORES)
    try:
        again = _scores(case, found, models=models)
    except DataError as error:
        yield Fault(file=SCORES, found=error.what, expected="scores that can be computed again")
        return
    found.numbers = sum(len(stored.get(key, ())) for key in ("rows", "paired", "parts"))
    yield from compare(SCORES, stored, again, _left_out(case, models=models), tolerance)


def _complete(case: _Case) -> Iterator[Fault]:
    """Turns that one file lacks and another has, or has twice; boxes are covered in some turns only."""
    asked = {side: [(p.sample, p.turn) for p in made] for side, made in case.made.items()}
    whole = {key for (_, image), keys in asked.items() if image not in KINDS for key in keys}
    for (name, image), keys in asked.items():
        file = kept.place(Path(), name, image).as_posix()
        for sample, turn in sorted(whole - set(keys)) if image not in KINDS else ():
            yield Fault(
                file=file, place=f"sample {sample}, turn {turn}", found="no such line", expected="one"
            )
        for (sample, turn), count in Counter(keys).items():
            if count > 1:
                yield Fault(
                    file=file, place=f"sample {sample}, turn {turn}", found=f"{count} lines", expected="one"
                )


def _scores(case: _Case, found: Recount, *, models: bool) -> dict[str, Any]:
    """Scores as `evaluate` computes them today, without metrics that need a model unless these are wanted."""
    skipped = [] if models else needy(case.section)
    if skipped:
        found.notes.append(f"skipped: {', '.join(skipped)} (needs a model; --models runs it)")
    wanted = tuple(m for m in case.section.metrics if _name(m) not in skipped)
    section = case.section.model_copy(update={"metrics": wanted})
    reports = case.data.template is not None
    scores, defined = scored(
        case.made, case.names, section, seed=case.seed, root=case.data.root, reports=reports
    )
    _same_code(case, section, defined, found)
    again: dict[str, Any] = json.loads(json.dumps(scores, allow_nan=False))
    return again


def needy(section: Evaluate) -> list[str]:
    """The metrics of an evaluation that run a model of their own."""
    return [name for m in section.metrics if plugins.load("metrics", name := _name(m)).needs_model]


def _name(metric: str | Mapping[str, Any]) -> str:
    return metric if isinstance(metric, str) else next(iter(metric))


def _left_out(case: _Case, *, models: bool) -> set[str] | None:
    """Measures that were not computed again; None where nobody knows which these are."""
    skipped = [] if models else needy(case.section)
    if not skipped:
        return set()
    metrics = case.result.get("scoring", {}).get("metrics")
    return None if metrics is None else {m for name in skipped for m in metrics[name]["measures"]}


def _same_words(case: _Case, found: Recount) -> None:
    """Whether the manifest and the result manifest name the same metrics and options."""
    told = case.result.get("scoring")
    if told is None:
        found.notes.append(
            f"no {RESULT}: made before it was written; options are compared with the manifest alone"
        )
        return
    now = {_name(m): {} if isinstance(m, str) else m[_name(m)] for m in case.section.metrics}
    before = told["metrics"]
    for name in sorted(now.keys() ^ before.keys()):
        found.faults.append(
            Fault(file=runs.MANIFEST, place=f"metric {name}", by=f"{RESULT} names other metrics")
        )
    for name in now.keys() & before.keys():
        then_all = before[name]["options"]
        for key, value in options_of(name, now[name]).items():
            then = then_all.get(key)
            if value != then:
                found.faults.append(
                    Fault(
                        file=runs.MANIFEST, place=f"metric {name}, option {key}", found=short(value),
                        expected=short(then), by=f"as {RESULT} has it",
                    )
                )  # fmt: skip
    for key, value in (("seed", case.seed), ("resamples", case.section.resamples)):
        if told[key] != value:
            found.faults.append(
                Fault(
                    file=runs.MANIFEST, place=key, found=short(value), expected=short(told[key]),
                    by=f"as {RESULT} has it",
                )
            )  # fmt: skip


def _same_code(case: _Case, section: Evaluate, defined: Any, found: Recount) -> None:
    """Say which code, libraries and files of metrics are not those that made the scores."""
    told = case.result.get("scoring")
    if told is None:
        return
    now = json.loads(json.dumps(scoring(section, defined, case.seed, case.data.root)))
    for name, each in now["metrics"].items():
        before = told["metrics"].get(name, each)
        for option, known in before["reads"].items():
            for file, sha in known.items():
                if each["reads"].get(option, {}).get(file) != sha:
                    found.faults.append(
                        Fault(
                            file=file,
                            place=f"read by metric {name}, option {option}",
                            by="its content changed",
                        )
                    )
        if before["version"] != each["version"]:
            found.notes.append(f"metric {name} has version {each['version']} now, {before['version']} then")
        found.notes += _changed(f"metric {name}", before["code"], each["code"])
    found.notes += _changed("the statistics", told["statistics"], now["statistics"])
    then = told["libraries"]
    moved = [f"{k} {v} now, {then[k]} then" for k, v in now["libraries"].items() if then.get(k, v) != v]
    found.notes += [f"libraries: {'; '.join(moved)}"] if moved else []


def _changed(what: str, before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A note that names the files of code that are others now."""
    files = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    return [f"the code of {what} has changed since: {', '.join(files)}"] if files else []


def _answers(case: _Case) -> Iterator[Fault]:
    """Each prediction against the data set and against the answers kept beside the stages."""
    samples = {s.id: s for s in case.data.samples(case.section.split)}
    source = f"{case.data.folder.name}/{case.section.split}.parquet"
    for (name, image), made in case.made.items():
        file = kept.place(Path(), name, image).as_posix()
        known = _kept(case, name, image)
        for line, each in enumerate(made, 1):
            place = f"line {line} (sample {each.sample}, turn {each.turn})"
            for key, value in _told(samples.get(each.sample), each.turn).items():
                if getattr(each, key) != value:
                    yield Fault(
                        file=file, place=f"{place}, {key}", found=short(getattr(each, key)), expected=short(value),
                        by=f"as {source} has it",
                    )  # fmt: skip
            for key, value in _attributes(samples.get(each.sample), each).items():
                yield Fault(
                    file=file, place=f"{place}, {key}", found=short(each.attributes[key]), expected=short(value),
                    by=f"as {source} has it",
                )  # fmt: skip
            said = known.get((each.sample, each.turn), {})
            for key in (k for k in SAID if k in said and getattr(each, k) != said[k]):
                yield Fault(
                    file=file, place=f"{place}, {key}", found=short(getattr(each, key)), expected=short(said[key]),
                    by="as the answers beside the stages have it",
                )  # fmt: skip


def _told(sample: Sample | None, turn: int) -> dict[str, str]:
    """What the data set says of a turn."""
    if sample is None:
        return {"patient": NOTHING}
    turns = exchanges(sample)
    if not 0 <= turn < len(turns):
        return {"patient": sample.patient, "question": NOTHING}
    question, answer, topic = turns[turn]
    return dict(zip(TOLD, (sample.patient, question, answer, topic), strict=True))


def _attributes(sample: Sample | None, each: Prediction) -> dict[str, str]:
    """What the data set says of attributes that a prediction carries, where it says something else."""
    known = {} if sample is None else sample.attributes
    return {key: known[key] for key, value in each.attributes.items() if key in known and known[key] != value}


def _kept(case: _Case, name: str, image: str) -> dict[tuple[str, int], dict[str, Any]]:
    """What a model said by sample and turn, where the answers beside the stages still know it."""
    about = case.result.get("models", {}).get(name, {}).get("answers", {}).get(image, {})
    path = case.folder.parent / ".answers" / f"{about.get('key', '')}.jsonl"
    if not path.is_file():
        return {}
    said: dict[tuple[str, int], dict[str, Any]] = {}
    for line in path.read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        for each in entry["predictions"]:
            sample, turn = entry["sample"], each["turn"]
            if image in KINDS:  # these are asked turn by turn
                sample, _, number = sample.rpartition(MARK)
                turn = int(number)
            said[sample, turn] = each
    return said


def _pictures(case: _Case, found: Recount) -> Iterator[Fault]:
    """The files of the images that were asked about, against the hashes in the data set."""
    asked = {p.sample for made in case.made.values() for p in made}
    wanted = {
        ref.path: ref.sha256
        for s in case.data.samples(case.section.split)
        if s.id in asked
        for ref in s.images
    }
    if not case.data.root.is_dir():
        found.notes.append("the folder of the raw images is not here: they are not looked at")
        return
    for path, sha in wanted.items():
        try:
            now = files.hash_file(files.resolve(case.data.root, path))
        except DataError as error:
            yield Fault(file=path, found=error.what, expected="the image that was asked about")
            continue
        if sha and now != sha:
            yield Fault(
                file=path, found=f"SHA-256 {now[:16]}", expected=sha[:16],
                by=f"as {case.data.folder.name}/{case.section.split}.parquet has it",
            )  # fmt: skip


def _abstain(case: _Case, found: Recount, tolerance: float) -> Iterator[Fault]:
    """The threshold of confidence, from the answers that it was calibrated on."""
    if not case.section.abstain or not (case.folder / ABSTAIN).is_file():
        return
    try:
        held = {name: made for (name, _), made in kept.read(case.folder, case.names, [kept.HELD]).items()}
    except OSError:
        found.notes.append(
            f"{ABSTAIN} is not computed again: the answers it was calibrated on are not kept here"
        )
        return
    clean = {name: case.made[name, "clean"] for name in case.names}
    try:
        again = thresholds(held, clean, case.section.abstain, case.seed, case.section.resamples)
    except DataError as error:
        yield Fault(file=ABSTAIN, found=error.what, expected="thresholds that can be computed again")
        return
    now, before = json.loads(json.dumps(again)), runs.read_json(case.folder / ABSTAIN)
    yield from values(ABSTAIN, "", before, now, tolerance)
