"""Groups of generated patients: shares, what is harder about one, and a gap that is known beforehand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.data import prepare
from sightline.data.groups import ALL, Group, check, group_of
from sightline.data.readers.phantom import READER
from sightline.data.source import Source
from sightline.errors import RecipeError
from sightline.images.phantom import FINDINGS
from sightline.metrics import vqa
from sightline.metrics.subgroups import grouped
from sightline.types import Prediction, Sample

SITES = {"site": {"north": {"share": 0.7}, "south": {"share": 0.3, "contrast": 0.4, "noise": 0.05}}}


def read(folder: Path, patients: int = 30, **options) -> list[Sample]:
    source = Source(root=None, seed=2, images=folder)
    return [sample for sample, _, _ in READER.read(source, patients=patients, size=64, **options)]


def pixels(folder: Path, sample: Sample) -> np.ndarray:
    return np.asarray(Image.open(folder / sample.images[0].path)).astype(float)


def draw(spec, count: int) -> list[Group]:
    return [
        group_of(spec, {name: np.random.default_rng([i, j]) for j, name in enumerate(spec)})
        for i in range(count)
    ]


def test_groups_are_drawn_by_their_shares():
    spec = {"race": {"A": {"share": 3}, "B": {}, "C": {"share": 0}}, "language": {"en": {}, "zh": {}}}
    drawn = draw(spec, 2000)
    races = Counter(g.attributes["race"] for g in drawn)
    assert races["A"] / 2000 == pytest.approx(0.75, abs=0.03)
    assert races["C"] == 0
    both = Counter((g.attributes["race"], g.attributes["language"]) for g in drawn)
    assert both["A", "zh"] / 2000 == pytest.approx(0.375, abs=0.03)
    assert {(g.contrast, g.noise, g.prevalence) for g in drawn} == {(1.0, 0.0, None)}
    assert group_of({}, {}) is ALL


def test_only_the_harder_group_looks_other_than_without_groups(tmp_path: Path):
    plain, told = read(tmp_path / "a"), read(tmp_path / "b", subgroups=SITES)
    groups = {s.patient: s.attributes["site"] for s in told}
    assert set(groups.values()) == {"north", "south"}
    apart = Counter()
    for one, other in zip(plain, told, strict=True):
        assert (one.id, one.labels, one.messages) == (other.id, other.labels, other.messages)
        assert "site" not in one.attributes
        apart[groups[other.patient], one.images == other.images] += 1
    assert apart["north", False] == apart["south", True] == 0
    assert apart["north", True] > apart["south", False] > 4
    harder = next(s for s in told if s.attributes["site"] == "south")
    easy = next(s for s in plain if s.id == harder.id)
    before, after = pixels(tmp_path / "a", easy), pixels(tmp_path / "b", harder)
    assert after.mean() == pytest.approx(before.mean(), abs=4)
    expected = before.mean() + 0.4 * (before - before.mean())
    assert np.std(after - expected) == pytest.approx(0.05 * 255, rel=0.1)


def test_contrast_alone_and_noise_alone():
    image = np.linspace(50, 200, 4096).astype(np.uint8).reshape(64, 64)
    random = np.random.default_rng(0)
    assert ALL.shown(image, random) is image
    flat = Group(contrast=0.5).shown(image, random)
    assert flat.std() == pytest.approx(image.std() / 2, rel=0.02)
    noisy = Group(noise=0.1).shown(image, random)
    assert np.std(noisy.astype(float) - image) == pytest.approx(25.5, rel=0.05)


def test_another_rate_of_disease_makes_a_gap_that_is_known(tmp_path: Path):
    """Whoever always says no is right as often as nothing is there: 0.8 of group A, 0.4 of group B, a gap of 0.4."""
    spec = {"gender": {"A": {"prevalence": 0.2}, "B": {"prevalence": 0.6}}}
    samples = [s for s in read(tmp_path, 60, subgroups=spec) if s.id.endswith("questions")]
    made = [
        Prediction(
            sample=s.id, patient=s.patient, turn=turn, topic=name, question="Is it there?", text="No",
            answer="Yes" if s.labels[name] else "No",
        )
        for s in samples
        for turn, name in enumerate(FINDINGS)
    ]  # fmt: skip
    accuracy = next(m for m in vqa.vqa(made) if m.name == "accuracy")
    known = {s.id: s.attributes["gender"] for s in samples}
    found = grouped(accuracy, [known[sample] for sample, _ in accuracy.keys])
    assert found.gap is not None
    assert found.gap.value() == pytest.approx(0.4, abs=0.06)
    assert (found.best, found.worst) == ("A", "B")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"sex": {"F": {}, "M": {}}}, "the reader gives this attribute itself"),
        ({"site": {"north": {}}}, "fewer than two groups"),
        ({"site": {"north": {"haze": 1.0}, "south": {}}}, "site.north.haze: expected one of share, contrast"),
        ({"site": {"north": {"noise": 2.0}, "south": {}}}, "site.north.noise=2: expected 0 to 1"),
        ({"site": {"north": {"share": 0.0}, "south": {"share": 0.0}}}, "no group has a share"),
        (
            {"site": {"n": {"noise": 0.1}, "s": {}}, "race": {"a": {"contrast": 0.5}, "b": {}}},
            "site and race both differ",
        ),
    ],
)
def test_groups_that_cannot_be_are_refused(spec, said, tmp_path: Path):
    with pytest.raises(RecipeError, match="`subgroups` of the reader 'phantom' do not fit") as caught:
        check(spec)
    assert said in caught.value.where
    with pytest.raises(RecipeError):
        read(tmp_path, 1, subgroups=spec)


def test_a_data_set_without_groups_does_not_name_them(tmp_path: Path):
    def about(name: str, **options):
        prepare.prepare(
            "phantom", {"patients": 4, "size": 64, **options}, root=None, out=tmp_path / name, seed=1,
            shares={"train": 0.5, "test": 0.5},
        )  # fmt: skip
        return json.loads((tmp_path / name / "dataset.json").read_text(encoding="utf-8"))["options"]

    assert about("plain") == {"patients": 4, "studies": 2, "prevalence": 0.4, "size": 64}
    assert about("told", subgroups=SITES, regions=True) == {
        **about("again"),
        "subgroups": SITES,
        "regions": True,
    }
