"""Every plug-in of every kind: a file is swept the moment it exists."""

from __future__ import annotations

import ast
import importlib
from typing import Any

import numpy as np
import pytest
import torch

from sightline import plugins
from sightline.data.source import Reader
from sightline.images import degrade
from sightline.images.formats import Format
from sightline.losses.pairs import PairLogps, PairLoss
from sightline.losses.similarity import Contrastive
from sightline.metrics.measure import Metric
from sightline.models.connector import Connector
from sightline.models.encoder import EncoderFamily
from sightline.models.family import Family
from sightline.models.parts.efficientnet_lite import Part
from sightline.types import Degrade

CLASSES: dict[str, Any] = {
    "readers": Reader,
    "formats": Format,
    "degrade": degrade.Degradation,
    "losses": PairLoss,
    "metrics": Metric,
    "families": Family,
    "parts": Part,
    "contrasts": Contrastive,
    "encoders": EncoderFamily,
    "connectors": Connector,
}
EVERY = [(kind, name) for kind in plugins.PLACES for name in plugins.names(kind)]  # type: ignore[arg-type]
LOSSES = plugins.names("losses")
DEGRADATIONS = plugins.names("degrade")


def test_each_kind_has_one_at_least() -> None:
    assert {kind for kind, _ in EVERY} == set(plugins.PLACES) == set(CLASSES)


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=str)
def test_a_plugin_registers_itself_last_and_explains_itself(kind: plugins.Kind, name: str) -> None:
    path, function = plugins.source(kind, name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    last = tree.body[-1]
    assert isinstance(last, ast.Assign), "the last statement registers the plug-in"
    assert [t.id for t in last.targets if isinstance(t, ast.Name)] == [plugins.PLACES[kind][1]]
    assert len(ast.get_docstring(tree) or "") > 40
    assert isinstance(plugins.load(kind, name), CLASSES[kind])
    if kind not in ("families", "parts", "encoders"):
        module = importlib.import_module(f"sightline.{plugins.PLACES[kind][0].replace('/', '.')}.{name}")
        assert getattr(module, function).__doc__
        assert all(isinstance(key, str) for key in plugins.options(kind, name))


def logps(chosen: float, rejected: float) -> PairLogps:
    values = [torch.tensor([v], dtype=torch.float64) for v in (chosen, rejected, -5.0, -5.0)]
    length = torch.tensor([4])
    third = torch.tensor([-6.0], dtype=torch.float64)
    return PairLogps(*values, length, length, third, values[2])


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_falls_as_the_chosen_answer_gains(name: str) -> None:
    loss = plugins.load("losses", name).loss
    values = [float(loss(logps(c, -5.0))) for c in (-6.0, -5.0, -4.0)]
    assert values[0] > values[1] > values[2]
    assert np.isfinite(values).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_pulls_both_answers_the_right_way(name: str) -> None:
    pair = logps(-5.0, -5.0)
    pair.chosen.requires_grad_(True)
    pair.rejected.requires_grad_(True)
    plugins.load("losses", name).loss(pair).sum().backward()
    assert pair.chosen.grad is not None
    assert pair.rejected.grad is not None
    assert float(pair.chosen.grad) < 0 < float(pair.rejected.grad)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_degradation_is_pure_and_keeps_shape_and_range(name: str) -> None:
    if degrade.find(name).swaps:
        pytest.skip("shows another patient's image; see tests/unit/test_degrade.py")
    pixels = np.random.default_rng(0).random((12, 10, 3)).astype(np.float32)
    before = pixels.copy()
    one, two = (degrade.apply(pixels, Degrade(kind=name, seed=1), "r1") for _ in range(2))
    assert np.array_equal(one, two)
    assert np.array_equal(pixels, before)
    assert one.shape == pixels.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert not np.array_equal(one, pixels)
