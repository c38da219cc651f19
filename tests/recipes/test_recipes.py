"""Every recipe of the repository is sound, carries its command, and is counted."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest

from sightline import recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
COUNT = 15


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_none_is_lost() -> None:
    assert len(RECIPES) == COUNT


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_is_sound(path: Path) -> None:
    made = recipe.load(path)
    assert made.name == path.stem


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_starts_with_its_command_and_what_it_needs(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    first, *more = takewhile(lambda line: line.startswith("#"), lines)
    assert f"{first} ".startswith(f"# sightline run {name(path)} ")
    assert any("expect" in line for line in more)


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_names_no_place_of_one_machine(path: Path) -> None:
    assert "/home/" not in path.read_text(encoding="utf-8")
    assert "root: /" not in path.read_text(encoding="utf-8")
