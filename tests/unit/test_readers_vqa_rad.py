"""The VQA-RAD reader, on rows of our own and, where present, on the data set itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.data.readers.vqa_rad import vqa_rad
from sightline.data.source import Source
from sightline.errors import DataError

ROW = {
    "qid": 1, "image_name": "a.jpg", "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED ",
    "question_type": "PRES", "question": "Is there bleeding?", "phrase_type": "freeform",
}  # fmt: skip


def write(root: Path, name: str, *rows: dict[str, Any]) -> None:
    (root / name).write_text(json.dumps([{**ROW, **row} for row in rows]))


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(vqa_rad(source, **options)), source.rejected


def test_a_question_is_a_sample(tmp_path: Path):
    write(tmp_path, "trainset.json", {}, {"qid": 2, "answer": 12, "answer_type": "OPEN"})
    write(tmp_path, "testset.json", {"qid": 3, "answer": " no "})
    found, rejected = read(tmp_path)
    assert rejected == []
    assert [(r.id, split) for r, split, _ in found] == [
        ("vqa_rad-1", "train"), ("vqa_rad-2", "train"), ("vqa_rad-3", "test")
    ]  # fmt: skip
    first, second, third = (record for record, _, _ in found)
    assert first.messages[0].parts == (0, "Is there bleeding?")
    assert [(r.messages[1].text, r.messages[1].topic) for r in (first, second, third)] == [
        ("Yes", "closed"), ("12", "open"), ("no", "closed")
    ]  # fmt: skip
    assert first.patient == "image:images/a.jpg"
    assert first.attributes == {
        "organ": "HEAD", "question_type": "PRES", "answer_type": "CLOSED", "phrase_type": "freeform",
        "source": "authors",
    }  # fmt: skip


def test_questions_of_ours_ask_each_image_once_what_only_it_can_tell(tmp_path: Path):
    write(
        tmp_path,
        "trainset.json",
        {},
        {"qid": 2},
        {"qid": 3, "image_name": "b.jpg", "image_organ": "CHEST "},
        {"qid": 6, "image_name": "d.jpg", "image_organ": "ABD"},
    )
    write(tmp_path, "testset.json", {"qid": 4}, {"qid": 5, "image_name": "c.jpg", "image_organ": "FOOT"})
    found, rejected = read(tmp_path, organ_questions=True)
    assert rejected == []
    assert {r.attributes["source"] for r, _, _ in found[:6]} == {"authors"}
    ours = [r for r, _, _ in found[6:]]
    assert [(r.id, split) for r, split, _ in found[6:]] == [
        (f"vqa_rad-organ-{name}-{i}", "train") for name, many in (("a", 5), ("b", 9), ("d", 9)) for i in range(many)
    ]  # fmt: skip
    assert ours[0].attributes == {"organ": "HEAD", "source": "image_organ"}
    assert [r.patient for r in ours[:6]] == ["image:images/a.jpg"] * 5 + ["image:images/b.jpg"]
    asked = [(r.messages[0].text, r.messages[1].text, r.messages[1].topic) for r in ours]
    assert [asked[i] for i in (0, 1, 3, 4)] == [
        ("Which part of the body is shown?", "head", "open"),
        ("Is this an image of the head?", "Yes", "closed"),
        ("Is this an X-ray?", "No", "closed"),
        ("Is this an axial image?", "Yes", "closed"),
    ]
    assert asked[2] in [(f"Is this an image of the {part}?", "No", "closed") for part in ("chest", "abdomen")]
    modality = [
        "What imaging modality was used?", "What type of image is this?", "Is this an X-ray?",
        "Is this a CT scan?", "Is this an MRI?", "Is this an axial image?",
    ]  # fmt: skip
    assert [q for q, _, _ in asked[8:14]] == [q for q, _, _ in asked[17:]] == modality
    assert [a for _, a, _ in asked[8:14]] == ["X-ray", "Chest X-ray", "Yes", "No", "No", "No"]
    assert [a for _, a, _ in asked[17:]] == ["CT", "CT", "No", "Yes", "No", "Yes"]
    whole, _ = read(tmp_path, organ_questions=True, group="image")
    assert [r for r, _, _ in whole[-23:]] == ours


def test_an_image_can_be_one_conversation_in_each_official_split(tmp_path: Path):
    write(
        tmp_path,
        "trainset.json",
        {},
        {"qid": 2, "question": "What organ?", "answer": "Brain"},
        {"qid": 4, "answer": ""},
    )
    write(tmp_path, "testset.json", {"qid": 3})
    found, rejected = read(tmp_path, group="image")
    (train, _, origin), (test, _, _) = found
    assert (train.id, test.id, origin) == ("vqa_rad-train-a", "vqa_rad-test-a", "trainset.json:1")
    assert [m.parts for m in train.messages] == [
        (0, "Is there bleeding?"),
        ("Yes",),
        ("What organ?",),
        ("Brain",),
    ]
    assert train.attributes == {"organ": "HEAD", "source": "authors"}
    assert [r["id"] for r in rejected] == ["4"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": " "}, "the question is empty or no text"),
        ({"answer": None}, "the answer is empty, or neither text nor number"),
        ({"image_name": 4}, "the question names no image"),
        ({"qid": None, "image_name": ""}, "the question names no image"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, row: dict[str, Any], reason: str):
    write(tmp_path, "trainset.json", row)
    found, rejected = read(tmp_path)
    assert found == []
    assert [(r["file"], r["line"], r["reason"]) for r in rejected] == [("trainset.json", 1, reason)]


def test_the_authors_one_file_names_its_test_rows(tmp_path: Path):
    write(tmp_path, "VQA_RAD Dataset Public.json", {}, {"qid": 2, "phrase_type": "test_freeform"})
    assert [split for _, split, _ in read(tmp_path)[0]] == ["train", "test"]


def test_a_wrong_root_says_what_is_expected(tmp_path: Path):
    with pytest.raises(DataError, match=r"trainset\.json and testset\.json"):
        read(tmp_path)
    with pytest.raises(DataError, match="the data root is not a folder"):
        read(tmp_path / "absent")
