"""Which files and libraries a number comes from."""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

from sightline.origin import origin, versions
from sightline.plugins import ROOT


def test_a_metric_is_its_file_and_those_that_it_imports() -> None:
    found = origin([ROOT / "metrics" / "vqa.py"], ("metrics",))
    assert set(found.files) >= {
        "metrics/vqa.py",
        "metrics/answers.py",
        "metrics/chinese.py",
        "metrics/measure.py",
    }
    assert all(name.startswith("metrics/") for name in found.files)
    text = (ROOT / "metrics" / "answers.py").read_bytes()
    assert found.files["metrics/answers.py"] == hashlib.sha256(text).hexdigest()
    assert "numpy" in found.libraries
    assert "torch" not in found.libraries


def test_imports_inside_functions_count() -> None:
    assert {"torch", "transformers"} <= set(
        origin([ROOT / "metrics" / "bertscore.py"], ("metrics",)).libraries
    )


def test_a_folder_is_followed_by_its_names() -> None:
    found = origin([ROOT / "judging.py"], ("judging", "stats", "metrics"))
    assert {
        "judging.py",
        "stats/__init__.py",
        "stats/contrast.py",
        "stats/interval.py",
        "metrics/reliance.py",
    } <= set(found.files)


def test_a_file_outside_the_package(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import json\nimport yaml.nodes\nfrom sightline.metrics import answers\nfrom . import near\n"
    )
    found = origin([path], ("metrics",))
    assert set(found.files) >= {"mine.py", "metrics/answers.py"}
    assert found.libraries == ("yaml",)


def test_versions_are_those_of_the_packages() -> None:
    assert versions(["numpy", "yaml", "no_such_library"]) == {
        "numpy": metadata.version("numpy"), "pyyaml": metadata.version("pyyaml"),
    }  # fmt: skip
