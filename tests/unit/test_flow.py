"""Rows that come and go: whoever else is there, each row reads what it would read alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import models
import models_gemma3
import models_qwen
from sightline.images.seen import Seen
from sightline.models.context import Context
from sightline.models.family import Bundle
from sightline.models.flow import Flow


@pytest.fixture(scope="module")
def made(language: Path) -> Bundle:
    return models.bundle(language)


def shown(bundle: Bundle, seed: int) -> Seen:
    shape = (bundle.tokens_per_image, 32)
    return Seen(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), ())


def alone(bundle: Bundle, ids: list[int], images: list[Seen]) -> torch.Tensor:
    return Context(bundle, 1).read([ids], [images])[0]


@torch.no_grad()
def test_a_row_that_joins_reads_on_as_if_it_were_alone(made: Bundle) -> None:
    i = made.image_token
    flow = Flow(made, 1)
    flow.read([[9, i, i, i, i, 8]], [[shown(made, 0)]])
    flow.read([[7]])
    late = Flow(made, 2)
    late.read([[5], [9, i, i, i, i, 8, 8, 8, 8]], [[], [shown(made, 1)]])
    flow.join(late)
    assert flow.rows == 3
    assert flow.length == 9
    assert flow.mask.sum(1).tolist() == [7, 1, 9]
    found = flow.read([[6], [4], [10]])
    wanted = [
        alone(made, [9, i, i, i, i, 8, 7, 6], [shown(made, 0)]),
        alone(made, [5, 4], []),
        alone(made, [9, i, i, i, i, 8, 8, 8, 8, 10], [shown(made, 1)]),
    ]
    for row, right in zip(found, wanted, strict=True):
        assert float((row - right).abs().max()) <= 1e-5
    assert float(torch.stack(wanted).std()) > 0.1


@torch.no_grad()
def test_a_row_that_leaves_takes_its_columns_with_it(made: Bundle) -> None:
    flow = Flow(made, 2)
    flow.read([[9, 8], [5] * 60])
    flow.read([[7], [6]])
    flow.keep([0])
    assert (flow.rows, flow.length) == (1, 3)
    assert flow.ids.tolist() == [[9, 8, 7]]
    assert flow.cache.get_seq_length() == 3
    assert float((flow.read([[4]])[0] - alone(made, [9, 8, 7, 4], [])).abs().max()) <= 1e-5


@torch.no_grad()
def test_few_idle_columns_are_left_where_they_are(made: Bundle) -> None:
    flow = Flow(made, 2)
    flow.read([[9, 8], [5] * 20])
    flow.keep([0])
    assert flow.length == 20
    flow.close_up(loose=0)
    assert flow.length == 2


@torch.no_grad()
def test_when_all_have_left_the_next_ones_begin_anew(made: Bundle) -> None:
    flow = Flow(made, 1)
    flow.read([[9, 8]])
    flow.keep([])
    assert (flow.rows, flow.length) == (0, 0)
    late = Flow(made, 1)
    late.read([[5, 5]])
    flow.join(late)
    assert float((flow.read([[4]])[0] - alone(made, [5, 5, 4], [])).abs().max()) <= 1e-5


@torch.no_grad()
@pytest.mark.parametrize("make", [models_gemma3.bundle, models_qwen.qwen2_5_vl], ids=["gemma3", "qwen2_5_vl"])
def test_windows_and_positions_of_other_families(make: Callable[[Path], Bundle], tmp_path: Path) -> None:
    """Gemma 3 has layers with windows, Qwen three rows of positions: both are found from what was read."""
    bundle = make(tmp_path / "language")
    text = [[40 + k % 9 for k in range(n)] for n in (30, 12)]
    flow = Flow(bundle, 1)
    flow.read([text[0]])
    late = Flow(bundle, 1)
    late.read([text[1]])
    flow.join(late)
    flow.read([[44], [45]])
    flow.keep([1])
    flow.close_up(loose=0)
    found = flow.read([[46]])[0]
    assert float((found - alone(bundle, [*text[1], 45, 46], [])).abs().max()) <= 1e-4
