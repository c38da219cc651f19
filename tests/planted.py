"""A finished evaluation without a model: phantoms, and answers that are planted, right in a known share of turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sightline import recipe, runs, stages
from sightline.data.turns import exchanges
from sightline.stages import evaluate
from sightline.stages.result import model
from sightline.types import Prediction, Sample

DATA = {"stage": "prepare", "reader": "phantom", "patients": 12, "size": 64}


def said(samples: Sequence[Sample], name: str, image: str, share: float) -> list[Prediction]:
    """Answers of a model of that name; which are right follows from its name, the sample and the turn alone."""
    made = []
    for sample in samples:
        for turn, (question, answer, topic) in enumerate(exchanges(sample)):
            drawn = int(runs.digest(name, image, sample.id, str(turn))[:8], 16) / 16**8
            right = drawn < share
            text = answer if right else {"Yes": "No", "No": "Yes"}.get(answer, "The lungs are clear.")
            yes = (text == "Yes") - (text == "No")
            choices = {"yes": -1.0 + drawn * yes, "no": -1.0 - drawn * yes} if yes else {}
            made.append(
                Prediction(
                    sample=sample.id, patient=sample.patient, turn=turn, question=question, answer=answer,
                    text=text, topic=topic, choices=choices, model=name, image=image, logp=None if yes else -drawn,
                )
            )  # fmt: skip
    return made


def evaluation(
    root: Path,
    patch: pytest.MonkeyPatch,
    *,
    shares: dict[str, float],
    name: str = "planted",
    data: dict[str, Any] | None = None,
    **section: Any,
) -> Path:
    """Run a recipe of `data` and `evaluate`; the models answer rightly in these shares of clean images, half of others.

    Returns:
        The folder of the recipe's run.
    """
    for each in shares:
        place = root / "models" / each
        if not place.exists():
            place.mkdir(parents=True)
            (place / "weights").write_text(each)
            runs.seal(place, {"stage": "sft", "section": {"stage": "sft"}, "parents": {}})

    def answers(exam: Any, run: Any, asked: str, called: str) -> Any:
        made = {
            (called, image): said(exam.samples, called, image, shares[called] if image == "clean" else 0.5)
            for image in exam.section.images
        }
        if exam.held:
            made[called, "held"] = said(exam.held, called, "held", shares[called])
        return made, model([f"line of {called}"], {"model": {"family": "none"}}, Path("absent"), {})

    patch.setattr(evaluate, "answers", answers)
    stage = {
        "stage": "evaluate", "data": "data", "models": [str(root / "models" / each) for each in shares],
        "images": ["clean", "black"], "metrics": ["vqa", {"rouge": {}}], "resamples": 100, **section,
    }  # fmt: skip
    made = recipe.check({"name": name, "stages": {"data": data or DATA, "evaluate": stage}}, "test")
    stages.execute(made, root / "runs", say=lambda line: None)
    return root / "runs" / name
