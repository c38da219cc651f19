"""The recipe's `train` section as TrainingArguments, and the order in which records are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sightline.errors import RecipeError
from sightline.settings import Train
from sightline.train.arguments import FIXED, Ordered, arguments, steps


def made(tmp_path: Path, total: int = 100, **train: Any) -> Any:
    return arguments(Train(**train), tmp_path / "checkpoints", total, 3, tmp_path / "tensorboard")


def order(ids: list[str], seed: int = 0, epochs: int = 1) -> list[list[str]]:
    """Record ids as served, epoch by epoch."""
    data = Ordered(ids, ids, seed, epochs * len(ids))
    served = [data[i] for i in range(len(data))]
    return [served[i * len(ids) : (i + 1) * len(ids)] for i in range(epochs)]


IDS = [f"p{i:03d}" for i in range(40)]


def test_every_epoch_serves_every_record_once_in_an_order_of_its_own() -> None:
    first, second = order(IDS, epochs=2)
    assert sorted(first) == sorted(second) == IDS
    assert first != second
    assert first != IDS


def test_the_order_depends_on_the_seed_and_not_on_how_records_come() -> None:
    assert order(IDS, seed=1) != order(IDS, seed=2)
    assert order(IDS[::-1], seed=1) == order(IDS, seed=1)


def test_adding_a_record_leaves_the_others_in_their_order() -> None:
    with_new = order([*IDS[:7], "new", *IDS[7:]], epochs=3)
    assert [[r for r in epoch if r != "new"] for epoch in with_new] == order(IDS, epochs=3)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    short, long = Ordered(IDS, IDS, 5, 50), Ordered(IDS, IDS, 5, 500)
    assert len(short) == 50
    assert long.plan[:50] == short.plan


def test_equal_ids_keep_the_order_of_their_rows() -> None:
    assert Ordered([1, 2, 3], ["a", "a", "a"], 0, 6).plan == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("train", "rows", "expected"),
    [
        ({"epochs": 1, "batch": 8}, 64, 8),
        ({"epochs": 1, "batch": 8}, 65, 9),
        ({"epochs": 2.5, "batch": 4, "accumulate": 2}, 16, 5),
        ({"epochs": 0.01, "batch": 8}, 10, 1),
        ({"steps": 7, "epochs": 3}, 1000, 7),
    ],
)
def test_steps(train: dict[str, Any], rows: int, expected: int) -> None:
    assert steps(Train(**train), rows) == expected


@pytest.mark.parametrize("name", FIXED)
def test_what_keeps_runs_exact_is_not_for_extra(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=f"may not set {name}") as caught:
        made(tmp_path, extra={name: 1})
    assert caught.value.remedy == "use the section's own keys"


def test_all_fixed_arguments_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="may not set bf16, seed"):
        made(tmp_path, extra={"seed": 1, "bf16": True, "adam_beta2": 0.9})


def test_an_unknown_argument_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.extra. holds an unknown argument") as caught:
        made(tmp_path, extra={"adam_betta2": 0.9})
    assert "adam_betta2" in caught.value.found


def test_a_value_that_does_not_fit_is_one_block_and_no_traceback(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"train\.extra. holds a value that does not fit") as caught:
        made(tmp_path, extra={"logging_strategy": "sometimes"})
    assert "sometimes" in caught.value.found


def test_an_extra_argument_is_passed_on_verbatim(tmp_path: Path) -> None:
    assert made(tmp_path, extra={"max_grad_norm": 0.3}).max_grad_norm == 0.3
    assert made(tmp_path).max_grad_norm == 1.0


@pytest.mark.parametrize(("total", "warmup"), [(2, 0.8), (10, 0.96)])
def test_a_warm_up_without_end_is_refused(tmp_path: Path, total: int, warmup: float) -> None:
    with pytest.raises(RecipeError, match="the learning rate never leaves its warm-up") as caught:
        made(tmp_path, total, warmup=warmup)
    assert caught.value.found == f"{total} of {total} steps"


def test_the_section_arrives(tmp_path: Path) -> None:
    args = made(tmp_path, 40, batch=3, accumulate=5, warmup=0.1, schedule="linear", save_every=7)
    assert (args.max_steps, args.warmup_steps, args.save_steps, args.seed) == (40, 4, 7, 3)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (3, 5)
    assert args.lr_scheduler_type == "linear"
    assert args.output_dir == str(tmp_path / "checkpoints")
    assert args.save_total_limit is None, "rotation is ours, by step"
    assert args.logging_nan_inf_filter is False, "a loss of NaN must not be logged as 0"
    assert args.weight_decay == 0.0


def test_bfloat16_is_autocast_and_float32_is_not(tmp_path: Path) -> None:
    assert made(tmp_path, precision="bfloat16").bf16 is True
    assert made(tmp_path).bf16 is False
    assert made(tmp_path, precision="bfloat16").fp16 is False
