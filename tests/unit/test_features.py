"""Features of a frozen tower: computed once, and never stale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from sightline.errors import ModelError
from sightline.images.seen import Seen
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels, encode, looker, pixels, weights_hash
from sightline.settings import Speed
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
    expected = encode(made, [pixels(made, tmp_path / "images", v) for v in views])
    assert [e.shape for e in expected] == [(4, 16)] * 4
    assert all(torch.equal(look(v).values, e) for v, e in zip(views, expected, strict=True))

    again = Features(made, tmp_path / "images", tmp_path / "kept")
    again.prepare(views)
    assert again.computed == 0
    assert torch.equal(again(views[3]).values, expected[3])
    look.prepare([*views, View(views[1].image, "other record")])
    assert look.computed == 4  # a clean image does not depend on the record that shows it


def test_a_file_is_not_read_again(made: Bundle, views: list[View], tmp_path: Path) -> None:
    Features(made, tmp_path / "images", tmp_path / "kept").prepare(views)
    look = Features(made, tmp_path / "nowhere", tmp_path / "kept")
    look.prepare(views)
    assert look(views[0]).values.shape == (4, 16)


def test_more_views_than_one_batch(made: Bundle, views: list[View], tmp_path: Path) -> None:
    look = Features(made, tmp_path / "images", tmp_path / "kept")
    many = [View(views[0].image, f"r{i}", Degrade(kind="replace", seed=1)) for i in range(35)]
    look.prepare(many)
    assert look.computed == 35
    alone = encode(made, [pixels(made, tmp_path / "images", many[34])])[0]
    torch.testing.assert_close(look(many[34]).values, alone)


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
    assert torch.equal(look(black[0]).values, look(black[1]).values)
    assert torch.equal(look(black[0]).values, look(black[2]).values)
    dark = encode(made, [Seen(made.preprocess(torch.zeros(28, 28, 3).numpy()))])[0]
    torch.testing.assert_close(look(black[0]).values, dark)
    assert sum(p.stat().st_size for p in (tmp_path / "kept").glob("*.f32")) == 4 * 16 * 4  # once


@pytest.mark.parametrize("damage", ["empty", "short", "text", "flipped", "gone"])
def test_damaged_features_are_told_and_computed_again(
    made: Bundle, views: list[View], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    kept = tmp_path / "kept"
    whole = Features(made, tmp_path / "images", kept)
    whole.prepare(views)
    path = next(kept.glob("*.f32"))
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
    assert weights_hash(made, "vision") == weights_hash(models.bundle(language), "vision")
    assert weights_hash(made, "vision") != weights_hash(models.bundle(language, seed=1), "vision")


def choose(
    made: Bundle, root: Path, views: list[View], vision: bool = True, connector: bool = True, **speed: Any
) -> Any:
    frozen = {"vision": vision, "connector": connector}
    return looker(made, root / "images", root / "kept", views, frozen, Speed(**speed))


def test_a_tower_that_trains_is_shown_pixels(made: Bundle, views: list[View], tmp_path: Path) -> None:
    look = choose(made, tmp_path, views, vision=False)
    assert isinstance(look, Pixels)
    look.prepare(views)
    assert not (tmp_path / "kept").exists()
    assert look(views[0]).values.shape == (3, 28, 28)


def test_what_is_kept_depends_on_what_trains_and_on_what_fits(
    made: Bundle, views: list[View], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 4 views of 4 image tokens in float32: 16 wide before the connector, 32 wide behind it
    before, after = 4 * 4 * 16 * 4 / 2**30, 4 * 4 * 32 * 4 / 2**30
    assert choose(made, tmp_path, views).given == "tokens"
    assert choose(made, tmp_path, views, connector=False).given == "features"
    assert choose(made, tmp_path, views, cache="before").given == "features"
    assert choose(made, tmp_path, views, cache_gb=after).given == "tokens"
    assert choose(made, tmp_path, views, cache_gb=before).given == "features"
    assert "4 images" in capsys.readouterr().out
    assert choose(made, tmp_path, views, cache_gb=before / 2).given == "pixels"
    assert "features are not kept" in capsys.readouterr().out
    assert choose(made, tmp_path, views, cache="off").given == "pixels"


@pytest.mark.parametrize(
    ("speed", "vision", "connector", "what"),
    [
        ({"cache": "before"}, False, True, "features of a tower that trains cannot be kept"),
        ({"cache": "after"}, True, False, "tokens of a connector that trains cannot be kept"),
        ({"cache": "after", "cache_gb": 1e-9}, True, True, "the tokens of 4 images do not fit"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    made: Bundle,
    views: list[View],
    tmp_path: Path,
    speed: dict[str, Any],
    vision: bool,
    connector: bool,
    what: str,
) -> None:
    with pytest.raises(ModelError, match=what):
        choose(made, tmp_path, views, vision, connector, **speed)


def test_tokens_are_what_the_connector_makes_of_the_features(
    made: Bundle, views: list[View], tmp_path: Path
) -> None:
    tokens, features = (choose(made, tmp_path, views, cache=c) for c in ("after", "before"))
    tokens.prepare(views)
    features.prepare(views)
    assert tokens(views[0]).values.shape == (4, 32)
    with torch.no_grad():
        wanted = made.family.connect(made.model, [features(views[0]).values], [()])[0]
    torch.testing.assert_close(tokens(views[0]).values, wanted)
    assert tokens.key(views[0]) != features.key(views[0])
    with torch.no_grad():
        made.model.model.multi_modal_projector.linear_1.weight.add_(0.1)
    later = choose(made, tmp_path, views, cache="after")
    assert later.key(views[0]) != tokens.key(views[0])
    assert features.of(made).key(views[0]) == features.key(views[0])


def test_a_frozen_tower_runs_without_gradients(made: Bundle) -> None:
    ids = torch.tensor([[9, *[made.image_token] * 4, 7]])
    batch = {"input_ids": ids, "images": torch.randn(1, 3, 28, 28)}
    tower, seen = made.model.model.vision_tower, []
    hook = tower.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    for trains in (False, True):
        tower.requires_grad_(trains)
        made.forward(batch, given="pixels")
    hook.remove()
    assert seen == [False, True]
