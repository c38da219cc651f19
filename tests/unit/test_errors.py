"""Errors say where, what was found, what was expected and how to mend it; the CLI relies on codes."""

from __future__ import annotations

import pytest

from sightline import errors
from sightline.errors import DataError, Interrupted, MissingExtra, SightlineError


def test_block_labels_only_what_is_known() -> None:
    error = DataError("a picture is absent", where="line 41", remedy="set root")
    assert error.block() == "data: a picture is absent\n  where:    line 41\n  remedy:   set root"
    assert str(error) == error.block()


def test_all_labels_stand_in_reading_order() -> None:
    block = SightlineError("x", where="a", found="b", expected="c", remedy="d").block()
    assert [line.split(":")[0].strip() for line in block.splitlines()[1:]] == [
        "where",
        "found",
        "expected",
        "remedy",
    ]


def kinds() -> list[type[SightlineError]]:
    found = [v for v in vars(errors).values() if isinstance(v, type) and issubclass(v, SightlineError)]
    assert len(found) >= 8
    return found


def test_every_kind_has_its_own_code() -> None:
    codes = [k.code for k in kinds()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("kind", kinds())
def test_exit_codes_tell_errors_from_interruptions(kind: type[SightlineError]) -> None:
    assert kind.exit_code == (75 if kind is Interrupted else 1)


def test_a_missing_package_names_its_extra() -> None:
    assert "pip install 'sightline[kit]'" in MissingExtra("gguf", "kit").block()
