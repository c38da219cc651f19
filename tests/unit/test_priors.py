"""Prior selection: the latest earlier day, never a later one, never another patient, never another split."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import recipe
from sightline.data import priors
from sightline.data.prepare import load, prepare
from sightline.errors import DataError, RecipeError
from sightline.types import ImageRef, Message, Sample


def study(name: str, day: str, *, patient: str = "p1", kind: str = "xray", **attributes: str) -> Sample:
    return Sample(
        id=name,
        patient=patient,
        date=day,
        images=(ImageRef(path=f"{name}.png", sha256=f"hash of {name}", kind=kind),),
        messages=(
            Message(role="user", parts=("Look: ", 0, "What is it?")),
            Message(role="assistant", parts=("Clear.",), topic="report"),
        ),
        attributes=attributes,
    )


def shown(samples: list[Sample]) -> dict[str, str]:
    """The prior of each sample, by its name; "" for none."""
    made, _ = priors.attach(samples)
    found = {}
    for sample in made:
        rest = [ref for ref in sample.images if ref.when == "prior"]
        assert len(rest) == len(sample.images) - 1 <= 1
        found[sample.id] = rest[0].path.removesuffix(".png") if rest else ""
    return found


def test_the_latest_earlier_day_is_taken_whatever_the_order() -> None:
    rows = [
        study("c", "2180-03-01"),
        study("a", "2180-01-01"),
        study("d", "2181-01-01"),
        study("b", "2180-02-28"),
    ]
    assert shown(rows) == {"a": "", "b": "a", "c": "b", "d": "c"}
    assert shown(rows[::-1]) == {"a": "", "b": "a", "c": "b", "d": "c"}


def test_studies_of_one_day_share_the_last_image_of_the_day_before() -> None:
    rows = [
        study("a1", "2180-01-01"),
        study("a2", "2180-01-01"),
        study("b1", "2180-01-02"),
        study("b2", "2180-01-02"),
    ]
    assert shown(rows) == {"a1": "", "a2": "", "b1": "a2", "b2": "a2"}


def test_never_another_patient() -> None:
    rows = [study("a", "2180-01-01"), study("x", "2180-06-01", patient="p2"), study("b", "2180-12-01")]
    assert shown(rows) == {"a": "", "x": "", "b": "a"}
    unknown = [study("a", "2180-01-01", patient="image:same"), study("b", "2180-02-01", patient="image:same")]
    made, counts = priors.attach(unknown)
    assert counts == {"unknown_patient": 2}
    assert {s.attributes["prior"] for s in made} == {"none"}


def test_dates_of_several_spellings_and_none() -> None:
    assert (
        priors.day("21800506")
        == priors.day("2180-05-06")
        == priors.day(" 2180-05-06 10:30:00 ")
        == date(2180, 5, 6)
    )
    assert (priors.day(""), priors.day("last week"), priors.day("2180-13-01")) == (None, None, None)
    rows = [study("a", "21800101"), study("b", "2180-01-02T08:00:00"), study("c", ""), study("d", "soon")]
    made, counts = priors.attach(rows)
    assert counts == {"attached": 1, "first": 1, "undated": 2}
    assert [s.attributes.get("prior_days") for s in made] == [None, "1", None, None]


def test_a_prior_is_of_the_same_kind_and_projection() -> None:
    rows = [
        study("front", "2180-01-01", projection="frontal"),
        study("side", "2180-02-01", projection="lateral"),
        study("ct", "2180-03-01", kind="ct"),
        study("now", "2180-04-01", projection="frontal"),
    ]
    assert shown(rows) == {"front": "", "side": "", "ct": "", "now": "front"}
    bare = [*rows[:2], study("now", "2180-04-01")]
    assert shown(bare)["now"] == "side"


def test_the_same_file_is_no_prior_of_itself() -> None:
    old = study("a", "2180-01-01")
    new = replace(study("b", "2180-02-01"), images=(replace(old.images[0], path="copy.png"),))
    assert shown([old, new]) == {"a": "", "b": ""}


def test_what_has_a_prior_or_several_images_stays() -> None:
    one = study("a", "2180-01-01")
    two = replace(
        study("b", "2180-02-01"),
        images=(one.images[0], replace(one.images[0], when="prior")),
        messages=(Message(role="user", parts=(0, 1, "?")), Message(role="assistant", parts=("x",))),
    )
    made, counts = priors.attach([one, two])
    assert made[1] is two
    assert counts == {"first": 1, "kept": 1}


def test_the_prior_stands_behind_the_current_image() -> None:
    made, _ = priors.attach([study("a", "2180-01-01"), study("b", "2180-04-10")])
    second = made[1]
    assert second.messages[0].parts == ("Look: ", 0, 1, "What is it?")
    assert [(ref.path, ref.when) for ref in second.images] == [("b.png", "current"), ("a.png", "prior")]
    assert dict(second.attributes) == {"prior": "latest", "prior_days": "100"}


# --- in a stage ---------------------------------------------------------------------------------------------


def write(root: Path) -> None:
    rows = []
    for patient in range(6):
        for at in range(3):
            name = f"{patient}-{at}.png"
            pixels = np.random.default_rng([patient, at]).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name)
            rows.append(
                {
                    "id": name, "subject_id": f"p{patient}", "date": f"2180-0{1 + at}-01", "image": name,
                    "conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "It."}],
                }
            )  # fmt: skip
    (root / "rows.json").write_text(json.dumps(rows))


def test_a_prepared_data_set_gains_priors_of_its_own_splits(tmp_path: Path) -> None:
    write(tmp_path)
    out = tmp_path / "made"
    made = prepare(
        "llava_json", {}, root=tmp_path, out=out, seed=0, shares={"train": 0.5, "test": 0.5}, by="image"
    )
    counts = priors.attach_all(made)
    again = load(out)
    splits = {name: list(again.samples(name)) for name in ("train", "test")}
    assert sum(len(rows) for rows in splits.values()) == 18
    attached = 0
    for rows in splits.values():
        own = {row.images[0].path for row in rows}
        for row in rows:
            for ref in row.images[1:]:
                attached += 1
                assert ref.when == "prior"
                assert ref.path in own, "a prior of another split"
                assert ref.path[0] == row.id[0]
                assert ref.path < row.id
    assert attached == sum(each["attached"] for each in counts.values()) > 3
    assert json.loads((out / "dataset.json").read_text())["priors"] == counts


def test_preferences_are_refused(tmp_path: Path) -> None:
    made = replace(
        prepare(
            "phantom", {"patients": 4, "size": 64}, root=None, out=tmp_path, seed=0, shares={"test": 1.0}
        ),
        kind="preferences",
    )
    with pytest.raises(DataError, match="attached to samples"):
        priors.attach_all(made)


def test_the_recipe_key_is_as_it_was_without_it() -> None:
    """The section that keys are made of, as commit e2e475a wrote it."""
    plain = {"stage": "prepare", "reader": "phantom", "patients": 12}

    def section(**more: str) -> dict[str, Any]:
        tree: dict[str, Any] = {"name": "r", "stages": {"data": {**plain, **more}}}
        return recipe.check(tree, "test").stages["data"].model_dump(mode="json")

    assert section() == {
        "stage": "prepare", "reader": "phantom", "root": None,
        "split": {"train": 0.7, "valid": 0.1, "test": 0.2, "by": "patient"},
        "strict": False, "max_bad": 0.05, "max_pixels": 50000000, "patients": 12,
    }  # fmt: skip
    assert section(prior_study="latest") == {**section(), "prior_study": "latest"}
    with pytest.raises(RecipeError, match="prior_study"):
        section(prior_study="next")


def test_the_stage_attaches_them(tmp_path: Path) -> None:
    from sightline.stages import execute

    tree = {
        "name": "r",
        "stages": {
            "data": {
                "stage": "prepare", "reader": "phantom", "patients": 30, "size": 64, "prior_study": "latest",
                "split": {"train": 0.8, "valid": 0, "test": 0.2},
            }
        },
    }  # fmt: skip
    made = load(execute(recipe.check(tree, "test"), tmp_path)["data"])
    pairs = [
        (sample.study, [ref.path for ref in sample.images if ref.when == "prior"], sample.patient)
        for split in made.counts
        for sample in made.samples(split)
    ]
    assert {bool(found) for study, found, _ in pairs if study == "s1"} == {False}
    assert [found for study, found, who in pairs if study == "s2" and found != [f"{who}-s1.png"]] == []
    assert sum(study == "s2" for study, _, _ in pairs) > 8
