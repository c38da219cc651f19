"""Two models are compared under spoiled prior images too: what is left of a gain that came from the prior."""

from __future__ import annotations

from sightline import judging
from sightline.types import Prediction

ANSWERS = ("Unchanged", "New", "Worse", "Resolved")


def told(model: str, image: str, right: int) -> list[Prediction]:
    """Four patients, one question each, of which the first few are answered right."""
    return [
        Prediction(
            sample=f"s{i}", patient=f"p{i}", turn=0, topic="change_nodule", question="How has it changed?",
            answer=answer, text=answer if i < right else "Improved", model=model, image=image,
        )
        for i, answer in enumerate(ANSWERS)
    ]  # fmt: skip


def compared(*kinds: tuple[str, int]) -> dict[tuple[str, str], tuple[float, float, float]]:
    """Differences by question and metric; `current` always has two right, `temporal` what is given for each kind."""
    made = {("current", image): told("current", image, 2) for image, _ in kinds}
    made |= {("temporal", image): told("temporal", image, right) for image, right in kinds}
    measures = judging.measure(made, ["vqa"])
    rows = judging.comparisons(measures, ["current", "temporal"], 0, 200)
    return {(r["question"], r["metric"]): (r["a"], r["b"], r["difference"]) for r in rows}


def test_models_are_compared_on_spoiled_priors() -> None:
    found = compared(("clean", 4), ("swapped_prior", 1))
    assert found["temporal minus current", "exact_match"] == (1.0, 0.5, 0.5)
    assert found["temporal minus current on swapped_prior", "exact_match"] == (0.25, 0.5, -0.25)
    assert found["temporal: clean minus swapped_prior", "exact_match"] == (1.0, 0.25, 0.75)


def test_they_are_not_compared_without_their_images() -> None:
    found = compared(("clean", 4), ("swapped", 1))
    assert not [question for question, _ in found if " on " in question]


def test_words_of_change_are_compared_between_models() -> None:
    reports = {
        (model, "clean"): [
            Prediction(
                sample=f"s{i}", patient=f"p{i}", turn=0, topic="report", question="Describe.",
                answer="The effusion is worse.", text=text, model=model, image="clean",
            )
            for i in range(4)
        ]
        for model, text in (("current", "An effusion."), ("temporal", "Effusion, worse."))
    }  # fmt: skip
    measures = judging.measure(reports, ["temporal_f1"])
    rows = judging.comparisons(measures, ["current", "temporal"], 0, 200)
    (row,) = [r for r in rows if r["metric"] == "temporal_f1"]
    assert row["question"] == "temporal minus current"
    assert round(row["difference"], 6) == 1.0
