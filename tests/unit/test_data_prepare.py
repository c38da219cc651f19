"""Prepare: every record checked, the bad ones listed with place and reason, whole patients in each split."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import images, plugins
from sightline.data import prepare as module
from sightline.data.prepare import check_turns, load, prepare
from sightline.data.source import Read, Reader, RecordError, Source
from sightline.data.store import kind_of
from sightline.errors import DataError, RecipeError
from sightline.types import Degrade, ImageRef, Message, Preference, Sample

VQA_RAD = Path(__file__).parents[3] / "shared" / "data" / "vqa_rad"
SHARES = {"train": 0.6, "valid": 0.2, "test": 0.2}


def picture(root: Path, name: str, seed: int = 0) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (24, 24), np.uint8)).save(root / name)


def row(i: int, **changed: Any) -> dict[str, Any]:
    talk = [{"from": "human", "value": "<image>\nIs it?"}, {"from": "gpt", "value": ("Yes.", "No.")[i % 2]}]
    return {"id": f"r{i}", "image": f"x/{i}.png", "patient": f"p{i // 2}", "conversations": talk, **changed}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Ten records of five patients, originals.md 2.4, with their pictures."""
    root = tmp_path / "raw"
    for i in range(10):
        picture(root, f"x/{i}.png", i)
    write(root, [row(i) for i in range(10)])
    return root


def write(root: Path, rows: list[Any]) -> None:
    (root / "data.json").write_text("[" + ",\n".join(json.dumps(r) for r in rows) + "]")


def run(root: Path, **changed: Any) -> Any:
    given: dict[str, Any] = {
        "root": root,
        "out": root.parent / "out",
        "seed": 0,
        "shares": SHARES,
        "max_bad": 0.5,
    }
    options = changed.pop("options", {"file": "data.json"})
    return prepare("llava_json", options, **{**given, **changed})


def rejected(root: Path) -> list[dict[str, Any]]:
    lines = (root.parent / "out" / "rejected.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_data_set_is_checked_split_and_written(raw: Path):
    made = run(raw)
    assert made.counts == {"train": 6, "valid": 2, "test": 2}
    assert sorted(p.name for p in made.folder.iterdir()) == [
        "audit.json", "dataset.json", "rejected.jsonl", "test.parquet", "train.parquet", "valid.parquet"
    ]  # fmt: skip
    every = [s for split in made.counts for s in made.samples(split)]
    assert sorted(s.id for s in every) == [f"r{i}" for i in range(10)]
    assert all(len(s.images[0].sha256) == 64 for s in every)
    assert not made.audits[0].leaks
    about = json.loads((made.folder / "dataset.json").read_text())
    assert about["answers"][""] == {"count": 10, "distinct": 2, "mean_words": 1.0, "majority": 0.5}
    assert (about["reader"], about["options"]["file"], about["root"]) == ("llava_json", "data.json", str(raw))
    again = load(made.folder)
    assert (again.counts, again.root, again.kind) == (made.counts, raw, "samples")
    assert list(again.samples("test")) == list(made.samples("test"))


def test_preparing_twice_gives_equal_bytes(raw: Path):
    first, second = run(raw).folder, run(raw, out=raw.parent / "again").folder
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()


def test_unknown_patients_get_the_hash_of_their_image(raw: Path):
    write(raw, [{k: v for k, v in row(i).items() if k != "patient"} for i in range(10)])
    (raw / "x/1.png").write_bytes((raw / "x/0.png").read_bytes())
    made = run(raw)
    every = [s for split in made.counts for s in made.samples(split)]
    assert {s.patient for s in every} == {f"image:{s.images[0].sha256}" for s in every}
    assert len({s.patient for s in every}) == 9


def test_each_image_is_decoded_once(raw: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[str] = []
    plain = images.check

    def check(root: Path, ref: ImageRef, **options: Any) -> str:
        seen.append(ref.path)
        return plain(root, ref, **options)

    monkeypatch.setattr(images, "check", check)
    write(raw, [row(i, image=f"x/{i % 3}.png", patient=f"p{i % 3}") for i in range(10)])
    run(raw)
    assert sorted(seen) == ["x/0.png", "x/1.png", "x/2.png"]


BAD_IMAGES = {
    "missing": ("x/none.png", "the image file is missing"),
    "truncated": ("x/cut.png", "the image file is truncated"),
    "zero bytes": ("x/zero.png", "the image file is empty"),
    "URL": ("https://example.org/a.png", "the image path is a URL"),
    "absolute": ("/etc/hostname", "the image path is absolute: it belongs to another machine"),
    "outside": ("../secret.png", "the image path holds '..'"),
    "not an image": ("x/text.png", "the image file has the wrong type"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images_are_refused_with_place_and_remedy(raw: Path, case: str):
    path, reason = BAD_IMAGES[case]
    picture(raw.parent, "secret.png")
    (raw / "x/zero.png").write_bytes(b"")
    (raw / "x/text.png").write_text("no picture")
    (raw / "x/cut.png").write_bytes((raw / "x/0.png").read_bytes()[:300])
    write(raw, [*(row(i) for i in range(10)), row(10, image=path)])
    made = run(raw)
    (found,) = rejected(raw)
    assert (made.rejected, sum(made.counts.values())) == (1, 10)
    assert (found["file"], found["line"], found["id"], found["field"]) == ("data.json", 11, "r10", "image")
    assert found["reason"].startswith(reason)
    assert found["remedy"]
    assert path in found["found"]
    assert str(raw) not in json.dumps(found)


def test_too_many_pixels(raw: Path):
    with pytest.raises(DataError, match="10 x the image is too large"):
        run(raw, max_pixels=100)


def test_duplicate_ids_one_sided_talk_and_cut_files(raw: Path):
    one_sided = [{"from": "human", "value": "<image>\nIs it?"}]
    write(raw, [*(row(i) for i in range(10)), row(3), row(11, image="x/1.png", conversations=one_sided)])
    (raw / "data.json").write_text((raw / "data.json").read_text()[:-1] + ',\n{"id": "r12", "ima')
    made = run(raw)
    assert [(r["line"], r["id"], r["field"], r["reason"]) for r in rejected(raw)] == [
        (11, "r3", "id", "duplicate id: an earlier record has it too"),
        (12, "r11", "messages", "one-sided conversation: only the user speaks"),
        (13, "", "", "the file is cut off in the middle of a record"),
    ]
    assert made.rejected == 3
    about = json.loads((made.folder / "dataset.json").read_text())
    assert about["reasons"]["duplicate id: an earlier record has it too"] == 1


def test_strict_stops_at_the_first(raw: Path):
    write(raw, [row(0), row(1, image="x/none.png"), row(1, image="x/none.png")])
    with pytest.raises(DataError) as caught:
        run(raw, strict=True)
    assert caught.value.what == "the image file is missing"
    assert caught.value.where == "data.json, line 2, record r1, field image"
    assert len(rejected(raw)) == 1


def test_too_many_bad_records_stop_with_the_commonest_reasons(raw: Path):
    write(
        raw,
        [
            *(row(i) for i in range(10)),
            row(10, conversations=[]),
            row(11, image="x/none.png"),
            row(12, conversations=[]),
        ],
    )
    with pytest.raises(DataError) as caught:
        run(raw, max_bad=0.2)
    assert caught.value.what == "3 of 13 records are bad, more than max_bad = 0.2 allows"
    assert caught.value.found == "2 x the conversation is empty; 1 x the image file is missing"
    assert len(rejected(raw)) == 3


def test_no_good_record_is_an_error_whatever_max_bad(raw: Path):
    write(raw, [row(1, image="x/none.png")])
    with pytest.raises(DataError, match="no record can be used"):
        run(raw, max_bad=1.0)
    write(raw, [])
    with pytest.raises(DataError, match="no records at all"):
        run(raw)


def test_what_is_refused_is_what_was_planted(raw: Path):
    """reliability.md B4: 1 % bad records of several kinds among many."""
    planted = set(range(7, 4000, 100))
    kinds: list[dict[str, Any]] = [
        {"conversations": []}, {"conversations": "text"}, {"image": "x/none.png"}, {"image": "../a.png"},
        {"conversations": row(0)["conversations"][:1]}, {"image": 7},
    ]  # fmt: skip
    rows = [row(i, image=f"x/{i % 10}.png", patient=f"p{i % 10}") for i in range(4000)]
    for n, i in enumerate(sorted(planted)):
        rows[i] |= kinds[n % len(kinds)]
    write(raw, rows)
    made = run(raw, max_bad=0.05)
    assert {int(str(r["id"])[1:]) for r in rejected(raw)} == planted
    assert (made.rejected, sum(made.counts.values())) == (40, 3960)


def pair(i: int, **changed: Any) -> dict[str, Any]:
    talk = row(i)["conversations"]
    worse = [talk[0], {"from": "gpt", "value": "Perhaps."}]
    return row(i, rejected_conversations=worse, rejected_noised=i % 2, **changed)


def test_preferences_flow_through(raw: Path):
    """originals.md 1.2, training/alignment."""
    write(raw, [pair(i) for i in range(10)])
    made = run(raw)
    found = [p for split in made.counts for p in made.preferences(split)]
    assert (made.kind, kind_of(made.folder / "train.parquet")) == ("preferences", "preferences")
    assert {p.id: p.rejected_images for p in found}["r1"] == Degrade(kind="replace")
    assert all(p.images[0].sha256 for p in found)
    assert set(json.loads((made.folder / "dataset.json").read_text())["answers"]) == {
        "answers chosen", "answers rejected", "degraded chosen", "degraded rejected"
    }  # fmt: skip
    with pytest.raises(DataError, match="the file holds preferences, not samples"):
        made.samples("train")
    with pytest.raises(DataError, match="no split 'dev'"):
        made.preferences("dev")


def test_kinds_are_not_mixed(raw: Path):
    write(raw, [row(0), pair(1)])
    with pytest.raises(DataError, match="the files mix samples and preferences"):
        run(raw)


def test_official_splits_are_audited_beside_the_own(raw: Path):
    write(raw, [row(i, split=("train", "test")[i % 2]) for i in range(10)])
    made = run(raw)
    assert [(a.name, a.leaks) for a in made.audits] == [("own", False), ("official", True)]
    assert "5 patients stand in both train and test" in made.audits[1].warning
    assert set(json.loads((made.folder / "audit.json").read_text())) == {"own", "official"}
    official = run(raw, by="official", out=raw.parent / "official")
    assert official.counts == {"train": 5, "test": 5}
    assert [a.name for a in official.audits] == ["official"]


def test_options_and_roots_are_checked(raw: Path):
    with pytest.raises(RecipeError, match="did you mean 'file'"):
        run(raw, options={"fil": "data.json"})
    with pytest.raises(DataError, match="needs a data root"):
        prepare("llava_json", {}, root=None, out=raw.parent / "out", seed=0, shares=SHARES)
    with pytest.raises(DataError, match="no prepared data set in this folder"):
        load(raw)


def test_a_generating_reader_keeps_its_pictures_in_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def made_up(source: Source) -> Iterator[Read]:
        for i in range(6):
            picture(source.images, f"{i}.png", source.seed + i)
            turns = (Message(role="user", parts=(0, "?")), Message(role="assistant", parts=("Yes",)))
            image = ImageRef(path=f"{i}.png")
            yield Sample(id=f"s{i}", patient=f"p{i}", images=(image,), messages=turns), None, "made_up"

    monkeypatch.setattr(plugins, "load", lambda *_: Reader(read=made_up, needs_root=False))
    monkeypatch.setattr(plugins, "bind", lambda *_: {})
    out = tmp_path / "staging"
    made = prepare("made_up", {}, root=None, out=out, seed=3, shares=SHARES)
    assert made.root == out / "images"
    moved = out.rename(tmp_path / "final")
    again = load(moved)
    assert images.read(again.root, again.samples("train")[0].images[0]).shape == (24, 24, 3)
    assert str(tmp_path) not in (moved / "dataset.json").read_text()


def turn(role: str, text: str = "x") -> Message:
    return Message(role=role, parts=(text,) if text else ())


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ("", "the conversation is empty"),
        ("s", "the conversation is empty"),
        ("u", "one-sided conversation: only the user speaks"),
        ("aa", "one-sided conversation: only the assistant speaks"),
        ("au", "the turns are out of order"),
        ("uau", "the turns are out of order"),
        ("uua", "the turns are out of order"),
        ("usa", "the turns are out of order"),
        ("ssua", "the turns are out of order"),
        ("ua", ""),
        ("suaua", ""),
    ],
)
def test_turns(roles: str, reason: str):
    names = {"s": "system", "u": "user", "a": "assistant"}
    sample = Sample(id="a", patient="p", images=(), messages=tuple(turn(names[r]) for r in roles))
    if not reason:
        check_turns(sample)
        return
    with pytest.raises(RecordError) as caught:
        check_turns(sample)
    assert (caught.value.what, caught.value.field) == (reason, "messages")


def test_turns_and_answers_hold_text():
    sample = Sample(id="a", patient="p", images=(), messages=(turn("user"), turn("assistant", " ")))
    with pytest.raises(RecordError, match="a turn is empty"):
        check_turns(sample)
    wrong = Preference(id="a", patient="p", images=(), prompt=(turn("user"),), chosen="yes", rejected="")
    with pytest.raises(RecordError, match="an answer is empty") as caught:
        check_turns(wrong)
    assert caught.value.field == "rejected"


def test_origins():
    assert module._origin("a/b.json:12") == ("a/b.json", 12)
    assert module._origin("phantom") == ("phantom", 0)


@pytest.mark.skipif(not VQA_RAD.is_dir(), reason="the VQA-RAD part is not beside the repository")
def test_vqa_rad_leaks_in_its_official_splits_and_not_in_ours(tmp_path: Path):
    """kit.md, real medical data: 157 of these 250 images stand in both official splits."""
    made = prepare("vqa_rad", {}, root=VQA_RAD, out=tmp_path, seed=0, shares=SHARES, by="image")
    own, official = made.audits
    assert [(o.images, o.patients) for o in own.overlaps] == [(0, 0)] * 3
    assert [(o.images, o.first, o.second) for o in official.overlaps] == [(157, "train", "test")]
    assert "157 images stand in both train and test" in official.warning
    assert "split.by: image" in official.text()
    assert (sum(made.counts.values()), made.rejected) == (2802, 0)
    assert all(abs(made.counts[name] / 2802 - share) < 0.02 for name, share in SHARES.items())
    kept = prepare("vqa_rad", {}, root=VQA_RAD, out=tmp_path / "o", seed=0, shares={}, by="official")
    assert (kept.counts, kept.audits[0].leaks) == ({"train": 2453, "test": 349}, True)
