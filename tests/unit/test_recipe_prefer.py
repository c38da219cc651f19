"""What `prefer` must be told: who answers, and who judges."""

from __future__ import annotations

from typing import Any

import pytest

from sightline import recipe, stages
from sightline.errors import RecipeError

MODEL = {"family": "llava"}


def document(**pairs: Any) -> dict[str, Any]:
    return {
        "name": "r",
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom"},
            "taught": {"stage": "sft", "data": "data", "model": MODEL, "trainable": {"connector": {"full": {"lr": 1}}}},
            "judge": {"stage": "sft", "data": "data", "model": MODEL, "trainable": {"connector": {"full": {"lr": 1}}}},
            "pairs": {"stage": "prefer", "data": "data", **pairs},
        },
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["noised", "cross_modality", "over_reliance", "under_use", "judged"])
def test_kinds_made_of_answers_need_a_model(kind: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.check(document(kinds={kind: 1}), "test")
    assert f"{kind}: made of the answers of a model; name it as `model`" in caught.value.what
    assert "pairs" in caught.value.what


def test_other_kinds_need_none() -> None:
    made = recipe.check(document(kinds={"wrong_finding": 1, "degraded": 1}), "test")
    assert made.reads("pairs") == ["data"]


def test_a_judge_is_named_is_read_and_must_be_there() -> None:
    with pytest.raises(RecipeError, match=r"name it as `judge\.model`"):
        recipe.check(document(kinds={"judged": 1}, model="taught"), "test")
    made = recipe.check(document(kinds={"judged": 1}, model="taught", judge={"model": "judge"}), "test")
    assert made.reads("pairs") == ["data", "taught", "judge"]
    with pytest.raises(
        RecipeError, match=r"pairs\.judge\.model: 'jugde' names no stage; did you mean 'judge'"
    ):
        recipe.check(document(kinds={"judged": 1}, model="taught", judge={"model": "jugde"}), "test")


def test_a_judge_outside_the_recipe_is_a_folder() -> None:
    made = recipe.check(
        document(kinds={"judged": 1}, model="taught", judge={"model": "runs/x/judge"}), "test"
    )
    assert stages.outside_models(made.stages["pairs"]) == ["taught", "runs/x/judge"]
