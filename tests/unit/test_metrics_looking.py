"""What covering the finding costs: by hand, and of answers that are known to look or not to look."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sightline import judging, stats
from sightline.errors import DataError
from sightline.metrics.looking import MASS, dropped, looking, masses
from sightline.stages.attention import foretold
from sightline.types import Prediction


def answer(i: int, p_yes: float, *, topic: str = "nodule", gold: str = "Yes", **more) -> Prediction:
    return Prediction(
        sample=f"s{i:03d}", patient=f"p{i // 2:03d}", turn=0, topic=topic, question="Is there a nodule?", answer=gold,
        text="Yes" if p_yes > 0.5 else "No", choices={"yes": math.log(p_yes), "no": math.log(1 - p_yes)}, **more,
    )  # fmt: skip


def test_the_drop_by_hand():
    covered = [answer(0, 0.2), answer(1, 0.6, topic="device"), answer(2, 0.5, gold="No")]
    other = [answer(0, 0.8), answer(1, 0.6, topic="device"), answer(2, 0.75, gold="No")]
    (found,) = looking(covered, other)
    drops = [math.log(0.8 / 0.2), 0.0, math.log(0.25 / 0.5)]
    assert found.per_sample == pytest.approx(drops)
    assert found.value() == pytest.approx(sum(drops) / 3)
    assert (found.name, found.unit) == ("looks_at_finding", "nats")
    parts = {name: float(part(np.ones((1, 3)))[0]) for name, part in found.parts.items()}
    assert parts == pytest.approx({"nodule": (drops[0] + drops[2]) / 2, "device": 0.0})


def test_turns_without_choices_are_not_asked():
    blank = Prediction(sample="s", patient="p", turn=0, question="Where?", answer="left", text="left")
    assert looking([blank], [blank]) == []
    assert len(looking([blank, answer(0, 0.2)], [answer(0, 0.5), blank])[0].keys) == 1


def test_both_sets_must_answer_the_same_turns_with_numbers():
    with pytest.raises(DataError, match="not about the same turns"):
        looking([answer(0, 0.2)], [answer(1, 0.2)])
    broken = Prediction(
        sample="s000", patient="p", turn=0, question="Is there one?", answer="Yes", text="Yes",
        choices={"yes": math.nan, "no": 0.0},
    )  # fmt: skip
    with pytest.raises(DataError, match="not finite"):
        looking([broken], [answer(0, 0.2)])


def sides(look: float, *, patients: int = 60, seed: int = 0, told: float | None = None):
    """Answers that lose `look` nats at the finding on average; attention that foretells it, or not."""
    rng = np.random.default_rng(seed)
    here, there = [], []
    for i in range(patients * 2):
        drop = rng.normal(look, 0.5)
        there.append(answer(i, 0.2))
        mass = None if told is None else 0.3 + 0.1 * math.tanh(told * drop + rng.normal())
        here.append(
            answer(
                i, min(0.999, 0.2 * math.exp(-drop)), attributes={} if mass is None else {MASS: f"{mass:.6f}"}
            )
        )
    return {("m", "occluded"): here, ("m", "occluded_elsewhere"): there}


def test_who_looks_is_told_from_who_does_not():
    for look, sees in ((0.8, True), (0.0, False)):
        ((side, named),) = judging.measure_looking(sides(look)).items()
        assert side == ("m", "clean")
        low, high = stats.score(named["looks_at_finding"], seed=0, resamples=400).interval or (0, 0)
        assert (low > 0) is sees
        assert low < named["looks_at_finding"].value() < high
    lonely = {("m", "occluded"): [answer(0, 0.3)]}
    assert judging.measure_looking(lonely) == {}


def test_attention_is_shown_only_if_it_foretells_the_drop():
    shown = foretold(sides(0.8, told=3.0), ["m"], seed=0, resamples=400)["m"]
    assert shown["shown"] is True
    assert 0 < shown["low"] < shown["correlation"] < shown["high"]
    assert shown["mean"] == pytest.approx(0.3, abs=0.1)
    assert "foretells what covering the finding costs" in shown["told"]
    hidden = foretold(sides(0.8, told=0.0), ["m"], seed=0, resamples=400)["m"]
    assert (hidden["shown"], hidden["mean"]) == (False, None)
    assert hidden["low"] < 0 < hidden["high"]
    assert "left out" in hidden["told"]
    assert foretold(sides(0.8), ["m"], seed=0, resamples=100) == {}
    assert foretold({}, ["m"], seed=0, resamples=100) == {}


def test_attention_that_does_not_vary_is_left_out():
    made = sides(0.8, told=1.0)
    flat = [
        Prediction(**{**{f: getattr(p, f) for f in p.__dataclass_fields__}, "attributes": {MASS: "0.5"}})
        for p in made["m", "occluded"]
    ]
    found = foretold({**made, ("m", "occluded"): flat}, ["m"], seed=0, resamples=100)["m"]
    assert (found["shown"], found["correlation"]) == (False, None)
    assert "it does not vary" in found["told"]


def test_masses_are_known_of_all_or_none():
    made = sides(0.8, told=1.0)
    turns, drops = dropped(made["m", "occluded"], made["m", "occluded_elsewhere"])
    assert masses(turns) is not None
    assert len(drops) == len(turns) == 120
    assert masses([*turns, answer(500, 0.5)]) is None
    assert masses([]) is None
