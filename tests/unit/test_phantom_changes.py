"""Phantoms with prior studies: what changed is true to the pictures, and the plain phantoms keep their bytes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline import plugins
from sightline.data.prepare import open_reader, prepare, used
from sightline.data.readers.phantom import READER as PLAIN
from sightline.data.readers.phantom_changes import ANSWERS, CHANGING, READER, change_report, changed
from sightline.data.source import Source
from sightline.errors import RecipeError
from sightline.images.phantom import FINDINGS, draw
from sightline.metrics.answers import closed
from sightline.metrics.findings import findings
from sightline.metrics.temporal_f1 import words
from sightline.types import Sample, to_plain

DEGREES = {"none": 0, "small": 1, "moderate": 2, "large": 3}


def read(folder: Path, seed: int = 0, **options: Any) -> list[Sample]:
    source = Source(root=None, seed=seed, images=folder)
    return [sample for sample, _, _ in READER.read(source, **options)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sample]]:
    folder = tmp_path_factory.mktemp("changes")
    return folder, read(folder, patients=120, size=64)


# --- the plain phantom --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "options", "count", "records", "picture"),
    [
        (
            0, {"patients": 4, "size": 64}, 8,
            "603d8a11330a5245a61700a18e39b76513c952297783874f2e51af4443414fd5",
            "67244dbe36b206cba002ad7f153a7101c09c8325a4c14dfa8cd7cf97a4391bc5",
        ),
        (
            3, {"patients": 2, "studies": 3, "prevalence": 0.7, "size": 224}, 4,
            "925c7b77cbca9ed0f423fc40501e624514ae882b0bcfe1acfcb85349b0340a79",
            "7c07b1ac3894ecd38a57e63a1b17baf6323d4dfcc8183f27bdf600eb82a403fe",
        ),
    ],
)  # fmt: skip
def test_plain_phantoms_are_what_they_were(
    seed: int, options: dict[str, Any], count: int, records: str, picture: str, tmp_path: Path
) -> None:
    """Hashes taken at commit e2e475a, before there were prior studies; records hold the pictures' hashes."""
    rows = list(PLAIN.read(Source(root=None, seed=seed, images=tmp_path), **options))
    seen = hashlib.sha256()
    for sample, split, origin in rows:
        seen.update(json.dumps([to_plain(sample), split, origin], sort_keys=True).encode())
    assert (len(rows), seen.hexdigest()) == (count, records)
    first = rows[0][0].images[0]
    assert first.sha256 == picture == hashlib.sha256((tmp_path / first.path).read_bytes()).hexdigest()


def test_plain_phantoms_have_the_options_they_had() -> None:
    """`dataset.json` records them, so one more would change its bytes."""
    asked = plugins.bind("readers", "phantom", {})
    assert used(open_reader("phantom", None), asked) == {
        "patients": 900,
        "studies": 2,
        "prevalence": 0.4,
        "size": 224,
    }


# --- what changed -------------------------------------------------------------------------------------------


def test_every_pair_of_severities_has_its_word() -> None:
    table = [[changed(before, now) for now in range(4)] for before in range(4)]
    assert table == [
        ["unchanged", "new", "new", "new"],
        ["resolved", "unchanged", "worse", "worse"],
        ["resolved", "improved", "unchanged", "worse"],
        ["resolved", "improved", "improved", "unchanged"],
    ]
    assert {word for row in table for word in row} == set(ANSWERS)


def test_answers_are_true_to_the_two_studies(small: tuple[Path, list[Sample]]) -> None:
    by_id = {sample.id: sample for sample in small[1]}
    counts: Counter[str] = Counter()
    for sample in small[1]:
        number = int(sample.study[1:])
        if sample.attributes["asks"] != "changes":
            continue
        before = by_id[f"{sample.patient}-s{number - 1}-report"].attributes
        assert [ref.when for ref in sample.images] == ["current", "prior"]
        assert sample.images[0].path == f"{sample.patient}-s{number}.png"
        assert sample.images[1].path == f"{sample.patient}-s{number - 1}.png"
        assert sample.messages[0].parts[:2] == (0, 1)
        answers = {m.topic: m.text for m in sample.messages if m.role == "assistant"}
        assert list(answers) == [f"change_{name}" for name in CHANGING]
        for name in CHANGING:
            was, now = DEGREES[before[f"severity_{name}"]], DEGREES[sample.attributes[f"severity_{name}"]]
            right = {
                (False, False): "Unchanged", (False, True): "New", (True, False): "Resolved",
                (True, True): "Worse" if now > was else "Improved" if now < was else "Unchanged",
            }[was > 0, now > 0]  # fmt: skip
            assert answers[f"change_{name}"] == right == sample.attributes[f"change_{name}"].capitalize()
            counts[right] += 1
    assert sum(counts.values()) == 120 * 2 * 5
    assert min(counts.values()) > 60, counts
    assert counts.most_common(1)[0][1] / counts.total() < 0.55


def test_the_current_picture_alone_tells_half(small: tuple[Path, list[Sample]]) -> None:
    """Who knows the current severities exactly and guesses best is right in half of the cases."""
    seen: dict[str, Counter[str]] = {}
    for sample in small[1]:
        if sample.attributes["asks"] == "changes":
            for name in CHANGING:
                now = sample.attributes[f"severity_{name}"]
                seen.setdefault(now, Counter())[sample.attributes[f"change_{name}"]] += 1
    best = sum(max(count.values()) for count in seen.values()) / sum(c.total() for c in seen.values())
    assert 0.45 < best < 0.56


def test_a_first_study_has_no_prior(small: tuple[Path, list[Sample]]) -> None:
    first = [s for s in small[1] if s.study == "s1"]
    assert {s.attributes["asks"] for s in first} == {"questions", "report"}
    assert {len(s.images) for s in first} == {1}
    assert {s.attributes["prior"] for s in first} == {"none"}
    assert not [k for s in first for k in s.attributes if k.startswith("change_")]
    assert len(small[1]) == 120 * (2 + 3 + 3)


def test_dates_rise_and_the_device_stays(small: tuple[Path, list[Sample]]) -> None:
    reports = [s for s in small[1] if s.attributes["asks"] == "report"]
    for one, two in pairwise(reports):
        if one.patient == two.patient:
            assert one.date < two.date
            assert one.attributes["severity_device"] == two.attributes["severity_device"]
            assert one.attributes["age"] == two.attributes["age"]
    assert 30 < sum(s.labels["device"] for s in reports) / 3 < 90


# --- words --------------------------------------------------------------------------------------------------


def test_a_report_tells_findings_and_changes() -> None:
    now = dict(zip(FINDINGS, (3, 0, 1, 2, 0, 1), strict=True))
    did = {
        "effusion_left": "worse", "effusion_right": "resolved", "cardiomegaly": "new", "nodule": "unchanged",
        "pneumothorax": "unchanged",
    }  # fmt: skip
    assert change_report(now, did, {"nodule": "left", "pneumothorax": "right"}) == (
        "Large left effusion, worse than before. The right effusion has resolved. New cardiomegaly. "
        "Left nodule, unchanged. No pneumothorax. Device in place."
    )
    assert change_report(now, {**did, "nodule": "improved"}, {"nodule": "left"}).split(". ")[3] == (
        "Left nodule, improved"
    )


def test_reports_are_read_as_their_labels(small: tuple[Path, list[Sample]]) -> None:
    """By the rule parser, and by the words of change that temporal F1 counts."""
    for sample in small[1]:
        if sample.attributes["asks"] != "report":
            continue
        text = sample.messages[-1].text
        assert findings(text) == dict(sample.labels), text
        named = {
            sample.attributes[f"change_{name}"]
            for name in CHANGING
            if sample.study != "s1"
            and (sample.labels[name] or sample.attributes[f"change_{name}"] == "resolved")
        }
        assert words(text) == named, text


def test_change_questions_are_scored_as_open() -> None:
    """`Resolved` would read as a no, were the question not one that asks how."""
    for answer in ANSWERS:
        assert closed("How has the nodule changed since the prior study?", answer.capitalize()) is None


# --- pictures -----------------------------------------------------------------------------------------------


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    one, two = read(tmp_path / "a", 3, patients=3, size=64), read(tmp_path / "b", 3, patients=2, size=64)
    assert one[: len(two)] == two
    assert read(tmp_path / "d", 4, patients=2, size=64) != two
    with Image.open(tmp_path / "a" / two[0].images[0].path) as picture:
        assert (picture.size, picture.mode) == ((64, 64), "L")


def shadow(study: int, seed: int, course: int | None) -> np.ndarray:
    """Where a nodule changes the picture of a study."""
    made = [
        draw(
            np.random.default_rng(100 * study + seed), {"nodule": severity}, sides={"nodule": "left"},
            course=None if course is None else np.random.default_rng(course),
        ).astype(int)
        for severity in (0, 2)
    ]  # fmt: skip
    return np.abs(made[1] - made[0]) > 4


def test_a_finding_stays_where_it_was() -> None:
    """One course, two studies: the nodule's shadow overlaps; without a course it moves freely."""
    overlaps = []
    for course in (7, None):
        pairs = [(shadow(0, seed, course), shadow(1, seed, course)) for seed in range(5)]
        overlaps.append(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))
    assert overlaps[0] > overlaps[1] + 0.1, overlaps


def test_severity_grows_what_is_seen_of_a_course() -> None:
    for name in CHANGING:
        areas = []
        for severity in (1, 2, 3):
            source = [np.random.default_rng(5), np.random.default_rng(5)]
            sides = {"nodule": "left", "pneumothorax": "left"}
            without = draw(np.random.default_rng(1), {}, sides=sides, course=source[0]).astype(int)
            shown = draw(np.random.default_rng(1), {name: severity}, sides=sides, course=source[1]).astype(
                int
            )
            areas.append(int((np.abs(shown - without) > 4).sum()))
        assert 60 < areas[0] < areas[1] < areas[2], (name, areas)


# --- options ----------------------------------------------------------------------------------------------


def test_only_findings_that_are_asked_for_occur(tmp_path: Path) -> None:
    for sample in read(tmp_path, patients=6, size=64, findings=["nodule"]):
        seen = {name for name in CHANGING if sample.labels[name]}
        assert seen <= {"nodule"}
        if sample.attributes["asks"] == "changes":
            assert [m.topic for m in sample.messages if m.topic] == ["change_nodule"]


def test_wrong_options_are_refused_together(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)studies=1 \(expected at least 2\).*findings=\['device'\]"):
        read(tmp_path, studies=1, findings=["device"])


def test_a_prepared_data_set_keeps_patients_whole(tmp_path: Path) -> None:
    made = prepare(
        "phantom_changes", {"patients": 8, "size": 64}, root=None, out=tmp_path, seed=0,
        shares={"train": 0.5, "test": 0.5},
    )  # fmt: skip
    assert (made.rejected, dict(made.counts)) == (0, {"train": 32, "test": 32})
    assert not made.audits[0].leaks
    kept = [s for s in made.samples("train") if s.attributes["asks"] == "changes"]
    assert {tuple(ref.when for ref in s.images) for s in kept} == {("current", "prior")}
