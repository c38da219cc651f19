"""Every layout of originals.md 1.2: it reads, or it is refused with a reason. All records are made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models
from sightline.data import prepare
from sightline.data.readers.llava_json import llava_json
from sightline.data.readers.mmed_rag import mmed_rag
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.metrics.answers import closed
from sightline.types import Degrade, Preference, Sample

HARVARD = {
    "id": "h1", "image_path": "slo/h1.npz.png", "filename": "h1.npz", "report": "Cup large.", "age": 61.5,
    "gender": "female", "race": "asian", "ethnicity": "non-hispanic", "language": "english",
    "maritalstatus": "single", "note": "long note", "gpt4_summary": "Suspect disc.", "glaucoma": "yes", "use": "test",
}  # fmt: skip
IUXRAY = {"id": "CXR1", "report": "Clear.", "image_path": ["CXR1/0.png", "CXR1/1.png"], "split": "test"}
MIMIC = {
    "id": "m1", "study_id": 55, "subject_id": 7, "report": "impression: none. Findings: clear.",
    "image_path": ["p7/s55/a.jpg"], "split": "val",
}  # fmt: skip
PMC = {"id": "PMC1", "image": "PMC1.jpg", "report": "Stained cells.", "metadata": {"license": "made up"}}
QUILT = {"": 4, "caption": "Epithelium.", "image_path": "q4.jpg", "corrected_text": "epithelium"}
VQA = {
    "question_id": 4, "question": "Is there an effusion?\n<image>", "answer": "- Yes", "image": "a.png",
    "report": "Effusion.", "text": "Is there an effusion? Please choose from: [yes, no]\n<image>",
}  # fmt: skip
TRAIN = {
    "image_path": ["p7/s56/a.jpg", "p7/s56/b.jpg"],
    "report": "Clear.",
    "image_root": "/their/mimic/files",
}
QUILT_TRAIN = {"caption": "Nuclei.", "image_path": "q5.jpg", "image_root": "/their/quilt"}
OUT_REPORT = {
    "id": "m1",
    "report": "Clear.",
    "reference_reports": ["One.", "Two."],
    "retrieve_k": 2,
    "image": "m1.jpg",
}
OUT_RULE = {**VQA, "question_id": 9, "reference_report": "One."}
OUT_RULE_LIST = {**VQA, "question_id": 10, "reference_report": ["One.", "Two."]}


def read(folder: Path, name: str, *rows: Any, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) if name.endswith("jsonl") else f"[{', '.join(lines)}]", encoding="utf-8")
    source = Source(root=folder, seed=0, images=folder)
    return list(mmed_rag(source, **options)), source.rejected


def one(folder: Path, name: str, row: dict[str, Any], **options: Any) -> tuple[Sample, str | None]:
    found, rejected = read(folder, name, row, **options)
    assert rejected == []
    ((sample, split, _),) = found
    return sample, split


def test_harvard_reports(tmp_path: Path) -> None:
    sample, split = one(tmp_path, "test/report/harvard_test.json", HARVARD)
    assert (sample.id, split, sample.labels) == ("h1", "test", {"glaucoma": 1})
    assert (sample.patient, sample.images[0].path) == ("image:slo/h1.npz.png", "slo/h1.npz.png")
    assert sample.messages[1].text == "Cup large."
    assert sample.attributes == {
        "age": "61.5", "gender": "female", "race": "asian", "ethnicity": "non-hispanic", "language": "english",
        "maritalstatus": "single",
    }  # fmt: skip
    told, _ = one(tmp_path, "test/report/harvard_test.json", HARVARD, text="gpt4_summary")
    assert told.messages[1].text == "Suspect disc."
    bare = {key: HARVARD[key] for key in ("id", "filename", "gpt4_summary")}
    named, _ = one(tmp_path, "test/report/harvard_test.json", bare)
    assert (named.images[0].path, named.messages[1].text) == ("h1.npz", "Suspect disc.")


def test_iuxray_and_mimic_reports(tmp_path: Path) -> None:
    sample, split = one(tmp_path, "iu.json", IUXRAY, prompt="Report, please.")
    assert sample.messages[0].parts == (0, 1, "Report, please.")
    assert (sample.messages[1].topic, split, sample.patient) == ("report", "test", "image:CXR1/0.png")
    single, _ = one(tmp_path, "iu.json", IUXRAY, shown="first")
    assert [ref.path for ref in single.images] == ["CXR1/0.png"]
    mimic, split = one(tmp_path, "iu.json", MIMIC)
    assert (mimic.patient, mimic.study, split) == ("7", "55", "valid")
    alone, _ = one(tmp_path, "iu.json", {k: v for k, v in MIMIC.items() if k != "subject_id"})
    assert alone.patient == "study:55"


def test_pathology_reports(tmp_path: Path) -> None:
    found, rejected = read(tmp_path, "test/report/pathology.json", PMC, QUILT)
    assert rejected == []
    (pmc, split, _), (quilt, _, origin) = found
    assert (pmc.images[0].path, pmc.messages[1].text, split) == ("PMC1.jpg", "Stained cells.", "test")
    assert (quilt.id, quilt.messages[1].text) == ("test/report/pathology-1", "Epithelium.")
    assert origin == "test/report/pathology.json:1"


def test_questions(tmp_path: Path) -> None:
    sample, split = one(tmp_path, "test/vqa/iuxray_test.jsonl", VQA, images="iu")
    assert (sample.id, split, sample.references) == (
        "4",
        "test",
        (),
    )  # its report is the truth, not a reference
    assert sample.messages[0].parts == ("Is there an effusion?", 0)
    assert (sample.messages[1].text, sample.images[0].path) == ("- Yes", "iu/a.png")
    assert closed(sample.messages[0].text, sample.messages[1].text) == "yes"
    longer, _ = one(tmp_path, "test/vqa/iuxray_test.jsonl", VQA, question="text")
    assert longer.messages[0].text.endswith("[yes, no]")
    two, _ = one(tmp_path, "test/vqa/iuxray_test.jsonl", {**VQA, "image": ["a.png", "b.png"]})
    assert two.messages[0].parts == ("Is there an effusion?", 0, 1)


def test_retriever_files_and_the_authors_folders(tmp_path: Path) -> None:
    found, rejected = read(
        tmp_path, "training/retriever/radiology_val.json", TRAIN, QUILT_TRAIN, shown="first"
    )
    assert rejected == []
    assert [(s.id, split, s.images[0].path) for s, split, _ in found] == [
        ("training/retriever/radiology_val-0", "valid", "p7/s56/a.jpg"),
        ("training/retriever/radiology_val-1", "valid", "q5.jpg"),
    ]
    mapped, _ = one(tmp_path, "training/retriever/radiology_val.json", TRAIN, roots={"/their/mimic": "mimic"})
    assert [ref.path for ref in mapped.images] == ["mimic/files/p7/s56/a.jpg", "mimic/files/p7/s56/b.jpg"]
    absolute = {**PMC, "image": "/their/pmc/a.jpg"}
    _, rejected = read(tmp_path, "training/retriever/radiology_val.json", absolute)
    assert rejected[0]["reason"] == "the image path is absolute: it belongs to another machine"
    assert "roots" in rejected[0]["remedy"]
    near, rejected = read(
        tmp_path, "training/retriever/radiology_val.json", absolute, roots={"/their/pm": "x"}
    )
    assert (near, len(rejected)) == ([], 1)


@pytest.mark.parametrize(
    ("row", "references"),
    [
        (OUT_REPORT, ("One.", "Two.")),
        ({**VQA, "reference_reports": ["One."], "retrieve_k": 1}, ("One.",)),
        (OUT_RULE, ("One.",)),
        (OUT_RULE_LIST, ("One.", "Two.")),
        ({**VQA, "reference_reports": []}, ()),
    ],
)
def test_retrieval_output(tmp_path: Path, row: dict[str, Any], references: tuple[str, ...]) -> None:
    assert one(tmp_path, "out.jsonl", row)[0].references == references


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"id": 1, "image": "a.png"}, "report", "the record holds neither a question nor a report"),
        ({"id": 1, "image": "a.png", "question": "Is it?"}, "answer", "nothing answers the question"),
        ({**PMC, "report": " "}, "report", "the record holds neither a question nor a report"),
        ({"id": 1, "report": "Clear."}, "image_path", "the record names no image"),
        ({**PMC, "image": [3]}, "image", "the record names no image"),
        ({**TRAIN, "image_root": 3}, "image_root", "`image_root` is not a text"),
        ({**VQA, "question": "<image> or <image>?"}, "question", "unmatched <image>: 2 mark(s) for 1 image(s)"),
        ({**OUT_REPORT, "reference_reports": [{"text": "x"}]}, "reference_reports", "references are neither a text"),
        ({"id": 1, "image": "a.png", "conversations": []}, "conversations", "the record is a conversation"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_field(
    tmp_path: Path, row: dict[str, Any], field: str, reason: str
) -> None:
    found, rejected = read(tmp_path, "data.json", row)
    assert found == []
    assert [(r["field"], r["line"]) for r in rejected] == [(field, 1)]
    assert rejected[0]["reason"].startswith(reason)


def test_a_file_is_named_below_the_root(tmp_path: Path) -> None:
    for file in ("../x.json", "/x.json"):
        with pytest.raises(DataError, match="below the data root"):
            list(mmed_rag(Source(root=tmp_path, seed=0, images=tmp_path), file=file))
    with pytest.raises(DataError, match="no file matches"):
        list(mmed_rag(Source(root=tmp_path, seed=0, images=tmp_path), file="none.json"))


def test_repeated_questions_are_told_apart_by_place(tmp_path: Path) -> None:
    found, _ = read(tmp_path, "data.jsonl", VQA, VQA, ids="place")
    assert [s.id for s, _, _ in found] == ["data-0", "data-1"]


def test_a_whole_folder_becomes_a_data_set(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    models.picture(raw, "a.png", 1)
    models.picture(raw, "b.png", 2)
    rows = [{**VQA, "question_id": i, "image": ("a.png", "b.png")[i % 2]} for i in range(4)]
    read(raw, "test/vqa/x_test.jsonl", *rows)
    made = prepare.prepare(
        "mmed_rag", {}, root=raw, out=tmp_path / "out", seed=0, shares={"train": 0.5, "test": 0.5}
    )
    samples = [s for split in made.counts for s in made.samples(split)]
    assert sum(made.counts.values()) == 4
    assert len({s.patient for s in samples}) == 2  # the image's hash stands in
    assert not made.audits[0].leaks


PAIR = {
    "id": "", "image": "a.png",
    "conversations": [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "Yes"}],
    "rejected_conversations": [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": "No"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "chosen", "rejected"),
    [
        ({}, None, None),  # RULE's files have no flag
        ({"rejected_noised": 0}, None, None),
        ({"rejected_noised": 1}, None, Degrade(kind="replace")),
        ({"rejected_noised": 1, "image_root": "/their/files"}, None, Degrade(kind="replace")),
        ({"rejected_noised": 0, "chosen_noised": 1}, Degrade(kind="replace"), Degrade(kind="replace")),
    ],
)
def test_preference_files_are_read_by_llava_json(
    tmp_path: Path, flags: dict[str, Any], chosen: Degrade | None, rejected: Degrade | None
) -> None:
    (tmp_path / "vqa.json").write_text(json.dumps([{**PAIR, **flags}, {**PAIR, **flags}]), encoding="utf-8")
    source = Source(root=tmp_path, seed=0, images=tmp_path)
    found = [record for record, _, _ in llava_json(source, image_root="ignore")]
    assert source.rejected == []
    assert [p.id for p in found] == ["vqa-0", "vqa-1"]
    for pair in found:
        assert isinstance(pair, Preference)
        assert (pair.chosen_images, pair.rejected_images) == (chosen, rejected)
        assert (pair.prompt[0].parts, pair.chosen, pair.rejected) == ((0, "Is it?"), "Yes", "No")
