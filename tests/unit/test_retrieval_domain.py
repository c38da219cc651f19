"""Which domain an image is of: three synthetic ones, against scikit-learn, and saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sightline.errors import RunError
from sightline.retrieval.domain import RIDGE, Router, fit, held_out

SIZES = {"fundus": 40, "pathology": 60, "radiology": 200}


def domains(noise: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Unit vectors [n, 16] around one centre per domain."""
    source = np.random.default_rng(seed)
    centres = source.normal(size=(3, 16))
    made = {}
    for centre, (name, count) in zip(centres, SIZES.items(), strict=True):
        rows = centre + noise * source.normal(size=(count, 16))
        made[name] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return made


def test_three_domains_are_told_apart() -> None:
    taught, new = domains(0.5), domains(0.5)
    router = fit(taught)
    assert router.names == ("fundus", "pathology", "radiology")
    for name, rows in new.items():
        assert router(rows) == [name] * len(rows)
    assert held_out(taught, seed=1) == 1.0
    hard = held_out(domains(3.0), seed=1)
    assert hard is not None
    assert 1 / 3 < hard < 0.95
    assert held_out({"a": taught["fundus"][:4], "b": taught["pathology"][:4]}, seed=1) is None


def test_equal_to_scikit_learn() -> None:
    """Same optimum: balanced weights, the ridge on the mean loss is 1 / (C n)."""
    made = domains(2.0)
    rows = np.concatenate(list(made.values())).astype(np.float64)
    names = np.repeat(list(made), list(map(len, made.values())))
    other = LogisticRegression(
        C=1 / (RIDGE * len(rows)), class_weight="balanced", tol=1e-10, max_iter=5000
    ).fit(rows, names)
    router = fit(made)
    np.testing.assert_allclose(router.weight, other.coef_, atol=2e-4)
    np.testing.assert_allclose(
        router.bias - router.bias.mean(), other.intercept_ - other.intercept_.mean(), atol=2e-4
    )


def test_the_order_of_domains_does_not_matter_and_twice_is_the_same() -> None:
    made = domains(2.0)
    first, again = fit(made), fit(dict(reversed(made.items())))
    assert first.weight.tobytes() == again.weight.tobytes()
    assert first.bias.tobytes() == again.bias.tobytes()


def test_saved_and_damaged(tmp_path: Path) -> None:
    made = domains(0.5)
    router = fit(made)
    router.save(tmp_path, {"held_out_accuracy": 1.0})
    again = Router.load(tmp_path)
    assert again.weight.tobytes() == router.weight.tobytes()
    assert again(made["fundus"]) == ["fundus"] * 40
    (tmp_path / "domain.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunError, match="the domain classifier is damaged"):
        Router.load(tmp_path)
