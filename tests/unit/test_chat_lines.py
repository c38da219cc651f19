"""Prepared data as chat JSON Lines and back: what is written is read as it was."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline import cli
from sightline.data import chat_lines
from sightline.data import prepare as prepared
from sightline.data.prepare import Prepared, prepare
from sightline.data.readers.chat_jsonl import chat_jsonl
from sightline.data.source import Source
from sightline.data.store import write_preferences, write_samples
from sightline.errors import DataError
from sightline.types import Degrade, ImageRef, Message, Preference, Sample

NOW = ImageRef(path="now.png", sha256="1" * 64, kind="xray")
THEN = ImageRef(path="s/then.png", sha256="2" * 64, kind="xray", when="prior")
RICH = Sample(
    id="s 1 ",
    patient="p/1",
    study="st",
    date="2021-03-04",
    images=(NOW, THEN),
    messages=(
        Message(role="system", parts=("Be\u2028brief.",)),
        Message(role="user", parts=("旧", 1, "新", 0, "，有积液吗？<image>")),
        Message(role="assistant", parts=("没有",), topic="effusion"),
        Message(role="user", parts=(0, "Sure?")),
        Message(role="assistant", parts=("Yes",)),
    ),
    labels={"effusion": 0, "nodule": 1},
    attributes={"sex": "f", "note": ""},
    references=("No effusion.", "A nodule."),
)
BARE = Sample(
    id="s2",
    patient="image:" + "1" * 64,
    images=(NOW,),
    messages=(Message(role="user", parts=(0, "Report?")), Message(role="assistant", parts=("Clear.",))),
)
PAIR = Preference(
    id="q",
    patient="p",
    images=(NOW,),
    prompt=(Message(role="user", parts=(0, "Is it?")),),
    chosen="Yes.",
    rejected="No.",
    why="wrong_finding",
)
SPOILT = Preference(
    id="r",
    patient="p",
    images=(NOW,),
    prompt=PAIR.prompt,
    chosen="Yes.",
    rejected="Yes.",
    chosen_images=(THEN,),
    rejected_images=Degrade(kind="blur", strength=0.5, seed=3),
)


def data(folder: Path, kind: Any, **splits: list[Any]) -> Prepared:
    """A prepared data set of these records."""
    folder.mkdir()
    write: Any = write_samples if kind == "samples" else write_preferences
    for name, records in splits.items():
        write(folder / f"{name}.parquet", records)
    counts = {name: len(records) for name, records in splits.items()}
    return Prepared(folder=folder, root=folder, kind=kind, counts=counts, rejected=0)


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(chat_jsonl(source, **options)), source.rejected


@pytest.mark.parametrize(
    ("kind", "first", "second"), [("samples", RICH, BARE), ("preferences", PAIR, SPOILT)]
)
def test_what_is_written_is_read_as_it_was(tmp_path: Path, kind: str, first: Any, second: Any) -> None:
    made = data(tmp_path / "data", kind, train=[first], test=[second])
    assert chat_lines.write(made, tmp_path / "out" / "all.jsonl") == 2
    found, rejected = read(tmp_path / "out")
    assert rejected == []
    assert [(record, split) for record, split, _ in found] == [(first, "train"), (second, "test")]
    assert [origin for _, _, origin in found] == ["all.jsonl:1", "all.jsonl:2"]
    chat_lines.write(made, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "out" / "all.jsonl").read_bytes()
    assert chat_lines.write(made, tmp_path / "test.jsonl", ["test"]) == 1


def test_a_line_has_messages_of_parts_and_relative_paths(tmp_path: Path) -> None:
    assert chat_lines.row(BARE, "train") == {
        "id": "s2",
        "split": "train",
        "patient": "image:" + "1" * 64,
        "images": [{"path": "now.png", "sha256": "1" * 64, "kind": "xray"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "index": 0, "path": "now.png"},
                    {"type": "text", "text": "Report?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Clear."}]},
        ],
    }
    assert chat_lines.row(SPOILT)["rejected_images"] == {"kind": "blur", "strength": 0.5, "seed": 3}
    assert chat_lines.row(PAIR)["chosen"] == [
        {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]}
    ]


TURN = {"role": "assistant", "content": "Yes"}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


@pytest.mark.parametrize(
    ("row", "parts", "paths"),
    [
        (
            {"images": ["a.png"], "messages": [{"role": "user", "content": "<image>Is it?"}, TURN]},
            (0, "Is it?"),
            ["a.png"],
        ),
        (
            {"images": ["a.png", {"path": "b.png"}], "messages": [user({"type": "image"}, {"type": "image"}), TURN]},
            (0, 1),
            ["a.png", "b.png"],
        ),
        (
            {"images": ["a.png", "b.png"], "messages": [
                user({"type": "image", "path": "b.png"}, {"type": "image", "index": 0}), TURN]},
            (1, 0),
            ["a.png", "b.png"],
        ),
        (
            {"messages": [user({"type": "image", "image": "x/a.png"}, {"type": "text", "text": "?"}), TURN]},
            (0, "?"),
            ["x/a.png"],
        ),
    ],
)  # fmt: skip
def test_plainer_files_are_read_too(
    tmp_path: Path, row: dict[str, Any], parts: Any, paths: list[str]
) -> None:
    (tmp_path / "valid.jsonl").write_text(json.dumps(row) + "\n")
    ((sample, split, _),), rejected = read(tmp_path)
    assert rejected == []
    assert (sample.messages[0].parts, [r.path for r in sample.images]) == (parts, paths)
    assert (sample.id, split, sample.patient) == ("valid-1", "valid", f"image:{paths[0]}")
    ((below, _, _),), _ = read(tmp_path, images="png")
    assert [r.path for r in below.images] == [f"png/{path}" for path in paths]


GOOD = {"images": ["a.png"], "messages": [user({"type": "image"}), TURN]}


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"messages": "x"}, "messages", "`messages` is no list of messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "a message has no role"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages", "a message's content is no text and no list"),
        ({"messages": [user({"type": "audio"})]}, "messages", "a part is neither text nor image"),
        ({"messages": [user({"type": "image"}, {"type": "image"})]}, "messages", "more image parts than images"),
        ({"messages": [user({"type": "image", "index": 1})]}, "messages", "a part shows an image that is not there"),
        ({"messages": [user({"type": "image", "index": 0, "path": "b.png"})]}, "messages",
         "a part shows an image that is not there"),
        ({"messages": [user({"type": "image", "path": "b.png"})]}, "messages",
         "a part shows an image that is not in `images`"),
        ({"messages": [user({"type": "text", "text": "?"}), TURN]}, "messages", "image places and images do not match"),
        ({"images": "a.png"}, "images", "`images` is no list"),
        ({"images": [{"file": "a.png"}]}, "images", "an image is neither a path nor a mapping with one"),
        ({"labels": {"a": 0.5}}, "labels", "a label is no whole number"),
        ({"attributes": []}, "attributes", "`attributes` is no mapping"),
        ({"references": "x"}, "references", "references are no texts"),
        ({"split": "later"}, "split", "the split is none of train, valid and test"),
        ({"prompt": [user({"type": "image"})], "chosen": "a", "rejected": 3}, "rejected",
         "`rejected` is no list of messages"),
        ({"prompt": [user({"type": "image"})], "chosen": "a", "rejected": "b", "rejected_images": {"kind": 1}},
         "rejected_images", "a side shows neither images nor a degradation"),
        ({"prompt": [user({"type": "image"})], "chosen": "a", "rejected": "a"}, "rejected",
         "the two answers are equal and so are their images"),
    ],
)  # fmt: skip
def test_bad_lines_are_refused(tmp_path: Path, change: dict[str, Any], field: str, reason: str) -> None:
    lines = [GOOD, {**GOOD, "id": "bad", **change}]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found, rejected = read(tmp_path)
    assert len(found) == 1
    assert [(r["file"], r["line"], r["id"], r["field"], r["reason"]) for r in rejected] == [
        ("x.jsonl", 2, "bad", field, reason)
    ]


def test_without_files(tmp_path: Path) -> None:
    for pattern in ("*.jsonl", "../*.jsonl", "/etc/*"):
        with pytest.raises(DataError, match="no file matches below the data root"):
            read(tmp_path, file=pattern)


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    shares = {"train": 0.5, "test": 0.5}
    prepare("phantom", {"patients": 4, "size": 64}, root=None, out=tmp_path / "drawn", seed=0, shares=shares)
    return tmp_path / "drawn"


def export(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["sightline", "data", "export", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_a_data_set_goes_out_with_its_images_and_comes_back(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "chat" / "all.jsonl"
    assert export(monkeypatch, drawn, "--to", "chat_jsonl", "--out", out, "--images") == 0
    assert "image(s) copied; paths start from here" in capsys.readouterr().out
    before = prepared.load(drawn)
    shares = {"train": 0.5, "test": 0.5}
    after = prepare(
        "chat_jsonl", {}, root=out.parent, out=tmp_path / "back", seed=9, shares=shares, by="official"
    )
    assert after.rejected == 0
    for split in ("train", "test"):
        assert list(after.samples(split)) == list(before.samples(split))
    assert export(monkeypatch, drawn, "--out", out, "--images") == 0
    assert " 0 image(s) copied" in capsys.readouterr().out
    Image.new("L", (8, 8)).save(out.parent / before.samples("train")[0].images[0].path)
    assert export(monkeypatch, drawn, "--out", out, "--images") == 1
    assert "another file has the name of an image" in capsys.readouterr().err


def test_without_images_the_root_is_told_and_mistakes_are_explained(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "test.jsonl"
    assert export(monkeypatch, drawn, "--out", out, "--split", "test") == 0
    said = capsys.readouterr().out
    count = prepared.load(drawn).counts["test"]
    assert said.startswith(f"{out}: {count} samples\n")
    assert f"image paths start from {drawn / 'images'}" in said
    assert len(out.read_text().splitlines()) == count
    assert export(monkeypatch, drawn, "--to", "parquet", "--out", out) == 1
    assert "no layout 'parquet'" in capsys.readouterr().err
    assert export(monkeypatch, drawn, "--out", out, "--split", "tset") == 1
    assert "no split 'tset'" in capsys.readouterr().err
    assert len(out.read_text().splitlines()) == count


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Give the signals that a command takes over back to pytest."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
