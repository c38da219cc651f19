"""LLaVA JSON and what grew from it; the fixtures' README names the paragraphs of originals.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sightline import plugins
from sightline.data.readers.llava_json import llava_json
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.types import Degrade, Preference, Sample

FIXTURES = Path(__file__).parent.parent / "fixtures" / "readers"


def read(name: str, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=FIXTURES, seed=0, images=FIXTURES)
    return list(llava_json(source, file=name, **options)), source.rejected


def read_rows(folder: Path, *rows: Any, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    (folder / "data.json").write_text(json.dumps(list(rows)))
    source = Source(root=folder, seed=0, images=folder)
    return list(llava_json(source, **options)), source.rejected


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


def test_conversations_keep_marks_roles_and_places():
    """originals.md 2.4."""
    found, rejected = read("llava.json")
    first, second, third, fourth = (record for record, _, _ in found)
    assert rejected == []
    assert [m.role for m in first.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert first.messages[1].parts == (0, "Is there an effusion?")
    assert first.patient == "17"
    assert second.messages[0].parts == (0, "Describe the image.")
    assert second.patient == "image:x/b.png"
    assert third.messages[0].parts == ("First ", 0, " and second", 1, "What changed?")
    assert fourth.images == ()
    assert [origin for _, _, origin in found][:2] == ["llava.json:2", "llava.json:6"]


def test_alignment_rows_become_preferences():
    """originals.md 1.2, training/alignment: empty ids, noise flags, the authors' folders."""
    roots = {"/home/author/mimic/files": "mimic", "/home/author/iu": "iu"}
    found, rejected = read("alignment/radiology_report.json", roots=roots)
    first, second = (record for record, _, _ in found)
    assert rejected == []
    assert isinstance(first, Preference)
    assert (first.id, second.id) == ("alignment/radiology_report-0", "s2")
    assert [r.images[0].path for r in (first, second)] == ["mimic/p1/a.png", "iu/b.png"]
    assert (first.chosen, first.rejected, first.rejected_images) == ("Clear lungs.", "Large effusion.", None)
    assert (second.rejected_images, second.chosen_images) == (Degrade(kind="replace"), None)
    assert (first.why, second.why) == ("answers", "degraded")
    assert first.prompt[0].parts == (0, "Please write a report.")


def test_image_root_of_another_machine_is_refused_unless_mapped_or_ignored():
    _, rejected = read("alignment/radiology_report.json")
    assert len(rejected) == 2
    assert rejected[0]["reason"] == "the image path is absolute: it belongs to another machine"
    assert "roots" in rejected[0]["remedy"]
    found, rejected = read("alignment/radiology_report.json", image_root="ignore", images="pictures")
    assert rejected == []
    assert [r.images[0].path for r, _, _ in found] == ["pictures/p1/a.png", "pictures/b.png"]


def test_equal_answers_need_different_images():
    """originals.md 1.2: equal answers with flag 1 are meant; with flag 0 they teach nothing."""
    found, rejected = read("alignment/harvard_vqa.json")
    first, second = (record for record, _, _ in found)
    assert first.chosen == first.rejected == "Yes"
    assert first.rejected_images == Degrade(kind="replace")
    assert second.chosen_images == second.rejected_images == Degrade(kind="replace")
    assert [(r["id"], r["line"], r["reason"]) for r in rejected] == [
        ("h3", 10, "the two answers are equal and so are their images")
    ]
    assert "rejected_noised: 1" in rejected[0]["remedy"]


def test_rule_rows_have_no_flag_and_the_image_last():
    """originals.md 1.2, RULE."""
    ((record, _, _),), _ = read("rule_iuxray.json")
    assert record.prompt[0].parts == ("Is the heart large?", 0)
    assert record.rejected_images is None


def test_question_rows_with_references():
    """originals.md 1.2, data/test/vqa and the retrieval output."""
    found, rejected = read("vqa_test.jsonl")
    first, second = (record for record, _, _ in found)
    assert rejected == []
    assert (first.id, first.messages[0].parts) == ("4", ("Is there an effusion?", 0))
    assert first.messages[1].text == "Yes."
    assert (first.references, second.references) == (("Small effusion.", "Normal."), ("Normal.",))
    assert [split for _, split, _ in found] == ["test", "test"]


def test_report_rows_ask_for_the_report():
    """originals.md 1.2, data/test/report."""
    found, rejected = read("report_test.json", prompt="Report, please.")
    assert rejected == []
    iu, mimic, harvard, quilt = (record for record, _, _ in found)
    assert iu.messages[0].parts == (0, 1, "Report, please.")
    assert (mimic.patient, mimic.study) == ("7", "55")
    assert [split for _, split, _ in found] == ["test", "valid", "test", "test"]
    assert harvard.messages[1].text == "Healthy disc."
    assert harvard.attributes == {"age": "61.5", "gender": "F", "race": "Asian"}
    assert (quilt.id, quilt.messages[1].topic) == ("report_test-3", "report")


def test_libra_lists_are_current_and_prior():
    """originals.md 2.4: one mark stands for both images."""
    found, rejected = read("libra_*", prior=True)
    assert rejected == []
    evaluation, both, single = (record for record, _, _ in found)
    assert [ref.when for ref in both.images] == ["current", "prior"]
    assert both.messages[0].parts == (0, 1, "What changed?")
    assert single.messages[0].parts == (0, "Describe it.")
    assert evaluation.messages[1].text == "Less fluid."


BAD = {
    "empty": ({"conversations": []}, "the conversation is empty", "conversations"),
    "string": ({"conversations": "hello"}, "`conversations` is not a list of turns", "conversations"),
    "role": (
        {"conversations": [{"from": "doctor", "value": "Hello"}]}, "unknown role 'doctor'", "conversations"
    ),
    "turn": ({"conversations": ["hello"]}, "a turn is not a mapping of `from` and `value`", "conversations"),
    "value": (
        {"conversations": [{"from": "human", "value": 3}]}, "a turn's `value` is not a text", "conversations"
    ),
    "marks": (
        {"image": "a.png", "conversations": turns("<image> <image> Hi", "Yes")},
        "unmatched <image>: 2 mark(s) for 1 image(s)", "conversations",
    ),
    "no mark": (
        {"image": ["a.png", "b.png"], "conversations": turns("Hi", "Yes")},
        "unmatched <image>: 0 mark(s) for 2 image(s)", "conversations",
    ),
    "image": ({"image": 7, "conversations": turns("Hi", "Yes")}, "`image` is neither a path", "image"),
    "nothing": ({"image": "a.png"}, "the record holds no conversation, no question and", "conversations"),
    "unanswered": (
        {"image": "a.png", "question": "Is it?"},
        "one-sided conversation: a question without an answer", "answer",
    ),
    "references": (
        {"conversations": turns("Hi", "Yes"), "reference_reports": 4},
        "references are neither a text nor texts", "reference_reports",
    ),
    "no rejected answer": (
        {"conversations": turns("Hi", "Yes"), "rejected_conversations": turns("Hi")},
        "one-sided conversation: no answer at its end", "rejected_conversations",
    ),
    "other question": (
        {"conversations": turns("Hi", "Yes"), "rejected_conversations": turns("Ho", "No")},
        "the two conversations ask different questions", "rejected_conversations",
    ),
    "flag": (
        {"conversations": turns("A", "B"), "rejected_conversations": turns("A", "C"), "rejected_noised": "x"},
        "`rejected_noised` is neither 0 nor 1", "rejected_noised",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_refused_with_place_and_reason(case: str, tmp_path: Path):
    row, reason, field = BAD[case]
    found, rejected = read_rows(
        tmp_path, {"id": "bad", **row}, {"id": "good", "conversations": turns("Hi", "Yes")}
    )
    assert [record.id for record, _, _ in found] == ["good"]
    assert [(r["file"], r["line"], r["id"], r["field"]) for r in rejected] == [("data.json", 1, "bad", field)]
    assert rejected[0]["reason"].startswith(reason)


def test_refusals_do_not_quote_free_text(tmp_path: Path):
    _, rejected = read_rows(tmp_path, {"id": "p", "conversations": "Mrs Example, born 1950"})
    assert rejected[0]["found"] == "a text of 22 characters"


def test_a_named_patient_field_must_be_filled(tmp_path: Path):
    row = {"id": "p", "conversations": turns("Hi", "Yes"), "person": ""}
    _, rejected = read_rows(tmp_path, row, patient="person")
    assert (rejected[0]["reason"], rejected[0]["field"]) == ("the record names no patient", "person")


def test_ids_can_be_named_after_the_place(tmp_path: Path):
    row = {"id": "same", "conversations": turns("Hi", "Yes")}
    found, _ = read_rows(tmp_path, row, row, ids="place")
    assert [record.id for record, _, _ in found] == ["data-0", "data-1"]


def test_a_folder_of_lists_and_lines_is_read_in_order(tmp_path: Path):
    shutil.copy(FIXTURES / "llava.json", tmp_path / "b.json")
    shutil.copy(FIXTURES / "vqa_test.jsonl", tmp_path / "a.jsonl")
    source = Source(root=tmp_path, seed=0, images=tmp_path)
    assert [r.id for r, _, _ in llava_json(source)] == ["4", "5", "a1", "a2", "a3", "a4"]


def test_no_match_names_what_is_there(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError) as caught:
        list(llava_json(Source(root=tmp_path, seed=0, images=tmp_path), file="train.json"))
    assert "'train.json'; the root holds notes.txt" in caught.value.block()
    with pytest.raises(DataError, match="below the data root"):
        list(llava_json(Source(root=tmp_path, seed=0, images=tmp_path), file="../*.json"))


def test_options_are_read_from_source():
    known = plugins.options("readers", "llava_json")
    assert known["file"][1] == "*.json*"
    assert plugins.bind("readers", "llava_json", {"roots": {"/a": "b"}})["roots"] == {"/a": "b"}
    assert isinstance(read("llava.json")[0][0][0], Sample)
