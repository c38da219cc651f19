"""Gates: layers, sizes, docstrings and a light start. What is broken here is mended, never silenced."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sightline"
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
BENCHES = sorted((ROOT / "bench").glob("*.py"))
ALL = [*FILES, *TESTS, *BENCHES]
MOST_LINES, MOST_FUNCTION, MOST_ARGUMENTS = 400, 60, 10
SILENCERS = ("# no" + "qa", "except Exception:\n        continue", "has" + "attr(self")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def definitions(path: Path) -> Iterator[tuple[Definition, bool]]:
    """Every function and class of a file, and whether others may use it."""

    def walk(body: list[ast.stmt], public: bool) -> Iterator[tuple[Definition, bool]]:
        for node in body:
            if isinstance(node, Definition):
                open_here = public and not node.name.startswith("_")
                yield node, open_here
                inner = open_here and isinstance(node, ast.ClassDef)
                yield from walk(node.body, inner)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")).body, True)


def test_imports_go_downward() -> None:
    found = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout


@pytest.mark.parametrize("path", ALL, ids=name)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", ALL, ids=name)
def test_functions_are_short(path: Path) -> None:
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node, _ in definitions(path)
        if not isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno + 1 > MOST_FUNCTION
    ]
    assert long == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_public_things_say_what_they_are_for(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = [] if ast.get_docstring(tree) else ["the module"]
    silent += [node.name for node, public in definitions(path) if public and not ast.get_docstring(node)]
    assert silent == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_signatures_are_typed(path: Path) -> None:
    bare = [
        node.name
        for node, _ in definitions(path)
        if isinstance(node, ast.FunctionDef) and node.returns is None and node.name != "__init__"
    ]
    assert bare == []


@pytest.mark.parametrize("path", ALL, ids=name)
def test_nothing_is_silenced(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [s for s in SILENCERS if s in text] == []


def test_no_vague_file_names() -> None:
    vague = {"utils", "helpers", "common", "base", "manager", "misc"}
    assert [name(p) for p in FILES if p.stem in vague] == []


@pytest.mark.parametrize(
    ("words", "absent"),
    [
        (["--help"], {"torch", "transformers", "numpy", "pydantic", "yaml"}),
        (["ls"], {"torch", "transformers", "numpy"}),
        (["check", "recipes/quickstart.yaml"], {"torch", "transformers", "peft"}),
        (["show", "absent"], {"torch", "transformers", "numpy"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_light_start(words: list[str], absent: set[str]) -> None:
    code = (
        "import sys; from sightline.cli import main\n"
        f"sys.argv = ['sightline', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print('HEAVY', sorted({absent!r} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "HEAVY []"


def test_what_is_up_to_date_is_found_so_without_torch(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "name: small\nstages:\n  data: {stage: prepare, reader: phantom, patients: 6}\n", encoding="utf-8"
    )
    code = (
        "import sys; from sightline.cli import main\n"
        "sys.argv = ['sightline', 'run', 'small.yaml']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('HEAVY', sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert "data: prepare" in said[0]
    assert "data: up to date" in said[1]
    assert said[1].splitlines()[-1] == "HEAVY []"
