"""PAD-UFES-20: rows of its table with the columns and spellings of the original; the values are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.data.prepare import prepare
from sightline.data.readers.pad_ufes import pad_ufes
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.metrics.answers import closed

HEAD = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,skin_cancer_history,"
    "cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,diameter_2,diagnostic,itch,grew,"
    "hurt,changed,bleed,elevation,img_id,biopsed"
)
FULL = (
    "PAT_1,11,False,True,POMERANIA,BRAZIL,55,False,FEMALE,True,True,True,True,3.0,NECK,6.0,5.0,BCC,True,True,False,"
    "UNK,True,True,PAT_1_11_1.png,True"
)
BARE = "PAT_2,12,,,,,8,,,,,,,,ARM,,,NEV,False,UNK,False,False,False,False,PAT_2_12_2.png,False"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two rows, and their images where the archives put them."""
    made = tmp_path / "pad"
    for shade, place in enumerate(
        ("imgs_part_1/imgs_part_1/PAT_1_11_1.png", "images/imgs_part_2/PAT_2_12_2.png")
    ):
        (made / place).parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (90 + shade, 60, 50)).save(made / place)
    return write(made, FULL, BARE)


def write(root: Path, *rows: str) -> Path:
    (root / "metadata.csv").write_text("\n".join((HEAD, *rows)) + "\n")
    return root


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(pad_ufes(source, **options)), source.rejected


def test_a_row_is_two_questions(root: Path) -> None:
    found, rejected = read(root)
    assert rejected == []
    assert [(s.id, split, origin) for s, split, origin in found] == [
        ("PAT_1_11_1-diagnosis", None, "metadata.csv:2"), ("PAT_1_11_1-cancer", None, "metadata.csv:2"),
        ("PAT_2_12_2-diagnosis", None, "metadata.csv:3"), ("PAT_2_12_2-cancer", None, "metadata.csv:3"),
    ]  # fmt: skip
    diagnosis, cancer = found[0][0], found[1][0]
    assert diagnosis.messages[0].parts == (
        0,
        "Which skin lesion is shown: Actinic keratosis, Basal cell carcinoma, Melanoma, Nevus, Squamous cell "
        "carcinoma or Seborrheic keratosis?",
    )
    assert [m.text for m in cancer.messages] == ["Is this lesion a skin cancer?", "Yes"]
    assert (diagnosis.messages[1].text, diagnosis.messages[1].topic) == ("Basal cell carcinoma", "diagnosis")
    assert (cancer.patient, cancer.study, cancer.labels) == ("PAT_1", "PAT_1-11", {"cancer": 1})
    assert cancer.images[0].path == "imgs_part_1/imgs_part_1/PAT_1_11_1.png"
    assert found[3][0].images[0].path == "images/imgs_part_2/PAT_2_12_2.png"
    assert found[3][0].messages[1].text == "No"


def test_what_is_known_becomes_subgroups_and_what_is_unknown_does_not(root: Path) -> None:
    found, _ = read(root)
    assert found[0][0].attributes == {
        "diagnosis": "BCC", "age": "55", "age_group": "40-59", "skin_type": "3", "sex": "female", "region": "neck",
        "biopsed": "true", "itch": "true", "grew": "true", "hurt": "false", "bleed": "true", "elevation": "true",
        "smoke": "false", "drink": "true",
    }  # fmt: skip
    bare = found[2][0].attributes
    assert (bare["age"], bare["age_group"], bare["region"]) == ("8", "0-19", "arm")
    assert not {"sex", "skin_type", "smoke", "grew"} & set(bare)


def test_questions_in_chinese_are_closed_where_the_english_ones_are(root: Path) -> None:
    english, chinese = (read(root, language=language)[0] for language in ("en", "zh"))
    assert [m.text for m in chinese[0][0].messages] == [
        "图中是哪种皮肤病变：光化性角化病、基底细胞癌、黑色素瘤、色素痣、鳞状细胞癌还是脂溢性角化病？", "基底细胞癌",
    ]  # fmt: skip
    assert [m.text for m in chinese[3][0].messages] == ["这个病变是皮肤癌吗？", "不是"]
    for both in (english, chinese):
        truth = [closed(s.messages[0].text, s.messages[1].text) for s, _, _ in both]
        assert truth == [None, "yes", None, "no"]


def test_one_kind_of_question(root: Path) -> None:
    assert [s.messages[1].topic for s, _, _ in read(root, questions="cancer")[0]] == ["cancer", "cancer"]
    assert [s.messages[1].topic for s, _, _ in read(root, questions="diagnosis")[0]] == ["diagnosis"] * 2
    write(root, FULL, BARE.replace(",ARM,", ",,"))
    said = {"en": ["Basal cell carcinoma on the neck.", "Nevus."], "zh": ["颈部基底细胞癌。", "色素痣。"]}
    for language, captions in said.items():
        found = [s for s, _, _ in read(root, questions="caption", language=language)[0]]
        assert [s.messages[1].text for s in found] == captions
        assert {s.messages[1].topic for s in found} == {"report"}


@pytest.mark.parametrize(
    ("old", "new", "field", "reason"),
    [
        (",BCC,", ",XYZ,", "diagnostic", "the diagnosis is none of the six"),
        ("PAT_1,", ",", "patient_id", "the row has no patient_id"),
        ("PAT_1_11_1.png", "PAT_9.png", "img_id", "the image file is missing"),
        (",55,", ",old,", "age", "the age is no number of years"),
        (",55,", ",155,", "age", "the age is no number of years"),
        (",True\n", "\n", "", "the row has more or fewer cells than the table"),
    ],
)
def test_bad_rows_are_refused(root: Path, old: str, new: str, field: str, reason: str) -> None:
    text = (root / "metadata.csv").read_text()
    (root / "metadata.csv").write_text(text.replace(old, new, 1))
    found, rejected = read(root, questions="cancer")
    assert [s.id for s, _, _ in found] == ["PAT_2_12_2-cancer"]
    assert [(r["file"], r["line"], r["field"], r["reason"]) for r in rejected] == [
        ("metadata.csv", 2, field, reason)
    ]


def test_two_files_of_one_name_are_refused_unless_they_are_equal(root: Path) -> None:
    first = root / "imgs_part_1/imgs_part_1/PAT_1_11_1.png"
    (root / "again").mkdir()
    copy = root / "again" / first.name
    copy.write_bytes(first.read_bytes())
    assert read(root)[1] == []
    Image.new("RGB", (8, 8)).save(copy)
    rejected = read(root, questions="cancer")[1]
    assert [(r["id"], r["reason"]) for r in rejected] == [
        ("PAT_1_11_1.png", "two different files have the image's name")
    ]
    assert read(root, images="imgs_part_1")[1][0]["id"] == "PAT_2_12_2.png"


def test_a_patient_stays_in_one_split_and_a_table_without_its_columns_is_refused(root: Path) -> None:
    made = prepare(
        "pad_ufes", {}, root=root, out=root.parent / "out", seed=0, shares={"train": 0.5, "test": 0.5}
    )
    assert made.counts == {"train": 2, "test": 2}
    assert {len({s.patient for s in made.samples(split)}) for split in made.counts} == {1}
    (root / "metadata.csv").write_text("patient_id,img_id\nPAT_1,PAT_1_11_1.png\n")
    with pytest.raises(DataError, match="the table lacks columns") as caught:
        read(root)
    assert caught.value.found == "no lesion_id, diagnostic"
    with pytest.raises(DataError, match="no such file"):
        read(root / "images")
