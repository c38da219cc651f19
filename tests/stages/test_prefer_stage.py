"""prefer on eight patients: which pairs are made, and that a model moves them to where it errs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import small
from sightline import recipe, stages
from sightline.data import prepare
from sightline.data.prepare import Prepared
from sightline.errors import DataError
from sightline.types import Degrade, Preference

Run = Callable[..., Prepared]


def document(language: Path, **pairs: Any) -> dict[str, Any]:
    """Prepare, teach for two steps where a model is asked for, and make pairs."""
    whole = small.only(language, "data", "taught")
    made = whole["stages"]
    made["taught"]["trainable"] = {"connector": {"full": {"lr": 1e-2}}}
    made["taught"]["train"] = {"steps": 1, "batch": 2}
    made["pairs"] = {
        "stage": "prefer",
        "data": "data",
        "kinds": {"wrong_finding": 1, "degraded": 0.5},
        **pairs,
    }
    if "model" not in pairs:
        del made["taught"]
    return whole


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def make(language: Path, root: Path) -> Run:
    """Run the recipe in one shared folder, so that the data set is prepared once."""

    def run(**pairs: Any) -> Prepared:
        checked = recipe.check(document(language, **pairs), "test")
        return prepare.load(stages.execute(checked, root, say=lambda line: None)["pairs"])

    return run


def by_kind(data: Prepared) -> dict[str, list[Preference]]:
    found: dict[str, list[Preference]] = {}
    for pair in data.preferences("train"):
        found.setdefault(pair.why, []).append(pair)
    return found


def test_each_kind_has_its_share_of_the_training_samples(make: Run, root: Path) -> None:
    made = make()
    samples = {s.id: s for s in prepare.load(root / "tiny" / "data").samples("train")}
    kinds = by_kind(made)
    assert len(kinds["degraded"]) == round(0.5 * len(samples))
    assert 0 < len(kinds["wrong_finding"]) <= len(samples)
    assert made.counts == {"train": sum(len(v) for v in kinds.values())}
    for pair in kinds["degraded"]:
        assert pair.rejected_images == Degrade(kind="replace", strength=1.0, seed=3)
        assert pair.chosen == pair.rejected
    for kind, pairs in kinds.items():
        for pair in pairs:
            sample = samples[pair.id.removesuffix(f"/{kind}")]
            place = len(pair.prompt)
            assert pair.prompt == sample.messages[:place]
            assert pair.chosen == sample.messages[place].text
            assert pair.images == sample.images
            assert pair.patient == sample.patient
    assert (made.root / kinds["degraded"][0].images[0].path).is_file()


def test_pairs_come_from_training_patients_only(make: Run, root: Path) -> None:
    held_out = {s.patient for s in prepare.load(root / "tiny" / "data").samples("test")}
    assert held_out
    assert not held_out & {p.patient for p in make().preferences("train")}


def test_a_limit_keeps_the_same_samples_at_every_size(make: Run) -> None:
    small = {p.id for p in make(limit=3, kinds={"degraded": 1}).preferences("train")}
    large = {p.id for p in make(limit=5, kinds={"degraded": 1}).preferences("train")}
    assert len(small) == 3
    assert small < large


def test_topics_choose_the_turns(make: Run) -> None:
    plain = make(topics=["nodule"], kinds={"wrong_finding": 1})
    for pair in plain.preferences("train"):
        assert "nodule" in pair.prompt[-1].text.lower()


def test_no_pair_is_an_error_that_says_where_to_look(make: Run) -> None:
    with pytest.raises(DataError) as caught:
        make(topics=["no such topic"])
    assert "no pair could be made" in caught.value.what
    assert caught.value.where == "stage pairs"
    assert "topics" in caught.value.remedy


def test_a_model_moves_the_pairs_to_the_turn_at_which_it_errs_most(
    make: Run, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    from sightline.stages import prefer

    seen: dict[str, dict[str, int]] = {}
    real = prefer.ask_for_hardest

    def spy(*args: Any) -> dict[str, int]:
        seen["found"] = real(*args)
        return seen["found"]

    monkeypatch.setattr(prefer, "ask_for_hardest", spy)
    made = by_kind(make(model="taught", kinds={"wrong_finding": 1}))["wrong_finding"]
    found = seen["found"]
    assert found
    places = {p.id.removesuffix("/wrong_finding"): len(p.prompt) for p in made}
    assert {k: places[k] for k in found} == found
    plain = {p.id.removesuffix("/wrong_finding"): len(p.prompt) for p in by_kind(make())["wrong_finding"]}
    assert any(plain[k] != found[k] for k in found)


def test_the_margin_is_that_of_the_right_answer() -> None:
    from sightline.inference import Answer
    from sightline.stages.prefer import _margin

    answer = Answer("No", {"yes": -2.0, "no": -0.5})
    assert _margin(answer, "Yes") == -1.5
    assert _margin(answer, "no.") == 1.5


def test_the_folder_says_what_was_made(make: Run, root: Path) -> None:
    made = make()
    about = json.loads((root / "tiny" / "pairs" / "dataset.json").read_text(encoding="utf-8"))
    assert about["kind"] == made.kind == "preferences"
    assert about["kinds"] == {k: len(v) for k, v in by_kind(made).items()}
