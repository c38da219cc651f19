"""One lab for all trials; whatever they started is ended with the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Lab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = None
    try:
        made = Lab(tmp_path_factory.mktemp("chaos"))
        yield made
    finally:
        if made is not None:
            made.close()
