"""Simulated studies: intervals hold the truth, and tests reject, as often as they say."""

import pytest

import simulated


def test_300_studies():
    found = simulated.simulate(simulated.SEEDS["fast"], 300)
    assert set(found.covered) == {"mean", "ratio", "difference"}
    for name, share in found.covered.items():
        assert 0.91 <= share <= 0.98, (name, share)
    for name, share in found.rejected.items():
        assert 0.015 <= share <= 0.085, (name, share)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_5000_studies():
    found = simulated.simulate(simulated.SEEDS["full"], 5000)
    print(found)
    for name, share in found.covered.items():
        assert 0.93 <= share <= 0.97, (name, share)
    # Counts of yes and no take few values, so that the test cannot use up all of its 5 %: 0.0404.
    for name, share in found.rejected.items():
        assert 0.04 <= share <= 0.06, (name, share)
