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
SEXES = ("Female.", "Classification: Male.")
GRADES = ("Normal", "Severe")
BASELINES = "majority_"
UNORDERED = ("ece", "ece_width")  # a model that is always right may well be too modest
CORPUS = ("cider",)  # weighs words by how many of the references have them, whatever is drawn
UNITS = ("0-1", "0-10", "0-100", "nats", "per report")


def exact(texts, *_):
    """What METEOR's program would count if it matched equal words only; the program itself takes seconds to start."""
    counts = np.zeros((len(texts), 23))
    for row, (said, right) in zip(counts, texts, strict=True):
        same = sum(min(said.count(word), right.count(word)) for word in set(said))
        row[:2] = len(said), len(right)
        row[4:6] = same
        row[20:] = 0 if said == right else max(1, same), same, same
    return counts


@pytest.fixture
def score(name, request, monkeypatch):
    """A metric with the options without which it cannot run here."""
    if name == "radeval":
        pytest.skip("RadEval needs its weights; tests/unit/test_metrics_radeval.py has a stand-in")
    if name == "meteor":
        monkeypatch.setattr("sightline.metrics.meteor.align", exact)
        monkeypatch.setattr("sightline.metrics.meteor.find", lambda jar: jar)
    options = {"synonyms": False} if name == "meteor_nltk" else {}
    if name == "bertscore":
        options = {"model": str(request.getfixturevalue("tiny_bert"))}
    return lambda predictions: plugins.load("metrics", name).score(predictions, **options)


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
                ("sex_same" if i % 3 else "sex_different", SEXES[i % 2]),
                ("grade", GRADES[i % 2]),
            ]
        ):
            right = kind == "perfect" or (kind == "mixed" and (i + turn) % 3 > 0)
            wrong = {
                0: "No",
                1: "Yes",
                2: "kidney",
                3: "Right effusion.",
                4: SEXES[1 - i % 2],
                5: GRADES[1 - i % 2],
            }
            text = gold if right else wrong[turn]
            lead = 1.0 if (gold == "Yes.") == right else -1.0
            made.append(
                Prediction(
                    **sample, turn=turn, topic=topic, answer=gold, text=text, model="taught",
                    question="Where is it?" if topic == "place" else "Is it there?",
                    choices={"yes": lead, "no": 0.0} if turn < 2 else {},
                    attributes={
                        "grade": str(i % 2),
                        "similarity": "0.9" if right else "0.2",
                        "similarity_right": "0.9",
                    },
                )
            )  # fmt: skip
    return made


def values(measures):
    return {m.name: m.value() for m in measures}


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
def test_order_does_not_matter(name, kind, score):
    ordered = answers(kind)
    shuffled = random.Random(1).sample(ordered, len(ordered))
    for one, two in zip(score(ordered), score(shuffled), strict=True):
        assert one.value() == two.value()
        assert one.keys == two.keys == tuple(sorted(one.keys))
        assert one.patients == two.patients


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", ["mixed", "wrong"])
def test_perfect_answers_score_best(name, kind, score):
    best = score(answers("perfect"))
    other = values(score(answers(kind)))
    assert best
    for measure in best:
        if measure.name in UNORDERED:
            continue
        sign = 1 if measure.higher_is_better else -1
        assert sign * measure.value() >= sign * other[measure.name]
        if measure.higher_is_better and not measure.name.startswith(BASELINES) and kind == "wrong":
            assert measure.value() > other[measure.name]


@pytest.mark.parametrize("name", METRICS)
def test_twice_the_weight_changes_nothing(name, score):
    for measure in score(answers("mixed")):
        weights = np.stack([np.full(len(measure.keys), times) for times in (1.0, 2.0, 7.0)])
        assert measure.statistic(weights) == pytest.approx([measure.value()] * 3)


@pytest.mark.parametrize("name", METRICS)
def test_multiplicities_equal_repeated_rows(name, score):
    turns = answers("mixed")
    times = {t.sample: 1 + i % 3 for i, t in enumerate(turns)}
    repeated = [replace(t, sample=f"{t.sample}-{copy}") for t in turns for copy in range(times[t.sample])]
    expected = values(score(repeated))
    for measure in score(turns):
        weights = np.array([[float(times[sample]) for sample, _ in measure.keys]])
        if not measure.name.startswith(BASELINES) and name not in CORPUS:
            assert measure.statistic(weights)[0] == pytest.approx(expected[measure.name])


@pytest.mark.parametrize("name", METRICS)
def test_nothing_drawn_is_undefined_or_zero_and_never_an_exception(name, score):
    for measure in score(answers("mixed")):
        (value,) = measure.statistic(np.zeros((1, len(measure.keys))))
        assert np.isnan(value) or value == 0


@pytest.mark.parametrize("name", METRICS)
def test_every_measure_is_described(name, score):
    found = score(answers("mixed"))
    assert len({m.name for m in found}) == len(found)
    for measure in found:
        assert measure.doc
        assert measure.unit in UNITS
        assert len(measure.keys) == len(measure.patients)
        assert measure.per_sample is None or len(measure.per_sample) == len(measure.keys)
        assert all(callable(part) or isinstance(part, float) for part in measure.parts.values())
