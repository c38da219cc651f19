"""The warm-up as a share or as a number of steps, and where it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sightline.errors import RecipeError
from sightline.settings import Train
from sightline.train.arguments import arguments


def steps(tmp_path: Path, warmup: float, total: int) -> int:
    train = Train(warmup=warmup)
    return arguments(train, tmp_path / "checkpoints", total, 3, tmp_path / "tensorboard").warmup_steps


@pytest.mark.parametrize(
    ("warmup", "total", "expected"),
    [(0, 10, 0), (0.1, 40, 4), (0.05, 1, 0), (1, 40, 1), (39, 40, 39), (500.0, 1080, 500)],
)
def test_below_one_it_is_a_share_and_from_one_on_steps(
    tmp_path: Path, warmup: float, total: int, expected: int
) -> None:
    assert steps(tmp_path, warmup, total) == expected


@pytest.mark.parametrize(
    ("warmup", "total", "found"),
    [
        (10_000, 1080, "10000 of 1080 steps"),
        (40, 40, "40 of 40 steps"),
        (1, 1, "1 of 1 steps"),
        (0.9, 3, "3 of 3 steps"),
    ],
)
def test_a_warm_up_as_long_as_training_is_refused(
    tmp_path: Path, warmup: float, total: int, found: str
) -> None:
    with pytest.raises(RecipeError, match="the learning rate never leaves its warm-up") as caught:
        steps(tmp_path, warmup, total)
    assert (caught.value.where, caught.value.found) == ("train.warmup", found)
    assert caught.value.expected == f"at most {total - 1} of {total}"
    assert "more epochs or steps" in caught.value.remedy


def test_one_step_and_a_half_is_no_number_of_steps() -> None:
    with pytest.raises(ValidationError, match="from 1 on a whole number of them"):
        Train(warmup=1.5)
