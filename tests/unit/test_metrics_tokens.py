"""Tokens of the metrics of wording, the rule for marks of de-identification, and what empty answers score."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from sightline.errors import DataError, MissingExtra, SightlineError
from sightline.metrics import cider as ciders
from sightline.metrics import meteor as meteors
from sightline.metrics import meteor_nltk as nltks
from sightline.metrics import tokens as tokenisers
from sightline.metrics.bleu import bleu
from sightline.metrics.bleu_coco import bleu_coco
from sightline.metrics.rouge import rouge
from sightline.metrics.rouge_coco import longest, rouge_coco
from sightline.metrics.tokens import tokens, unmark
from small_turns import turns

CHINESE = "左侧有少量胸腔积液,CT 未见气胸。"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is normal; no effusion.", "the heart is normal no effusion"),
        ("There isn't a 1.5 cm nodule (stable).", "there is n't a 1.5 cm nodule -lrb- stable -rrb-"),
        ("Right-sided PICC, tip at T8/T9...", "right-sided picc tip at t8/t9"),
        ("The patient's x-ray cannot be read!", "the patient 's x-ray can not be read"),
        ("Dr. Who vs. e.g. 10/12/2020", "dr. who vs. e.g. 10/12/2020"),
        ("", ""),
        ("...", ""),
    ],
)
def test_penn_treebank_as_captions_are_cut(text: str, expected: str) -> None:
    assert " ".join(tokens(text)) == expected


def test_chinese_is_cut_by_character_and_other_words_stay_whole() -> None:
    assert tokens(CHINESE, "chinese") == [*"左侧有少量胸腔积液", "ct", *"未见气胸"]
    assert tokens("T1-weighted 像", "chinese") == ["t1-weighted", "像"]


def test_chinese_by_words_where_jieba_is_installed() -> None:
    pytest.importorskip("jieba", reason="jieba is in the dev extra")
    found = tokens(CHINESE, "jieba")
    assert "".join(found) == "左侧有少量胸腔积液ct未见气胸"
    assert len(found) < 14


def test_jieba_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenisers._jieba.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(MissingExtra, match="jieba"):
        tokens("胸片", "jieba")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("XXXX effusion of XXXX, T12", "effusion of , T12"),
        ("Dr. ___ saw [**Known lastname 12**] at __:__", "Dr. saw at :"),
        ("axxxb XYX MAXX X", "axxxb XYX MAXX X"),
        ("xxxx-year-old", "-year-old"),
    ],
)
def test_marks_are_taken_out_and_nothing_else(text: str, expected: str) -> None:
    assert " ".join(unmark(text).split()) == expected


@pytest.mark.parametrize("score", [bleu_coco, rouge_coco, ciders.cider])
def test_marks_are_neither_paid_for_nor_fined(score) -> None:
    plain = turns(
        ("no effusion is seen here today", "no effusion is seen"), ("left nodule in the lung", "left nodule")
    )
    marked = turns(
        ("no XXXX effusion is seen here ___ today", "no effusion XXXX is seen"),
        ("left nodule in the lung", "[**Place**] left nodule"),
    )
    assert [m.value() for m in score(marked)] == [m.value() for m in score(plain)]
    assert [m.value() for m in score(marked, marks="keep")] != [m.value() for m in score(plain, marks="keep")]


def test_options_of_the_older_metrics_leave_their_numbers_as_they_were() -> None:
    pair = turns(("no XXXX effusion is seen here", "no effusion is seen"))
    assert bleu(pair)[0].value() == bleu(pair, marks="keep")[0].value() != bleu(pair, marks="drop")[0].value()
    assert (
        rouge(pair)[0].value() == rouge(pair, marks="keep")[0].value() != rouge(pair, marks="drop")[0].value()
    )


def test_chinese_reports_score_more_than_nothing() -> None:
    pair = turns(("左侧胸腔积液", "右侧胸腔积液"))
    assert rouge(pair)[0].value() == 0.0  # the package's tokeniser sees no Chinese
    assert rouge(pair, tokenize="chinese")[0].value() == pytest.approx(5 / 6)
    assert rouge_coco(pair, tokenize="chinese")[0].value() == pytest.approx(5 / 6)
    assert {m.name: m.value() for m in bleu_coco(pair, tokenize="chinese")}["bleu_coco_1"] == pytest.approx(
        5 / 6
    )
    assert bleu(pair, tokenize="zh")[0].value() > 50


def test_empty_answers_count() -> None:
    full, half = (
        turns(("left nodule seen", "left nodule seen")),
        turns(("left nodule seen", "left nodule seen"), ("right effusion seen", "")),
    )
    assert rouge_coco(half)[0].value() == 0.5
    assert rouge_coco(full)[0].value() == 1.0
    coco = {m.name: m.value() for m in bleu_coco(half)}
    assert coco["bleu_coco_1"] == pytest.approx(np.exp(1 - 6 / 3))
    scores = ciders.cider(half)[0].per_sample
    assert scores is not None
    assert scores[1] == 0.0
    assert nltks.meteor_nltk(half, synonyms=False)[0].per_sample[1] == 0.0  # type: ignore[index]


@pytest.mark.parametrize(
    ("one", "other", "length"),
    [("abcbdab", "bdcaba", 4), ("", "abc", 0), ("aaaa", "aa", 2), ("xyz", "abc", 0)],
)
def test_longest_common_subsequence(one: str, other: str, length: int) -> None:
    assert longest(one, other) == longest(other, one) == length


def test_longest_common_subsequence_equals_the_table_of_the_textbook() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        one, other = (list(map(str, random.integers(0, 5, size=random.integers(0, 30)))) for _ in range(2))
        table = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
        for i, a in enumerate(one, 1):
            for j, b in enumerate(other, 1):
                table[i, j] = table[i - 1, j - 1] + 1 if a == b else max(table[i - 1, j], table[i, j - 1])
        assert longest(one, other) == table[-1, -1]


def test_frequencies_from_a_file_make_a_part_score_as_in_the_whole(tmp_path: Path) -> None:
    whole = turns(
        ("left nodule seen today", "left nodule"), ("no effusion seen", "no effusion"), ("clear lungs", "x")
    )
    known = ciders.count(tokens(p.answer) for p in whole)
    ciders.save(tmp_path / "df.json", known)
    (everything,) = ciders.cider(whole)
    (part,) = ciders.cider(whole[:1], frequencies=str(tmp_path / "df.json"))
    assert part.per_sample == pytest.approx(everything.per_sample[:1])  # type: ignore[index]
    assert part.value() > 0 == ciders.cider(whole[:1])[0].value()  # of one document nothing is rare
    assert "df.json" in part.doc


@pytest.mark.parametrize(
    ("held", "problem"),
    [
        (None, "cannot be read"),
        ("{}", "cannot be read"),
        ("[1]", "cannot be read"),
        ("other", "other tokens"),
    ],
)
def test_frequencies_that_do_not_fit_are_refused(tmp_path: Path, held: str | None, problem: str) -> None:
    path = tmp_path / "df.json"
    if held == "other":
        ciders.save(path, ciders.count([["a"]]), tokenize="chinese")
    elif held is not None:
        path.write_text(held, encoding="utf-8")
    with pytest.raises(DataError, match=problem) as caught:
        ciders.cider(turns(("a b", "a b")), frequencies=str(path))
    assert caught.value.remedy


def test_meteor_says_what_is_missing(tmp_path: Path) -> None:
    pair = turns(("left nodule", "left nodule"))
    with pytest.raises(SightlineError, match="program is not here"):
        meteors.meteor(pair, jar=str(tmp_path / "meteor-1.5.jar"))
    (tmp_path / "data").mkdir()
    (tmp_path / "meteor-1.5.jar").write_bytes(b"")
    with pytest.raises(SightlineError, match="needs Java"):
        meteors.meteor(pair, jar=str(tmp_path / "meteor-1.5.jar"), java="no-such-java")
    with pytest.raises(SightlineError, match="gave no counts") as caught:
        meteors.meteor(pair, jar=str(tmp_path / "meteor-1.5.jar"), java="true")
    assert caught.value.remedy


def test_meteors_formula_on_counts_of_its_program() -> None:
    """Counts that meteor-1.5.jar gave for "on the mat sat the cats here" against "the cat sat on the mat"."""
    counts = np.array([[7, 6, 3, 3, 2, 2, 3, 3, 1, 1, *[0] * 10, 3, 6, 6]], dtype=float)
    precision = (0.75 * 2.6 + 0.25 * 3) / (0.75 * 4 + 0.25 * 3)
    recall = (0.75 * 2.6 + 0.25 * 3) / (0.75 * 3 + 0.25 * 3)
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert meteors.formula(counts)[0] == pytest.approx(mean * (1 - 0.6 * (3 / 6) ** 0.2))
    assert np.isnan(meteors.formula(np.zeros((1, 23)))[0])


def test_nltk_meteor_without_wordnet_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nltks._wordnet.cache_clear()
    with pytest.raises(SightlineError, match="WordNet is not here") as caught:
        nltks.meteor_nltk(turns(("left nodule", "left nodule")), wordnet=str(tmp_path))
    assert "synonyms" in caught.value.remedy
