"""What reading and checking of an image file refuse, for every format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import ImageError


def refusal(path: Path, *ways: Callable[..., Any], **how: Any) -> ImageError:
    """All ways of reading refuse, with the same words."""
    errors = []
    for read in ways:
        with pytest.raises(ImageError) as caught:
            read(path, **how)
        errors.append(caught.value)
    assert len({error.what for error in errors}) == 1
    assert path.name in errors[0].where
    assert str(path.parent) not in errors[0].block()
    assert "0x" not in errors[0].block()
    assert errors[0].expected
    return errors[0]
