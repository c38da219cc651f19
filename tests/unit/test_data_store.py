"""Parquet: exact round trips, equal bytes, lazy reading, and no wrong data from a damaged file."""

from __future__ import annotations

import hashlib
import pickle
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sightline.data.store import (
    ROWS,
    Preferences,
    Samples,
    kind_of,
    read_preferences,
    read_samples,
    write_preferences,
    write_samples,
)
from sightline.errors import DataError
from sightline.types import Degrade, ImageRef, Message, Preference, Sample

REFS = (
    ImageRef(path="a/ä.png", sha256="0" * 64, kind="xray"),
    ImageRef(path="b.nii.gz", kind="mri", when="prior", form="volume"),
)
ASK = Message(role="user", parts=("See ", 0, "", 1, " then?"))


def some_sample(i: int = 0, **changed: Any) -> Sample:
    given: dict[str, Any] = {
        "id": f"s{i}", "patient": f"p{i}", "study": "st", "date": "2001-02-03", "images": REFS,
        "messages": (ASK, Message(role="assistant", parts=("Yes\n\u2028",), topic="report")),
        "labels": {"z": 1, "a": 0, "m": -(2**60)}, "attributes": {"b": "", "a": "x"},
        "references": ("", "two"),
    }  # fmt: skip
    return Sample(**{**given, **changed})


def some_pair(i: int = 0, **changed: Any) -> Preference:
    given: dict[str, Any] = {
        "id": f"q{i}", "patient": "p", "images": REFS, "prompt": (ASK,), "chosen": "yes", "rejected": "no"
    }  # fmt: skip
    return Preference(**{**given, **changed})


def test_samples_come_back_exactly(tmp_path: Path):
    bare = Sample(id="x", patient="p", images=(), messages=())
    given = [some_sample(), bare, some_sample(2, references=(), labels={}, attributes={}, study="", date="")]
    assert write_samples(tmp_path / "s.parquet", given) == 3
    found = read_samples(tmp_path / "s.parquet")
    assert found == given
    assert [list(s.labels) for s in found] == [["z", "a", "m"], [], []]
    assert found[0].messages[0].parts == ("See ", 0, "", 1, " then?")


@pytest.mark.parametrize(
    "side",
    [
        None,
        tuple(reversed(REFS)),
        Degrade(kind="replace"),
        Degrade(kind="noise", strength=0.1 + 0.2, seed=2**62),
    ],
)
def test_preferences_come_back_exactly(tmp_path: Path, side: Any):
    given = [some_pair(chosen_images=side), some_pair(1, rejected_images=side, why="degraded")]
    write_preferences(tmp_path / "p.parquet", given)
    assert read_preferences(tmp_path / "p.parquet") == given


@pytest.mark.parametrize("side", [None, ()])
def test_no_images_and_no_other_images_are_told_apart(tmp_path: Path, side: Any):
    told = (Message(role="user", parts=("Is it well?",)),)
    given = [some_pair(images=(), prompt=told, chosen_images=side)]
    write_preferences(tmp_path / "p.parquet", given)
    assert read_preferences(tmp_path / "p.parquet") == given


def test_equal_data_give_equal_bytes(tmp_path: Path):
    given = [some_sample(i) for i in range(300)]
    hashes = set()
    for name in ("a", "b"):
        write_samples(tmp_path / name, iter(given))
        hashes.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(hashes) == 1


def test_reading_is_lazy_and_picklable(tmp_path: Path):
    count = 3 * ROWS + 5
    write_samples(tmp_path / "s", (some_sample(i) for i in range(count)))
    rows = Samples(tmp_path / "s")
    assert len(rows) == count
    assert (rows[0].id, rows[-1].id, rows[ROWS].id) == ("s0", f"s{count - 1}", f"s{ROWS}")
    assert set(rows._groups) == {0, 3, 1}
    assert [s.id for s in rows[ROWS - 1 : ROWS + 1]] == [f"s{ROWS - 1}", f"s{ROWS}"]
    assert pickle.loads(pickle.dumps(rows))[7] == rows[7]
    with pytest.raises(IndexError):
        rows[count]
    assert len(list(rows)) == count


def test_an_empty_file_is_a_file(tmp_path: Path):
    write_samples(tmp_path / "s", [])
    assert read_samples(tmp_path / "s") == []


def test_the_kinds_are_not_confused(tmp_path: Path):
    write_preferences(tmp_path / "p.parquet", [some_pair()])
    assert kind_of(tmp_path / "p.parquet") == "preferences"
    assert len(Preferences(tmp_path / "p.parquet")) == 1
    with pytest.raises(DataError, match="the file holds preferences, not samples"):
        read_samples(tmp_path / "p.parquet")


def test_strange_files_are_named(tmp_path: Path):
    pq.write_table(pq.read_table(_written(tmp_path)).select(["id"]), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match="not a data set of this program"):
        Samples(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="the file is damaged"):
        Samples(tmp_path / "text.parquet")
    with pytest.raises(DataError, match="run the `prepare` stage first"):
        Samples(tmp_path / "absent.parquet")


def test_a_value_that_does_not_fit_names_the_records(tmp_path: Path):
    with pytest.raises(DataError, match="records s0 to s0") as caught:
        write_samples(tmp_path / "s", [some_sample(labels={"a": 0.5})])
    assert "integer labels" in caught.value.expected


def test_a_flipped_bit_is_never_read_as_other_data(tmp_path: Path):
    """reliability.md 2.4: without page checksums 65 % of such files gave wrong data."""
    given = [some_sample(i) for i in range(20)]
    path = tmp_path / "s.parquet"
    write_samples(path, given)
    sound, rng, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        broken = bytearray(sound)
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            assert read_samples(path) == given
        except DataError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, keep: float):
    path = _written(tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(DataError, match="damaged"):
        read_samples(path)


def _written(folder: Path) -> Path:
    write_samples(folder / "w.parquet", [some_sample(i) for i in range(20)])
    return folder / "w.parquet"
