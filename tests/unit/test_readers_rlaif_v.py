"""The RLAIF-V reader, on small shards that are written here."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline import images, plugins, recipe
from sightline.data.prepare import load
from sightline.data.readers import rlaif_v as module
from sightline.data.readers.rlaif_v import rlaif_v
from sightline.data.source import Source
from sightline.data.split import images as shown
from sightline.errors import DataError, RecipeError
from sightline.stages import execute
from sightline.types import Message

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXTS = ("ds_name", "question", "chosen", "rejected", "origin_dataset", "origin_split", "idx", "image_path")
SCHEMA = pa.schema([("image", IMAGE), *((name, pa.string()) for name in TEXTS)])


def picture(seed: int, form: str = "PNG") -> bytes:
    packed = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(packed, format=form)
    return packed.getvalue()


def row(i: int, **changed: Any) -> dict[str, Any]:
    """A row as in originals.md 5.2; `path` lies about the type on purpose."""
    plain = {
        "ds_name": "RLAIF-V",
        "image": {"bytes": picture(i), "path": f"../llava1.5_7b/{i}.gif"},
        "question": f"What is shown in picture {i}?",
        "chosen": "A grey square.",
        "rejected": "A red circle.",
        "origin_dataset": "LCS-558K",
        "origin_split": '{"model": "llava15-7b-chat", "type": "detailed description"}',
        "idx": str(i),
        "image_path": f"/their/folder/{i}.jpg",
    }
    return {**plain, **changed}


def write(path: Path, rows: list[dict[str, Any]], schema: pa.Schema = SCHEMA, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **how)


def read(folder: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=folder, seed=0, images=folder / "out" / "images")
    found = list(rlaif_v(source, **options))
    return found, source.rejected


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "out" / "images").iterdir())


def test_two_shards_are_read_in_the_order_of_their_names(tmp_path: Path):
    write(tmp_path / "RLAIF-V-Dataset_001.parquet", [row(2)])
    write(tmp_path / "RLAIF-V-Dataset_000.parquet", [row(0, question=" Why?\n"), row(1)])
    (tmp_path / "README.md").write_text("no shard")
    (tmp_path / "folder.parquet").mkdir()
    found, rejected = read(tmp_path)
    assert rejected == []
    assert [(r.id, split, origin) for r, split, origin in found] == [
        ("RLAIF-V/0", None, "RLAIF-V-Dataset_000.parquet:1"),
        ("RLAIF-V/1", None, "RLAIF-V-Dataset_000.parquet:2"),
        ("RLAIF-V/2", None, "RLAIF-V-Dataset_001.parquet:1"),
    ]
    first = found[0][0]
    assert first.prompt == (Message(role="user", parts=(0, "Why?")),)
    assert (first.chosen, first.rejected, first.why) == ("A grey square.", "A red circle.", "rlaif_v")
    assert (first.chosen_images, first.rejected_images) == (None, None)
    assert first.patient == f"image:{first.images[0].path}"


def test_one_file_can_be_named(tmp_path: Path):
    write(tmp_path / "a.parquet", [row(0)])
    write(tmp_path / "b.parquet", [row(1)])
    found, _ = read(tmp_path, file="b.parquet")
    assert [r.id for r, _, _ in found] == ["RLAIF-V/1"]


def test_an_image_is_a_file_named_after_its_bytes(tmp_path: Path):
    png, jpeg = picture(1), picture(1, "JPEG")
    given = [("0", png), ("1", jpeg), ("2", png)]
    write(tmp_path / "a.parquet", [row(1, idx=i, image={"bytes": b, "path": "x.gif"}) for i, b in given])
    found, _ = read(tmp_path)
    hashes = [hashlib.sha256(b).hexdigest() for b in (png, jpeg, png)]
    refs = [r.images[0] for r, _, _ in found]
    assert [ref.path for ref in refs] == [f"{hashes[0]}.png", f"{hashes[1]}.jpg", f"{hashes[2]}.png"]
    assert [ref.sha256 for ref in refs] == hashes
    assert files(tmp_path) == sorted({ref.path for ref in refs})
    assert (tmp_path / "out/images" / refs[1].path).read_bytes() == jpeg


def test_an_image_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []
    plain = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda path, data: (written.append(path.name), plain(path, data))
    )
    one = row(7)["image"]
    write(tmp_path / "a.parquet", [row(i, image=one) for i in range(3)] + [row(3)])
    found, _ = read(tmp_path)
    assert len(found) == 4
    assert written == [found[0][0].images[0].path, found[3][0].images[0].path]


def test_an_image_may_stand_below_the_folder(tmp_path: Path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.tif").write_bytes(picture(5, "JPEG"))
    rows = [
        row(0, image={"bytes": None, "path": "x/a.tif"}),
        row(1, image={"bytes": None, "path": "x/b.png"}),
    ]
    write(tmp_path / "a.parquet", rows)
    write(tmp_path / "b.parquet", [row(2, image={"path": "x/a.tif"})], SCHEMA.set(
        0, pa.field("image", pa.struct([("bytes", pa.null()), ("path", pa.string())]))
    ))  # fmt: skip
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/0", "RLAIF-V/2"]
    assert files(tmp_path) == [hashlib.sha256(picture(5, "JPEG")).hexdigest() + ".jpg"]
    assert [(r["line"], r["id"], r["field"], r["reason"]) for r in rejected] == [
        (2, "1", "image", "the image file is missing")
    ]


SECRET = "secret words of a patient"
BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no image": ({"image": None}, "image", "the row holds no image: neither bytes nor a path"),
    "no bytes": ({"image": {"bytes": b"", "path": "a.png"}}, "image", "the image holds no bytes"),
    "neither": (
        {"image": {"bytes": None, "path": " "}}, "image", "the row holds no image: neither bytes nor a path"
    ),
    "outside": ({"image": {"bytes": None, "path": "../a.png"}}, "image", "the image path holds '..'"),
    "a link": ({"image": {"bytes": None, "path": "http://x/a.png"}}, "image", "the image path is a URL"),
    "too large": ({"image": {"bytes": None, "path": "large.png"}}, "image", "the image file is too large"),
    "a GIF": ({"image": {"bytes": b"GIF89a" + b"\0" * 40}}, "image", "the image is neither PNG nor JPEG"),
    "a text": ({"image": {"bytes": SECRET.encode()}}, "image", "the image is neither PNG nor JPEG"),
    "no question": ({"question": " \n"}, "question", "`question` is empty or no text"),
    "no chosen": ({"chosen": ""}, "chosen", "`chosen` is empty or no text"),
    "no rejected": ({"rejected": None}, "rejected", "`rejected` is empty or no text"),
    "equal": ({"chosen": SECRET, "rejected": SECRET + " "}, "rejected", "the two answers are equal"),
    "no idx": ({"idx": ""}, "idx", "the row has no idx"),
    "again": ({"idx": "0"}, "idx", "duplicate idx: an earlier row of this ds_name has it too"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_set_aside_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str):
    changed, field, reason = BAD[case]
    (tmp_path / "large.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 5000)
    monkeypatch.setattr(module, "MAX_BYTES", 5000)
    write(tmp_path / "a.parquet", [row(0)])
    write(tmp_path / "b.parquet", [row(1), row(2, **changed), row(3)])
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/0", "RLAIF-V/1", "RLAIF-V/3"]
    (bad,) = rejected
    assert (bad["file"], bad["line"], bad["field"], bad["reason"]) == ("b.parquet", 2, field, reason)
    assert bad["id"] == changed.get("idx", "2")
    assert SECRET not in json.dumps(rejected)
    assert str(tmp_path) not in json.dumps(rejected)
    assert len(files(tmp_path)) == 3


def test_an_idx_counts_within_its_ds_name(tmp_path: Path):
    write(tmp_path / "a.parquet", [row(0), row(0, ds_name="other"), row(0, ds_name=None)])
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/0", "other/0", "rlaif_v/0"]
    assert rejected == []


def test_the_idx_of_a_refused_row_is_free(tmp_path: Path):
    write(tmp_path / "a.parquet", [row(0, chosen=""), row(0)])
    found, rejected = read(tmp_path)
    assert [origin for _, _, origin in found] == ["a.parquet:2"]
    assert [r["reason"] for r in rejected] == ["`chosen` is empty or no text"]


def test_texts_that_are_none(tmp_path: Path):
    """A number as idx is taken; bytes that are no UTF-8, and answers of another type, are refused unseen."""
    ints = SCHEMA.set(SCHEMA.get_field_index("idx"), pa.field("idx", pa.int64()))
    write(tmp_path / "a.parquet", [row(0, idx=12)], ints)
    raw = SCHEMA.set(SCHEMA.get_field_index("chosen"), pa.field("chosen", pa.binary()))
    write(tmp_path / "b.parquet", [row(1, chosen=SECRET.encode())], raw)
    table = pa.Table.from_pylist([row(2, question=b"\xff\xfe" + SECRET.encode())], schema=SCHEMA.set(
        SCHEMA.get_field_index("question"), pa.field("question", pa.binary())
    ))  # fmt: skip
    at = table.schema.get_field_index("question")
    cast = pa.Array.from_buffers(pa.string(), 1, table.column("question").chunk(0).buffers())
    pq.write_table(table.set_column(at, "question", cast), tmp_path / "c.parquet")
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/12"]
    assert [(r["file"], r["field"], r["found"]) for r in rejected] == [
        ("b.parquet", "chosen", "binary"), ("c.parquet", "question", "string, no UTF-8")
    ]  # fmt: skip


def test_a_shard_without_a_column_is_refused_once(tmp_path: Path):
    write(tmp_path / "a.parquet", [row(0)])
    for name in ("chosen", "idx"):
        short = SCHEMA.remove(SCHEMA.get_field_index(name))
        write(tmp_path / f"b_{name}.parquet", [row(1), row(2)], short)
    write(tmp_path / "c.parquet", [row(3)])
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/0", "RLAIF-V/3"]
    assert [(r["file"], r["line"], r["field"], r["reason"]) for r in rejected] == [
        ("b_chosen.parquet", 0, "chosen", "the shard lacks columns, or has them twice: chosen"),
        ("b_idx.parquet", 0, "idx", "the shard lacks columns, or has them twice: idx"),
    ]
    assert "question" in rejected[0]["found"]


@pytest.mark.parametrize("damage", ["cut", "text", "empty"])
def test_a_shard_that_is_no_parquet_does_not_stop_the_others(tmp_path: Path, damage: str):
    for i, name in enumerate("abc"):
        write(tmp_path / f"{name}.parquet", [row(i)])
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes({"cut": whole[:-100], "text": b"# README", "empty": b""}[damage])
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/0", "RLAIF-V/2"]
    assert [(r["file"], r["line"], r["reason"]) for r in rejected] == [
        ("b.parquet", 0, "the shard is no Parquet file, or it is cut off or damaged")
    ]


def damaged(path: Path, rows: int, where: bytes) -> None:
    """A shard of one row group and small pages, with a flipped bit where some bytes stand last."""
    write(path, [row(i) for i in range(rows)], write_batch_size=1, data_page_size=1, use_dictionary=False,
          compression="none", write_page_checksum=True, write_statistics=False)  # fmt: skip
    content = bytearray(path.read_bytes())
    content[content.rindex(where) + len(where) // 2] ^= 1
    path.write_bytes(content)


def test_columns_that_are_not_needed_are_not_read(tmp_path: Path):
    damaged(tmp_path / "a.parquet", 3, b"/their/folder/1.jpg")
    found, rejected = read(tmp_path)
    assert (len(found), rejected) == (3, [])
    with pytest.raises(OSError, match="CRC"):
        pq.ParquetFile(tmp_path / "a.parquet", page_checksum_verification=True).read(["image_path"])


def test_rows_before_a_damaged_page_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "ROWS", 4)
    damaged(tmp_path / "a.parquet", 10, picture(9))
    write(tmp_path / "b.parquet", [row(20)])
    found, rejected = read(tmp_path)
    assert [r.id for r, _, _ in found] == [f"RLAIF-V/{i}" for i in (*range(8), 20)]
    assert [(r["file"], r["line"], r["reason"]) for r in rejected] == [
        ("a.parquet", 9, "the shard is damaged: this row and what follows cannot be read")
    ]


def test_a_limit_stops_before_the_next_batch_and_the_next_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "ROWS", 4)
    damaged(tmp_path / "a.parquet", 10, picture(9))
    (tmp_path / "b.parquet").write_bytes(b"no Parquet")
    opened: list[str] = []
    plain = pq.ParquetFile

    def spy(path: Path, **how: Any) -> pq.ParquetFile:
        opened.append(path.name)
        return plain(path, **how)

    monkeypatch.setattr(pq, "ParquetFile", spy)
    found, rejected = read(tmp_path, limit=3)
    assert ([r.id for r, _, _ in found], rejected) == (["RLAIF-V/0", "RLAIF-V/1", "RLAIF-V/2"], [])
    assert (opened, len(files(tmp_path))) == (["a.parquet"], 3)
    assert len(read(tmp_path, limit=0)[1]) == 2
    assert opened == ["a.parquet", "a.parquet", "b.parquet"]


def test_a_limit_counts_good_pairs(tmp_path: Path):
    write(tmp_path / "a.parquet", [row(0, question=""), row(1), row(2, chosen=""), row(3), row(4)])
    found, rejected = read(tmp_path, limit=2)
    assert [r.id for r, _, _ in found] == ["RLAIF-V/1", "RLAIF-V/3"]
    assert [r["line"] for r in rejected] == [1, 3]


@pytest.mark.parametrize(
    "how", [{"row_group_size": 4}, {"write_batch_size": 1, "data_page_size": 1}], ids=str
)
def test_a_shard_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, int]):
    """64 x 100 kB: reading ahead would hold all row groups, reading without a buffer a whole row group."""
    monkeypatch.setattr(module, "ROWS", 4)
    rows = [row(i, image={"bytes": picture(i) + bytes(100_000), "path": ""}) for i in range(64)]
    write(tmp_path / "a.parquet", rows, compression="none", use_dictionary=False, **how)
    del rows
    before, most = pa.total_allocated_bytes(), 0
    source = Source(root=tmp_path, seed=0, images=tmp_path / "out" / "images")
    for _ in rlaif_v(source):
        most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 20 * 100_000


def test_options_are_checked(tmp_path: Path):
    assert plugins.options("readers", "rlaif_v") == {"file": (str, "*.parquet"), "limit": (int, 0)}
    with pytest.raises(DataError, match="no Parquet shards are there"):
        read(tmp_path)
    with pytest.raises(DataError, match="files of the data root itself"):
        read(tmp_path, file="../a.parquet")
    with pytest.raises(RecipeError, match="`limit` is negative"):
        read(tmp_path, limit=-1)
    with pytest.raises(DataError, match="the data root is not a folder"):
        list(rlaif_v(Source(root=None, seed=0, images=tmp_path)))


def run(tmp_path: Path, **changed: Any) -> Path:
    section = {"stage": "prepare", "reader": "rlaif_v", "root": str(tmp_path / "raw"), "max_bad": 0.5}
    document = {"name": "small", "stages": {"data": {**section, **changed}}}
    return execute(recipe.check(document, "here"), tmp_path / "runs", say=lambda _: None)["data"]


def test_the_whole_stage(tmp_path: Path):
    """Three pairs an image; three rows of one damaged picture, an idx that one of them had, a bad shard."""
    broken = {"bytes": picture(1)[:300], "path": ""}
    good = [row(i, image=row(100 + i // 3)["image"]) for i in range(30)]
    write(tmp_path / "raw/a.parquet", good[:20])
    write(tmp_path / "raw/b.parquet", [*(row(i, image=broken) for i in (50, 51, 52)), *good[20:], row(50)])
    (tmp_path / "raw/c.parquet").write_bytes(b"PAR1")
    folder = run(tmp_path)
    made = load(folder)
    assert (made.kind, made.rejected, sum(made.counts.values())) == ("preferences", 4, 31)
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [(r["file"], r["line"], r["id"], r["field"]) for r in rejected] == [
        ("b.parquet", 1, "RLAIF-V/50", "image"), ("b.parquet", 2, "RLAIF-V/51", "image"),
        ("b.parquet", 3, "RLAIF-V/52", "image"), ("c.parquet", 0, "", ""),
    ]  # fmt: skip
    assert rejected[0]["reason"] == "the image file is truncated"
    splits = {name: list(made.preferences(name)) for name in made.counts}
    assert sorted(p.id for held in splits.values() for p in held) == sorted(
        f"RLAIF-V/{i}" for i in (*range(30), 50)
    )
    patients = {name: {p.patient for p in held} for name, held in splits.items()}
    assert len(set.union(*patients.values())) == sum(map(len, patients.values())) == 11
    assert {ref.path for held in splits.values() for p in held for ref in shown(p)} == {
        p.name for p in (folder / "images").iterdir()
    }
    for pair in splits["train"]:
        assert pair.patient == f"image:{pair.images[0].sha256}"
        assert images.read(made.root, pair.images[0]).shape == (24, 24, 3)
    assert set(json.loads((folder / "dataset.json").read_text())["answers"]) == {
        "rlaif_v chosen", "rlaif_v rejected"
    }  # fmt: skip
    moved = folder.rename(tmp_path / "moved")
    assert load(moved).root == moved / "images"


def test_a_limit_of_the_stage_leaves_out_what_cannot_be_decoded(tmp_path: Path):
    broken = {"bytes": picture(1)[:300], "path": ""}
    write(tmp_path / "raw/a.parquet", [row(0, image=broken), *(row(i) for i in range(1, 9))])
    made = load(run(tmp_path, limit=5))
    assert (sum(made.counts.values()), made.rejected) == (5, 1)
    assert len(list((made.folder / "images").iterdir())) == 5
