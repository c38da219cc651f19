"""Several data sets as one: names, roots, patients, splits and what cannot be used, source by source."""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import cli, images, recipe, runs
from sightline.cli.plan import _disk
from sightline.data import prepare as prepared
from sightline.data.merge import merge, told
from sightline.errors import DataError, ImageError, RecipeError
from sightline.images.files import ROOTS, resolve
from sightline.settings import Raw
from sightline.stages import execute
from sightline.types import ImageRef

SHARES = {"train": 0.6, "test": 0.4}
PHANTOM = Raw.model_validate({"reader": "phantom", "patients": 5, "size": 64})


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16), np.uint8)).save(path)


@pytest.fixture
def raw(tmp_path: Path) -> dict[str, Raw]:
    """Two sources of raw files on two roots: they have two pictures and the patient ids 0 to 4 in common."""
    for i in range(5):
        picture(tmp_path / "knees" / f"{i % 2}Grade" / f"{i}.png", i)
        picture(tmp_path / "clinic" / "png" / f"{i}.png", i + 3)  # 0 and 1 are 3 and 4 of the knees
    rows = "".join(f"{i}.png,{i},Report {i}.\n" for i in range(5))
    (tmp_path / "clinic" / "reports.csv").write_text("image,patient,text\n" + rows)
    return {
        "knee": Raw.model_validate(
            {"reader": "class_folders", "root": str(tmp_path / "knees"), "patient": "([0-9])[.]png"}
        ),
        "own": Raw.model_validate({"reader": "reports", "root": str(tmp_path / "clinic"), "images": "png"}),
    }


def run(raw: dict[str, Raw], out: Path, **changed: Any) -> prepared.Prepared:
    return merge(raw, out=out, seed=0, **{"shares": SHARES, **changed})


def every(made: prepared.Prepared) -> dict[str, Any]:
    return {s.id: s for split in made.counts for s in made.samples(split)}


def test_rows_of_all_sources_say_where_they_come_from(raw: dict[str, Raw], tmp_path: Path) -> None:
    made = run({**raw, "drawn": PHANTOM}, tmp_path / "out")
    rows = every(made)
    knee, own = rows["knee/0Grade/0.png"], rows["own/reports-2"]
    assert (knee.patient, knee.images[0].path) == ("knee/0", "knee/0Grade/0.png")
    assert (own.patient, own.images[0].path) == ("own/0", "own/png/0.png")
    assert knee.attributes == {"class": "0Grade", "class_name": "Grade", "grade": "0", "source_set": "knee"}
    counts = Counter(s.attributes["source_set"] for s in rows.values())
    assert (counts["knee"], counts["own"]) == (5, 5)
    assert counts["drawn"] == sum(i.startswith("drawn/") for i in rows) >= 10
    again = prepared.load(tmp_path / "out")
    assert (again.root, again.kind) == (tmp_path / "out" / "images", "samples")


def test_every_image_is_read_from_its_own_root(raw: dict[str, Raw], tmp_path: Path) -> None:
    made = run({**raw, "drawn": PHANTOM}, tmp_path / "out")
    for name, sample in every(made).items():
        pixels = images.read(made.root, sample.images[0])
        assert pixels.shape == ((64, 64, 3) if name.startswith("drawn/") else (16, 16, 3))
    where = resolve(made.root, "own/png/3.png")
    assert where == (tmp_path / "clinic" / "png" / "3.png").resolve()
    assert json.loads((made.root / ROOTS).read_text()) == {
        "knee": str(tmp_path / "knees"), "own": str(tmp_path / "clinic")
    }  # fmt: skip
    moved = (tmp_path / "out").rename(tmp_path / "moved")  # as a stage's folder is when it is done
    assert images.read(moved / "images", ImageRef(path="knee/0Grade/0.png")).shape == (16, 16, 3)


@pytest.mark.parametrize(
    "path", ["knee/../clinic/png/0.png", "/etc/hostname", "knee//etc/hostname", "knee", "knee/out.png"]
)
def test_a_path_cannot_leave_the_root_of_its_source(raw: dict[str, Raw], tmp_path: Path, path: str) -> None:
    picture(tmp_path / "secret.png", 0)
    (tmp_path / "knees" / "out.png").symlink_to(tmp_path / "secret.png")
    made = run(raw, tmp_path / "out")
    with pytest.raises(ImageError):
        resolve(made.root, path)


def test_a_list_of_roots_is_believed_only_where_prepare_wrote_it(raw: dict[str, Raw], tmp_path: Path) -> None:
    made = run(raw, tmp_path / "out")
    (tmp_path / "clinic" / ROOTS).write_text('{"png": "/etc"}')
    with pytest.raises(DataError, match="belongs to a merged data set") as caught:
        run(raw, tmp_path / "again")
    assert caught.value.where == "source own"
    for damaged in ("{", "3", '{"knee": 3}'):
        (made.root / ROOTS).write_text(damaged)
        with pytest.raises(ImageError, match="the list of data roots is damaged"):
            resolve(made.root, "knee/0Grade/0.png")


def test_equal_images_of_two_sources_never_stand_on_two_sides(raw: dict[str, Raw], tmp_path: Path) -> None:
    for seed in range(6):
        made = merge(
            raw, out=tmp_path / f"out{seed}", seed=seed, shares={"train": 0.5, "test": 0.5}, by="image"
        )
        side = {i: split for split in made.counts for i in (s.id for s in made.samples(split))}
        assert side["knee/1Grade/3.png"] == side["own/reports-2"]
        assert side["knee/0Grade/4.png"] == side["own/reports-3"]
        assert len(set(side.values())) == 2
        assert not made.audits[0].leaks
    about = json.loads((tmp_path / "out0" / "dataset.json").read_text())
    assert about["shared"] == [{"first": "knee", "second": "own", "images": 2, "patients": 0}]
    assert told(made)[-1] == "knee and own: 2 images in both, 0 patients in both"


def test_official_splits_that_share_an_image_are_told(raw: dict[str, Raw], tmp_path: Path) -> None:
    (tmp_path / "knees").rename(tmp_path / "old")
    (tmp_path / "knees").mkdir()
    (tmp_path / "old").rename(tmp_path / "knees" / "train")
    (tmp_path / "clinic" / "reports.csv").rename(tmp_path / "clinic" / "test.csv")
    made = run(raw, tmp_path / "out", by="official")
    assert made.counts == {"train": 5, "test": 5}
    assert made.audits[0].warning.startswith(
        "the official splits leak: 2 images stand in both train and test"
    )


def test_patients_are_other_people_unless_it_is_said(raw: dict[str, Raw], tmp_path: Path) -> None:
    patients = {s.patient for s in every(run(raw, tmp_path / "apart")).values()}
    assert patients == {f"{name}/{i}" for name in ("knee", "own") for i in range(5)}
    together = {name: each.model_copy(update={"people": "clinic"}) for name, each in raw.items()}
    made = run(together, tmp_path / "together")
    assert {s.patient for s in every(made).values()} == {f"clinic/{i}" for i in range(5)}
    assert json.loads((tmp_path / "together" / "dataset.json").read_text())["shared"][0]["patients"] == 5
    assert not made.audits[0].leaks


def test_unknown_patients_stay_those_of_their_pictures(raw: dict[str, Raw], tmp_path: Path) -> None:
    raw["knee"] = Raw.model_validate({"reader": "class_folders", "root": raw["knee"].root})
    made = run(raw, tmp_path / "out")
    knees = [s for s in every(made).values() if s.attributes["source_set"] == "knee"]
    assert {s.patient for s in knees} == {f"image:{s.images[0].sha256}" for s in knees}


def test_a_bad_source_does_not_hide_behind_a_large_one(raw: dict[str, Raw], tmp_path: Path) -> None:
    table = tmp_path / "clinic" / "reports.csv"
    table.write_text(table.read_text() + "gone.png,9,Text.\n")
    many = {**raw, "drawn": PHANTOM.model_copy(update={"patients": 60})}
    with pytest.raises(DataError, match="1 of 6 records are bad") as caught:
        run(many, tmp_path / "out")
    assert caught.value.where == "source own"
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(r["file"], r["line"], r["reason"]) for r in lines] == [
        ("own/reports.csv", 7, "the image file is missing")
    ]
    made = run(raw, tmp_path / "out", max_bad=0.2)
    assert made.rejected == 1
    assert told(made)[1].endswith("; 1 set aside")
    with pytest.raises(DataError, match="the image file is missing") as caught:
        run(raw, tmp_path / "out", strict=True)
    assert caught.value.where.startswith("source own, own/reports.csv, line 7")


def test_the_order_of_sources_does_not_matter_and_bytes_repeat(raw: dict[str, Raw], tmp_path: Path) -> None:
    one = run({"drawn": PHANTOM, **raw}, tmp_path / "one").folder
    two = run({**dict(reversed(raw.items())), "drawn": PHANTOM}, tmp_path / "two").folder
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_two_generating_sources_draw_different_pictures(tmp_path: Path) -> None:
    made = run({"a": PHANTOM, "b": PHANTOM}, tmp_path / "out")
    hashes = {
        name: {s.images[0].sha256 for i, s in every(made).items() if i.startswith(name)} for name in "ab"
    }
    assert len(hashes["a"]) >= 5
    assert not hashes["a"] & hashes["b"]


def test_samples_and_preferences_are_not_merged(raw: dict[str, Raw], tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "<image>Is it?"}, {"from": "gpt", "value": "Yes."}]
    bad = [talk[0], {"from": "gpt", "value": "No."}]
    row = {"id": "x", "image": "png/0.png", "conversations": talk, "rejected_conversations": bad}
    (tmp_path / "clinic" / "pairs.json").write_text(json.dumps([row, {**row, "id": "y"}]))
    pairs = Raw.model_validate({"reader": "llava_json", "root": raw["own"].root, "file": "pairs.json"})
    with pytest.raises(DataError, match="mix samples and preferences"):
        run({**raw, "pairs": pairs}, tmp_path / "out")
    made = run({"first": pairs, "second": pairs}, tmp_path / "pairs", shares={"train": 1.0})
    assert [p.id for p in made.preferences("train")] == ["first/x", "first/y", "second/x", "second/y"]
    assert images.read(made.root, made.preferences("train")[3].images[0]).shape == (16, 16, 3)


def stage(**keys: Any) -> Any:
    return recipe.check({"name": "x", "stages": {"data": {"stage": "prepare", **keys}}}, "here")


def test_sections_without_sources_keep_their_keys() -> None:
    """Literal keys taken before `sources` came: results made then are still up to date."""
    old = {
        "3674f120b9917606a8a41b486b346dcfeafd170c2df22f12f31d47434dcb3d1d": {
            "reader": "vqa_rad", "root": "d", "group": "image"
        },
        "34cc019d274664235f3ce638fed595e0a01f26ea773a8f998d225d82e96b9590": {"reader": "phantom", "patients": 4},
    }  # fmt: skip
    for key, section in old.items():
        plain = stage(**section).stages["data"].model_dump(mode="json")
        assert runs.key_of(plain, 0, 2, {}) == key
    sources = stage(sources={"a": {"reader": "phantom"}}).stages["data"].model_dump(mode="json")
    assert sources["sources"] == {"a": {"reader": "phantom", "root": None, "people": ""}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "data: say either `reader`, or `sources"),
        (
            {"reader": "phantom", "sources": {"a": {"reader": "phantom"}}},
            "data: say either `reader`, or `sources",
        ),
        (
            {"sources": {"a": {"reader": "phantom"}}, "root": "x"},
            "data: root: belongs to one of the `sources`",
        ),
        ({"sources": {"a": {"reader": "phantom"}}, "patients": 3}, "data: patients: belongs to one of the"),
        (
            {"sources": {"a": {"reader": "phantm"}}},
            "data.sources.a: no readers plug-in 'phantm'; did you mean",
        ),
        ({"sources": {"a": {"reader": "phantom", "patents": 3}}}, "did you mean 'patients'"),
        ({"sources": {"a": {"root": "x"}}}, "data.sources.a.reader: Field required"),
        ({"sources": {"a/b": {"reader": "phantom"}}}, "String should match pattern"),
    ],
)
def test_sources_that_cannot_be_meant(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        stage(**keys)
    assert message in caught.value.block()


def test_the_stage_merges_and_a_plan_counts_its_pictures(
    raw: dict[str, Raw], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = {name: each.model_dump() for name, each in {**raw, "drawn": PHANTOM}.items()}
    made = stage(sources=sources, split={"train": 0.6, "valid": 0, "test": 0.4})
    assert _disk(made.stages["data"]) == 5 * 1.3 * 32_000
    folder = execute(made, tmp_path / "runs")["data"]
    out = capsys.readouterr().out
    assert "  knee: train " in out or "  knee: test " in out
    assert "knee and own: 2 images in both" in out
    assert runs.faults(folder) == []
    data = prepared.load(folder)
    for sample in every(data).values():
        assert images.read(data.root, sample.images[0]).ndim == 3
    assert execute(made, tmp_path / "runs")["data"] == folder
    assert "data: up to date" in capsys.readouterr().out


def test_stages_behind_a_merge_find_its_images(raw: dict[str, Raw], tmp_path: Path) -> None:
    sources = {name: each.model_dump() for name, each in raw.items()}
    data = {"stage": "prepare", "sources": sources, "split": {"train": 0.6, "valid": 0, "test": 0.4}}
    pairs = {"stage": "prefer", "data": "data", "kinds": {"degraded": 1}}
    made = recipe.check({"name": "x", "stages": {"data": data, "pairs": pairs}}, "here")
    found = prepared.load(execute(made, tmp_path / "runs")["pairs"])
    shown = [p.images[0] for p in found.preferences("train")]
    assert {ref.path.partition("/")[0] for ref in shown} == {"knee", "own"}
    assert all(images.read(found.root, ref).shape == (16, 16, 3) for ref in shown)


def test_a_merged_data_set_goes_out_with_the_images_of_all_its_roots(
    raw: dict[str, Raw], tmp_path: Path, sightline: Callable[..., str]
) -> None:
    made = run({**raw, "drawn": PHANTOM}, tmp_path / "out")
    file = tmp_path / "chat" / "all.jsonl"
    assert f"{ROOTS} there says where the files of each source are" in sightline(made.folder, "--out", file)
    assert "image(s) copied" in sightline(made.folder, "--out", file, "--images")
    back = prepared.prepare(
        "chat_jsonl", {}, root=file.parent, out=tmp_path / "back", seed=0, shares=SHARES, by="official"
    )
    assert every(back) == every(made)


@pytest.fixture
def sightline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `sightline data export` in this process; gives what it printed."""

    def export(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["sightline", "data", "export", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not caught.value.code
        return capsys.readouterr().out

    return export


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Give the signals that a command takes over back to pytest."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
