"""Features of a frozen tower: computed once, and never stale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels, encode, looker, pixels, tower_hash
from sightline.types import Degrade, View


@pytest.fixture
def made(language: Path) -> Bundle:
    return models.bundle(language)


@pytest.fixture
def views(tmp_path: Path) -> list[View]:
    refs = [models.picture(tmp_path / "images", f"{i}.png", i) for i in range(3)]
    plain = [View(ref, f"r{i}") for i, ref in enumerate(refs)]
    return [*plain, View(refs[0], "r0", Degrade(kind="replace", seed=1))]


def test_features_equal_the_tower_s_and_are_kept(made: Bundle, views: list[View], tmp_path: Path) -> None:
    look = Features(made, tmp_path / "images", tmp_path / "kept")
    look.prepare(views)
    assert look.computed == 4
    batch = torch.stack([pixels(made, tmp_path / "images", v) for v in views])
    expected = encode(made, batch)
    assert expected.shape == (4, 4, 16)
    assert torch.equal(torch.stack([look(v) for v in views]), expected)

    again = Features(made, tmp_path / "images", tmp_path / "kept")
    again.prepare(views)
    assert again.computed == 0
    assert torch.equal(again(views[3]), expected[3])
    look.prepare([*views, View(views[1].image, "other record")])
    assert look.computed == 4  # a clean image does not depend on the record that shows it


def test_a_file_is_not_read_again(made: Bundle, views: list[View], tmp_path: Path) -> None:
    Features(made, tmp_path / "images", tmp_path / "kept").prepare(views)
    look = Features(made, tmp_path / "nowhere", tmp_path / "kept")
    look.prepare(views)
    assert look(views[0]).shape == (4, 16)


def test_more_views_than_one_batch(made: Bundle, views: list[View], tmp_path: Path) -> None:
    look = Features(made, tmp_path / "images", tmp_path / "kept")
    many = [View(views[0].image, f"r{i}", Degrade(kind="replace", seed=1)) for i in range(35)]
    look.prepare(many)
    assert look.computed == 35
    alone = encode(made, pixels(made, tmp_path / "images", many[34])[None])[0]
    torch.testing.assert_close(look(many[34]), alone)


@pytest.mark.parametrize(
    "what", ["file", "preprocessing", "tower", "layer", "select", "seed", "record", "strength", "kind"]
)
def test_whatever_a_feature_depends_on_makes_another_key(
    made: Bundle, views: list[View], tmp_path: Path, what: str
) -> None:
    look = Features(made, tmp_path / "images", tmp_path / "kept")
    view = views[3]
    spoiled = view.degrade
    assert spoiled is not None
    look.prepare([view])
    other = view
    if what == "file":
        other = replace(view, image=replace(view.image, sha256="f" * 64))
    elif what == "preprocessing":
        made.preprocess = replace(made.preprocess, mean=(0.4, 0.5, 0.5))
    elif what == "tower":
        models.stir(made.model.model.vision_tower.parameters(), 0)
        made.tower = ""
    elif what == "layer":
        made.model.config.vision_feature_layer = -2
    elif what == "select":
        made.model.config.vision_feature_select_strategy = "full"
    elif what == "seed":
        other = replace(view, degrade=replace(spoiled, seed=2))
    elif what == "record":
        other = replace(view, record="r1")
    elif what == "strength":
        other = replace(view, degrade=replace(spoiled, strength=0.5))
    else:
        other = replace(view, degrade=replace(spoiled, kind="gaussian"))
    later = Features(made, tmp_path / "images", tmp_path / "kept")
    assert later.key(other) not in later.place
    later.prepare([other])
    assert later.computed == 1


def test_neither_connector_nor_language_count(made: Bundle, views: list[View], tmp_path: Path) -> None:
    Features(made, tmp_path / "images", tmp_path / "kept").prepare(views)
    models.stir(made.model.model.multi_modal_projector.parameters(), 0)
    models.stir(made.model.model.language_model.parameters(), 0)
    made.tower = ""
    again = Features(made, tmp_path / "images", tmp_path / "kept")
    again.prepare(views)
    assert again.computed == 0


def test_black_images_are_all_equal(made: Bundle, views: list[View], tmp_path: Path) -> None:
    look = Features(made, tmp_path / "images", tmp_path / "kept")
    black = [View(v.image, v.record, Degrade(kind="black")) for v in views[:3]]
    look.prepare(black)
    assert torch.equal(look(black[0]), look(black[1]))
    assert torch.equal(look(black[0]), look(black[2]))
    dark = encode(made, made.preprocess(torch.zeros(28, 28, 3).numpy())[None])[0]
    torch.testing.assert_close(look(black[0]), dark)


@pytest.mark.parametrize("damage", ["empty", "short", "text", "flipped", "gone"])
def test_damaged_features_are_told_and_computed_again(
    made: Bundle, views: list[View], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    kept = tmp_path / "kept"
    whole = Features(made, tmp_path / "images", kept)
    whole.prepare(views)
    path = next(kept.glob("*.npy"))
    data = path.read_bytes()
    path.unlink()
    flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
    if damage != "gone":
        spoiled = {"empty": b"", "short": data[:-64], "text": b"not an array", "flipped": flipped}
        path.write_bytes(spoiled[damage])
    look = Features(made, tmp_path / "images", kept)
    told = capsys.readouterr().out
    assert path.name in told
    assert "computed again" in told
    look.prepare(views)
    assert look.computed == len(views)
    assert path.read_bytes() == data


def test_a_half_written_part_is_not_used(made: Bundle, views: list[View], tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / ".abc.1.part").write_bytes(b"half")
    look = Features(made, tmp_path / "images", kept)
    look.prepare(views)
    assert look.computed == 4
    assert not [p for p in kept.glob(".*.part") if p.name != ".abc.1.part"]


def test_the_tower_s_hash_does_not_know_of_the_rest(made: Bundle, language: Path) -> None:
    assert tower_hash(made) == tower_hash(models.bundle(language))
    assert tower_hash(made) != tower_hash(models.bundle(language, seed=1))


def test_a_tower_that_trains_is_shown_pixels(made: Bundle, views: list[View], tmp_path: Path) -> None:
    look = looker(made, tmp_path / "images", tmp_path / "kept", frozen=False)
    assert isinstance(look, Pixels)
    look.prepare(views)
    assert not (tmp_path / "kept").exists()
    assert look(views[0]).shape == (3, 28, 28)
    assert isinstance(looker(made, tmp_path / "images", tmp_path / "kept", frozen=True), Features)
