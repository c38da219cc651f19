"""How sure an answer is, as `evaluate` counts it, and whether that is above a threshold that it calibrated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import RunError
from .backend import End

FILE = "abstain.json"
EXACT = "float32"  # the precision of which nothing is said


@dataclass(frozen=True, kw_only=True)
class Held:
    """A threshold of confidence for one model.

    Args:
        threshold: an answer whose confidence is above it is given; the others are for a human.
        of: `choices` or `sequence`: which confidence is meant.
        alpha: what it promises of a further patient's expected share of wrong answers.
        promise: the same as a sentence.
    """

    threshold: float
    of: str
    alpha: float
    promise: str


def judged(end: End, held: Held | None) -> dict[str, Any]:
    """What is known of an answer's confidence.

    Returns:
        `kind`: `choices` where the answer begins with yes or no (the share of its probability in that of both), else
        `sequence` (the mean probability of its tokens, which is good for ranking and is no probability of being right);
        `confidence`, None where it is not known; and `verdict`: `given` above the threshold, `needs_review` up to it,
        `uncalibrated` where there is no threshold for this kind of confidence.
    """
    kind, confidence = "sequence", None
    if end.choices:
        kind = "choices"
        logps = sorted(end.choices.values(), reverse=True)
        confidence = 1 / sum(math.exp(p - logps[0]) for p in logps)
    elif end.logp is not None:
        confidence = math.exp(min(end.logp, 0.0))
    if held is None or held.of != kind or confidence is None:
        return {"kind": kind, "confidence": confidence, "verdict": "uncalibrated"}
    verdict = "given" if confidence > held.threshold else "needs_review"
    return {"kind": kind, "confidence": confidence, "verdict": verdict, "threshold": held.threshold}


def find(stage: Path, precision: str = EXACT) -> Held | None:
    """The threshold for a stage's model, if an evaluation of the same run calibrated one for exactly this model.

    Args:
        stage: the finished stage.
        precision: in which it is opened; confidences of another one were not those that were calibrated.
    """
    found = calibrated(stage).get(precision)
    return None if found is None else read(found, stage.name)


def calibrated(stage: Path) -> dict[str, Path]:
    """Precisions in which evaluations of the same run calibrated a threshold for exactly this model, and where."""
    content = runs.content(stage)
    found = {}
    for path in sorted(stage.parent.glob(f"*/{FILE}")):
        manifest = runs.read_json(path.parent / runs.MANIFEST)
        if manifest.get("parents", {}).get(stage.name) == content:
            found[manifest.get("section", {}).get("generate", {}).get("precision", EXACT)] = path
    return found


def carried(told: Mapping[str, Any]) -> Held | None:
    """The threshold that an export brings along, if it answers exactly as the model that it was calibrated for.

    Args:
        told: what `export.json` says; nothing of a model that is no export.
    """
    kept = told.get("abstain")
    return None if kept is None else Held(**kept)


def read(path: Path, model: str) -> Held:
    """The threshold of one model in an evaluation's `abstain.json`, or in the evaluation's folder.

    Raises:
        RunError: there is none.
    """
    place = path / FILE if path.is_dir() else path
    models: Mapping[str, Any] = runs.read_json(place).get("models", {})
    if model not in models:
        raise RunError(
            "this evaluation holds no threshold for the model", where=str(place), found=", ".join(models) or "none",
            expected=model, remedy="evaluate it with `abstain`",
        )  # fmt: skip
    held = models[model]
    return Held(threshold=held["threshold"], of=held["of"], alpha=held["alpha"], promise=held["promise"])
