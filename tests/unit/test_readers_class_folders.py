"""Class folders as questions: Mendeley's knee X-rays, with and without official splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.data.prepare import prepare
from sightline.data.readers.class_folders import class_folders
from sightline.data.source import Source
from sightline.errors import DataError, RecipeError

KNEES = ("0Normal/NormalG0 (1).png", "1Doubtful/DoubtfulG1 (1).png", "4Severe/SevereG4 (1).png")


def write(root: Path, *names: str) -> Path:
    for shade, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 + shade).save(root / name)
    return root


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(class_folders(source, **options)), source.rejected


def test_an_image_is_a_question_about_its_class(tmp_path: Path) -> None:
    write(tmp_path, *KNEES)
    (tmp_path / "0Normal" / ".DS_Store").write_text("litter")
    (tmp_path / "0Normal" / "Thumbs.db").write_text("litter")
    (tmp_path / "README.txt").write_text("about")
    found, rejected = read(tmp_path)
    assert rejected == []
    assert [(sample.id, split, origin) for sample, split, origin in found] == [(k, None, k) for k in KNEES]
    normal, doubtful, severe = (sample for sample, _, _ in found)
    asked = "Which grade of knee osteoarthritis is shown: Normal, Doubtful or Severe?"
    assert normal.messages[0].parts == (0, asked)
    assert [(s.messages[1].text, s.messages[1].topic) for s in (normal, severe)] == [
        ("Normal", "grade"), ("Severe", "grade")
    ]  # fmt: skip
    assert [s.labels for s in (normal, doubtful, severe)] == [{"grade": 0}, {"grade": 1}, {"grade": 4}]
    assert severe.attributes == {"class": "4Severe", "class_name": "Severe", "grade": "4"}
    assert (severe.patient, severe.images[0].kind) == (f"image:{KNEES[2]}", "xray")


def test_one_expert_is_chosen_among_two(tmp_path: Path) -> None:
    write(tmp_path, *(f"MedicalExpert-{n}/{k}" for n in ("I", "II") for k in KNEES))
    with pytest.raises(DataError, match="no class folders in the data root") as caught:
        read(tmp_path)
    assert caught.value.found == "MedicalExpert-I, MedicalExpert-II"
    found, rejected = read(tmp_path, folder="MedicalExpert-II")
    assert [sample.id for sample, _, _ in found] == [f"MedicalExpert-II/{k}" for k in KNEES]
    assert rejected == []
    for wrong in ("MedicalExpert-III", "../elsewhere", "/"):
        with pytest.raises(DataError, match="`folder` is no folder below the data root"):
            read(tmp_path, folder=wrong)


def test_folders_named_as_splits_are_official_and_both_knees_are_one_patient(tmp_path: Path) -> None:
    write(
        tmp_path, "train/0/9001L.png", "train/0/9001R.png", "val/2/9002L.png", "test/0/9003L.png",
        "auto_test/0/9003L.png", "train/2/knee.png",
    )  # fmt: skip
    options = {"patient": "^([0-9]+)[LR]", "names": {"0": "none", "2": "minimal"}}
    found, rejected = read(tmp_path, **options)
    assert [(s.id, split, s.patient, s.messages[1].text) for s, split, _ in found] == [
        ("test/0/9003L.png", "test", "9003", "none"),
        ("train/0/9001L.png", "train", "9001", "none"),
        ("train/0/9001R.png", "train", "9001", "none"),
        ("val/2/9002L.png", "valid", "9002", "minimal"),
    ]
    assert {s.labels["grade"] for s, _, _ in found} == {0, 2}
    assert [(r["file"], r["field"], r["reason"]) for r in rejected] == [
        ("auto_test", "", "a folder beside train, val and test that is none"),
        ("train/2/knee.png", "patient", "the file's name does not tell the patient"),
    ]
    assert read(tmp_path, skip=["auto_test"], **options)[1] == rejected[1:]


def test_names_questions_and_answers_are_ones_own_in_any_language(tmp_path: Path) -> None:
    write(tmp_path, *KNEES)
    found, _ = read(
        tmp_path, question="这张膝关节X光片属于哪一级：{classes}？", answer="{name}。", topic="report",
        names={"0Normal": "正常", "1Doubtful": "可疑", "4Severe": "重度"},
    )  # fmt: skip
    sample = found[2][0]
    assert sample.messages[0].text == "这张膝关节X光片属于哪一级：正常、可疑还是重度？"
    assert (sample.messages[1].text, sample.messages[1].topic) == ("重度。", "report")
    assert sample.labels == {"grade": 4}


def test_folders_without_digits_are_graded_by_their_place(tmp_path: Path) -> None:
    write(tmp_path, "cyst/a.png", "normal/b.png", "stone/c.png")
    found, _ = read(tmp_path, question="What is it?")
    assert [(s.messages[1].text, s.labels["grade"]) for s, _, _ in found] == [
        ("cyst", 0), ("normal", 1), ("stone", 2)
    ]  # fmt: skip
    assert found[0][0].messages[0].text == "What is it?"


def test_what_is_no_image_of_a_class_is_set_aside(tmp_path: Path) -> None:
    write(tmp_path, *KNEES, "1Doubtful/more/x.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "4Severe" / "list.csv").write_text("a,b\n1,2\n")
    _, rejected = read(tmp_path)
    assert [(r["file"], r["reason"]) for r in rejected] == [
        ("notes", "a folder beside class folders without a file"),
        ("1Doubtful/more", "a folder in a class folder"),
    ]
    made = prepare("class_folders", {}, root=tmp_path, out=tmp_path.parent / "out", seed=0, shares={"all": 1},
                   max_bad=0.6)  # fmt: skip
    assert (made.counts, made.rejected) == ({"all": 3}, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": {"9Nothing": "x"}}, "`names` has no such class folder: 9Nothing"),
        ({"patient": "[0-9]+"}, "`patient` is no regular expression with a group"),
        ({"patient": "("}, "`patient` is no regular expression with a group"),
    ],
)
def test_options_that_cannot_be_meant(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    write(tmp_path, *KNEES)
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, **options)
    assert caught.value.what == message
