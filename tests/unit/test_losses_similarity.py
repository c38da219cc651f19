"""SigLIP and CLIP by hand: two pairs on paper, and what equal texts change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sightline import plugins
from sightline.losses.clip import clip
from sightline.losses.siglip import siglip
from sightline.losses.similarity import alike, gathered, together

# Similarities of images (rows) and texts: [[1.0, 0.6], [0.0, 0.8]].
IMAGES = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
TEXTS = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
SCALE, BIAS = torch.tensor(math.log(2), dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)
BOTH = torch.ones(2, 2, dtype=torch.bool)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_siglip_sums_over_texts_and_averages_over_images() -> None:
    # Logits 2 s - 1: [[1.0, 0.2], [-1.0, 0.6]]; the diagonal is right, the rest wrong.
    expected = (softplus(-1.0) + softplus(0.2) + softplus(-1.0) + softplus(-0.6)) / 2
    assert float(siglip(together(IMAGES, TEXTS, SCALE, BIAS))) == pytest.approx(expected, abs=1e-12)


def test_siglip_takes_equal_texts_for_right() -> None:
    expected = (softplus(-1.0) + softplus(-0.2) + softplus(1.0) + softplus(-0.6)) / 2
    assert float(siglip(together(IMAGES, TEXTS, SCALE, BIAS, BOTH))) == pytest.approx(expected, abs=1e-12)


def test_clip_is_cross_entropy_both_ways() -> None:
    # Logits 2 s: [[2.0, 1.2], [0.0, 1.6]]; rows for the images, columns for the texts.
    rows = (softplus(1.2 - 2.0) + softplus(0.0 - 1.6)) / 2
    columns = (softplus(0.0 - 2.0) + softplus(1.2 - 1.6)) / 2
    found = float(clip(together(IMAGES, TEXTS, SCALE)))
    assert found == pytest.approx((rows + columns) / 2, abs=1e-12)
    assert float(clip(together(IMAGES, TEXTS, SCALE, BIAS))) == found, "a bias changes nothing"


def test_clip_leaves_equal_texts_out() -> None:
    assert float(clip(together(IMAGES, TEXTS, SCALE, None, BOTH))) == 0.0
    same = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    images, texts = (torch.cat([side, side[:1]]) for side in (IMAGES, TEXTS))
    images.requires_grad_()
    loss = clip(together(images, texts, SCALE, None, same))
    # Image 1 has two candidates and twice the negative that the others have: 0.0 for pairs 0 and 2.
    rows = (2 * softplus(1.2 - 2.0) + math.log(1 + 2 * math.exp(0.0 - 1.6))) / 3
    columns = (2 * softplus(0.0 - 2.0) + math.log(1 + 2 * math.exp(1.2 - 1.6))) / 3
    assert float(loss.detach()) == pytest.approx((rows + columns) / 2, abs=1e-12)
    loss.backward()
    assert images.grad is not None
    assert torch.isfinite(images.grad).all()


def test_a_pair_is_no_negative_of_itself_whatever_the_mask_says() -> None:
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    masked = together(IMAGES, TEXTS, SCALE, BIAS, nothing)
    assert float(siglip(masked)) == float(siglip(together(IMAGES, TEXTS, SCALE, BIAS)))


def test_pairs_share_a_key_only_at_the_same_place() -> None:
    keys = torch.tensor([[1, 5], [2, 5], [5, 1]])
    assert alike(keys, keys).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_in_one_process_the_batch_is_the_processes_own() -> None:
    sides = gathered(IMAGES, TEXTS, SCALE, BIAS, torch.tensor([[1, 3], [2, 4]]))
    assert sides.all_texts is TEXTS
    assert sides.same.tolist() == [[True, False], [False, True]]
    assert sides.own.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "start", "limit"),
    [("siglip", (2.302585092994046, -10.0), None), ("clip", (2.659260036932778, 0.0), 4.605170185988092)],
)
def test_where_a_loss_begins(name: str, start: tuple[float, float], limit: float | None) -> None:
    plugin = plugins.load("contrasts", name)
    assert plugin.start == pytest.approx(start, abs=1e-12)
    assert plugin.limit == limit
    assert plugin.needs_bias == (name == "siglip")
    assert plugins.bind("contrasts", name, {}) == {}


@pytest.mark.parametrize("name", ["siglip", "clip"])
def test_a_loss_falls_as_its_own_pairs_come_nearer(name: str) -> None:
    def at(turn: float) -> float:
        angle = torch.tensor(turn, dtype=torch.float64)
        turned = torch.stack(
            [torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])]
        )
        return float(plugins.load("contrasts", name).loss(together(IMAGES, turned, SCALE, BIAS)))

    values: list[float] = [at(turn) for turn in (0.9, 0.6, 0.3, 0.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_random_pairs_lose_what_theory_says() -> None:
    """Orthogonal pairs: CLIP's loss is log n at a factor of 0, SigLIP's n log 2 without a bias."""
    eye: Tensor = torch.eye(4, dtype=torch.float64)
    nothing = torch.tensor(-math.inf, dtype=torch.float64)
    zero = torch.tensor(0.0, dtype=torch.float64)
    assert float(clip(together(eye, eye, nothing))) == pytest.approx(math.log(4), abs=1e-12)
    assert float(siglip(together(eye, eye, nothing, zero))) == pytest.approx(4 * math.log(2), abs=1e-12)
