"""`sightline data stats`: every number of a data set that was counted by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline import cli
from sightline.cli.stats import bar, text
from sightline.data import prepare
from sightline.data.census import census, lengths, spread

ROWS = [
    ("p1", "F", "61", "a.png", "Is there a nodule?", "Yes", "nodule", 1),
    ("p1", "F", "61", "b.png", "Is there a nodule?", "No", "nodule", 0),
    ("p2", "M", "45", "c.png", "Is there a nodule?", "no.", "nodule", 0),
    ("p3", "M", "70", "d.png", "Where is the lesion?", "in the left upper lobe", "place", 0),
]


def record(i: int, row: tuple[Any, ...]) -> dict[str, Any]:
    patient, sex, age, image, question, answer, topic, label = row
    return {
        "id": f"s{i}", "patient": patient, "images": [image], "attributes": {"sex": sex, "age": age},
        "labels": {"nodule": label},
        "messages": [
            {"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer, "topic": topic},
        ],
    }  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> prepare.Prepared:
    root = tmp_path_factory.mktemp("census")
    raw = root / "raw"
    raw.mkdir()
    for i, row in enumerate(ROWS):
        Image.new("L", (20 + 4 * (i == 3), 10), 10 * i).save(raw / row[3])
    (raw / "chat.jsonl").write_text("".join(json.dumps(record(i, r)) + "\n" for i, r in enumerate(ROWS)))
    return prepare.prepare(
        "chat_jsonl", {"file": "chat.jsonl"}, root=raw, out=root / "data", seed=0, shares={"train": 1.0}
    )


def test_every_count(data: prepare.Prepared) -> None:
    found = census(data)
    assert found["splits"]["train"] == {
        "records": 4, "patients": 3, "unknown_patients": 0, "images": 4, "turns": 4,
    }  # fmt: skip
    assert found["attributes"]["sex"]["train"] == {"M": 2, "F": 1}  # people, not records
    assert found["attributes"]["age"]["train"] == {"61": 1, "45": 1, "70": 1}
    assert found["topics"] == {"nodule": {"train": 3}, "place": {"train": 1}}
    assert found["findings"]["nodule"]["train"] == {"known": 4, "present": 1, "share": 0.25}
    assert found["lengths"]["questions"]["train"] == {"n": 4, "mean": 3.0, "median": 3.0, "p95": 3, "most": 3}
    common = found["commonest"]["train"]
    assert common["answers"][0] == {"answer": "no", "count": 2, "share": 0.5}
    assert (common["of_all"], common["of_topics"]) == (0.5, 0.75)
    assert common["yes_no"] == {"n": 3, "yes": 1, "share": pytest.approx(2 / 3, abs=1e-4)}
    assert common["topics"]["place"] == {"n": 1, "answer": "in left upper lobe", "share": 1.0}
    pictures = found["images"]
    assert pictures["different"] == 4
    assert pictures["sizes"] == {"different": 2, "commonest": {"20x10": 3, "24x10": 1}}
    assert pictures["width"] == {"n": 4, "least": 20, "median": 20, "most": 24}
    assert pictures["stored"] == {"1 channel(s) of 8 bits": 4}
    assert pictures["files"] == {"png": 4}


def test_many_values_become_a_range_and_free_text_is_left_out() -> None:
    from sightline.data.census import attributes
    from sightline.types import Message, Sample

    turns = (Message(role="user", parts=("?",)), Message(role="assistant", parts=("!",)))
    samples = [
        Sample(
            id=str(i), patient=f"p{i}", images=(), messages=turns,
            attributes={"age": str(20 + i), "note": f"text {i}", "site": "ab"[i % 2]},
        )
        for i in range(20)
    ]  # fmt: skip
    found = attributes({"train": samples, "test": []})
    assert found["age"] == {"train": {"n": 20, "least": 20, "median": 29.5, "most": 39}, "test": {"n": 0}}
    assert found["site"]["train"] == {"a": 10, "b": 10}
    assert "note" not in found


def test_lengths_and_ranges_by_hand() -> None:
    assert lengths(["one two", "one", "one two three four"]) == {
        "n": 3,
        "mean": 2.33,
        "median": 2,
        "p95": 4,
        "most": 4,
    }
    assert lengths(["双肺清晰"]) == {"n": 1, "mean": 4.0, "median": 4, "p95": 4, "most": 4}
    assert lengths([]) == spread([]) == {"n": 0}


def test_bars() -> None:
    assert bar(1.0) == "████████████ 100.0 %"
    assert bar(0.5) == "██████        50.0 %"
    assert bar(0.0) == "               0.0 %"
    assert bar(None) == ""


def test_the_command(data: prepare.Prepared, monkeypatch: Any, capsys: Any) -> None:
    for words in (["--json"], []):
        monkeypatch.setattr(sys, "argv", ["sightline", "data", "stats", str(data.folder), *words])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert not caught.value.code
        out = capsys.readouterr().out
        if words:
            assert json.loads(out)["splits"]["train"]["patients"] == 3
    assert out == text(census(data), data.folder) + "\n"
    assert (
        "one answer to everything: 50.0 %; one for each topic: 75.0 %; on the 3 yes/no questions: 66.7 %"
        in out
    )
    assert "  nodule  ███           25.0 %" in out
    assert "width 20 to 24 (median 20), height 10 to 10 (median 10)" in out
    assert all(line == line.rstrip() for line in out.split("\n"))


def test_preferences(tmp_path: Path) -> None:
    from sightline.data.store import write_preferences
    from sightline.types import Message, Preference

    asked = (Message(role="user", parts=("Is there a nodule?",)),)
    pairs = [
        Preference(id=str(i), patient="p", images=(), prompt=asked, chosen="Yes", rejected="No", why=why)
        for i, why in enumerate(("degraded", "wrong_finding", "degraded"))
    ]
    write_preferences(tmp_path / "train.parquet", pairs)
    made = prepare.Prepared(
        folder=tmp_path, root=tmp_path, kind="preferences", counts={"train": 3}, rejected=0
    )
    found = census(made)
    assert found["why"] == {"degraded": {"train": 2}, "wrong_finding": {"train": 1}}
    assert found["topics"] == {"chosen": {"train": 3}, "rejected": {"train": 3}}
    assert "how the pairs were made" in text(found, tmp_path)
