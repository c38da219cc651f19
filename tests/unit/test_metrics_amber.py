"""AMBER: each quirk of the script by hand, what `corrected` makes of it, and what is refused."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import small_amber
from sightline import plugins, stats
from sightline.errors import DataError, ModelError, RecipeError
from sightline.metrics import amber as metric
from sightline.metrics.objects import lists, nearness, nouns
from small_amber import asked, described, write

OPTIONS: dict[str, Any] = {"similarity": "small_amber:alike", "nouns": "plain"}
GENERATIVE = ("chair", "cover", "hal", "cog")


def score(folder: Path, *texts: str, **options: Any) -> dict[str, Any]:
    """The measures of one answer for each annotation, by name."""
    path = folder / "answers.json"
    path.write_text(json.dumps([{"id": i, "response": text} for i, text in enumerate(texts, 1)]))
    chosen = {"data": str(folder), **OPTIONS, **options}
    made = metric.amber(metric.answers(path, chosen), **chosen)
    return {m.name.removeprefix("amber_"): m for m in made}


def figures(folder: Path, *texts: str, **options: Any) -> list[float]:
    found = score(folder, *texts, **options)
    return [found[name].value() for name in GENERATIVE]


def test_counters_start_at_a_thousandth_and_figures_have_one_digit(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]))
    assert figures(tmp_path, "the sky", mode="exact") == [0.0, 99.9, 0.1, 0.0]
    assert figures(tmp_path, "the sky") == [0.0, 100.0, 0.0, 0.0]


def test_the_script_misses_a_capital_letter(tmp_path: Path):
    write(tmp_path, described(["sky", "TV"], ["cat"]))
    assert figures(tmp_path, "Sky, tv", mode="exact") == [0.0, 0.0, 0.1, 0.0]
    assert figures(tmp_path, "Sky, TV", mode="exact")[1] == 50.0
    assert figures(tmp_path, "Sky, tv") == [0.0, 100.0, 0.0, 0.0]


def test_the_script_credits_the_first_in_its_list(tmp_path: Path):
    one = write(tmp_path / "one", described(["man", "woman"], ["cat"]))
    two = write(tmp_path / "two", described(["woman", "man"], ["cat"]))
    text = "a person and a man"
    assert [figures(f, text, mode="exact")[1] for f in (one, two)] == [50.0, 100.0]
    assert [figures(f, text)[1] for f in (one, two)] == [50.0, 50.0]


def test_the_script_credits_an_association_before_the_object_itself(tmp_path: Path):
    write(tmp_path, described(["forest", "tree"], ["cat"]))
    found = lists.read_lists(str(tmp_path))
    assert found.associations["forest"] == ("tree", "bush")
    # "tree" credits the forest, whose association it is; "forest" credits the tree; "forest" alone leaves the forest.
    assert figures(tmp_path, "tree tree", mode="exact")[1] == 50.0
    assert figures(tmp_path, "a tree, a kitten", mode="exact") == [50.0, 50.0, 100.0, 99.9]
    assert figures(tmp_path, "a tree, a kitten") == [50.0, 50.0, 100.0, 50.0]


def test_associations_stand_before_objects(tmp_path: Path):
    relation = {"forest": ["tree"], "tree": ["leaf"], "cat": []}
    write(tmp_path, described(["forest", "tree"], ["cat"]), relation=relation)
    # The tree credits the forest, the leaf credits the tree; by its own name the tree would leave the forest out.
    assert figures(tmp_path, "tree, leaf", mode="exact") == [0.0, 100.0, 0.1, 0.0]
    assert figures(tmp_path, "tree, leaf") == [0.0, 50.0, 0.0, 0.0]


def test_a_word_that_resembles_a_likely_hallucination_counts_there(tmp_path: Path):
    write(tmp_path, described(["sky"], ["puma"]))
    assert figures(tmp_path, "a cat", mode="exact") == [99.9, 0.0, 100.0, 99.9]
    assert figures(tmp_path, "a cat") == [100.0, 0.0, 100.0, 100.0]
    assert figures(tmp_path, "a cat", mode="exact", threshold=0.9) == [99.9, 0.0, 100.0, 0.0]


def test_the_script_excuses_a_named_hallucination_that_resembles_a_true_object(tmp_path: Path):
    write(tmp_path, described(["cat"], ["puma"]))
    assert figures(tmp_path, "a puma", mode="exact") == [0.0, 99.9, 0.1, 99.9]
    assert figures(tmp_path, "a puma") == [100.0, 0.0, 100.0, 100.0]


def test_a_word_that_resembles_a_true_object_is_excused_above_the_threshold_only(tmp_path: Path):
    write(tmp_path, described(["man"], ["sky"]))
    for mode, cover in (("exact", 99.9), ("corrected", 100.0)):
        assert figures(tmp_path, "a girl", mode=mode)[:2] == [0.0, cover]
        assert figures(tmp_path, "a girl", mode=mode, threshold=0.85)[1] == 0.0
        assert figures(tmp_path, "a girl", mode=mode, threshold=0.849)[1] == cover


def test_a_safe_word_counts_among_the_nouns(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]))
    assert figures(tmp_path, "a bush and a kitten", mode="exact") == [50.0, 0.0, 100.0, 99.9]
    assert figures(tmp_path, "a bush and a kitten") == [50.0, 0.0, 100.0, 50.0]


def test_equal_objects_and_objects_in_both_lists(tmp_path: Path):
    write(tmp_path, described(["sky", "sky"], ["sky"]))
    assert figures(tmp_path, "sky", mode="exact") == [0.0, 50.0, 0.1, 0.0]
    assert figures(tmp_path, "sky") == [0.0, 100.0, 0.0, 0.0]


def test_a_noun_outside_the_vocabulary_is_not_looked_at(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]), described(["sky"], ["cat"]))
    found = score(tmp_path, "a zeppelin, a puma, skies", "")
    assert [found[name].value() for name in GENERATIVE] == [50.0, 50.0, 50.0, 50.0]


def test_cog_divides_by_nouns_or_by_likely_hallucinations(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat", "TV", "man", "puma"]))
    text = "a cat, a cat, a screen, sky"
    assert figures(tmp_path, text, mode="exact")[3] == 50.0
    assert figures(tmp_path, text)[3] == 75.0


def questions(folder: Path) -> Path:
    return write(
        folder,
        asked("discriminative-hallucination", "no"), asked("discriminative-hallucination", "no"),
        asked("discriminative-attribute-state", "yes"), asked("discriminative-attribute-number", "no"),
        asked("discriminative-attribute-action", "yes"), asked("discriminative-relation", "yes"),
        asked("relation", "no"),
    )  # fmt: skip


def test_no_is_the_positive_class_and_the_script_reads_to_the_letter(tmp_path: Path):
    said = ("No", "no", "Yes", "No, there is one.", "No", "It is, yes.", "No")
    exact = list(score(questions(tmp_path), *said, mode="exact").values())
    assert metric.sections(exact) == {
        "discriminative": {"accuracy": 42.9, "precision": 66.6, "recall": 50.0, "f1": 57.1},
        "existence": {"accuracy": 50.0, "precision": 99.9, "recall": 50.0, "f1": 66.6},
        "attribute": {"accuracy": 33.3, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        "state": {"accuracy": 99.9, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        "number": {"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        "action": {"accuracy": 0.0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        "relation": {"accuracy": 50.0, "precision": 99.9, "recall": 99.9, "f1": 99.9},
    }
    mended = list(score(tmp_path, *said).values())
    found = metric.sections(mended)
    assert found["discriminative"] == pytest.approx(
        {"accuracy": 600 / 7, "precision": 80.0, "recall": 100.0, "f1": 800 / 9}
    )
    assert found["relation"] == {"accuracy": 100.0, "precision": 100.0, "recall": 100.0, "f1": 100.0}
    assert np.isnan(found["state"]["recall"])


def test_f1_comes_from_rounded_figures_in_exact_alone(tmp_path: Path):
    write(tmp_path, *[asked("discriminative-hallucination", "no")] * 3)
    said = ("No", "No", "Yes")
    exact = metric.sections(list(score(tmp_path, *said, mode="exact").values()))
    assert exact["discriminative"] == {"accuracy": 66.6, "precision": 100.0, "recall": 66.6, "f1": 79.9}
    assert exact["existence"] == {"accuracy": 66.6, "precision": 100.0, "recall": 66.6, "f1": 79.9}
    assert score(tmp_path, *said)["f1"].value() == 80.0


def test_existence_adds_more_to_the_denominator_of_f1(tmp_path: Path):
    write(tmp_path, *[asked("discriminative-hallucination", "no")] * 1000)
    said = ["No"] * 689 + ["Yes"] * 311
    exact = metric.sections(list(score(tmp_path, *said, mode="exact").values()))
    assert exact["discriminative"] == {"accuracy": 68.9, "precision": 100.0, "recall": 68.9, "f1": 81.6}
    assert exact["existence"] == {"accuracy": 68.9, "precision": 100.0, "recall": 68.9, "f1": 81.5}


def test_unparsed_answers_are_wrong_and_counted(tmp_path: Path):
    found = score(questions(tmp_path), "Lungs.", "", "Yes", "No", "Yes", "Yes", "No")
    assert found["unparsed"].value() == pytest.approx(200 / 7)
    assert found["accuracy"].value() == pytest.approx(500 / 7)
    assert not found["unparsed"].higher_is_better
    assert "unparsed" not in score(tmp_path, "Lungs.", mode="exact")


def test_the_score_joins_both_tasks(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]), asked("relation", "no"), asked("relation", "no"))
    found = score(tmp_path, "sky and cat", "No", "Yes")
    assert (found["chair"].value(), found["f1"].value()) == (50.0, pytest.approx(200 / 3))
    assert found["score"].value() == pytest.approx((100 - 50 + 200 / 3) / 2)
    assert score(tmp_path, "sky and cat", "No", "Yes", mode="exact")["score"].value() == 58.3
    weights = np.array([[1.0, 0.0, 2.0], [2.0, 3.0, 0.0]])
    assert found["score"].statistic(weights) == pytest.approx([25.0, 75.0])


def test_intervals_take_images_for_patients_where_the_queries_name_them(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]), asked("relation", "no"), asked("relation", "no"))
    alone = score(tmp_path, "sky", "No", "No")
    assert alone["accuracy"].patients == ("query-2", "query-3")
    assert any("take each question for a patient" in note for note in alone["accuracy"].notes)
    small_amber.pictures(tmp_path, small_amber.DESCRIBE, "Is it near?", "Is it far?")
    named = score(tmp_path, "sky", "No", "No")
    assert named["score"].patients == ("AMBER_1.jpg", "AMBER_2.jpg", "AMBER_3.jpg")
    assert not any("take each question for a patient" in note for note in named["accuracy"].notes)


def test_corrected_says_what_differs_and_what_is_not_answered(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]), described(["sky"], ["cat"]), asked("relation", "no"))
    notes = score(tmp_path, "Sky", "cat")["chair"].notes
    assert set(metric.CHANGES) < set(notes)
    assert "answered: 2 of 2 generative, 0 of 1 yes/no queries; what was not answered is not counted" in notes
    assert notes[-1] == "exact would print for generative: chair 99.9, cover 0.0, hal 50.0, cog 50.0"
    exact = score(tmp_path, "Sky", "cat", mode="exact")["chair"]
    assert exact.notes[1:] == (
        "nouns by plain; likeness by small_amber:alike: not comparable with published figures, which have nltk's nouns "
        "and spaCy's word vectors",
    )
    assert exact.value() == 99.9


WORDS = sorted({*small_amber.RELATION, *(w for words in small_amber.RELATION.values() for w in words)})


def spoken(rng: random.Random) -> str:
    """A text of words of the vocabulary, some in the plural, some safe, some strange."""
    words = rng.choices([*WORDS, "light", "zeppelin"], k=rng.randint(0, 8))
    return " ".join(word + rng.choice(("", "", "s")) for word in words)


def mixed(rng: random.Random, text: str) -> str:
    return "".join(rng.choice((letter.upper(), letter.lower())) for letter in text)


@pytest.mark.parametrize("seed", range(40))
def test_corrected_knows_neither_order_nor_case(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    names, count = list(small_amber.RELATION), 4
    pairs = [
        (rng.choices(names, k=rng.randint(1, 5)), rng.choices(names, k=rng.randint(0, 4)))
        for _ in range(count)
    ]
    texts = [spoken(rng) for _ in pairs] + ["No", "yes"]
    tail = [asked("relation", "no"), asked("discriminative-attribute-state", "no")]
    write(tmp_path / "one", *(described(*pair) for pair in pairs), *tail)
    shuffled = [
        tuple([mixed(rng, w) for w in rng.sample(side, len(side))] for side in pair) for pair in pairs
    ]
    relation = {
        mixed(rng, k): rng.sample(v, len(v))
        for k, v in rng.sample(list(small_amber.RELATION.items()), len(names))
    }
    write(
        tmp_path / "two", *(described(*pair) for pair in shuffled), *tail, relation=relation,
        safe=[mixed(rng, w) for w in rng.sample(small_amber.SAFE, 2)],
    )  # fmt: skip
    one = score(tmp_path / "one", *texts)
    two = score(tmp_path / "two", *(mixed(rng, text) for text in texts))
    weights = np.array([[rng.randint(0, 3) for _ in range(count)] for _ in range(5)], dtype=float)
    for name in GENERATIVE:
        assert one[name].statistic(weights) == pytest.approx(two[name].statistic(weights), nan_ok=True)
    assert one["accuracy"].value() == two["accuracy"].value() == 50.0


def test_exact_knows_both(tmp_path: Path):
    """The test above would be idle if no lists told orders apart."""
    rng, differences = random.Random(0), 0
    for case in range(20):
        truth = rng.sample(["man", "woman", "forest", "tree"], 4)
        text = "a person, a tree and a girl"
        orders = [
            write(tmp_path / f"{case}-{i}", described(t, ["sky"])) for i, t in enumerate((truth, truth[::-1]))
        ]
        one, two = (figures(folder, text, mode="exact") for folder in orders)
        differences += one != two
    assert differences >= 5


def test_a_table_of_trigrams_by_hand():
    found = nearness.table("trigram", ["boat", "boats", "sky"])
    assert found[0, 1] == pytest.approx(3 / 20**0.5)
    assert found[0, 2] == 0
    assert found.diagonal().tolist() == [1.0, 1.0, 1.0]


def test_an_unknown_likeness_is_refused(tmp_path: Path):
    write(tmp_path, described(["sky"], ["cat"]))
    for name in ("cosine", "no_such_module:alike", "small_amber:absent"):
        with pytest.raises(RecipeError, match="no such likeness of words"):
            figures(tmp_path, "sky", similarity=name)
    with pytest.raises(RecipeError, match="no table of likeness"):
        nearness.table("builtins:len", ["sky", "cat"])


def test_spacy_that_is_absent_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path, described(["sky"], ["cat"]))
    monkeypatch.setitem(sys.modules, "spacy", None)
    nearness._open_spacy.cache_clear()
    with pytest.raises(ModelError, match="needs the package 'spacy'") as caught:
        figures(tmp_path, "sky", similarity="spacy")
    assert "pip install spacy" in caught.value.remedy
    assert "similarity=trigram" in caught.value.remedy


def test_vectors_of_spacy_decide_as_spacy_itself(tmp_path: Path):
    spacy = pytest.importorskip("spacy")
    nlp, rng = spacy.blank("en"), np.random.default_rng(0)
    with pytest.raises(ModelError, match="cannot be opened"):
        nearness.table("spacy", ["sky"], model=str(tmp_path / "absent"))
    nlp.to_disk(tmp_path / "empty")
    with pytest.raises(ModelError, match="no word vectors"):
        nearness.table("spacy", ["sky"], model=str(tmp_path / "empty"))
    centres = rng.standard_normal((4, 30)).astype("float32")
    for place, word in enumerate([w for w in WORDS if w != "sky"]):
        near = 0.5 * rng.standard_normal(30).astype("float32")
        nlp.vocab.set_vector(word, centres[place % 4] + near)
    nlp.to_disk(tmp_path / "model")
    words = [*WORDS, "light-bulb"]
    made = nearness.table("spacy", words, model=str(tmp_path / "model"))
    docs = [nlp(word) for word in words]
    told = np.array([[one.similarity(other) for other in docs] for one in docs])
    assert np.array_equal(made > 0.8, told > 0.8)
    assert np.abs(made - told).max() < 1e-6
    known = nearness.origin("spacy", str(tmp_path / "model"))
    assert known == f"spacy {spacy.__version__}, en_pipeline 0.0.0"


def test_nltk_data_that_are_absent_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import nltk

    write(tmp_path, described(["sky"], ["cat"]))
    monkeypatch.setattr(nltk.data, "path", [])
    nouns._nltk.cache_clear()
    with pytest.raises(DataError, match="language data are absent") as caught:
        figures(tmp_path, "sky", nouns="nltk", nltk_data=str(tmp_path))
    assert "no punkt_tab" in caught.value.found
    assert nltk.data.path == []


def test_plain_nouns():
    find = nouns.finder("plain", ["sky", "glass", "knife", "woman", "e-book", "leaf"])
    assert find("Sky, skies; two glasses, knives, leaves: women & e-books!") == [
        "sky", "glass", "knife", "leaf", "woman", "e-book",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": 9, "response": "No"}], "no annotation has this id"),
        ([{"id": "1", "response": "No"}], "no annotation has this id"),
        ([{"id": 1, "response": "No"}, {"id": 1, "response": "No"}], "answered twice"),
        ([{"id": 1, "response": None}], "the response is no text"),
        ({"id": 1}, "not a list of records"),
    ],
)
def test_answers_that_are_refused(tmp_path: Path, rows: Any, message: str):
    write(tmp_path, asked("relation", "no"))
    (tmp_path / "answers.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=message):
        metric.answers(tmp_path / "answers.json", {"data": str(tmp_path)})


def test_what_is_missing_is_named(tmp_path: Path):
    (tmp_path / "answers.json").write_text("[]")
    with pytest.raises(DataError, match="does not hold the right answers") as caught:
        metric.answers(tmp_path / "answers.json", {"data": ""})
    assert "data=DIR" in caught.value.remedy
    with pytest.raises(DataError, match=r"AMBER's annotations\.json is not in the folder"):
        metric.answers(tmp_path / "answers.json", {"data": str(tmp_path)})
    write(tmp_path, described(["sky", "moon"], []))
    with pytest.raises(DataError, match=r"not in relation\.json") as caught:
        figures(tmp_path, "sky")
    assert caught.value.found == "'moon'"
    (tmp_path / "answers.json").write_text("[")
    with pytest.raises(DataError, match="cannot be read as JSON"):
        metric.answers(tmp_path / "answers.json", {"data": str(tmp_path)})


def test_right_answers_are_spelt_and_read():
    spelt = lists.spell(["sky", "ship", "ship"], [])
    assert spelt == "Objects: sky, ship, ship. Absent: ."
    assert lists.spelt(spelt) == (("sky", "ship", "ship"), ())
    with pytest.raises(DataError, match="cannot be spelt"):
        lists.spell(["sky, blue"], [])
    with pytest.raises(DataError, match="does not list objects"):
        lists.spelt("A sky.")


def test_intervals_come_from_the_same_formulas(tmp_path: Path):
    write(tmp_path, *[described(["sky"], ["cat"])] * 20)
    texts = ["sky" if i % 4 else "sky and cat" for i in range(20)]
    found = stats.score(score(tmp_path, *texts)["hal"], seed=0)
    assert found.value == 25.0
    assert found.interval is not None
    assert 5 <= found.interval[0] < 25 < found.interval[1] <= 50
    assert plugins.load("metrics", "amber").version == 1
