"""The shared words refuse what cannot be meant, and turn into plain JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sightline.errors import DataError
from sightline.types import Degrade, ImageRef, Message, Preference, Sample, Score, to_plain

IMAGE = ImageRef(path="a.png")
ASK = Message(role="user", parts=(0, "Is it?"))
SAY = Message(role="assistant", parts=("Yes",), topic="effusion_left")


def sample(**changes: object) -> Sample:
    given = {"id": "s", "patient": "p", "images": (IMAGE,), "messages": (ASK, SAY), **changes}
    return Sample(**given)  # type: ignore[arg-type]


def preference(**changes: object) -> Preference:
    given = {
        "id": "r",
        "patient": "p",
        "images": (IMAGE,),
        "prompt": (ASK,),
        "chosen": "Yes",
        "rejected": "No",
    }
    return Preference(**{**given, **changes})  # type: ignore[arg-type]


def test_words_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sample().id = "other"  # type: ignore[misc]


@pytest.mark.parametrize("change", [{"id": ""}, {"patient": ""}])
def test_a_sample_has_an_id_and_a_patient(change: dict[str, str]) -> None:
    with pytest.raises(DataError, match="an id and a patient"):
        sample(**change)


@pytest.mark.parametrize("parts", [("no image",), (0, 1, "too many"), (-1, "below zero")])
def test_image_places_and_images_must_match(parts: tuple[str | int, ...]) -> None:
    with pytest.raises(DataError, match="image places and images do not match") as caught:
        sample(messages=(Message(role="user", parts=parts), SAY))
    assert "record s" in caught.value.where
    assert "for 1 image(s)" in caught.value.found


def test_an_unknown_role_names_the_known_ones() -> None:
    with pytest.raises(DataError, match="unknown role 'gpt'") as caught:
        Message(role="gpt", parts=("x",))  # type: ignore[arg-type]
    assert "system, user, assistant" in caught.value.expected


@pytest.mark.parametrize("change", [{"when": "later"}, {"form": "cube"}])
def test_an_image_reference_knows_its_words(change: dict[str, str]) -> None:
    with pytest.raises(DataError, match="unknown 'when' or 'form'"):
        ImageRef(path="a.png", **change)


def test_text_leaves_images_out() -> None:
    assert ASK.text == "Is it?"


def test_a_preference_needs_a_difference() -> None:
    with pytest.raises(DataError, match="two answers are equal"):
        preference(rejected="Yes")


def test_equal_answers_may_differ_by_their_images() -> None:
    made = preference(rejected="Yes", rejected_images=Degrade(kind="replace", strength=0.5))
    assert made.rejected_images == Degrade(kind="replace", strength=0.5, seed=0)


@pytest.mark.parametrize("field", ["chosen_images", "rejected_images"])
@pytest.mark.parametrize("count", [0, 2])
def test_each_side_of_a_preference_shows_as_many_images(field: str, count: int) -> None:
    other = tuple(ImageRef(path=f"{i}.png") for i in range(count))
    prompt = (Message(role="user", parts=(0, "Is it?")),)
    with pytest.raises(DataError, match="another number of images") as caught:
        Preference(
            id="r1", patient="p", images=(ImageRef(path="a.png"),), prompt=prompt, chosen="Yes", rejected="No",
            **{field: other},
        )  # fmt: skip
    assert caught.value.where == "record r1, fields chosen_images and rejected_images"
    assert (caught.value.found, caught.value.expected[:1]) == (f"{count} image(s)", "1")


def test_plain_values_survive_json() -> None:
    plain = to_plain(sample(labels={"effusion_left": 1}))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["messages"][0]["parts"] == [0, "Is it?"]
    assert to_plain(Score(value=0.5, interval=(0.4, 0.6)))["interval"] == [0.4, 0.6]
