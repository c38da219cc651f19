"""One prompt written once, with several answers behind it: literal lines."""

from __future__ import annotations

import pytest

from sightline.data.chat import Encoded, Turn
from sightline.data.line import Line, Row, alone, prefix, shared
from sightline.types import Degrade, ImageRef, View

A, B, C, END, IMG = 11, 12, 13, 2, 3


def row(
    name: str, ids: tuple[int, ...], learned: tuple[int, ...], *images: int, degrade: Degrade | None = None
) -> Row:
    views = tuple(View(ImageRef(path=f"{i}.png", sha256=str(i)), name, degrade) for i in images)
    encoded = Encoded(ids, tuple(bool(flag) for flag in learned), tuple(range(len(images))), (Turn(0, 1, 1),))
    return Row(name, encoded, views)


def test_a_row_alone_is_plain() -> None:
    line = alone(row("x", (IMG, A, B, END, C), (0, 0, 1, 1, 0), 7))
    assert line == Line(
        ids=(IMG, A, B, END, C),
        learned=(False, False, True, True, False),
        positions=(0, 1, 2, 3, 4),
        sources=(0, 0, 1, 2, 3),
        segments=(0, 0, 0, 0, 0),
        answers=(-1, -1, 0, 0, -1),
        views=row("x", (), (), 7).views,
        rows=1,
    )
    assert not line.shares


def test_two_answers_share_their_prompt() -> None:
    chosen = row("x", (IMG, IMG, A, B, B, END, C), (0, 0, 0, 1, 1, 1, 0), 7)
    rejected = row("x", (IMG, IMG, A, C, END, C), (0, 0, 0, 1, 1, 0), 7)
    line = shared([chosen, rejected], IMG)
    assert line is not None
    #                   prompt        chosen      rejected; the unlearned tail C is gone
    assert line.ids == (IMG, IMG, A, B, B, END, C, END)
    assert line.positions == (0, 1, 2, 3, 4, 5, 3, 4)
    assert line.sources == (0, 0, 1, 2, 3, 4, 2, 6)
    assert line.segments == (0, 0, 0, 1, 1, 1, 2, 2)
    assert line.answers == (-1, -1, -1, 0, 0, 0, 1, 1)
    assert line.learned == (False, False, False, True, True, True, True, True)
    assert line.views == chosen.views
    assert line.shares


def test_rows_part_before_their_answers_where_the_questions_differ() -> None:
    first = row("x", (IMG, A, B, END), (0, 0, 1, 1), 7)
    second = row("y", (IMG, C, C, B, END), (0, 0, 0, 1, 1), 7)
    third = row("z", (IMG, A, A, END), (0, 0, 1, 1), 7)
    line = shared([first, second, third], IMG)
    assert line is not None
    assert line.ids == (IMG, A, B, END, C, C, B, END, A, A, END)
    assert line.positions == (0, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3)
    assert line.sources == (0, 0, 1, 2, 0, 4, 5, 6, 0, 8, 9)
    assert line.segments == (0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3)
    assert line.answers == (-1, -1, 0, 0, -1, -1, 1, 1, -1, 2, 2)


def test_the_common_beginning_ends_before_anything_is_learned() -> None:
    same = row("x", (IMG, A, B, B, END), (0, 0, 1, 1, 1), 7)
    other = row("x", (IMG, A, B, C, END), (0, 0, 1, 1, 1), 7)
    assert prefix([same, other]) == 2
    line = shared([same, other], IMG)
    assert line is not None
    assert line.ids == (IMG, A, B, B, END, B, C, END)


@pytest.mark.parametrize(
    "other",
    [
        row("x", (IMG, A, C, END), (0, 0, 1, 1), 8),  # another image
        row("x", (IMG, A, C, END), (0, 0, 1, 1), 7, degrade=Degrade(kind="black")),
        row("x", (A, C, END), (0, 1, 1)),  # no image
        row("x", (IMG, A, C, END), (0, 0, 0, 0), 7),  # nothing learned
        row("x", (C, A, C, END), (0, 0, 1, 1), 7),  # begins otherwise
    ],
)
def test_rows_that_cannot_share_say_so(other: Row) -> None:
    assert shared([row("x", (IMG, A, B, END), (0, 0, 1, 1), 7), other], IMG) is None


def test_an_image_behind_the_common_beginning_cannot_be_shared() -> None:
    first = row("x", (A, IMG, B, END), (0, 0, 1, 1), 7)
    second = row("x", (A, C, IMG, B, END), (0, 0, 0, 1, 1), 7)
    assert shared([first, second], IMG) is None


def test_two_records_see_one_file_alike_but_not_its_noise() -> None:
    noise = Degrade(kind="replace", seed=1)
    clean = [row(n, (IMG, A, B), (0, 0, 1), 7) for n in ("x", "y")]
    noisy = [row(n, (IMG, A, B), (0, 0, 1), 7, degrade=noise) for n in ("x", "y")]
    assert shared(clean, IMG) is not None
    assert shared(noisy, IMG) is None
    assert shared([noisy[0], noisy[0]], IMG) is not None
