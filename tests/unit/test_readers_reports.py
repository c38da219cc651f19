"""Reports of one's own: tables under any column names, and folders of texts beside images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.data.readers.reports import reports
from sightline.data.source import Source
from sightline.errors import DataError, RecipeError

PLAIN = "id,patient,study,date,image,text,split\nr1,7,s1,2021-03-04,a.png;b.png,No effusion.,train\n"


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(reports(source, **options)), source.rejected


def picture(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 50).save(root / name)


def test_a_row_is_a_report_of_its_images(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(PLAIN + ',,,,c.png,"Heart, normal.\nLungs clear.",\n')
    found, rejected = read(tmp_path, images="png", kind="xray")
    assert rejected == []
    (first, split, origin), (second, none, later) = found
    assert (first.id, split, origin, first.patient) == ("r1", "train", "mine.csv:2", "7")
    assert (first.study, first.date) == ("s1", "2021-03-04")
    assert [(r.path, r.kind) for r in first.images] == [("png/a.png", "xray"), ("png/b.png", "xray")]
    assert first.messages[0].parts == (0, 1, "Write the report of this image.")
    assert (first.messages[1].text, first.messages[1].topic) == ("No effusion.", "report")
    assert (second.id, none, later, second.patient) == ("mine-3", None, "mine.csv:3", "image:png/c.png")
    assert second.messages[1].text == "Heart, normal.\nLungs clear."


def test_columns_have_any_names_and_several_hold_images(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text(
        "Frontal\tLateral\tFindings\tPid\tSex\tAge\nf.png\tl.png\tClear.\tp9\tF\t\n"
    )
    columns = {
        "image": ["Frontal", "Lateral"], "text": "Findings", "patient": "Pid", "attributes": ["Sex", "Age"],
    }  # fmt: skip
    ((sample, split, _),), rejected = read(tmp_path, columns=columns, prompt="请描述图像。")
    assert rejected == []
    assert ([r.path for r in sample.images], sample.patient, split) == (["f.png", "l.png"], "p9", "train")
    assert sample.messages[0].parts == (0, 1, "请描述图像。")
    assert sample.attributes == {"Sex": "F"}


def test_questions_are_closed_or_open_in_both_languages(tmp_path: Path) -> None:
    rows = [
        "Is there an effusion?,Yes", "Where is it?,On the left", "有积液吗？,没有", "积液在哪一侧？,左侧", ",Clear."
    ]  # fmt: skip
    (tmp_path / "q.csv").write_text("image,question,text\n" + "".join(f"a.png,{row}\n" for row in rows))
    found, _ = read(tmp_path)
    assert [s.messages[1].topic for s, _, _ in found] == ["closed", "open", "closed", "open", "report"]
    assert found[2][0].messages[0].text == "有积液吗？"


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("r,1,s,,,text,", "image", "the row names no image"),
        ("r,1,s,, ; ,text,", "image", "the row names no image"),
        ("r,1,s,,a.png, ... ,", "text", "the text is empty"),
        ("r,1,s,4 March,a.png,text,", "date", "the date is not ISO 8601"),
        ("r,1,s,,a.png,text,later", "split", "the split is none"),
        ("r,1,s", "", "the row has more or fewer cells than the table"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, row: str, field: str, reason: str) -> None:
    (tmp_path / "mine.csv").write_text(PLAIN + row + "\n")
    found, rejected = read(tmp_path)
    assert [s.id for s, _, _ in found] == ["r1"]
    assert [(r["file"], r["line"], r["field"], r["reason"]) for r in rejected] == [
        ("mine.csv", 3, field, reason)
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2021-03-04", "2021-03-04"),
        ("20210304", "2021-03-04"),
        ("2021-03-04 10:30", "2021-03-04T10:30:00"),
        ("", ""),
    ],
)
def test_dates_are_written_so_that_they_can_be_put_in_order(tmp_path: Path, given: str, kept: str) -> None:
    (tmp_path / "mine.csv").write_text(PLAIN.replace("2021-03-04", given))
    assert read(tmp_path)[0][0][0].date == kept


def test_a_table_of_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    text = "image,text\na.png,左侧胸腔积液。\n"
    (tmp_path / "mine.csv").write_bytes(text.encode("gb18030"))
    found, rejected = read(tmp_path, encoding="gb18030")
    assert ([s.messages[1].text for s, _, _ in found], rejected) == (["左侧胸腔积液。"], [])
    found, rejected = read(tmp_path)
    assert found == []
    assert [r["reason"] for r in rejected] == ["the row holds bytes that are not UTF-8"]
    for encoding in ("utf-16", "no-such"):
        with pytest.raises(DataError, match="the table cannot be read in this encoding"):
            read(tmp_path, encoding=encoding)
    (tmp_path / "mine.csv").write_bytes(text.encode("utf-16"))
    assert read(tmp_path, encoding="utf-16")[0][0][0].messages[1].text == "左侧胸腔积液。"


def test_texts_take_the_images_of_their_names(tmp_path: Path) -> None:
    picture(tmp_path, "7a.png", "7b_1.png", "7b_2.jpg", "test/9.png", "lonely.png")
    for name, text in {"7a": "Clear.", "7b": "无异常。", "test/9": "Effusion.", "orphan": "Text."}.items():
        (tmp_path / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
    found, rejected = read(tmp_path)
    assert [(s.id, split, [r.path for r in s.images], s.messages[1].text) for s, split, _ in found] == [
        ("7a", None, ["7a.png"], "Clear."),
        ("7b", None, ["7b_1.png", "7b_2.jpg"], "无异常。"),
        ("test/9", "test", ["test/9.png"], "Effusion."),
    ]
    assert [(r["file"], r["reason"]) for r in rejected] == [
        ("orphan.txt", "the row names no image"), ("lonely.png", "no text belongs to this image")
    ]  # fmt: skip


def test_texts_may_stand_apart_from_images_and_must_be_texts(tmp_path: Path) -> None:
    picture(tmp_path, "images/1.png", "images/2.png", "images/3.png")
    for name, data in {"1": b"Clear.", "2": b"\xff\xfe\xff", "3": b"x" * (1 << 20) + b"x"}.items():
        (tmp_path / f"{name}.txt").write_bytes(data)
    found, rejected = read(tmp_path, images="images")
    assert [(s.id, s.images[0].path) for s, _, _ in found] == [("1", "images/1.png")]
    assert [(r["file"], r["reason"]) for r in rejected] == [
        ("2.txt", "the text is not of this encoding"), ("3.txt", "the text is too large for a report")
    ]  # fmt: skip


def test_options_that_cannot_be_meant(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no reports in the data root"):
        read(tmp_path)
    (tmp_path / "mine.csv").write_text(PLAIN)
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(DataError, match="tables and texts at once"):
        read(tmp_path, file="*.*")
    for pattern in ("../*.csv", "/etc/*.csv"):
        with pytest.raises(DataError, match="must stay below the data root"):
            read(tmp_path, file=pattern)
    with pytest.raises(RecipeError, match="knows no 'txt'; did you mean 'text'"):
        read(tmp_path, columns={"txt": "a"})
    with pytest.raises(RecipeError, match="names 2 columns as 'text'"):
        read(tmp_path, columns={"text": ["a", "b"]})
    with pytest.raises(DataError, match="the table lacks columns") as caught:
        read(tmp_path, columns={"text": "Report", "question": "Q"})
    assert caught.value.found == "no Report, Q"
    (tmp_path / "mine.csv").write_text("image,text,text\na.png,b,c\n")
    with pytest.raises(DataError, match="the table has a column twice"):
        read(tmp_path)
