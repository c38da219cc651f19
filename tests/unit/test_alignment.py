"""MMed-RAG's preference JSON: exact fields, and back through the reader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sightline.data import alignment
from sightline.data.readers.llava_json import llava_json
from sightline.data.source import Source
from sightline.errors import DataError
from sightline.types import Degrade, ImageRef, Message, Preference

NOISE = Degrade(kind="replace")
ONE = ImageRef(path="x/a.png")
TWO = ImageRef(path="x/b.png")


def pair(name: str, prompt: tuple[Message, ...], images: tuple[ImageRef, ...] = (ONE,)) -> Preference:
    return Preference(
        id=name, patient="p", images=images, prompt=prompt, chosen="Yes", rejected="No", why="noised"
    )


def user(*parts: str | int) -> Message:
    return Message(role="user", parts=parts)


PAIRS = [
    pair("plain", (user(0, "Is there a nodule?"),)),
    replace(pair("noised", (user(0, "Is there a nodule?"),)), rejected="Yes", rejected_images=NOISE),
    pair("behind", (user("Is there one?", 0),)),
    pair("within", (user("First ", 0, " and then?"),)),
    pair("two", (user(0, 1, "Any change?\nSay it."),), (ONE, TWO)),
    pair(
        "turns",
        (
            Message(role="system", parts=("Be brief.",)),
            user(0, "Is there an effusion?"),
            Message(role="assistant", parts=("No",)),
            user("A nodule?"),
        ),
    ),
    pair("breaks", (user(0, "\nLines\n\nkept\n"),)),
]


def test_the_fields_are_those_of_the_original() -> None:
    asked = {"from": "human", "value": "<image>\nIs there a nodule?"}
    assert alignment.record(PAIRS[1]) == {
        "id": "noised",
        "image": "x/a.png",
        "conversations": [asked, {"from": "gpt", "value": "Yes"}],
        "rejected_conversations": [asked, {"from": "gpt", "value": "Yes"}],
        "rejected_noised": 1,
    }
    assert alignment.record(PAIRS[0])["rejected_noised"] == 0
    assert alignment.record(PAIRS[4])["image"] == ["x/a.png", "x/b.png"]


def test_there_and_back(tmp_path: Path) -> None:
    assert alignment.write(tmp_path / "mmed_rag.json", PAIRS) == len(PAIRS)
    source = Source(root=tmp_path, seed=0, images=tmp_path)
    found = [record for record, _, _ in llava_json(source, file="mmed_rag.json")]
    assert source.rejected == []
    for read, made in zip(found, PAIRS, strict=True):
        assert isinstance(read, Preference)
        why = "degraded" if made.rejected_images else "answers"
        assert read == replace(made, patient="image:x/a.png", why=why)


def test_equal_pairs_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        alignment.write(tmp_path / name, PAIRS)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert [row["id"] for row in json.loads((tmp_path / "a.json").read_text())] == [p.id for p in PAIRS]


@pytest.mark.parametrize("shown", [{"rejected_images": (TWO,)}, {"chosen_images": NOISE}])
def test_what_the_format_cannot_say_is_refused(shown: dict[str, object]) -> None:
    with pytest.raises(DataError, match="no place for what this pair shows"):
        alignment.record(replace(PAIRS[0], **shown))  # type: ignore[arg-type]
