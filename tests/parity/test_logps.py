"""Log-probabilities without logits equal the gather from full logits, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sightline.losses import logps
from sightline.losses.logps import IGNORE, LinearLogps, answer_logps, token_logps

WIDTH, WORDS = 5, 11


def inputs(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, nn.Linear]:
    """States [2, 7, 5] that want gradients, labels with gaps, and a head."""
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(2, 7, WIDTH, generator=draw, dtype=dtype, requires_grad=True)
    labels = torch.tensor(
        [[IGNORE, IGNORE, 3, 10, IGNORE, 0, 1], [IGNORE, 4, 5, IGNORE, IGNORE, IGNORE, IGNORE]]
    )
    head = nn.Linear(WIDTH, WORDS, bias=False, dtype=dtype)
    with torch.no_grad():
        head.weight.copy_(3 * torch.randn(WORDS, WIDTH, generator=draw, dtype=dtype))
    return states, labels, head


def plain(states: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """From all logits, in the form that everybody knows. [B, T]."""
    full = (states @ weight.T).log_softmax(-1)[:, :-1]
    target = labels[:, 1:]
    picked = full.gather(-1, target.clamp_min(0)[..., None])[..., 0].masked_fill(target == IGNORE, 0.0)
    return torch.cat([torch.zeros(len(labels), 1, dtype=picked.dtype), picked], dim=1)


@pytest.mark.parametrize("chunk", [1, 3, 4, 8192])
@pytest.mark.parametrize("form", ["matrix", "any"])
def test_equal_to_the_gather_from_full_logits(monkeypatch: pytest.MonkeyPatch, chunk: int, form: str) -> None:
    monkeypatch.setattr(logps, "VOCABULARY", chunk)
    monkeypatch.setattr(logps, "POSITIONS", chunk)
    weights = torch.randn(2, 7, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    states, labels, head = inputs()
    made = token_logps(states, labels, head if form == "matrix" else head.forward)
    (made * weights).sum().backward()
    own = [states.grad, head.weight.grad]

    states, labels, head = inputs()
    wanted = plain(states, labels, head.weight)
    (wanted * weights).sum().backward()
    torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)
    for mine, theirs in zip(own, [states.grad, head.weight.grad], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(answer_logps(states, labels, head), wanted.sum(-1), rtol=1e-12, atol=1e-12)


def test_the_gradient_passes_the_numeric_check() -> None:
    states, _, head = inputs()
    wanted = torch.tensor([3, 0, 10])
    rows = states[0, :3].detach().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda s, w: LinearLogps.apply(s, w, wanted), (rows, head.weight))


def test_a_source_names_the_place_of_prediction() -> None:
    states, _, head = inputs()
    labels = torch.tensor([[IGNORE, IGNORE, 3, 10, 7, 0, 1], [IGNORE] * 7])
    source = torch.tensor([[0, 0, 1, 2, 1, 4, 5], [0] * 7])  # two answers to the prompt of two tokens
    made = token_logps(states, labels, head, source)
    full = (states @ head.weight.T).log_softmax(-1)[0]
    wanted = [full[1, 3], full[2, 10], full[1, 7], full[4, 0], full[5, 1]]
    assert made[0, 2:].detach().tolist() == pytest.approx([float(w.detach()) for w in wanted], rel=1e-12)
    assert not made[0, :2].any()
    assert not made[1].any()


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    states, labels, head = inputs(dtype=torch.float32)
    with torch.no_grad():
        head.weight.mul_(1e4)
    made = token_logps(states, labels, head)
    made.sum().backward()
    assert torch.isfinite(made).all()
    assert torch.isfinite(states.grad).all()
    torch.testing.assert_close(
        made.double(), plain(states, labels, head.weight).double(), rtol=1e-5, atol=1e-2
    )


def test_results_are_float32_and_no_tensor_of_the_vocabulary_is_kept() -> None:
    states, labels, head = inputs(dtype=torch.bfloat16)
    kept: list[tuple[int, ...]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        made = token_logps(states, labels, head)
    assert made.dtype == torch.float32
    assert (WORDS, WIDTH) in kept  # the head itself
    assert not [shape for shape in kept if WORDS in shape and shape != (WORDS, WIDTH)]
    made.sum().backward()
    assert states.grad.dtype == torch.bfloat16


def test_autocast_reads_the_head_in_bfloat16() -> None:
    states, labels, head = inputs(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = token_logps(states, labels, head)
    wanted = plain(states, labels, head.weight)
    assert made.dtype == torch.float32
    assert 0 < float((made - wanted).detach().abs().max()) < 0.2
    made.sum().backward()
    assert states.grad.dtype == torch.float32


def test_a_sure_token_keeps_its_small_gradient_in_bfloat16() -> None:
    draw = torch.Generator().manual_seed(0)
    head = nn.Linear(64, 500, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.randn(500, 64, generator=draw))
    sure = (head.weight[7] * 0.15).detach()[None, None].expand(1, 2, 64).clone().requires_grad_(True)
    labels = torch.tensor([[IGNORE, 7]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = token_logps(sure, labels, head)
    made.sum().backward()
    exact = sure.detach().double().requires_grad_(True)
    wanted = plain(exact, labels, head.weight.double())
    wanted.sum().backward()
    assert -0.1 < float(made.sum().detach()) < 0
    apart = (sure.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert float(apart) < 0.05


def test_a_frozen_head_gets_no_gradient_and_the_head_sees_answers_only() -> None:
    states, labels, head = inputs()
    head.requires_grad_(False)
    token_logps(states, labels, head).sum().backward()
    assert head.weight.grad is None
    touched = states.grad.abs().sum(-1) > 0
    assert touched.int().tolist() == [[0, 1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0, 0]]


def test_a_batch_without_answers_is_zero_not_an_error() -> None:
    states, labels, head = inputs()
    assert torch.equal(
        token_logps(states, torch.full_like(labels, IGNORE), head), torch.zeros(2, 7, dtype=torch.float64)
    )
