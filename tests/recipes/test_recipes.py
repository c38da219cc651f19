"""Every recipe of the repository is sound, carries its command, and is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from sightline import recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
COUNT = 1


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
    first, second, *_ = path.read_text(encoding="utf-8").splitlines()
    assert first == f"# sightline run {name(path)}"
    assert second.startswith("# ")
    assert "expect" in second


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_a_recipe_names_no_place_of_one_machine(path: Path) -> None:
    assert "/home/" not in path.read_text(encoding="utf-8")
    assert "root: /" not in path.read_text(encoding="utf-8")
