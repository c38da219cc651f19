"""Documentation that cannot rot: Python blocks run, recipes are sound, commands, targets and links exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from sightline import recipe
from sightline.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SHELL = ("sh", "bash", "console")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def with_blocks(*languages: str) -> list[Path]:
    return [page for page in PAGES if blocks(page, *languages)]


def words_after(page: Path, command: str) -> list[list[str]]:
    """The words after a command in a page's shell blocks, comments left out."""
    lines = [line.split(" #")[0].split() for text in blocks(page, *SHELL) for line in text.splitlines()]
    return [line[1:] for line in lines if line[:1] == [command]]


def test_there_are_pages_to_check() -> None:
    assert len(with_blocks("python")) >= 5


@pytest.mark.parametrize("page", with_blocks("python"), ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    found = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("page", with_blocks("yaml"), ids=name)
def test_recipes_are_sound(page: Path) -> None:
    for text in blocks(page, "yaml"):
        tree = yaml.safe_load(text)
        if isinstance(tree, dict) and {"name", "stages"} <= set(tree):
            recipe.check(tree, name(page))


@pytest.mark.parametrize("page", with_blocks(*SHELL), ids=name)
def test_commands_exist(page: Path) -> None:
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    said = {words[0] for words in words_after(page, "sightline") if not words[0].startswith("-")}
    assert said <= known


@pytest.mark.parametrize("page", with_blocks(*SHELL), ids=name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {words[0] for words in words_after(page, "make") if words} <= known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    links = [target for target in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in target]
    assert [target for target in links if not (page.parent / target).exists()] == []


def test_every_command_is_on_the_map() -> None:
    tour = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"`{command} " in tour or f"`{command}`" in tour


def test_every_recipe_setting_of_a_stage_is_named() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for section in recipe.STAGES.values():
        for key in set(section.model_fields) - {"stage"}:
            assert f"`{key}`" in page
