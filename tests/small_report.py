"""A finished evaluation without a model: phantoms, made answers of two models, scores, and the real pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sightline import judging, recipe, runs, stages
from sightline.data import prepare
from sightline.runs import digest
from sightline.stages import kept
from sightline.stages.page import write_page
from sightline.types import Prediction, Sample

SHARES = {"base": 0.5, "taught": 0.8}  # how many answers are right


def evaluation(root: Path, *, patients: int = 20, seed: int = 3) -> Path:
    """Prepare phantoms below `root`, and write an evaluation of `base` and `taught` beside them."""
    document = {
        "name": "made",
        "seed": seed,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": patients, "size": 64,
                     "split": {"train": 0.5, "valid": 0, "test": 0.5}},
            "taught": {"stage": "sft", "data": "data", "model": {"family": "llava", "vision": "kit/efficientnet-lite0",
                       "language": "kit/smollm2-135m"}, "train": {"steps": 2, "batch": 2},
                       "trainable": {"connector": {"full": {"lr": 1e-3}}}},
            "evaluate": {"stage": "evaluate", "data": "data", "models": ["base", "taught"],
                         "images": ["clean", "black"], "resamples": 100},
        },
    }  # fmt: skip
    whole = recipe.check(document, "test")
    folders = stages.execute(whole, root, only=["data"], say=lambda line: None)
    sections = {name: section.model_dump(mode="json") for name, section in whole.stages.items()}
    parents = {"data": folders["data"]}
    with runs.start(
        folders["taught"], section=sections["taught"], seed=seed, version=1, parents=parents
    ) as run:
        runs.write_json(run.work / "curve.json", [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    parents["taught"] = folders["taught"]
    data = prepare.load(folders["data"])
    samples = data.samples("test")
    with runs.start(
        folders["evaluate"], section=sections["evaluate"], seed=seed, version=1, parents=parents
    ) as run:
        made = {(m, i): answers(samples, m, i) for m in SHARES for i in ("clean", "black")}
        kept.keep(run.work, made)
        measures = judging.measure(made, ["vqa"], data.root)
        rows, parts = judging.rows(measures, seed, 100)
        scores: dict[str, Any] = {"rows": rows, "parts": parts}
        scores["paired"] = judging.comparisons(measures, list(SHARES), seed, 100)
        runs.write_json(run.work / "scores.json", scores)
        write_page(run, samples, data.root, made, scores)
    return folders["evaluate"]


def answers(samples: Sequence[Sample], model: str, image: str) -> list[Prediction]:
    """What a model of a given skill says; of a black image it knows nothing."""
    return [
        answer(sample, turn, model, image, skill=SHARES[model] if image == "clean" else 0.5)
        for sample in samples
        for turn in range(len(sample.messages) // 2)
    ]


def answer(sample: Sample, turn: int, model: str, image: str, *, skill: float) -> Prediction:
    """One answer: right with a share of a digest; a wrong report denies everything."""
    asked, told = (m for m in sample.messages[2 * turn : 2 * turn + 2])
    share = int(digest("made", model, image, sample.id, str(turn))[:8], 16) / 16**8
    right, sure = share < skill, 0.55 + 0.44 * abs(share - skill)
    report = told.topic == "report"
    wrong = "No finding." if report else {"Yes": "No", "No": "Yes"}[told.text]
    text = told.text if right else wrong
    other = {"yes": "no", "no": "yes"}
    choices = {} if report else {text.lower(): sure, other[text.lower()]: 1 - sure}
    return Prediction(
        sample=sample.id, patient=sample.patient, turn=turn, topic=told.topic, question=asked.text, answer=told.text,
        text=text, choices=logs(choices), model=model, image=image,
    )  # fmt: skip


def logs(shares: dict[str, float]) -> dict[str, float]:
    """Probabilities as log-probabilities."""
    from math import log

    return {name: log(share) for name, share in shares.items()}
