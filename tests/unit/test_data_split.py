"""Splits: patients and pictures stay whole, order does not matter, shares are met. And the audit of leaks."""

from __future__ import annotations

import random

import pytest

from sightline.data.audit import answers, audit
from sightline.data.split import group, split
from sightline.errors import DataError, RecipeError
from sightline.types import ImageRef, Message, Preference, Sample

SHARES = {"train": 0.7, "valid": 0.1, "test": 0.2}


def sample(id: str, patient: str, *hashes: str) -> Sample:
    images = tuple(ImageRef(path=f"{h}.png", sha256=h) for h in hashes)
    parts = (*range(len(images)), "Is it?")
    turns = (Message(role="user", parts=parts), Message(role="assistant", parts=("Yes",), topic="closed"))
    return Sample(id=id, patient=patient, images=images, messages=turns)


def cohort(seed: int, patients: int = 40) -> list[Sample]:
    """Patients with one to four records, some pictures shared between patients."""
    rng = random.Random(seed)
    return [
        sample(f"p{p}-{i}", f"p{p}", f"h{rng.randrange(patients * 12)}")
        for p in range(patients)
        for i in range(rng.randint(1, 4))
    ]


@pytest.mark.parametrize("by", ["patient", "image"])
def test_no_patient_and_no_picture_stands_in_two_splits(by: str):
    for seed in range(100):
        records = cohort(seed)
        assigned = split(records, SHARES, by, seed)
        found = audit({name: [r for r in records if assigned[r.id] == name] for name in SHARES})
        assert all(o.images == 0 for o in found.overlaps)
        assert by == "image" or not found.leaks
        assert set(assigned.values()) == set(SHARES)


def test_the_assignment_depends_on_seed_and_groups_not_on_order():
    records = cohort(1)
    shuffled = list(records)
    random.Random(5).shuffle(shuffled)
    assert split(records, SHARES, "patient", 3) == split(shuffled, SHARES, "patient", 3)
    assert split(records, SHARES, "patient", 3) != split(records, SHARES, "patient", 4)


def test_shares_are_met_closely():
    records = [sample(f"{i}", f"p{i // 2}") for i in range(2000)]
    assigned = list(split(records, SHARES, "patient", 0).values())
    assert [assigned.count(name) for name in SHARES] == [1400, 200, 400]


def test_new_patients_move_few_old_ones():
    old = [sample(f"{i}", f"p{i}") for i in range(1000)]
    before = split(old, SHARES, "patient", 0)
    after = split([*old, *(sample(f"n{i}", f"n{i}") for i in range(10))], SHARES, "patient", 0)
    assert sum(before[r.id] != after[r.id] for r in old) <= 20


def test_components_join_through_patients_and_pictures():
    records = [
        sample("a", "p1", "h1"),
        sample("b", "p2", "h1"),
        sample("c", "p2", "h2"),
        sample("d", "p3", "h3"),
    ]
    assert sorted(map(sorted, group(records).values())) == [["a", "b", "c"], ["d"]]
    assert sorted(map(sorted, group(records, "image").values())) == [["a", "b"], ["c"], ["d"]]


def test_the_pictures_of_a_preference_side_count():
    other = ImageRef(path="o.png", sha256="h9")
    pair = Preference(
        id="x", patient="p1", images=(ImageRef(path="a.png", sha256="h1"),),
        prompt=(Message(role="user", parts=(0, "?")),), chosen="a", rejected="b", rejected_images=(other,),
    )  # fmt: skip
    assert len(group([pair, sample("y", "p2", "h9")])) == 1


def test_few_groups_give_no_empty_split_or_say_so():
    three = [sample(f"{i}", f"p{i}") for i in range(3)]
    assert sorted(split(three, SHARES, "patient", 0).values()) == ["test", "train", "valid"]
    with pytest.raises(DataError, match=r"3 splits cannot be made of 1 group") as caught:
        split([sample("a", "p"), sample("b", "p"), sample("c", "p")], SHARES, "patient", 0)
    assert "check the field that names the patient" in caught.value.remedy


def test_shares_and_ways_are_checked():
    with pytest.raises(RecipeError, match=r"train: 0\.7, test: 0\.7"):
        split([sample("a", "p")], {"train": 0.7, "test": 0.7}, "patient", 0)
    with pytest.raises(RecipeError, match="patient, image, official"):
        split([sample("a", "p")], SHARES, "study", 0)
    assert split([sample("a", "p")], {"train": 1.0, "test": 0.0}, "patient", 0) == {"a": "train"}


def test_official_names_are_kept_or_missed():
    records = [sample("a", "p"), sample("b", "p")]
    assert split(records, {}, "official", 0, {"a": "train", "b": "test"}) == {"a": "train", "b": "test"}
    with pytest.raises(DataError, match=r"1 of 2 records have no official split"):
        split(records, {}, "official", 0, {"a": "train", "b": None})


def test_the_audit_counts_and_warns():
    found = audit(
        {
            "train": [sample("a", "p1", "h1"), sample("b", "p1", "h2"), sample("c", "p2", "h3")],
            "test": [sample("d", "image:h1", "h1"), sample("e", "p2", "h4")],
        },
        name="official",
    )
    (overlap,) = found.overlaps
    assert (overlap.images, overlap.patients, overlap.records) == (1, 1, 4)
    assert overlap.examples == (("a", "c"), ("d", "e"))
    assert found.splits["test"].unknown == 1
    assert "1 images in both, 1 patients in both, 4 records touched" in found.text()
    assert "the official splits leak: 1 images stand in both train and test" in found.warning
    assert "split.by: image" in found.to_dict()["warning"]
    assert audit({"train": [sample("a", "p1")], "test": [sample("b", "p2")]}).warning == ""


def test_patients_alone_leak_too():
    found = audit({"train": [sample("a", "p1", "h1")], "test": [sample("b", "p1", "h2")]})
    assert "1 patients stand in both" in found.warning
    assert "split.by: patient" in found.warning


def test_answers_give_the_majority_without_texts():
    assert answers([sample("a", "p"), sample("b", "p")]) == {
        "closed": {"count": 2, "distinct": 1, "mean_words": 1.0, "majority": 1.0}
    }
