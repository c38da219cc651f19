"""A Python file that stands in no package, as a module."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

STUDY = Path(__file__).parent / "fixtures" / "report" / "study.py"


def load_file(path: Path) -> ModuleType:
    """Run the file and return it as a module that is named after it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
