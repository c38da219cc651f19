"""UMBRELLA's directory format, version 2: filters, splits, image places, and a reason for every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import models_umbrella
from sightline import plugins
from sightline.data.prepare import prepare
from sightline.data.source import Source
from sightline.errors import DataError, RecipeError
from sightline.images.brain import Brain
from sightline.images.formats import nifti
from sightline.images.volume import to_ras
from sightline.metrics.comparison import same, sex
from sightline.types import Sample

THEIRS = "/pscratch/abcd/sMRI"


def record(
    subject: str = "S1", kind: str = "different", label: str = "male", **change: Any
) -> dict[str, Any]:
    other = {"male": "female", "female": "male"}[label] if kind == "different" else label
    paths = [f"{THEIRS}/R1.nii.gz", f"{THEIRS}/{subject}.nii.gz"]
    told = "Unlike" if kind == "different" else "Like"

    def turn(text: str, path: str) -> dict[str, Any]:
        shown = {"type": "image", "modality": "sMRI", "image_path": path}
        return {"role": "user", "content": [{"type": "text", "text": text}, shown]}

    def said(text: str) -> dict[str, Any]:
        return {"role": "assistant", "content": [{"type": "text", "text": text}]}

    made = {
        "task_id": f"{subject}_{kind}_sex_comparison",
        "task_type": "T3",
        "subject_ids": ["R1", subject],
        "modalities": ["sMRI", "sMRI"],
        "images": [{"path": p, "token": "<image>", "modality": "sMRI"} for p in paths],
        "conversations": [
            turn(f"A scan of a {other} subject (reference).", paths[0]),
            said(f"The {other} reference scan is noted."),
            turn("Compare and name the sex.", paths[1]),
            said(f"This looks {label}. {told} the reference {other} scan."),
        ],
        "metadata": {
            "subject_id": subject, "subject_label": label, "reference_id": "R1", "reference_label": other,
            "comparison_type": kind, "task": "sex_classification_via_comparison",
        },
    }  # fmt: skip
    return {**made, **change}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i, name in enumerate(("R1", "S1", "S2", "S3")):
        models_umbrella.head(tmp_path / "scans", f"{name}.nii.gz", Brain(side="left", sex="male"), seed=i)
    models_umbrella.head(tmp_path / "scans", "F1.nii", Brain(side="left", sex="male"), times=4)
    return tmp_path


def put(root: Path, folder: str, *records: dict[str, Any]) -> None:
    (root / folder).mkdir(exist_ok=True)
    for i, each in enumerate(records):
        (root / folder / f"{each.get('task_id') or i}.json").write_text(json.dumps(each, indent=2))


def read(root: Path, **options: Any) -> tuple[list[tuple[Sample, str | None, str]], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root / "out")
    bound = plugins.bind("readers", "umbrella", {"roots": {THEIRS: "scans"}, **options})
    return list(plugins.load("readers", "umbrella").read(source, **bound)), source.rejected


def test_a_record_as_they_write_it(root: Path) -> None:
    put(root, "train", record())
    put(root, "samples", record())
    (root / "train" / "train_conversations.jsonl").write_text(json.dumps(record()))
    [(sample, split, origin)], refused = read(root)
    assert refused == []
    assert (sample.id, sample.patient, split) == ("S1_different_sex_comparison", "S1", "train")
    assert origin == "train/S1_different_sex_comparison.json:1"
    assert [(r.path, r.kind, r.form) for r in sample.images] == [
        ("scans/R1.nii.gz", "sMRI", "volume"),
        ("scans/S1.nii.gz", "sMRI", "volume"),
    ]
    assert [m.parts for m in sample.messages] == [
        ("A scan of a female subject (reference).", 0),
        ("The female reference scan is noted.",),
        ("Compare and name the sex.", 1),
        ("This looks male. Unlike the reference female scan.",),
    ]
    assert [m.topic for m in sample.messages] == ["", "", "", "sex_different"]
    assert sample.labels == {"male": 1, "same": 0}
    assert sample.attributes == {
        "task_type": "T3", "task": "sex_classification_via_comparison", "comparison": "different",
        "reference": "R1", "label": "male", "modality": "sMRI",
    }  # fmt: skip


def test_folders_name_the_splits_and_lists_and_lines_are_read(root: Path) -> None:
    put(root, "validation", record("S2", "same", "female"))
    (root / "test.json").write_text(json.dumps([record("S3", "same"), record("S1", "same")]))
    found, _ = read(root)
    assert [(s.id, split) for s, split, _ in found] == [
        ("S3_same_sex_comparison", "test"),
        ("S1_same_sex_comparison", "test"),
        ("S2_same_sex_comparison", "valid"),
    ]
    assert found[2][0].labels == {"male": 0, "same": 1}
    (root / "train.jsonl").write_text("\n".join(json.dumps(record(s)) for s in ("S1", "S2")))
    assert [o for _, _, o in read(root, file="train.jsonl")[0]] == ["train.jsonl:1", "train.jsonl:2"]


def test_scans_by_their_names_alone(root: Path) -> None:
    put(root, "train", record())
    [(sample, _, _)], refused = read(root, roots={}, paths="name", images="scans")
    assert refused == []
    assert [ref.path for ref in sample.images] == ["scans/R1.nii.gz", "scans/S1.nii.gz"]


def test_filters(root: Path) -> None:
    fmri = record("S2", task_id="f", task_type="T1", subject_ids=["S2"], modalities=["fMRI"], metadata={})
    fmri["images"] = [{"path": f"{THEIRS}/F1.nii", "modality": "fMRI"}]
    fmri["conversations"] = [
        {"role": "user", "content": "<image>\nIs it at rest?"},
        {"role": "assistant", "content": "Yes"},
    ]
    put(root, "train", record("S1", "same"), record("S2", "different"), fmri)

    def ids(**options: Any) -> list[str]:
        return [s.id for s, _, _ in read(root, **options)[0]]

    assert ids() == ["S1_same_sex_comparison", "S2_different_sex_comparison", "f"]
    assert ids(task="same_sex") == ["S1_same_sex_comparison"]
    assert ids(task="T3") == ids(task_type="T3") == ids(modality="sMRI") == ids()[:2]
    assert ids(modality="fMRI") == ids(task_type="T1") == ["f"]
    [(sample, _, _)], _ = read(root, task_type="T1")
    assert sample.messages[0].parts == (0, "Is it at rest?")
    assert (sample.patient, sample.messages[1].topic) == ("S2", "")
    assert ids(min_times=4)[2] == "f"
    _, refused = read(root, min_times=5)
    assert refused[0]["found"] == "scans/F1.nii: 4 points of time, fewer than min_times = 5"


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"task_id": ""}, "task_id", "no `task_id`"),
        ({"task_type": "T9"}, "task_type", "unknown task type"),
        ({"images": []}, "modalities", "not those of the images"),
        ({"modalities": ["sMRI", "fMRI"]}, "modalities", "not those of the images"),
        ({"conversations": []}, "conversations", "empty"),
        ({"conversations": [{"role": "gpt", "content": "x"}]}, "conversations", "`role` and `content`"),
        (
            {"conversations": [{"role": "user", "content": [{"type": "video"}]}]},
            "conversations",
            "neither a text",
        ),
        ({"conversations": [{"role": "user", "content": "<image>"}]}, "conversations", "never shown"),
        ({"conversations": [{"role": "user", "content": "<image>" * 3}]}, "conversations", "not those of"),
    ],
)
def test_refusals_name_the_field(root: Path, change: dict[str, Any], field: str, reason: str) -> None:
    put(root, "train", {**record(), **change})
    found, refused = read(root)
    assert found == []
    assert [r["field"] for r in refused] == [field]
    assert reason in refused[0]["reason"]
    assert refused[0]["file"].startswith("train/")


def test_refusals_of_scans(root: Path) -> None:
    def image(path: str, modality: str) -> dict[str, Any]:
        one = record()
        one["images"][1] = {"path": path, "modality": modality}
        one["conversations"][2]["content"][1]["image_path"] = path
        return {**one, "modalities": ["sMRI", modality]}

    (root / "scans" / "bad.nii.gz").write_bytes(b"no volume")
    wanted = {
        "other machine": image("/elsewhere/a.nii.gz", "sMRI"),
        "this modality": image(f"{THEIRS}/S1.nii.gz", "dMRI"),
        "axes of its modality": image(f"{THEIRS}/S1.nii.gz", "fMRI"),
        "not a NIfTI": image(f"{THEIRS}/bad.nii.gz", "sMRI"),
        "image file is missing": image(f"{THEIRS}/none.nii.gz", "sMRI"),
    }
    for at, each in enumerate(wanted.values()):
        put(root, "train", {**each, "task_id": f"r{at}"})
    found, refused = read(root)
    assert found == []
    assert len(refused) == 5
    for words, each in zip(wanted, sorted(refused, key=lambda r: str(r["id"])), strict=True):
        assert words in str(each["reason"]), each
    swapped = record()
    swapped["conversations"][0]["content"][1]["image_path"] = f"{THEIRS}/S1.nii.gz"
    put(root, "test", swapped)
    assert "not those of the record" in str(read(root)[1][0]["reason"])


def test_an_answer_that_contradicts_the_metadata_is_refused(root: Path) -> None:
    wrong = record("S1", "same", "male")
    wrong["metadata"]["subject_label"] = "female"
    put(root, "train", wrong)
    [refused] = read(root)[1]
    assert refused["reason"] == "the answer contradicts the metadata"
    assert refused["found"] == "the answer says male, the metadata female and same"


def test_no_file(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no file matches") as caught:
        read(tmp_path)
    assert caught.value.found == "*.json, */*.json; the root holds notes.txt"
    with pytest.raises(DataError, match="stay below"):
        read(tmp_path, file="../x.json")


def test_prepare_checks_every_volume_and_sets_damaged_ones_aside(root: Path) -> None:
    put(root, "train", record("S1"), record("S2"), record("S3"))
    whole = (root / "scans" / "S3.nii.gz").read_bytes()
    (root / "scans" / "S3.nii.gz").write_bytes(whole[:-20])
    made = prepare(
        "umbrella", {"roots": {THEIRS: "scans"}}, root=root, out=root / "made", seed=0, shares={"train": 1.0},
        by="official", max_bad=0.5,
    )  # fmt: skip
    assert dict(made.counts) == {"train": 2}
    refused = [json.loads(line) for line in (root / "made" / "rejected.jsonl").read_text().splitlines()]
    assert [(r["id"], r["reason"]) for r in refused] == [
        ("S3_different_sex_comparison", "the volume is truncated")
    ]
    sample = made.samples("train")[0]
    assert all(len(ref.sha256) == 64 and ref.form == "volume" for ref in sample.images)


def test_phantoms_are_told_truly_and_repeat(tmp_path: Path) -> None:
    def made(name: str, patients: int = 4) -> list[Sample]:
        source = Source(root=None, seed=7, images=tmp_path / name)
        options = plugins.bind("readers", "volume_phantom", {"patients": patients, "size": 12, "times": 4})
        return [s for s, _, _ in plugins.load("readers", "volume_phantom").read(source, **options)]

    one, two = made("a"), made("b", 2)
    assert [s.id for s in one[:3]] == ["f001-spot", "f001-compare", "f001-pulse"]
    assert one[:6] == two
    for ref in {r.path for s in two for r in s.images}:
        assert (tmp_path / "a" / ref).read_bytes() == (tmp_path / "b" / ref).read_bytes()
    stored = set()
    for sample in one:
        volumes = [nifti.nifti(tmp_path / "a" / ref.path) for ref in sample.images]
        stored |= {v.orientation for v in volumes}
        last = to_ras(volumes[-1])
        if sample.id.endswith("spot"):
            bright = last.values > 800
            left = bright[:6].sum() > bright[6:].sum()
            assert sample.messages[1].text == ("Yes" if left else "No")
        if sample.id.endswith("pulse"):
            swing = last.values.max(axis=(0, 1, 2))
            assert sample.messages[1].text == ("Yes" if swing.max() / swing.min() > 1.5 else "No")
        if sample.id.endswith("compare"):
            told = sex(sample.messages[0].text) == sex(sample.messages[3].text)
            assert sample.messages[3].topic == ("sex_same" if told else "sex_different")
            assert same(sample.messages[3].text) is None
    assert len(stored) >= 3


@pytest.mark.parametrize("option", [{"patients": 0}, {"size": 4}, {"times": 1}, {"tasks": "spot,dance"}])
def test_phantoms_out_of_range(tmp_path: Path, option: dict[str, Any]) -> None:
    source = Source(root=None, seed=0, images=tmp_path)
    bound = plugins.bind("readers", "volume_phantom", option)
    with pytest.raises(RecipeError):
        list(plugins.load("readers", "volume_phantom").read(source, **bound))
