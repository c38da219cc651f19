"""What made the numbers of an evaluation, written beside them as `result.json`.

| key | says |
|---|---|
| `decoding` | how answers were produced: greedy or beams, length, precision, and how yes and no are picked |
| `data` | the data set's content hash, the split, and one hash of all that was asked: ids, images and texts |
| `models` | of each model the hashes of its line, base and chat template, and the versions its answers came from |
| `scoring` | seed, resamples; of each metric its version, options, measures and hashes of its code and its files |
| `predictions` | of each file of answers its hash and its number of rows |

Versions of libraries stand where they decide a number: with the answers those of the models, with the scoring those
that the metrics import.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import plugins, runs
from ..data.prepare import Prepared
from ..data.turns import exchanges
from ..origin import origin, versions
from ..plugins import ROOT
from ..recipe import Evaluate
from ..settings import Generate
from ..types import Sample
from . import kept
from .scores import Definitions

RESULT = "result.json"
FORMAT = 1
HERE = "the data root"  # an option `data` that the recipe leaves out
PLACES = ("data", "model", "nltk_data")  # options of metrics that name a file or a folder
READ = (".json", ".jsonl", ".txt", ".csv", ".tsv", ".safetensors", ".jinja")
NORMALISER = ("metrics/answers.py", "metrics/chinese.py")
STATISTICS = ("judging.py", "stages/scores.py", "stages/confidence.py")


@dataclass(frozen=True, kw_only=True)
class Made:
    """An evaluation as it is about to be written.

    Args:
        section: the stage's.
        seed: the recipe's.
        data: what was asked about.
        samples: what was asked, in order.
        models: of each model what `model` says.
        defined: of each metric what it measured.
        folder: the stage's work folder, with its predictions.
    """

    section: Evaluate
    seed: int
    data: Prepared
    samples: Sequence[Sample]
    models: Mapping[str, Mapping[str, Any]]
    defined: Definitions
    folder: Path


def result(made: Made) -> dict[str, Any]:
    """The content of `result.json`; no path of this machine unless the recipe itself names one."""
    files = sorted((made.folder / kept.FOLDER).rglob("*.jsonl"))
    return {
        "format": FORMAT,
        "decoding": decoding(made.section.generate, made.seed),
        "data": questions(made.section, made.data, made.samples),
        "models": dict(made.models),
        "scoring": scoring(made.section, made.defined, made.seed, made.data.root),
        "predictions": {
            path.relative_to(made.folder / kept.FOLDER).as_posix(): {
                "sha256": runs.hash_file(path),
                "rows": path.read_bytes().count(b"\n"),
            }
            for path in files
        },
    }


def decoding(settings: Generate, seed: int) -> dict[str, Any]:
    """How answers were produced, by one word and by every setting."""
    plain = settings.model_dump(mode="json")
    beams, heat = int(plain.get("beams", 1)), float(plain.get("temperature", 0.0))
    method = f"{beams} beams" if beams > 1 else "sampling" if heat else "greedy"
    choice = "yes/no questions: the likelier of the words yes and no, by their log-probabilities"
    return {"method": method, **({"seed": seed} if heat else {}), **plain, "choices": choice}


def questions(section: Evaluate, data: Prepared, samples: Sequence[Sample]) -> dict[str, Any]:
    """What was asked, by hashes."""
    turns = [exchanges(sample) for sample in samples]
    asked = [
        runs.canonical([s.id, s.patient, [ref.sha256 for ref in s.images], list(s.references), each])
        for s, each in zip(samples, turns, strict=True)
    ]
    return {
        "stage": section.data,
        "content": runs.content(data.folder),
        "split": section.split,
        "where": {key: value if isinstance(value, str) else list(value) for key, value in section.where.items()},
        "limit": section.limit,
        "samples": len(samples),
        "turns": sum(map(len, turns)),
        "patients": len({s.patient for s in samples}),
        "asked": runs.digest(*asked),
        "reports": None if data.template is None else dict(data.template),
    }  # fmt: skip


def model(
    line: Sequence[str], base: Mapping[str, Any], template: Path, answers: Mapping[str, Any]
) -> dict[str, Any]:
    """One model by its hashes.

    Args:
        line: fingerprints of the saved models from the first above the base; none for the base itself.
        base: what the base was composed from.
        template: the file of the chat template.
        answers: by kind of image the key that answers are kept under, and the versions that they were made with.
    """
    section = base.get("model", {})
    return {
        "line": list(line),
        "base": runs.digest(runs.canonical(base)),
        "family": section.get("family"),
        "template": {
            "name": section.get("template") or "the tokenizer's own",
            "sha256": runs.hash_file(template) if template.is_file() else None,
        },
        "answers": dict(answers),
    }


def scoring(section: Evaluate, defined: Definitions, seed: int, root: Path) -> dict[str, Any]:
    """How answers became numbers."""
    about = origin([ROOT / name for name in STATISTICS], ("judging", "stats", "metrics"))
    rules = origin([ROOT / name for name in NORMALISER], ("metrics",))
    metrics = {
        name: {**metric(name, options, root), "measures": defined.get(name, {})}
        for each in section.metrics
        for name, options in ({each: {}} if isinstance(each, str) else each).items()
    }
    libraries = set(about.libraries).union(*(each.pop("libraries") for each in metrics.values()))
    return {
        "seed": seed,
        "resamples": section.resamples,
        "metrics": metrics,
        "normaliser": rules.files,
        "statistics": {name: sha for name, sha in about.files.items() if not name.startswith("metrics/")},
        "libraries": versions(libraries),
    }


def metric(name: str, given: Mapping[str, Any], root: Path) -> dict[str, Any]:
    """One metric: its version, its options with their defaults, and hashes of its code and of the files it reads."""
    path, _ = plugins.source("metrics", name)
    code = origin([path], ("metrics",))
    options = options_of(name, given)
    places = {key: str(root) if value == HERE else value for key, value in options.items()}
    plugin = plugins.load("metrics", name)
    return {
        "version": plugin.version,
        "options": options,
        "code": code.files,
        "reads": {key: found for key, value in places.items() if (found := _read(key, value))},
        "libraries": code.libraries,
    }


def options_of(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a metric as plain values; `data` that is left out is the data root, wherever that is."""
    options = plugins.bind("metrics", name, given) if given or _free(name) else {}
    if "data" in options and "data" not in given:
        options["data"] = HERE
    plain: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return plain


def _free(name: str) -> bool:
    """Whether a metric can do without options."""
    return all(default is not ... for _, default in plugins.options("metrics", name).values())


def _read(option: str, value: Any) -> dict[str, str]:
    """SHA-256 of the files that an option names, by name; pictures are told by the data's own hashes."""
    if option not in PLACES or not isinstance(value, str) or not value or not Path(value).exists():
        return {}
    place = Path(value)
    files = (
        [place] if place.is_file() else sorted(p for p in place.iterdir() if p.suffix in READ and p.is_file())
    )
    return {path.name: runs.hash_file(path) for path in files}
