"""Laws that every metric file obeys, whatever it measures."""

import random
from dataclasses import replace

import numpy as np
import pytest

from sightline import plugins
from sightline.errors import DataError
from sightline.types import Prediction

METRICS = plugins.names("metrics")
FINDINGS = (
    "Left effusion. No nodule. Heart enlarged.",
    "No effusion. Nodule. Heart size normal. Device in place.",
)
OPEN = ("left upper lobe of the lung", "the liver and the spleen")
BASELINES = "majority_"


def answers(kind):
    """Two yes/no topics, an open one and a report for 12 samples of 6 patients; `kind` of answers."""
    made = []
    for i in range(12):
        sample = {"sample": f"s{i:02d}", "patient": f"p{i // 2}"}
        for turn, (topic, gold) in enumerate(
            [
                ("nodule", "Yes." if i % 2 else "No."),
                ("device", "Yes." if i % 3 else "No."),
                ("place", OPEN[i % 2]),
                ("report", FINDINGS[i % 2]),
            ]
        ):
            right = kind == "perfect" or (kind == "mixed" and (i + turn) % 3 > 0)
            text = gold if right else {0: "No", 1: "Yes", 2: "kidney", 3: "Right effusion."}[turn]
            lead = 1.0 if (gold == "Yes.") == right else -1.0
            made.append(
                Prediction(
                    **sample, turn=turn, topic=topic, answer=gold, text=text, model="taught",
                    question="Where is it?" if topic == "place" else "Is it there?",
                    choices={"yes": lead, "no": 0.0} if turn < 2 else {},
                )
            )  # fmt: skip
    return made


def values(name, predictions):
    return {m.name: m.value() for m in plugins.load("metrics", name).score(predictions)}


def test_every_metric_file_is_found():
    assert {"bleu", "rouge", "vqa"} <= set(METRICS)
    assert not {"measure", "answers", "findings"} & set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_registration(name):
    metric = plugins.load("metrics", name)
    assert callable(metric.score)
    assert metric.version >= 1
    assert metric.paper
    assert plugins.bind("metrics", name, {}) == {
        key: default for key, (_, default) in plugins.options("metrics", name).items()
    }


@pytest.mark.parametrize("name", METRICS)
def test_empty_input_is_an_error(name):
    with pytest.raises(DataError, match="no predictions to score") as caught:
        plugins.load("metrics", name).score([])
    assert caught.value.remedy


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", ["perfect", "mixed", "wrong"])
def test_order_does_not_matter(name, kind):
    ordered = answers(kind)
    shuffled = random.Random(1).sample(ordered, len(ordered))
    score = plugins.load("metrics", name).score
    for one, two in zip(score(ordered), score(shuffled), strict=True):
        assert one.value() == two.value()
        assert one.keys == two.keys == tuple(sorted(one.keys))
        assert one.patients == two.patients


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", ["mixed", "wrong"])
def test_perfect_answers_score_best(name, kind):
    best = plugins.load("metrics", name).score(answers("perfect"))
    other = values(name, answers(kind))
    assert best
    for measure in best:
        sign = 1 if measure.higher_is_better else -1
        assert sign * measure.value() >= sign * other[measure.name]
        if measure.higher_is_better and not measure.name.startswith(BASELINES) and kind == "wrong":
            assert measure.value() > other[measure.name]


@pytest.mark.parametrize("name", METRICS)
def test_twice_the_weight_changes_nothing(name):
    for measure in plugins.load("metrics", name).score(answers("mixed")):
        weights = np.stack([np.full(len(measure.keys), times) for times in (1.0, 2.0, 7.0)])
        assert measure.statistic(weights) == pytest.approx([measure.value()] * 3)


@pytest.mark.parametrize("name", METRICS)
def test_multiplicities_equal_repeated_rows(name):
    turns = answers("mixed")
    times = {t.sample: 1 + i % 3 for i, t in enumerate(turns)}
    repeated = [replace(t, sample=f"{t.sample}-{copy}") for t in turns for copy in range(times[t.sample])]
    expected = values(name, repeated)
    for measure in plugins.load("metrics", name).score(turns):
        weights = np.array([[float(times[sample]) for sample, _ in measure.keys]])
        if not measure.name.startswith(BASELINES):
            assert measure.statistic(weights)[0] == pytest.approx(expected[measure.name])


@pytest.mark.parametrize("name", METRICS)
def test_nothing_drawn_is_undefined_or_zero_and_never_an_exception(name):
    for measure in plugins.load("metrics", name).score(answers("mixed")):
        (value,) = measure.statistic(np.zeros((1, len(measure.keys))))
        assert np.isnan(value) or value == 0


@pytest.mark.parametrize("name", METRICS)
def test_every_measure_is_described(name):
    found = plugins.load("metrics", name).score(answers("mixed"))
    assert len({m.name for m in found}) == len(found)
    for measure in found:
        assert measure.doc
        assert measure.unit in ("0-1", "0-100", "nats")
        assert len(measure.keys) == len(measure.patients)
        assert measure.per_sample is None or len(measure.per_sample) == len(measure.keys)
        assert all(callable(part) or isinstance(part, float) for part in measure.parts.values())
