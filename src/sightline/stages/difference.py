"""What differs between two finished stages: settings first, then scores on the same records, or the end of training.

Scores are compared as `evaluate` compares models: paired over the same patients, with a permutation test, corrected
after Holm over all comparisons made here. A difference is second minus first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import Any

from .. import judging, plugins, runs, stats
from ..data import prepare
from ..errors import DataError, RunError
from ..metrics.measure import Measure
from ..recipe import Evaluate
from ..types import Prediction
from . import kept
from .result import RESULT, options_of

CURVE = "curve.json"
EXAMPLES = 5
BASELINE = "majority_"
ANSWERED = ("patient", "question", "answer", "topic")
FIRST, SECOND = "first", "second"
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished evaluation, ready to be compared."""

    folder: Path
    section: Evaluate
    names: tuple[str, ...]
    manifest: Mapping[str, Any]
    result: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is compared.

    Args:
        of: a model of the first and one of the second; None: those of the same name, or else the last ones.
        images: kinds of images.
        metrics: names; none: those of the two evaluations whose options agree.
        models: also run metrics that need a model.
        seed: decides the resamples.
        resamples: how many.
    """

    of: tuple[str, str] | None = None
    images: tuple[str, ...] = ("clean",)
    metrics: tuple[str, ...] = ()
    models: bool = False
    seed: int = 0
    resamples: int = 1000


def difference(first: Path, second: Path, wish: Wish) -> dict[str, Any]:
    """Compare two finished stages of the same kind.

    Returns:
        `kind`, `settings` (rows of setting, first, second), for evaluations `rows` and `notes`, for stages that train
        `final` (rows of value, first, second, difference).

    Raises:
        RunError: the stages are of different kinds, or there is nothing to compare.
        DataError: two evaluations did not ask the same.
    """
    manifests = [runs.read_json(folder / runs.MANIFEST) for folder in (first, second)]
    kinds = [str(each.get("stage")) for each in manifests]
    if kinds[0] != kinds[1]:
        raise RunError(
            "these stages are of different kinds", where=f"{first} and {second}", found=f"{kinds[0]} and {kinds[1]}",
            expected="two evaluations, or two stages of the same kind",
        )  # fmt: skip
    found: dict[str, Any] = {"kind": kinds[0], "first": str(first), "second": str(second)}
    if kinds[0] != "evaluate":
        final = [_final(folder) for folder in (first, second)]
        return {**found, "settings": _settings(*map(trained, manifests)), "final": _ends(*final)}
    one, other = (_open(folder, each) for folder, each in zip((first, second), manifests, strict=True))
    sides = matched(one, other, wish)
    settings = _settings(*(told(each, [pair[i] for pair in sides]) for i, each in enumerate((one, other))))
    rows, notes = scores(one, other, sides, wish)
    return {**found, "settings": settings, "rows": rows, "notes": notes}


def _open(folder: Path, manifest: Mapping[str, Any]) -> Finished:
    section = Evaluate.model_validate(manifest["section"])
    result = runs.read_json(folder / RESULT) if (folder / RESULT).is_file() else {}
    names = tuple(kept.names_of(section.models, manifest["parents"]))
    return Finished(folder=folder, section=section, names=names, manifest=manifest, result=result)


def matched(one: Finished, other: Finished, wish: Wish) -> list[tuple[str, str]]:
    """The models that are compared with each other.

    Raises:
        RunError: a model that was asked for is in neither evaluation.
    """
    if wish.of is None:
        both = [(name, name) for name in one.names if name in other.names]
        ends = (one.names[-1], other.names[-1])
        return both if ends[0] in other.names or ends[1] in one.names else [*both, ends]
    for name, each in zip(wish.of, (one, other), strict=True):
        if name not in each.names:
            raise RunError(
                f"no model '{name}' in this evaluation", where=str(each.folder), expected=", ".join(each.names),
                remedy="--of FIRST,SECOND names a model of each",
            )  # fmt: skip
    return [wish.of]


def scores(
    one: Finished, other: Finished, sides: Sequence[tuple[str, str]], wish: Wish
) -> tuple[list[Row], list[str]]:
    """Paired differences of every measure on the same records, and what was left out.

    Raises:
        DataError: the two did not ask the same.
        RunError: an evaluation did not show such images, or keeps no answers.
    """
    metrics, notes = _metrics(one, other, wish)
    root = prepare.load(_data(one)).root
    rows: list[Row] = []
    for a, b in sides:
        for image in wish.images:
            made = [_read(each, name, image) for each, name in ((one, a), (other, b))]
            same(*made)
            title = a if a == b else f"{a} and {b}"
            if _said(made[0]) == _said(made[1]):
                notes.append(f"{title}, {image}: the same answers in both")
                continue
            measures = judging.measure({(FIRST, image): made[0], (SECOND, image): made[1]}, metrics, root)
            rows += _rows(
                {"model": title, "image": image}, measures[FIRST, image], measures[SECOND, image], wish
            )
    known = [row for row in rows if row["p"] is not None]
    for row, p in zip(known, stats.holm([row["p"] for row in known]), strict=True):
        row["p"] = p
    return rows, notes


def _rows(
    name: Row, first: Mapping[str, Measure], second: Mapping[str, Measure], wish: Wish
) -> Iterator[Row]:
    """Second minus first for every measure that both have, baselines left out."""
    for metric in (m for m in first if m in second and not m.startswith(BASELINE)):
        before, after = first[metric], second[metric]
        values = before.value(), after.value()
        if any(map(isnan, values)):
            continue
        found = stats.paired(after, before, seed=wish.seed, resamples=wish.resamples)
        row = {**name, "metric": metric, FIRST: values[0], SECOND: values[1], **asdict(found)}
        yield {**row, "verdict": _verdict(found, after.higher_is_better)}


def _verdict(found: stats.Paired, higher_is_better: bool) -> str:
    """What the interval says in one word."""
    if found.low is None or found.high is None or found.low <= 0 <= found.high:
        return "undecided"
    return "better" if (found.difference > 0) == higher_is_better else "worse"


def same(first: Sequence[Prediction], second: Sequence[Prediction]) -> None:
    """Refuse to compare answers to different questions; records are matched by their ids.

    Raises:
        DataError: records that are in one only, or a question, answer or patient that differs.
    """
    asked = [
        {(p.sample, p.turn): tuple(getattr(p, k) for k in ANSWERED) for p in made} for made in (first, second)
    ]
    lonely = [sorted({sample for sample, _ in asked[i].keys() - asked[1 - i].keys()}) for i in (0, 1)]
    if any(lonely):
        shown = [
            f"{len(ids)} record(s) in the {name} only"
            + (f" ({', '.join(ids[:EXAMPLES])}{', ...' if len(ids) > EXAMPLES else ''})" if ids else "")
            for name, ids in zip((FIRST, SECOND), lonely, strict=True)
        ]
        raise DataError(
            "the two evaluations did not ask the same", found="; ".join(shown),
            expected="the same records, questions and turns in both",
            remedy="evaluate both on the same data set, split, `where` and `limit`",
        )  # fmt: skip
    other = [key for key, told in asked[0].items() if told != asked[1][key]]
    if other:
        raise DataError(
            "records of the two evaluations have the same ids and are not the same",
            where=f"sample {other[0][0]}, turn {other[0][1]}", found=f"{len(other)} turn(s) that differ",
            expected=f"the same {', '.join(ANSWERED)}", remedy="evaluate both on the same data set",
        )  # fmt: skip


def _said(made: Sequence[Prediction]) -> set[str]:
    """What was answered, whoever answered it."""
    return {runs.canonical([p.sample, p.turn, p.text, dict(p.choices), p.logp]) for p in made}


def _read(each: Finished, name: str, image: str) -> list[Prediction]:
    """The answers of one model to one kind of image.

    Raises:
        RunError: there are none.
    """
    try:
        return kept.read(each.folder, [name], [image])[name, image]
    except OSError:
        raise RunError(
            f"no answers of '{name}' to {image} images here", where=str(each.folder),
            expected=f"images {', '.join(each.section.images)} of {', '.join(each.names)}",
        ) from None  # fmt: skip


def _data(each: Finished) -> Path:
    """The data set's folder: beside the evaluation, or where the recipe said."""
    beside = each.folder.parent / each.section.data
    return beside if beside.is_dir() else Path(each.section.data)


def _metrics(one: Finished, other: Finished, wish: Wish) -> tuple[list[dict[str, Any]], list[str]]:
    """The metrics that both sides are measured by, and which were left out and why."""
    if wish.metrics:
        return [{name: {}} for name in wish.metrics], []
    asked = [
        {
            name: options
            for m in each.section.metrics
            for name, options in ({m: {}} if isinstance(m, str) else m).items()
        }
        for each in (one, other)
    ]
    chosen, notes = [], []
    for name in dict.fromkeys([*asked[0], *asked[1]]):
        options = [options_of(name, each[name]) for each in asked if name in each]
        if options[0] != options[-1]:
            notes.append(
                f"{name} is not compared: its options differ; --metrics {name} measures both by its defaults"
            )
        elif plugins.load("metrics", name).needs_model and not wish.models:
            notes.append(f"{name} is not compared: it needs a model; --models runs it")
        else:
            chosen.append({name: dict((asked[0] if name in asked[0] else asked[1])[name])})
    return chosen, notes


def told(each: Finished, models: Sequence[str]) -> dict[str, Any]:
    """All settings of an evaluation by dotted name, with those of the stages that made its models."""
    found = trained(each.manifest)
    for name in models:
        place = each.folder.parent / name / runs.MANIFEST
        if place.is_file():
            section = runs.read_json(place).get("section", {})
            found |= flat(section, f"{name}.")
    result = each.result
    if not result:
        return found
    found |= flat(result["decoding"], "decoding.") | {"data asked": result["data"]["asked"]}
    found |= {f"library {name}": version for name, version in result["scoring"]["libraries"].items()}
    for name, metric in result["scoring"]["metrics"].items():
        found[f"metric {name}, version"] = metric["version"]
        found[f"metric {name}, code"] = runs.digest(runs.canonical(metric["code"]))
    for part in ("normaliser", "statistics"):
        found[part] = runs.digest(runs.canonical(result["scoring"][part]))
    for name in models:
        about = result["models"].get(name, {})
        found[f"model {name}"] = runs.digest(runs.canonical([about.get("line"), about.get("base")]))
        found[f"template of {name}"] = about.get("template", {}).get("sha256")
        made_with = [v for answers in about.get("answers", {}).values() for v in answers["made_with"]]
        found |= flat(made_with[-1] if made_with else {}, f"answers of {name} made with ")
    return found


def trained(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of any stage by dotted name: its section, the seed, what it read, and versions."""
    section = {k: v for k, v in manifest.get("section", {}).items() if k != "stage"}
    found = flat(section) | {"seed": manifest.get("seed")}
    found |= {f"content of {name}": content for name, content in manifest.get("parents", {}).items()}
    return found | {f"version of {name}": v for name, v in manifest.get("versions", {}).items()}


def flat(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; lists stay whole."""
    found: dict[str, Any] = {}
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            found |= flat(each, f"{before}{key}.")
        else:
            found[f"{before}{key}"] = each
    return found


def _settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Row]:
    """The settings that differ; None where one side has none such."""
    names = dict.fromkeys([*first, *second])
    return [
        {"setting": name, FIRST: first.get(name), SECOND: second.get(name)}
        for name in names
        if json.dumps(first.get(name), default=str) != json.dumps(second.get(name), default=str)
    ]


def _final(folder: Path) -> dict[str, float]:
    """The last value of everything that a stage logged while it trained."""
    last: dict[str, float] = {}
    for record in runs.read_json(folder / CURVE) if (folder / CURVE).is_file() else []:
        last |= {k: v for k, v in record.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return last


def _ends(first: Mapping[str, float], second: Mapping[str, float]) -> list[Row]:
    """Both ends of training side by side."""
    return [
        {"value": name, FIRST: a, SECOND: b, "difference": None if a is None or b is None else b - a}
        for name in dict.fromkeys([*first, *second])
        for a, b in [(first.get(name), second.get(name))]
    ]
