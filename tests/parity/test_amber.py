"""AMBER against what its own script printed, on AMBER's lists and nltk's data, where they are beside the project."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sightline.cli import scoring
from sightline.metrics import amber as metric
from sightline.metrics.objects import lists, nouns

DATA = Path(__file__).parents[3] / "shared" / "data" / "amber"
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="AMBER is not beside the project (../shared/data/amber)"
)
OPTIONS = {"data": str(DATA), "similarity": "trigram"}


@pytest.mark.parametrize("number", [1, 2])
def test_exact_prints_what_the_script_printed(number: int) -> None:
    expected = json.loads((DATA / "golden" / f"expected_{number}.json").read_text(encoding="utf-8"))
    answers = DATA / "golden" / f"responses_{number}.json"
    words = [f"data={DATA}", "mode=exact", "similarity=trigram"]
    found = scoring.score("amber", answers, words, seed=0, resamples=100)
    assert found["scores"] == expected
    assert list(found["scores"]) == list(expected)
    assert sum(len(figures) for figures in expected.values()) == 32
    values = {row["metric"]: row["value"] for row in found["rows"] if not row["part"]}
    assert values["amber_score"] == {1: 76.3, 2: 75.5}[number]
    assert values["amber_score"] == pytest.approx(
        (100 - values["amber_chair"] + values["amber_f1"]) / 2, abs=0.051
    )


def test_the_figures_of_a_published_row_join_to_its_score() -> None:
    """The paper's row of LLaVA-1.5: CHAIR 7.8, F1 74.7, score 83.5."""
    score = (100 - 7.8 + 74.7) / 2
    assert score == pytest.approx(83.5, abs=0.051)


def descriptions(tmp_path: Path, change: Any) -> dict[str, float]:
    """The corrected figures of the first golden's descriptions, with answers and lists changed."""
    known = json.loads((DATA / "annotations.json").read_text(encoding="utf-8"))[:1004]
    relation = json.loads((DATA / "relation.json").read_text(encoding="utf-8"))
    safe = (DATA / "safe_words.txt").read_text(encoding="utf-8").split("\n")
    answers = json.loads((DATA / "golden" / "responses_1.json").read_text(encoding="utf-8"))
    made = change([a for a in answers if a["id"] <= 1004], known, relation, safe)
    for name, value in zip(("answers", "annotations", "relation"), made[:3], strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    (tmp_path / "safe_words.txt").write_text("\n".join(made[3]), encoding="utf-8")
    options = {**OPTIONS, "data": str(tmp_path), "nltk_data": str(DATA.parent / "nltk_data")}
    predictions = metric.answers(tmp_path / "answers.json", options)
    return {m.name: m.value() for m in metric.amber(predictions, **options)}


@pytest.mark.parametrize("case", ["upper", "lower", "title", "swapcase"])
def test_corrected_knows_neither_order_nor_case_on_the_real_lists(tmp_path: Path, case: str) -> None:
    rng = random.Random(case)

    def change(answers: Any, known: Any, relation: Any, safe: Any) -> Any:
        spoken = [{"id": a["id"], "response": getattr(a["response"], case)()} for a in answers]
        for each in known:
            each["truth"] = [getattr(w, case)() for w in rng.sample(each["truth"], len(each["truth"]))]
            each["hallu"] = rng.sample(each["hallu"], len(each["hallu"]))
        keys = rng.sample(list(relation), len(relation))
        mixed = {getattr(k, case)(): rng.sample(relation[k], len(relation[k])) for k in keys}
        return rng.sample(spoken, len(spoken)), known, mixed, rng.sample(safe, len(safe))

    one = descriptions(tmp_path, lambda *given: given)
    two = descriptions(tmp_path, change)
    assert one == two
    assert one["amber_chair"] == pytest.approx(24.581, abs=1e-3)
    assert one["amber_cover"] == pytest.approx(52.765, abs=1e-3)
    assert one["amber_hal"] == pytest.approx(78.667, abs=1e-3)
    assert one["amber_cog"] == pytest.approx(16.853, abs=1e-3)


@pytest.mark.parametrize("case", ["lower", "title", "__str__"])
def test_nouns_are_those_of_nltk(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    import nltk

    folder = DATA.parent / "nltk_data"
    monkeypatch.setattr(nltk.data, "path", [str(folder)])
    answers = json.loads((DATA / "golden" / "responses_2.json").read_text(encoding="utf-8"))
    texts = [getattr(a["response"], case)() for a in answers if a["id"] <= 1004]
    find, shortest = nouns.finder("nltk", [], folders=[str(folder)]), nltk.WordNetLemmatizer()
    tagger = nltk.PerceptronTagger()
    tagged = [tagger.tag(nltk.word_tokenize(text)) for text in texts]
    stock = [[shortest.lemmatize(word) for word, tag in each if tag.startswith("NN")] for each in tagged]
    assert [find(text) for text in texts] == stock
    assert sum(map(len, stock)) > 1000


def test_the_lists_are_the_ones_that_the_facts_count() -> None:
    known, words = lists.read_annotations(str(DATA)), lists.read_lists(str(DATA))
    kinds: dict[str, int] = {}
    for each in known.values():
        kinds[each.kind] = kinds.get(each.kind, 0) + 1
    assert kinds == {
        "generative": 1004, "discriminative-hallucination": 4924, "discriminative-attribute-state": 4764,
        "discriminative-attribute-number": 2072, "discriminative-attribute-action": 792,
        "discriminative-relation": 975, "relation": 689,
    }  # fmt: skip
    spelt = [lists.spelt(each.answer) for each in known.values() if each.kind == "generative"]
    assert sum(len(truth) for truth, _ in spelt) == 5599
    assert sum(len(hallu) for _, hallu in spelt) == 4924
    assert (len(words.associations), len(words.vocabulary), len(words.safe)) == (340, 418, 9)
