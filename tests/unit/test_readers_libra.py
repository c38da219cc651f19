"""Libra's files (originals.md 2.4): order of images, missing priors, questions, answers, patients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.data.readers.libra import libra
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.types import Sample

FIXTURES = Path(__file__).parent.parent / "fixtures" / "readers"
NOW, BEFORE = "files/p10/p10000032/s53189527/a.jpg", "files/p10/p10000032/s50414267/b.jpg"


def read(
    folder: Path, *rows: Any, name: str = "train.json", **options: Any
) -> tuple[list[Sample], list[Any]]:
    text = json.dumps(list(rows)) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    (folder / name).write_text(text)
    source = Source(root=folder, seed=0, images=folder)
    found = list(libra(source, file=name, **options))
    return [sample for sample, _, _ in found], source.rejected


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def line(**more: Any) -> dict[str, Any]:
    return {
        "question_id": "q1",
        "image": [NOW, BEFORE],
        "text": "Describe the findings.",
        "findings": "Less.",
        **more,
    }


def test_the_fixtures() -> None:
    source = Source(root=FIXTURES, seed=0, images=FIXTURES)
    train = list(libra(source, file="libra_train.json"))
    test = list(libra(source, file="libra_eval.jsonl"))
    assert source.rejected == []
    assert [(s.id, split, place) for s, split, place in train] == [
        ("l1", "train", "libra_train.json:2"),
        ("l2", "train", "libra_train.json:4"),
    ]
    assert [[(ref.path, ref.when) for ref in s.images] for s, _, _ in train] == [
        [("x/b.png", "current"), ("x/a.png", "prior")],
        [("x/b.png", "current")],
    ]
    assert [s.messages[0].parts for s, _, _ in train] == [(0, 1, "What changed?"), (0, "Describe it.")]
    assert [s.messages[1].topic for s, _, _ in train] == ["open", "report"]
    assert [s.attributes["prior"] for s, _, _ in train] == ["own", "none"]
    ((sample, split, _),) = test
    assert (sample.id, split, sample.messages[1].text, sample.messages[1].topic) == (
        "e1", "test", "Less fluid.", "report",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("image", "count"),
    [
        (NOW, 1), ([NOW], 1), ([NOW, BEFORE], 2), ([NOW, NOW], 1), ([NOW, ""], 1), ([NOW, None], 1),
        ([NOW, NOW, BEFORE], 2),
    ],
)  # fmt: skip
def test_a_missing_prior_is_left_out(image: Any, count: int, tmp_path: Path) -> None:
    """Empty, or the current image once more: Libra's dummy."""
    (sample,), rejected = read(
        tmp_path, {"id": "1", "image": image, "conversations": talk("<image>\nQ?", "A.")}
    )
    assert rejected == []
    assert [ref.path for ref in sample.images] == [NOW, BEFORE][:count]
    assert [ref.when for ref in sample.images] == ["current", "prior"][:count]
    assert sample.messages[0].parts == (*range(count), "Q?")


def test_priors_can_be_dropped(tmp_path: Path) -> None:
    (sample,), _ = read(tmp_path, line(), name="eval.jsonl", priors="drop", images="cxr")
    assert [ref.path for ref in sample.images] == [f"cxr/{NOW}"]
    assert sample.messages[0].parts == (0, "Describe the findings.")
    assert sample.attributes["prior"] == "none"


def test_mimics_paths_name_patient_and_study(tmp_path: Path) -> None:
    rows = [
        line(), line(question_id="q2", subject_id=17, study_date="2180-05-06", study_id="s9"),
        line(question_id="q3", image="x/y.png"), line(question_id="q4", nurse="n1"),
    ]  # fmt: skip
    found, _ = read(tmp_path, *rows, name="eval.jsonl")
    assert [(s.patient, s.study, s.date) for s in found] == [
        ("p10000032", "s53189527", ""), ("17", "s9", "2180-05-06"), ("image:x/y.png", "", ""),
        ("p10000032", "s53189527", ""),
    ]  # fmt: skip
    found, rejected = read(tmp_path, *rows, name="eval.jsonl", patient="nurse")
    assert [s.patient for s in found] == ["n1"]
    assert [r["field"] for r in rejected] == ["nurse"] * 3


def test_topics(tmp_path: Path) -> None:
    rows = [
        line(question_id="1"),
        line(question_id="2", findings="", impression="Normal."),
        line(question_id="3", findings="", reference="Yes.", text="Is there fluid?"),
        line(question_id="4", findings="", reference="the left side", text="Describe where."),
    ]
    found, _ = read(tmp_path, *rows, name="eval.jsonl")
    assert [s.messages[1].topic for s in found] == ["report", "report", "closed", "open"]
    found, _ = read(tmp_path, *rows, name="eval.jsonl", topic="question")
    assert [s.messages[1].topic for s in found] == ["open", "open", "closed", "open"]
    found, _ = read(tmp_path, *rows, name="eval.jsonl", topic="report")
    assert {s.messages[1].topic for s in found} == {"report"}
    talked = {
        "id": "1",
        "image": NOW,
        "conversations": talk("<image>\nWrite a report.", "Clear.", "Fluid?", "No"),
    }
    (sample,), _ = read(tmp_path, talked)
    assert [m.topic for m in sample.messages] == ["", "report", "", "closed"]
    assert sample.messages[2].parts == ("Fluid?",)


def test_a_mark_may_stand_behind_or_be_left_out(tmp_path: Path) -> None:
    texts = (("Q?\n<image>", "A."), ("Q?", "A."))
    rows = [{"id": str(i), "image": [NOW, BEFORE], "conversations": talk(*t)} for i, t in enumerate(texts)]
    found, rejected = read(tmp_path, *rows)
    assert rejected == []
    assert [s.messages[0].parts for s in found] == [(0, 1, "Q?")] * 2


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"image": [NOW, BEFORE, "c.jpg"]}, "image", "more than two images"),
        ({"image": []}, "image", "no current image"),
        ({"image": ["", BEFORE]}, "image", "no current image"),
        ({"image": 3}, "image", "no current image"),
        ({"findings": ""}, "findings", "no answer to compare with"),
        ({"text": " "}, "text", "neither `conversations` nor a question"),
        ({"conversations": []}, "conversations", "not a list of turns"),
        (
            {"conversations": talk("<image><image>\nQ", "A")},
            "conversations",
            "one <image> for all its images",
        ),
        ({"conversations": [{"from": "gpt", "value": "A"}]}, "conversations", "begins with the human"),
        ({"conversations": [{"from": "nurse", "value": "A"}]}, "conversations", "unknown speaker"),
        ({"conversations": [{"from": "human", "value": 5}]}, "conversations", "a text `value`"),
    ],
)
def test_bad_rows_are_set_aside_with_their_place(
    change: dict[str, Any], field: str, reason: str, tmp_path: Path
) -> None:
    found, rejected = read(tmp_path, line(), line(question_id="bad", **change), name="eval.jsonl")
    assert [s.id for s in found] == ["q1"]
    (row,) = rejected
    assert (row["file"], row["line"], row["id"], row["field"]) == ("eval.jsonl", 2, "bad", field)
    assert reason in row["reason"]


def test_splits_and_places(tmp_path: Path) -> None:
    for name, split in (
        ("libra_findings_section_eval.jsonl", "test"),
        ("x_valid.jsonl", "valid"),
        ("rows.jsonl", None),
    ):
        (tmp_path / name).write_text(json.dumps(line()))
        source = Source(root=tmp_path, seed=0, images=tmp_path)
        ((sample, found, place),) = libra(source, file=name, ids="place")
        assert (found, place, sample.id) == (split, f"{name}:1", f"{name.removesuffix('.jsonl')}-0")
    with pytest.raises(DataError, match="no file matches"):
        list(libra(source, file="../*.json"))
