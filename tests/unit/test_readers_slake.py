"""SLAKE in English and Chinese; rows have the fields of the original, their words are ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.data.readers.slake import slake
from sightline.data.source import Source
from sightline.errors import DataError

ROW = {
    "img_id": 0, "img_name": "xmlab0/source.jpg", "question": "Does the picture contain liver?", "answer": "Yes",
    "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "CLOSED", "base_type": "vqa",
    "content_type": "Organ", "triple": ["vhead", "_", "_"], "qid": 7,
}  # fmt: skip
ZH = {"q_lang": "zh", "question": "图中有肝脏吗？", "answer": "有"}


def write(root: Path, name: str, *rows: dict[str, Any]) -> None:
    made = [{**ROW, "qid": 7 + i, **row} for i, row in enumerate(rows)]
    (root / name).write_text(json.dumps(made, ensure_ascii=False), encoding="utf-8")


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(slake(source, **options)), source.rejected


def test_questions_in_both_languages_with_their_official_splits(tmp_path: Path) -> None:
    write(tmp_path, "train.json", {}, ZH)
    write(tmp_path, "validate.json", {**ZH, "modality": "X-Ray"})
    write(
        tmp_path, "test.json", {"answer_type": "OPEN", "question": "What organ is shown?", "answer": "Liver"}
    )
    found, rejected = read(tmp_path)
    assert rejected == []
    assert [(s.id, split, origin) for s, split, origin in found] == [
        ("slake-train-en-7", "train", "train.json:1"), ("slake-train-zh-8", "train", "train.json:1"),
        ("slake-valid-zh-7", "valid", "validate.json:1"), ("slake-test-en-7", "test", "test.json:1"),
    ]  # fmt: skip
    first, second, third, _ = (s for s, _, _ in found)
    assert second.messages[0].parts == (0, "图中有肝脏吗？")
    assert first.attributes == {
        "language": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "CLOSED", "content_type": "Organ",
        "base_type": "vqa",
    }  # fmt: skip
    assert (first.patient, first.images[0].path, first.images[0].kind) == (
        "image:imgs/xmlab0/source.jpg", "imgs/xmlab0/source.jpg", "mri"
    )  # fmt: skip
    assert (second.attributes["language"], third.images[0].kind) == ("zh", "xray")


@pytest.mark.parametrize(("language", "ids"), [("en", [7]), ("zh", [8]), ("both", [7, 8])])
def test_a_language_may_be_left_out_without_being_refused(
    tmp_path: Path, language: str, ids: list[int]
) -> None:
    write(tmp_path, "train.json", {}, ZH)
    found, rejected = read(tmp_path, language=language)
    assert [int(s.id.rpartition("-")[2]) for s, _, _ in found] == ids
    assert rejected == []


@pytest.mark.parametrize(
    ("question", "answer", "topic"),
    [
        ("图中有肝脏吗？", "有", "closed"),
        ("图中有肝脏吗？", "没有", "closed"),
        ("图中包含肝脏吗？", "不包含", "closed"),
        ("这是CT吗？", "不是", "closed"),
        ("肺健康吗？", "不健康", "closed"),
        ("图中有没有异常？", "无", "closed"),
        ("图中异常的是左肺还是右肺？", "右肺", "open"),
        ("图中有什么器官？", "肝脏，肾脏", "open"),
        ("图中有什么异常？", "无", "open"),
        ("这是哪种模态？", "核磁共振", "open"),
        ("Is the lung healthy?", "No", "closed"),
        ("Which is bigger, liver or spleen?", "Liver", "open"),
    ],
)
def test_the_topic_is_closed_where_the_parser_can_score_it(
    tmp_path: Path, question: str, answer: str, topic: str
) -> None:
    language = "en" if question.isascii() else "zh"
    write(tmp_path, "train.json", {"q_lang": language, "question": question, "answer": answer})
    (((sample, _, _),), rejected) = read(tmp_path)
    assert (sample.messages[1].text, sample.messages[1].topic, rejected) == (answer, topic, [])
    assert sample.attributes["answer_type"] == "CLOSED"


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"q_lang": "fr"}, "q_lang", "the question is in no known language"),
        ({"qid": None}, "qid", "the question has no id"),
        ({"img_name": ""}, "img_name", "the question names no image"),
        ({"question": " "}, "question", "the question is empty or no text"),
        ({"answer": ["Yes"]}, "answer", "the answer is empty or no text"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, row: dict[str, Any], field: str, reason: str) -> None:
    write(tmp_path, "test.json", {}, row)
    found, rejected = read(tmp_path)
    assert len(found) == 1
    assert [(r["file"], r["field"], r["reason"]) for r in rejected] == [("test.json", field, reason)]


def test_without_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no SLAKE files in the data root"):
        read(tmp_path)
