"""Cohen's kappa: against scikit-learn, at its ends, and under resampling."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sightline import stats


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one = rng.choice(["before", "after", "tie"], 60)
    other = np.where(rng.random(60) < 0.6, one, rng.choice(["before", "after"], 60))
    found = stats.cohen(list(one), list(other))(np.ones((1, 60)))
    assert found == pytest.approx([cohen_kappa_score(one, other)], abs=1e-12)


def test_a_weight_is_a_row_that_many_times() -> None:
    one, other = ["a", "a", "b", "b"], ["a", "b", "b", "b"]
    weights = np.array([[3.0, 1.0, 2.0, 0.0]])
    rows = [i for i, times in enumerate((3, 1, 2, 0)) for _ in range(times)]
    again = cohen_kappa_score([one[i] for i in rows], [other[i] for i in rows])
    assert stats.cohen(one, other)(weights) == pytest.approx([again], abs=1e-12)


def test_full_none_and_undefined_agreement() -> None:
    weights = np.ones((1, 4))
    assert stats.cohen(list("abab"), list("abab"))(weights) == [1.0]
    assert stats.cohen(list("abab"), list("baba"))(weights) == [-1.0]
    assert stats.cohen(list("aabb"), list("abab"))(weights) == [0.0]
    assert np.isnan(stats.cohen(list("aaaa"), list("aaaa"))(weights)).all()
    assert np.isnan(stats.cohen(list("abab"), list("abab"))(np.zeros((1, 4)))).all()
