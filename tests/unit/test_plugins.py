"""Plug-ins are found, read and bound by their files alone; nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sightline import plugins
from sightline.errors import RecipeError

EVERY = [(kind, name) for kind in plugins.PLACES for name in plugins.names(kind)]  # type: ignore[arg-type]


def test_a_file_without_the_constant_is_no_plugin() -> None:
    assert "pairs" not in plugins.names("losses")
    assert "dpo" in plugins.names("losses")
    assert plugins.names("readers") == sorted(plugins.names("readers"))


def test_listing_and_options_import_nothing_heavy() -> None:
    code = (
        "import sys; from sightline import plugins\n"
        "for kind in plugins.PLACES:\n"
        "    for name in plugins.names(kind):\n"
        "        plugins.source(kind, name)\n"
        "plugins.bind('losses', 'dpo', {'beta': 0.2}); plugins.options('readers', 'phantom')\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'dpo'") as caught:
        plugins.source("losses", "dpoo")
    assert "dpo" in caught.value.expected


def test_bind_fills_defaults_and_converts() -> None:
    assert plugins.bind("losses", "dpo", {"beta": "1e-1"}) == {"beta": 0.1, "smoothing": 0.0}


def test_bind_reports_every_fault_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        plugins.bind("losses", "dpo", {"betta": 1, "smoothing": "much"}, where="aligned.loss.")
    assert "aligned.loss.betta" in caught.value.where
    assert "did you mean 'beta'" in caught.value.where
    assert "aligned.loss.smoothing" in caught.value.where
    assert caught.value.expected == "beta: float = 0.1, smoothing: float = 0.0"


def test_required_and_union_options_are_described() -> None:
    known = {"file": (str, ...), "limit": (int | None, None)}
    assert plugins.describe(known) == "file: str, limit: <class 'int'>|<class 'NoneType'> = None"
    assert plugins.describe({}) == "no options"


def test_a_plugin_outside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab.py").write_text("def words(predictions, *, least: int = 1):\n    return []\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.options("metrics", "my_lab:words") == {"least": (int, 1)}
    assert plugins.load("metrics", "my_lab:words")([]) == []
    with pytest.raises(RecipeError, match="no module 'no_lab'"):
        plugins.source("metrics", "no_lab:words")
    with pytest.raises(RecipeError, match="holds no function 'letters'"):
        plugins.options("metrics", "my_lab:letters")
    with pytest.raises(RecipeError, match="holds no function 'letters'"):
        plugins.load("metrics", "my_lab:letters")


def test_an_outside_file_may_end_with_the_constant_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def words(predictions, *, least: int = 1):\n    return []\n\n\nMETRIC = ('registered', words)\n"
    (tmp_path / "their_lab.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.load("metrics", "their_lab:words")[0] == "registered"
    assert plugins.options("metrics", "their_lab:words") == {"least": (int, 1)}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_plugin_loads_and_ends_with_its_constant(kind: plugins.Kind, name: str) -> None:
    path, _ = plugins.source(kind, name)
    assert plugins.load(kind, name) is not None
    assert path.read_text(encoding="utf-8").startswith(('"""', 'r"""'))
