"""Near duplicates in a data set: a planted copy is found, other patients are not, and prints are taken once."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import cli, images, recipe, runs, stages
from sightline.data import prepare, printed
from sightline.data.printed import Prints
from sightline.data.twins import twins
from sightline.settings import Near
from sightline.types import ImageRef, Message, Preference, Sample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> prepare.Prepared:
    """Phantoms of 60 patients, of which some have several studies."""
    out = tmp_path_factory.mktemp("twins") / "data"
    return prepare.prepare(
        "phantom",
        {"patients": 60, "size": 128},
        root=None,
        out=out,
        seed=3,
        shares={"train": 0.7, "test": 0.3},
    )


def copy_of(data: prepare.Prepared, sample: Sample, name: str, **how: Any) -> Sample:
    """The sample with its image saved again under another name, smaller and as JPEG."""
    picture = Image.open(data.root / sample.images[0].path)
    half = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4))
    half.save(data.root / name, quality=70)
    ref = ImageRef(path=name, sha256=runs.hash_file(data.root / name))
    return replace(sample, images=(ref,), id=f"{sample.id}-copy", **how)


def records(data: prepare.Prepared) -> dict[str, list[Sample]]:
    return {split: list(data.samples(split)) for split in data.counts}


def test_other_patients_are_not_reported(data: prepare.Prepared) -> None:
    found = twins(records(data), data.root, Near())
    assert (
        found.images == len({r.sha256 for s in data.counts for x in data.samples(s) for r in x.images}) > 60
    )
    assert [t for t in found.pairs_of_images if not t.one_patient] == []
    assert found.warning == ""
    assert found.unread == 0


def test_a_saved_copy_planted_in_the_test_split_is_found(data: prepare.Prepared) -> None:
    kept = records(data)
    first = kept["train"][4]
    kept["test"].append(copy_of(data, first, "planted.jpg", patient="somebody else"))
    found = twins(kept, data.root, Near())
    (pair,) = [t for t in found.pairs_of_images if t.splits == ("train", "test")]
    holders = {s.id for s in kept["train"] if s.images[0].sha256 == first.images[0].sha256}
    assert pair.records[0] in holders
    assert pair.records[1] == f"{first.id}-copy"
    assert pair.paths == (first.images[0].path, "planted.jpg")
    assert pair.alike > 0.95
    assert not pair.one_patient
    assert found.warning.startswith("1 pair(s) of images are nearly the same in train and test")
    assert "train and test, two patients: 1 pair(s) of images" in found.text()
    told = found.to_dict()
    assert told["images"]["near"] == {"train and test, two patients": 1}
    assert told["images"]["pairs"][0]["paths"] == list(pair.paths)


def test_within_a_split_two_patients_warn_and_one_does_not(data: prepare.Prepared) -> None:
    kept = records(data)
    first, second = kept["train"][0], kept["train"][-1]
    kept["train"].append(copy_of(data, first, "same.jpg"))
    found = twins(kept, data.root, Near())
    assert [t.one_patient for t in found.pairs_of_images] == [True]
    assert found.warning == ""
    kept["train"].append(copy_of(data, second, "other.jpg", patient="somebody else"))
    found = twins(kept, data.root, Near())
    assert [(t.splits, t.one_patient) for t in found.pairs_of_images] == [
        (("train", "train"), False), (("train", "train"), True),
    ]  # fmt: skip
    assert found.warning.startswith("1 pair(s) of images are nearly the same under two patients")


def test_a_copy_of_an_image_of_two_splits_is_reported_across_them(data: prepare.Prepared) -> None:
    kept = records(data)
    first = kept["test"][0]
    kept["train"].append(replace(first, id="again"))
    kept["test"].append(copy_of(data, first, "twice.jpg"))
    (pair,) = twins(kept, data.root, Near()).pairs_of_images
    assert pair.splits == ("train", "test")
    assert pair.records == ("again", f"{first.id}-copy")
    assert pair.one_patient


def test_the_threshold_decides(data: prepare.Prepared) -> None:
    kept = records(data)
    kept["test"].append(copy_of(data, kept["train"][4], "planted.jpg", patient="somebody else"))
    assert twins(kept, data.root, Near(images=1.0)).pairs_of_images == []


def reports(*texts: str) -> list[Sample]:
    asked = Message(role="user", parts=("Describe the image.",))
    return [
        Sample(
            id=f"{i} {text[:3]}", patient=f"p{i}", images=(),
            messages=(asked, Message(role="assistant", parts=(text,), topic="report")),
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


def test_texts_across_splits(tmp_path: Path) -> None:
    clear = "The heart is of normal size and the lungs are clear without any effusion."
    near = clear.replace("any", "an")
    other = "A large right effusion is seen with the trachea pushed over to the left side."
    found = twins(
        {"train": reports(clear, other, "Yes"), "test": reports(near, other, "Yes")},
        tmp_path,
        Near(texts=0.5),
    )
    assert found.texts == 3
    assert found.equal_texts == {"train and test": 1}
    (pair,) = found.pairs_of_texts
    assert pair.splits == ("train", "test")
    assert pair.records == ("0 The", "0 The")
    assert found.warning == ""
    assert clear not in found.text()
    asked = (Message(role="user", parts=("Report.",)),)
    pairs_ = [
        Preference(id=f"q{i}", patient="p", images=(), prompt=asked, chosen=text, rejected="No")
        for i, text in enumerate((clear, near))
    ]
    assert len(twins({"train": pairs_}, tmp_path, Near(texts=0.5)).pairs_of_texts) == 1


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every image that is decoded from now on."""
    seen: list[str] = []
    real = images.picture

    def picture(root: Path, ref: ImageRef, **how: Any) -> np.ndarray:
        seen.append(ref.path)
        return real(root, ref, **how)

    monkeypatch.setattr(images, "picture", picture)
    return seen


def test_prints_are_taken_once_and_a_damaged_file_of_them_is_made_anew(
    data: prepare.Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refs = dict(printed.distinct(r for s in data.samples("test") for r in s.images))
    seen = counted(monkeypatch)
    monkeypatch.setattr(printed, "PART", 4)
    store = Prints(tmp_path / "prints")
    assert store.of(data.root, refs) == {}
    assert len(seen) == len(refs)
    again = Prints(tmp_path / "prints")
    assert again.of(data.root, refs) == {}
    assert len(seen) == len(refs)
    assert all(again.known[s].bits == store.known[s].bits for s in refs)
    assert all((again.known[s].thumb == store.known[s].thumb).all() for s in refs)
    first = sorted((tmp_path / "prints").glob("*.npz"))[0]
    first.write_bytes(first.read_bytes()[:200])
    assert Prints(tmp_path / "prints").of(data.root, refs) == {}
    assert len(seen) == len(refs) + 4


def test_an_image_that_is_gone_is_counted(data: prepare.Prepared) -> None:
    kept = records(data)
    lost = ImageRef(path="gone.png", sha256="0" * 64)
    kept["test"].append(replace(kept["test"][0], id="lost", images=(lost,)))
    found = twins(kept, data.root, Near())
    assert found.unread == 1
    assert "1 could not be read" in found.text()


# --- the command and the stage -------------------------------------------------------------------------------


def command(monkeypatch: pytest.MonkeyPatch, capsys: Any, words: Sequence[object]) -> str:
    monkeypatch.setattr(sys, "argv", ["sightline", *map(str, words)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    return str(capsys.readouterr().out)


def official(folder: Path, data: prepare.Prepared) -> None:
    """VQA-RAD's layout: one image in train, a saved copy of it in test."""
    (folder / "images").mkdir()
    picture = Image.open(data.root / data.samples("train")[0].images[0].path)
    picture.save(folder / "images" / "a.png")
    picture.resize((96, 96)).save(folder / "images" / "b.jpg", quality=80)
    row = {"question": "Is it?", "answer": "yes"}
    for split, name, number in (("train", "a.png", "1"), ("test", "b.jpg", "2")):
        text = json.dumps([{**row, "image_name": name, "qid": number}])
        (folder / f"{split}set.json").write_text(text)


def test_the_audit_of_official_splits(
    data: prepare.Prepared, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    official(tmp_path, data)
    words = ["data", "audit", tmp_path, "--reader", "vqa_rad"]
    out = command(monkeypatch, capsys, words)
    assert "train and test: 0 images in both" in out
    assert "train and test, two patients: 1 pair(s) of images that are nearly the same" in out
    assert "(images/a.png, images/b.jpg)" in out
    told = json.loads(command(monkeypatch, capsys, [*words, "--json"]))
    assert told["near"]["images"]["pairs"][0]["splits"] == ["train", "test"]
    assert set(told["audits"]) == {"own", "official"}
    assert "near" not in command(monkeypatch, capsys, [*words, "--no-near"])
    strict = command(monkeypatch, capsys, [*words, "--images-alike", "1"])
    assert "pair(s) of images" not in strict


def test_prepare_looks_where_the_recipe_says_so(data: prepare.Prepared, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    official(raw, data)
    section = {"stage": "prepare", "reader": "vqa_rad", "root": str(raw), "split": {"by": "official"}}
    made = recipe.check({"name": "near", "stages": {"data": {**section, "near": {}}}}, "test")
    assert (
        "near"
        not in recipe.check({"name": "n", "stages": {"data": section}}, "test").stages["data"].model_dump()
    )
    folder = stages.execute(made, tmp_path / "runs", say=lambda line: None)["data"]
    told = json.loads((folder / "near.json").read_text())
    assert told["images"]["near"] == {"train and test, two patients": 1}
    assert len(list((folder.parent / ".prints").glob("*.npz"))) == 1
    from sightline.stages.copies import copies_of, pictured

    ((place, found),) = copies_of({"data": folder})
    (pair,) = pictured(place, found)
    assert [picture[:4] for picture in pair["pictures"]] == [b"RIFF", b"RIFF"]
    from sightline.report import Page
    from sightline.report.provenance import provenance

    html = provenance(Page(title="t", near=[pair]))
    assert html.count("<img") == 2
    assert "Near duplicates" in html
