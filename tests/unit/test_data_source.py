"""JSON read with limits: what is unsound is refused with its line, the rest is kept."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from sightline.data import source as module
from sightline.data.source import RecordError, Source, clean, describe, json_records, split_name
from sightline.errors import DataError


def read(
    folder: Path, content: str | bytes, name: str = "data.json"
) -> tuple[list[Any], list[tuple[Any, ...]]]:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(data)
    source = Source(root=folder, seed=0, images=folder)
    found = list(json_records(folder / name, source))
    return found, [(r["line"], r["reason"], r["found"]) for r in source.rejected]


def test_a_list_and_lines_give_records_with_lines(tmp_path: Path):
    assert read(tmp_path, '[\n{"a": 1},\n\n{"a":\n 2}]\n') == ([(2, {"a": 1}), (4, {"a": 2})], [])
    lines = '{"a": 1}\n\n{"a": 2}'
    for name in ("data.jsonl", "data.json", "data.ndjson"):
        assert read(tmp_path, lines, name) == ([(1, {"a": 1}), (3, {"a": 2})], [])
    assert read(tmp_path, '\ufeff[{"a": 1}]') == ([(1, {"a": 1})], [])
    assert read(tmp_path, '\ufeff{"a": 1}\n', "data.jsonl") == ([(1, {"a": 1})], [])
    assert read(tmp_path, '{\n"a": 1\n}') == ([(1, {"a": 1})], [])
    assert read(tmp_path, "[]") == ([], [])


def test_only_a_line_feed_ends_a_line(tmp_path: Path):
    """reliability.md 2.5: U+2028 splits `str.splitlines()`."""
    found, rejected = read(tmp_path, '{"a": "x\u2028y\x85z"}\r\n{"a": "w"}\n', "data.jsonl")
    assert ([r["a"] for _, r in found], rejected) == (["x\u2028y\x85z", "w"], [])


@pytest.mark.parametrize("cut", range(2, 40))
def test_of_a_cut_list_every_complete_record_is_kept(tmp_path: Path, cut: int):
    text = '[{"a": "x]y"},\n{"a": "\\"}"},\n{"a": [1, {}]}]'
    ends = [text.index("}," + "\n") + 1, text.index("},\n", 15) + 1, len(text) - 1]
    found, rejected = read(tmp_path, text[:cut])
    assert len(found) == sum(end <= cut for end in ends)
    assert len(rejected) == (cut < len(text))
    assert all("the file is cut off" in reason for _, reason, _ in rejected)
    assert all(line == text[:cut].rstrip("\n").count("\n") + 1 or line <= 3 for line, _, _ in rejected)


def test_a_cut_names_its_line_and_the_remedy(tmp_path: Path):
    (tmp_path / "cut.json").write_text('[{"id": "a"},\n{"id": "b"},\n{"id": "c", "conv')
    source = Source(root=tmp_path, seed=0, images=tmp_path)
    assert [r["id"] for _, r in json_records(tmp_path / "cut.json", source)] == ["a", "b"]
    assert source.rejected == [
        {
            "file": "cut.json", "line": 3, "id": "", "field": "", "found": "",
            "reason": "the file is cut off in the middle of a record",
            "remedy": "the records before this line were kept; fetch or repair the file",
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("bad", "reason", "found"),
    [
        ('{"a": NaN}', "the record is not sound JSON", "NaN is no JSON number"),
        ('{"a": -Infinity}', "the record is not sound JSON", "-Infinity is no JSON number"),
        ('{"a": 1e999}', "the record is not sound JSON", "the number 1e999 is too large"),
        ('{"a": 1, "a": 2}', "the record is not sound JSON", "the key 'a' stands twice in one record"),
        ('{"a": 1,}', "the record is not sound JSON", "(line 2)"),
        ("{'a': 1}", "the record is not sound JSON", "(line 2)"),
        ('{"a": ' + "[" * 80 + "]" * 80 + "}", "the record is nested too deeply", "more than 64 levels"),
        ('{"a": ' + "[" * 9000 + "]" * 9000 + "}", "the record is nested too deeply", "more than 64 levels"),
        ('{"a": "\\ud800"}', "the record holds bytes that are not UTF-8", ""),
        ('"text"', "a record is not a JSON object", "a text of 4 characters"),
        ("7", "a record is not a JSON object", "7 (int)"),
        ("nonsense", "the record is not sound JSON", "(line 2)"),
        ("[1]", "a record is not a JSON object", "a list of 1 entries"),
    ],
)
def test_one_unsound_record_costs_one_record(tmp_path: Path, bad: str, reason: str, found: str):
    """reliability.md 2.5: NaN, duplicate keys, nesting, lone surrogates."""
    for name, text in (
        ("d.json", f'[{{"n": 1}},\n{bad},\n{{"n": 2}}]'),
        ("d.jsonl", f'{{"n": 1}}\n{bad}\n{{"n": 2}}'),
    ):
        records, rejected = read(tmp_path, text, name)
        assert [r for _, r in records] == [{"n": 1}, {"n": 2}]
        assert [(line, why) for line, why, _ in rejected] == [(2, reason)]
        assert found in rejected[0][2]


def test_bytes_that_are_not_utf8(tmp_path: Path):
    for name, text in (("d.json", b'[{"n": "\xff"},{"n": 2}]'), ("d.jsonl", b'{"n": "\xff"}\n{"n": 2}')):
        records, rejected = read(tmp_path, text, name)
        assert [r for _, r in records] == [{"n": 2}]
        assert rejected == [(1, "the record holds bytes that are not UTF-8", "")]


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("", "d.json", "the file is empty"),
        (" \n", "d.json", "the file is empty"),
        ("\n", "d.jsonl", "the file is empty"),
        ('[{"n": 1} {"n": 2}]', "d.json", "the list is not sound JSON: a comma is missing"),
        ('[{"n": 1}] [', "d.json", "the file goes on after the end of its list"),
        ('{"n":\n1} x', "d.json", "the file goes on after the end of its object"),
        ('{"n": 1} {"n": 2}\n', "d.jsonl", "the line goes on after its record"),
        ('{"n": 1}\n{"n": ', "d.jsonl", "the file is cut off in the middle of a record"),
    ],
)
def test_unsound_files(tmp_path: Path, text: str, name: str, reason: str):
    assert [why for _, why, _ in read(tmp_path, text, name)[1]] == [reason]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "d.json").write_text('[{"n": 1}]')
    source = Source(root=tmp_path, seed=0, images=tmp_path)
    with pytest.raises(DataError, match="write it as JSON lines"):
        list(json_records(tmp_path / "d.json", source, max_bytes=5))
    with pytest.raises(DataError, match="no such file"):
        list(json_records(tmp_path / "absent.json", source))
    monkeypatch.setattr(module, "MAX_LINE", 20)
    records, rejected = read(tmp_path, '{"n": "' + "x" * 90 + '"}\n{"n": 2}\n', "d.jsonl")
    assert ([r for _, r in records], rejected[0][:2]) == ([{"n": 2}], (1, "the line is too long"))


def test_a_strict_source_raises_with_the_place():
    source = Source(root=None, seed=0, images=Path("."), strict=True)
    with pytest.raises(DataError) as caught:
        source.reject("a.json", 7, "r1", "image", "it is missing", "nothing", "add it")
    assert caught.value.block().splitlines() == [
        "data: it is missing",
        "  where:    a.json, line 7, record r1, field image",
        "  found:    nothing",
        "  remedy:   add it",
    ]


def test_refusals_of_errors_keep_their_field():
    source = Source(root=None, seed=0, images=Path("."))
    source.reject_error("a", 1, "x", RecordError("bad", field="image"))
    source.reject_error("a", 1, "x", DataError("bad", where="record x, field messages", expected="good"))
    assert [(r["field"], r["remedy"]) for r in source.rejected] == [
        ("image", ""),
        ("messages", "expected good"),
    ]


def test_words():
    names = ("radiology_train", "val", "iu_test.v2", "trainset", "testing", "latest", "")
    assert [split_name(w) for w in names] == [
        "train", "valid", "test", "train", "test", None, None
    ]  # fmt: skip
    assert clean("a\ud800\nb" + "x" * 400, 10) == "a??bxxx..."
    assert describe(["a"]) == "a list of 1 entries"
    assert io.StringIO(clean("\u202e")).read() == "?"
