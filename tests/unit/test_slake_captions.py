"""SLAKE's captions: what the questions about an image tell, in each language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from sightline.data.prepare import prepare
from sightline.types import Sample

ROW = {
    "img_name": "xmlab0/source.jpg", "q_lang": "en", "location": "Brain_Tissue", "modality": "MRI", "base_type": "vqa",
}  # fmt: skip


def row(number: int, kind: str, question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {**ROW, "qid": number, "content_type": kind, "question": question, "answer": answer, **more}


def captions(root: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Sample]:
    """The samples of topic `report` by id."""
    (root / "imgs" / "xmlab0").mkdir(parents=True)
    Image.new("RGB", (8, 8), (90, 90, 90)).save(root / "imgs" / "xmlab0" / "source.jpg")
    (root / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    data = prepare(
        "slake", options, root=root, out=root / "out", seed=0, shares={"train": 1.0}, by="official"
    )
    assert data.rejected == 0
    return {s.id: s for s in data.samples("train") if s.messages[1].topic == "report"}


ROWS = [
    row(1, "Modality", "What modality is used to take this image?", "MRI"),
    row(2, "Plane", "What is the scanning plane of this image?", "Transverse Plane."),
    row(3, "Organ", "What is the organ in the image?", "Brain"),
    row(4, "Organ", "What organ is shown?", "Brain"),
    row(5, "Abnormality", "Is there a tumour?", "Yes"),
    row(6, "Abnormality", "What diseases are included in the picture?", "Brain Edema, Non-enhancing Tumor"),
    row(7, "Color", "What color is the tumour?", "White"),
    row(8, "KG", "What is the treatment of a tumour?", "Surgery", base_type="kvqa"),
    row(9, "Organ", "What heals it?", "Nothing", base_type="kvqa"),
    row(10, "Organ", "图中有什么器官？", "大脑。", q_lang="zh"),
    row(11, "Plane", "这张图是什么平面？", "横断面", q_lang="zh"),
]


def test_answers_about_the_picture_become_its_caption_in_each_language(tmp_path: Path) -> None:
    found = captions(tmp_path, ROWS, captions=True)
    assert list(found) == ["slake-train-en-imgs/xmlab0/source.jpg", "slake-train-zh-imgs/xmlab0/source.jpg"]
    english, chinese = found.values()
    assert [m.text for m in english.messages] == [
        "Describe this image.",
        "MRI of the brain tissue: Transverse Plane, Brain, Brain Edema, Non-enhancing Tumor.",
    ]
    assert [m.text for m in chinese.messages] == ["请描述这张图像。", "MRI：大脑、横断面。"]
    assert english.attributes == {"language": "en", "location": "Brain_Tissue", "modality": "MRI"}
    assert english.patient == chinese.patient
    assert english.images == chinese.images


def test_without_such_answers_the_kind_of_picture_is_left(tmp_path: Path) -> None:
    (only,) = captions(tmp_path, ROWS[4:5], captions=True, language="en").values()
    assert only.messages[1].text == "MRI of the brain tissue."


def test_captions_are_asked_for(tmp_path: Path) -> None:
    assert captions(tmp_path, ROWS) == {}
