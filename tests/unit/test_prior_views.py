"""What an evaluation shows in the place of prior images, and what decides that answers are known already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import models
from sightline.settings import Generate
from sightline.stages.answers import Desk, key_of
from sightline.stages.evaluate import view_of
from sightline.types import Degrade, Sample, View

CURRENT, OTHER = models.PICTURES[0], models.PICTURES[2]
PRIOR, THEN = (replace(models.PICTURES[i], when="prior") for i in (1, 3))
ONE = models.sample("one", [("Changed?", "Yes")], (CURRENT, PRIOR))
TWO = models.sample("two", [("Changed?", "No")], (THEN, OTHER))
ALONE = models.sample("alone", [("Changed?", "No")], (OTHER,))


def shown(kind: str, samples: list[Sample]) -> dict[str, list[View]]:
    see = view_of(kind, samples, 0)
    return {s.id: [see(s, i) for i in range(len(s.images))] for s in samples}


def test_another_patient_s_images_keep_their_study() -> None:
    assert shown("swapped", [ONE, TWO]) == {
        "one": [View(OTHER, "one"), View(THEN, "one")],
        "two": [View(PRIOR, "two"), View(CURRENT, "two")],
    }


def test_another_patient_s_prior_image_alone() -> None:
    assert shown("swapped_prior", [ONE, TWO]) == {
        "one": [View(CURRENT, "one"), View(THEN, "one")],
        "two": [View(PRIOR, "two"), View(OTHER, "two")],
    }


def test_a_partner_without_a_prior_image_lends_its_current_one() -> None:
    assert shown("swapped_prior", [ONE, ALONE]) == {
        "one": [View(CURRENT, "one"), View(replace(OTHER, when="prior"), "one")],
        "alone": [View(OTHER, "alone")],
    }


def test_a_spoiled_prior_image_alone() -> None:
    assert shown("black_prior", [ONE]) == {
        "one": [View(CURRENT, "one"), View(PRIOR, "one", Degrade(kind="black", seed=1))]
    }


def test_a_view_and_its_prior_image() -> None:
    view = View(CURRENT, "one", prior=View(PRIOR, "one"))
    spec = Degrade(kind="black")
    assert view.each == (View(CURRENT, "one"), View(PRIOR, "one"))
    assert view.spoilt(spec) == View(CURRENT, "one", spec, View(PRIOR, "one", spec))
    assert view.sight == ("picture 0", "", "", "picture 1", "", "")
    assert view.sight != replace(view, prior=View(PRIOR, "one", spec)).sight


def test_answers_about_a_prior_image_are_not_those_about_a_current_one(tmp_path: Path) -> None:
    desk = Desk(root=tmp_path, home=tmp_path, generate=Generate())

    def key(sample: Sample) -> str:
        return key_of(desk, {}, [sample], lambda s: s, shown="clean", seed=0)

    plain = replace(ONE, images=(CURRENT, replace(PRIOR, when="current")))
    assert key(ONE) == key(replace(ONE))
    assert key(ONE) != key(plain)
