"""`sightline new`: a shipped recipe under a new name, comments kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sightline import cli, recipe
from sightline.cli.new import find, renamed, write
from sightline.errors import RecipeError

SHIPPED = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("source", sorted(p.stem for p in SHIPPED.glob("*.yaml")))
def test_every_shipped_recipe_can_be_begun_from(source: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    place = write("mine", source, Path("recipes/mine.yaml"))
    before = (SHIPPED / f"{source}.yaml").read_text(encoding="utf-8").split("\n")
    after = place.read_text(encoding="utf-8").split("\n")
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert ("name: mine") in [b for _, b in changed]
    assert all(a.startswith(("#", "name:")) for a, _ in changed)
    own, new = recipe.load(SHIPPED / f"{source}.yaml"), recipe.load(place)
    assert new.name == "mine"
    assert new.stages == own.stages
    assert new.seed == own.seed
    assert list(Path("recipes").iterdir()) == [place]


def test_the_head_shows_the_new_command(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["sightline", "new", "knees", "--from", "vqa_rad", "--to", "my/knees.yaml"]
    )
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert "sightline check my/knees.yaml" in capsys.readouterr().out
    assert Path("my/knees.yaml").read_text().split("\n")[0] == "# sightline run my/knees.yaml data.root=DIR"


def test_only_the_name_and_comments_change() -> None:
    text = "# sightline run recipes/a.yaml\n# recipes/a.yaml_old stays\nname: a  # mine\nstages: {x: recipes/a.yaml}\n"
    made = renamed(text, "b", Path("recipes/a.yaml"), Path("recipes/b.yaml"))
    assert made == (
        "# sightline run recipes/b.yaml\n# recipes/a.yaml_old stays\nname: b  # mine\nstages: {x: recipes/a.yaml}\n"
    )


def test_what_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="cannot be called"):
        write("../up", "quickstart", Path("up.yaml"))
    with pytest.raises(RecipeError, match="no recipe 'quickstrat'; did you mean 'quickstart'"):
        find("quickstrat")
    Path("there.yaml").write_text("mine")
    with pytest.raises(RecipeError, match="there already"):
        write("there", "quickstart", Path("there.yaml"))
    assert Path("there.yaml").read_text() == "mine"
    Path("bad.yaml").write_text("name: bad\nstages: {data: {stage: prepare, reader: nothing}}\n")
    with pytest.raises(RecipeError, match="fault"):
        write("good", "bad.yaml", Path("good.yaml"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.yaml", "there.yaml"]
