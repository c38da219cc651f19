"""The AMBER reader, and how its samples are scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sightline import judging
from sightline.data import prepare
from sightline.data.readers.amber import amber
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.types import Prediction
from small_amber import DESCRIBE, asked, described, pictures, write


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two descriptions and three questions."""
    folder = write(
        tmp_path / "raw", described(["sky", "man", "man"], ["cat"]), described(["TV"], ["sky", "tree"]),
        asked("discriminative-hallucination", "no"), asked("discriminative-attribute-state", "yes"),
        asked("relation", "no"),
    )  # fmt: skip
    pictures(folder, DESCRIBE, DESCRIBE, "Is there a cat?", "Is the sky blue?", "Is the man on the TV?")
    return folder


def read(root: Path, **options: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    source = Source(root=root, seed=0, images=root)
    return list(amber(source, **options)), source.rejected


def test_a_query_is_a_sample(root: Path):
    found, rejected = read(root)
    assert rejected == []
    assert [(s.id, split, origin) for s, split, origin in found] == [
        ("amber-00001", "test", "query_generative.json:1"), ("amber-00002", "test", "query_generative.json:1"),
        ("amber-00003", "test", "query_discriminative.json:1"), ("amber-00004", "test", "query_discriminative.json:1"),
        ("amber-00005", "test", "query_discriminative.json:1"),
    ]  # fmt: skip
    by_id = {s.id: s for s, _, _ in found}
    one, three = by_id["amber-00001"], by_id["amber-00003"]
    assert one.messages[0].parts == (0, DESCRIBE)
    assert one.messages[1].parts == ("Objects: sky, man, man. Absent: cat.",)
    assert (one.messages[1].topic, one.patient) == ("generative", "image:image/AMBER_1.jpg")
    assert (three.messages[1].parts, three.messages[1].topic) == (("No",), "discriminative-hallucination")
    assert three.attributes == {"type": "discriminative-hallucination"}
    assert by_id["amber-00004"].messages[1].text == "Yes"


def test_tasks_folders_and_instructions(root: Path):
    assert [s.id for s, _, _ in read(root, tasks="generative")[0]] == ["amber-00001", "amber-00002"]
    found, _ = read(root, tasks="discriminative", instruction=" Answer with Yes or No.", images="pictures")
    assert [s.messages[0].text for s, _, _ in found] == [
        "Is there a cat? Answer with Yes or No.", "Is the sky blue? Answer with Yes or No.",
        "Is the man on the TV? Answer with Yes or No.",
    ]  # fmt: skip
    assert found[0][0].images[0].path == "pictures/AMBER_3.jpg"


def test_the_layout_of_the_repository(root: Path):
    (root / "data" / "query").mkdir(parents=True)
    for name in ("annotations.json", "relation.json", "safe_words.txt"):
        (root / name).rename(root / "data" / name)
    rows = [row for p in root.glob("query_*.json") for row in json.loads(p.read_text())]
    for name in ("query_generative", "query_discriminative"):
        (root / f"{name}.json").rename(root / "data" / "query" / f"{name}.json")
    (root / "data/query/query_discriminative-relation.json").write_text(json.dumps(rows[:1]))
    assert len(read(root)[0]) == 5
    (root / "data/query/query_all.json").write_text(json.dumps(rows))
    found, _ = read(root)
    assert len(found) == 5
    assert {origin.partition(":")[0] for _, _, origin in found} == {"query_all.json"}


def test_rows_that_do_not_fit_are_refused(root: Path):
    bad = [
        {"id": 77, "image": "a.jpg", "query": "Is it?"},
        {"id": 3, "query": "Is it?"},
        {"id": 4, "image": "a.jpg"},
    ]
    (root / "query_discriminative.json").write_text("[\n" + ",\n".join(map(json.dumps, bad)) + "\n]")
    found, rejected = read(root)
    assert len(found) == 2
    assert [(r["file"], r["line"], r["id"], r["field"]) for r in rejected] == [
        ("query_discriminative.json", 2, "77", "id"), ("query_discriminative.json", 3, "3", "image"),
        ("query_discriminative.json", 4, "4", "query"),
    ]  # fmt: skip
    for path in root.glob("query_*.json"):
        path.unlink()
    with pytest.raises(DataError, match="no query files"):
        read(root)


def test_prepared_samples_are_scored_with_the_lists_of_the_data_root(root: Path, tmp_path: Path):
    made = prepare.prepare(
        "amber", {}, root=root, out=tmp_path / "out", seed=0, shares={"test": 1.0}, by="official"
    )
    texts = {"amber-00001": "A man below the sky.", "amber-00002": "A cat.", "amber-00003": "No."}
    predictions = [
        Prediction(
            sample=s.id, patient=s.patient, turn=0, topic=s.messages[1].topic, question=s.messages[0].text,
            answer=s.messages[1].text, text=texts.get(s.id, "Yes"),
        )
        for s in made.samples("test")
    ]  # fmt: skip
    options = {"similarity": "trigram", "nouns": "plain"}
    found = judging.measure({("m", "clean"): predictions}, ["vqa", {"amber": options}], made.root)[
        "m", "clean"
    ]
    values = {name: m.value() for name, m in found.items() if name.startswith("amber")}
    # Of three nouns (man, sky, cat) one is made up; sky, man and TV are there, equal names once; one "Yes" is wrong.
    assert values == pytest.approx(
        {
            "amber_chair": 100 / 3, "amber_cover": 200 / 3, "amber_hal": 50.0, "amber_cog": 0.0,
            "amber_accuracy": 200 / 3, "amber_precision": 100.0, "amber_recall": 50.0, "amber_f1": 200 / 3,
            "amber_unparsed": 0.0, "amber_score": (100 - 100 / 3 + 200 / 3) / 2,
        }
    )  # fmt: skip
    assert len(set(found["amber_score"].patients)) == 5
    assert judging.notes({("m", "clean"): found})["m, clean"][2].startswith("corrected: ")
    assert found["accuracy"].value() == pytest.approx(2 / 3)
