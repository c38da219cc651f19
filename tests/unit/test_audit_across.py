"""What two data sets share: pairs against the test samples that measure what the pairs taught."""

from __future__ import annotations

from sightline.data.audit import across
from sightline.types import ImageRef, Message, Preference, Sample

TURNS = (Message(role="user", parts=(0, "Is it?")), Message(role="assistant", parts=("Yes",)))


def ref(name: str) -> ImageRef:
    return ImageRef(path=f"{name}.png", sha256=name)


def sample(name: str, patient: str, picture: str) -> Sample:
    return Sample(id=name, patient=patient, images=(ref(picture),), messages=TURNS)


def pair(name: str, patient: str, picture: str) -> Preference:
    return Preference(
        id=name, patient=patient, images=(ref(picture),), prompt=TURNS[:1], chosen="Yes", rejected="No"
    )


def test_patients_and_pictures_that_stand_in_both_are_counted() -> None:
    pairs = [pair("a", "p1", "1"), pair("b", "p2", "2"), pair("c", "p3", "3"), pair("d", "p3", "3")]
    test = [sample("x", "p2", "9"), sample("y", "p8", "3"), sample("z", "p9", "4")]
    found = across(pairs, test, names=("pairs", "test"))
    (overlap,) = found.overlaps
    assert (overlap.patients, overlap.images, overlap.records) == (1, 1, 5)
    assert overlap.examples == (("b", "c", "d"), ("x", "y"))
    assert found.leaks
    assert "1 images stand in both pairs and test" in found.warning
    assert found.splits["pairs"].records == 4


def test_two_sets_that_share_nothing_leak_nothing() -> None:
    found = across([pair("a", "p1", "1")], [sample("x", "p2", "2")])
    assert (found.leaks, found.warning) == (False, "")
    assert [(o.patients, o.images, o.records) for o in found.overlaps] == [(0, 0, 0)]
