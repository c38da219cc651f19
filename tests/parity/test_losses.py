"""Every pair loss equals TRL's on the same log-probabilities, or its paper's formula written out anew."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline import plugins
from sightline.errors import RecipeError
from sightline.losses.pairs import PairLogps
from sightline.losses.robust import robust

CHOSEN, REJECTED = [-9.0, -30.5, -1.0, -4.0], [-11.0, -28.0, -44.0, -4.0]
LOGPS = PairLogps(
    *(torch.tensor(v, dtype=torch.float64) for v in (CHOSEN, REJECTED)),
    *(torch.tensor(v, dtype=torch.float64) for v in ([-9.5, -31.0, -3.0, -4.5], [-10.0, -27.0, -40.0, -3.5])),
    *(torch.tensor(v, dtype=torch.float64) for v in ([3, 12, 2, 4], [4, 10, 15, 1])),
    torch.tensor([-12.0, -30.0, -1.5, -9.0], dtype=torch.float64),
    torch.tensor([-11.0, -31.0, -1.0, -8.0], dtype=torch.float64),
)  # fmt: skip


def ours(name: str, **options: Any) -> Tensor:
    return plugins.load("losses", name).loss(LOGPS, **options)


def trl_dpo(kind: str, **more: Any) -> Tensor:
    """Per-pair values of TRL's own DPO trainer, fed with `LOGPS` in the place of a model's."""
    trainer = pytest.importorskip("trl.trainer.dpo_trainer")
    torch_f = torch.nn.functional
    lines = Path(trainer.__file__).read_text(encoding="utf-8")  # its formulas stand inside one long method
    start = lines.index('            if loss_type == "sigmoid":')
    stop = lines.index("            else:\n                raise ValueError(", start)
    body = lines[start:stop]
    width = len(body) - len(body.lstrip())
    code = "\n".join(line[width:] for line in body.splitlines())
    chosen = LOGPS.chosen - LOGPS.chosen_reference
    rejected = LOGPS.rejected - LOGPS.rejected_reference
    longest = int(max(LOGPS.chosen_length.max(), LOGPS.rejected_length.max()))
    lengths = torch.cat([LOGPS.chosen_length, LOGPS.rejected_length])
    names: dict[str, Any] = {
        "F": torch_f, "torch": torch, "loss_type": kind, "device": "cpu",
        "self": SimpleNamespace(**{"beta": 0.1, "label_smoothing": 0.0} | more),
        "delta_score": chosen - rejected, "chosen_scores": chosen, "rejected_scores": rejected,
        "chosen_logratios": chosen, "rejected_logratios": rejected,
        "completion_mask": torch.arange(longest)[None] < lengths[:, None],
    }  # fmt: skip
    exec(compile(code, trainer.__file__, "exec"), names)
    return names["per_sequence_loss"]


@pytest.mark.parametrize(
    ("name", "kind", "options", "theirs"),
    [
        ("dpo", "sigmoid", {"beta": 0.1}, {}),
        ("dpo", "sigmoid", {"beta": 0.5}, {"beta": 0.5}),
        ("hinge", "hinge", {"beta": 0.1}, {}),
        ("hinge", "hinge", {"beta": 0.4}, {"beta": 0.4}),
        ("ipo", "ipo", {"beta": 0.1}, {}),
        ("ipo", "ipo", {"beta": 0.3}, {"beta": 0.3}),
        ("robust", "robust", {"beta": 0.1, "flipped": 0.0}, {}),
        ("robust", "robust", {"beta": 0.2, "flipped": 0.3}, {"beta": 0.2, "label_smoothing": 0.3}),
    ],
)
def test_equal_to_trl_s_dpo_trainer(
    name: str, kind: str, options: dict[str, float], theirs: dict[str, float]
) -> None:
    made, wanted = ours(name, **options), trl_dpo(kind, **theirs)
    torch.testing.assert_close(made, wanted, rtol=1e-6, atol=1e-9)
    assert len({round(float(v), 6) for v in made}) > 2


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_orpo_equals_trl_s(weight: float) -> None:
    trainer = pytest.importorskip("trl.experimental.orpo.orpo_trainer").ORPOTrainer
    me = SimpleNamespace(beta=weight, accelerator=SimpleNamespace(device="cpu"))
    gain = trainer.odds_ratio_loss(me, LOGPS.chosen_mean, LOGPS.rejected_mean)[
        0
    ]  # TRL subtracts it from the NLL
    torch.testing.assert_close(
        ours("orpo", weight=weight).float(), (-LOGPS.chosen_mean - gain).float(), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(("beta", "gamma"), [(2.0, 1.0), (0.7, 0.0)])
def test_simpo_equals_trl_s(beta: float, gamma: float) -> None:
    trainer = pytest.importorskip("trl.experimental.cpo.cpo_trainer").CPOTrainer
    me = SimpleNamespace(
        beta=beta, loss_type="simpo", simpo_gamma=gamma, label_smoothing=0.0, alpha=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )  # fmt: skip
    wanted = trainer.cpo_loss(me, LOGPS.chosen_mean, LOGPS.rejected_mean)[0]
    torch.testing.assert_close(ours("simpo", beta=beta, gamma=gamma), wanted, rtol=1e-6, atol=1e-9)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def by_hand(i: int) -> tuple[float, float, float]:
    """Log-ratios of the chosen, rejected and third answer of pair i."""
    values = (LOGPS.chosen, LOGPS.rejected, LOGPS.third), (
        LOGPS.chosen_reference, LOGPS.rejected_reference, LOGPS.third_reference
    )  # fmt: skip
    chosen, rejected, third = (float(p[i] - r[i]) for p, r in zip(*values, strict=True))
    return chosen, rejected, third


def test_mdpo_is_three_preferences() -> None:
    made = ours("mdpo", beta=0.3, conditional=2.0, anchored=0.5, delta=0.1)
    for i in range(4):
        own, other, third = by_hand(i)
        wanted = (
            -log_sigmoid(0.3 * (own - other))
            - 2.0 * log_sigmoid(0.3 * (own - third))
            - 0.5 * log_sigmoid(0.3 * own - 0.1)
        )
        assert float(made[i]) == pytest.approx(wanted, rel=1e-9)


def test_povid_is_half_and_half() -> None:
    made = ours("povid", beta=0.3)
    for i in range(4):
        own, other, third = by_hand(i)
        wanted = -0.5 * log_sigmoid(0.3 * (own - other)) - 0.5 * log_sigmoid(0.3 * (own - third))
        assert float(made[i]) == pytest.approx(wanted, rel=1e-9)
    torch.testing.assert_close(ours("povid", beta=0.3, own=0.0), ours("dpo", beta=0.3))


def test_orpo_stays_finite_where_an_answer_is_certain() -> None:
    certain = torch.tensor([-1e-12, 0.0], dtype=torch.float64, requires_grad=True)
    one = torch.ones(2, dtype=torch.float64)
    loss = plugins.load("losses", "orpo").loss(PairLogps(certain, -5 * one, None, None, one, one))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(certain.grad).all()


def test_a_share_of_flipped_labels_beyond_a_half_is_refused() -> None:
    with pytest.raises(RecipeError, match="no such share"):
        robust(LOGPS, flipped=0.5)


@pytest.mark.parametrize(
    ("name", "needs", "third", "degrade"),
    [
        ("dpo", True, "", ""), ("hinge", True, "", ""), ("ipo", True, "", ""), ("robust", True, "", ""),
        ("orpo", False, "", ""), ("simpo", False, "", ""), ("mdpo", True, "conditional", "crop"),
        ("povid", True, "imagined", "diffusion"),
    ],
)  # fmt: skip
def test_what_a_loss_says_of_itself(name: str, needs: bool, third: str, degrade: str) -> None:
    loss = plugins.load("losses", name)
    assert (loss.needs_reference, loss.third, loss.degrade) == (needs, third, degrade)
    assert "arXiv" in loss.paper
