"""Our numbers against scikit-learn, sacrebleu and rouge_score on the same answers."""

import numpy as np
import pytest

from sightline.metrics.bleu import bleu
from sightline.metrics.rouge import rouge
from sightline.metrics.vqa import vqa
from sightline.types import Prediction

WORDS = [
    "Left",
    "right",
    "effusion",
    "no",
    "heart",
    "lungs",
    "are",
    "clear",
    ",",
    "nodule.",
    "x-ray",
    "1.5",
    "cm",
]
TOPICS = ("effusion", "nodule", "device", "mass")


def questions(seed, count=400):
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        gold, said = random.choice(["yes", "no"], size=2)
        yes = float(np.round(random.normal(1.0 if gold == "yes" else 0.0), 1))  # rounded: ties occur
        made.append(
            Prediction(
                sample=f"s{i:04d}", patient=f"p{i % 97}", turn=0, question="Is it?", answer=gold, text=said,
                topic=TOPICS[i % 4], choices={"yes": yes, "no": 0.0},
            )
        )  # fmt: skip
    return made


def reports(seed, count=60, longest=25):
    random = np.random.default_rng(seed)
    made = []
    for i in range(count):
        words = list(random.choice(WORDS, size=random.integers(0, longest)))
        start, stop = sorted(random.integers(0, len(words) + 1, size=2))
        answer = " ".join(words)
        text = " ".join([*random.choice(WORDS, size=random.integers(0, 4)), *words[start:stop]])
        made.append(
            Prediction(
                sample=f"s{i:04d}", patient=f"p{i}", turn=0, question="Report.", answer=answer, text=text,
                topic="report",
            )
        )  # fmt: skip
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "function"),
    [("balanced_accuracy", "balanced_accuracy_score"), ("vqa_f1", "f1_score"), ("auc", "roc_auc_score")],
)
def test_scikit_learn_per_topic(seed, name, function):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the dev extra")
    turns = questions(seed)
    measure = {m.name: m for m in vqa(turns)}[name]
    ones = np.ones((1, len(measure.keys)))
    expected = {}
    for topic in TOPICS:
        chosen = [t for t in turns if t.topic == topic]
        gold = [t.answer == "yes" for t in chosen]
        said = [t.choices["yes"] if name == "auc" else t.text == "yes" for t in chosen]
        expected[topic] = getattr(sklearn, function)(gold, said)
        assert float(measure.parts[topic](ones)[0]) == pytest.approx(expected[topic], abs=1e-12)
    assert measure.value() == pytest.approx(np.mean(list(expected.values())), abs=1e-12)


def test_weighted_auc_is_scikit_learns_weighted_auc():
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the dev extra")
    turns = [t for t in questions(5) if t.topic == "mass"]
    measure = {m.name: m for m in vqa(turns)}["auc"]
    weights = np.random.default_rng(1).poisson(1.0, size=(20, len(turns))).astype(float)
    gold, lead = [t.answer == "yes" for t in turns], [t.choices["yes"] for t in turns]
    expected = [sklearn.roc_auc_score(gold, lead, sample_weight=row) for row in weights]
    assert measure.statistic(weights) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("tokenize", ["13a", "none", "char"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_sacrebleu_corpus_score(tokenize, lowercase):
    from sacrebleu.metrics.bleu import BLEU

    turns = reports(0)
    found = {m.name: m for m in bleu(turns, tokenize=tokenize, lowercase=lowercase)}
    for order, name in ((1, "bleu_1"), (2, "bleu_2"), (3, "bleu_3"), (4, "bleu")):
        scorer = BLEU(tokenize=tokenize, lowercase=lowercase, max_ngram_order=order)
        expected = scorer.corpus_score([t.text for t in turns], [[t.answer for t in turns]])
        assert found[name].value() == pytest.approx(expected.score, abs=1e-9)
    ones = np.ones((1, len(turns)))
    parts = {name: float(part(ones)[0]) for name, part in found["bleu"].parts.items()}
    assert [parts[f"precision_{n}"] for n in (1, 2, 3, 4)] == pytest.approx(expected.precisions)
    assert parts["brevity_penalty"] == pytest.approx(expected.bp)


@pytest.mark.parametrize("longest", [2, 4, 6])
def test_sacrebleu_on_resampled_and_very_short_corpora(longest):
    from sacrebleu.metrics.bleu import BLEU

    turns = reports(longest, count=6, longest=longest)
    measure = bleu(turns)[0]
    weights = np.random.default_rng(0).integers(0, 3, size=(40, len(turns))).astype(float)
    weights[:, 0] += 1
    for row, value in zip(weights, measure.statistic(weights), strict=True):
        drawn = [t for t, times in zip(turns, row, strict=True) for _ in range(int(times))]
        expected = BLEU().corpus_score([t.text for t in drawn], [[t.answer for t in drawn]])
        assert value == pytest.approx(expected.score, abs=1e-9)


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_score(stemmer):
    from rouge_score.rouge_scorer import RougeScorer

    turns = reports(2)
    scorer = RougeScorer(["rougeL"], use_stemmer=stemmer)
    expected = [scorer.score(t.answer, t.text)["rougeL"].fmeasure for t in turns]
    (measure,) = rouge(turns, stemmer=stemmer)
    assert measure.per_sample == pytest.approx(expected)
    assert measure.value() == pytest.approx(np.mean(expected))
