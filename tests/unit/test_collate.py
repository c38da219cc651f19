"""Batches, written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sightline.data.chat import Encoded, Turn
from sightline.data.collate import Pair, PairCollator, Plan, SupervisedCollator, Together, together
from sightline.data.line import Row
from sightline.images.seen import Seen
from sightline.types import ImageRef, View

PAD, N = 0, -100
A, B, C, D, END, IMG = 11, 12, 13, 14, 2, 3


def look(view: View) -> Seen:
    """A tensor that says which view was asked for: [1, 2]."""
    return Seen(torch.tensor([[float(view.image.path), float(len(view.record))]]), (int(view.image.path), 1))


def shown(batch: dict[str, Any]) -> list[float]:
    """Which images a batch holds."""
    return [float(image[0, 0]) for image in batch["images"]]


def plan(**more: Any) -> Plan:
    return Plan(**{"look": look, "pad": PAD, "image_token": IMG} | more)


def row(name: str, ids: tuple[int, ...], learned: tuple[int, ...], *images: int) -> Row:
    views = tuple(View(ImageRef(path=str(i)), name) for i in images)
    encoded = Encoded(ids, tuple(bool(flag) for flag in learned), tuple(range(len(images))), (Turn(0, 1, 1),))
    return Row(name, encoded, views)


def taught(rows: list[Row], **more: Any) -> dict[str, Any]:
    """Rows that stand alone."""
    return SupervisedCollator(plan(**more))([Together((r,)) for r in rows])


def test_rows_are_padded_on_the_right_and_only_answers_are_labels() -> None:
    rows = [
        row("x", (IMG, IMG, A, B, END), (0, 0, 0, 1, 1), 7),
        row("yy", (IMG, IMG, C, END), (0, 0, 1, 1), 8),
    ]
    made = taught(rows)
    # IMG IMG a b END
    # IMG IMG c END .
    assert made["input_ids"].tolist() == [[IMG, IMG, A, B, END], [IMG, IMG, C, END, PAD]]
    #          -    -    -    b    END
    #          -    -    c    END  .
    assert made["labels"].tolist() == [[N, N, N, B, END], [N, N, C, END, N]]
    assert made["document"].tolist() == [[0, 0, 0, 0, 0], [1, 1, 1, 1, -1]]
    assert made["answer"].tolist() == [[-1, -1, -1, 0, 0], [-1, -1, 1, 1, -1]]
    assert made["source"].tolist() == [[0, 0, 1, 2, 3], [0, 0, 1, 2, 0]]
    assert made["position"].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 0]]
    assert made["segment"].tolist() == [[0] * 5] * 2
    assert [image.tolist() for image in made["images"]] == [[[7.0, 1.0]], [[8.0, 2.0]]]
    assert made["grids"] == [(7, 1), (8, 1)]
    assert made["shown"].tolist() == [0, 1]
    assert (made["ids"], made["answers"], made["plain"]) == (["x", "yy"], 2, True)
    assert made["input_ids"].dtype == made["labels"].dtype == torch.long


def test_padding_on_the_left_moves_the_places_and_not_the_positions() -> None:
    rows = [row("x", (IMG, A, B, END), (0, 0, 1, 1), 7), row("y", (IMG, END), (0, 1), 8)]
    made = taught(rows, side="left")
    assert made["input_ids"].tolist() == [[IMG, A, B, END], [PAD, PAD, IMG, END]]
    assert made["position"].tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert made["source"].tolist() == [[0, 0, 1, 2], [0, 0, 2, 2]]
    assert made["document"].tolist() == [[0, 0, 0, 0], [-1, -1, 1, 1]]
    assert not made["plain"]


def test_a_learned_token_that_equals_the_padding_stays_learned() -> None:
    made = taught([row("x", (A, B, END), (0, 1, 1), 1), row("y", (A, END), (0, 1), 1)], pad=END)
    assert made["input_ids"].tolist() == [[A, B, END], [A, END, END]]
    assert made["labels"].tolist() == [[N, B, END], [N, END, N]]
    assert made["document"].tolist() == [[0, 0, 0], [1, 1, -1]]


def test_several_images_follow_each_other_in_row_order_and_equal_ones_come_once() -> None:
    rows = [row("x", (IMG, IMG, A), (0, 0, 1), 5, 4), row("y", (IMG, A), (0, 1), 6)]
    made = taught([*rows, row("z", (IMG, IMG, A), (0, 0, 1), 6, 5)])
    assert shown(made) == [5.0, 4.0, 6.0]
    assert made["shown"].tolist() == [0, 1, 2, 2, 0]


def test_conversations_about_one_image_stand_together() -> None:
    rows = [
        row("x", (IMG, A, B, END), (0, 0, 1, 1), 1),
        row("y", (IMG, C, END), (0, 0, 1), 2),
        row("z", (IMG, C, END), (0, 0, 1), 1),
        row("w", (IMG, D, END), (0, 0, 1), 1),
        row("v", (A, END), (0, 1)),
        row("u", (A, END), (0, 1)),
    ]
    groups = together(rows, 2, seed=0)
    assert sorted(sorted(r.id for r in g.rows) for g in groups if len(g.rows) == 2) in (
        [["x", "z"]], [["w", "x"]], [["w", "z"]]
    )  # fmt: skip
    assert sorted(r.id for g in groups for r in g.rows) == ["u", "v", "w", "x", "y", "z"]
    assert together(rows[::-1], 2, seed=0) == groups
    assert len({str(together(rows, 2, seed=s)) for s in range(8)}) > 1
    assert together(rows, 3, seed=0)[0].id == "+".join(r.id for r in together(rows, 3, seed=0)[0].rows)
    made = SupervisedCollator(plan())([Together((rows[0], rows[2])), Together((rows[1],))])
    assert made["input_ids"].tolist() == [[IMG, A, B, END, C, END], [IMG, C, END, PAD, PAD, PAD]]
    assert made["answer"].tolist() == [[-1, -1, 0, 0, -1, 1], [-1, -1, 2, -1, -1, -1]]
    assert made["segment"].tolist() == [[0, 1, 1, 1, 2, 2], [0] * 6]
    assert (made["ids"], made["answers"], made["plain"]) == (["x", "z", "y"], 3, False)
    apart = SupervisedCollator(plan(share=False))([Together((rows[0], rows[2]))])
    assert apart["input_ids"].tolist() == [[IMG, A, B, END], [IMG, C, END, PAD]]
    assert apart["plain"]


def pairs() -> list[Pair]:
    """p shows another image on its rejected side, q the same one."""
    return [
        Pair("p", row("p", (IMG, A, B, END), (0, 0, 1, 1), 1), row("p", (IMG, A, C, END), (0, 0, 1, 1), 2)),
        Pair("q", row("q", (IMG, A, D), (0, 0, 1), 3), row("q", (IMG, A, B, C, END), (0, 0, 1, 1, 1), 3)),
    ]


def test_pairs_of_one_image_share_a_row_and_others_take_two() -> None:
    made = PairCollator(plan(), {})(pairs())
    assert made["input_ids"].tolist() == [
        [IMG, A, B, END, PAD, PAD],  # p, chosen
        [IMG, A, C, END, PAD, PAD],  # p, rejected
        [IMG, A, D, B, C, END],      # q, both
    ]  # fmt: skip
    assert made["labels"].tolist() == [
        [N, N, B, END, N, N],
        [N, N, C, END, N, N],
        [N, N, D, B, C, END],
    ]
    assert made["answer"].tolist() == [
        [-1, -1, 0, 0, -1, -1],  # chosen of p
        [-1, -1, 2, 2, -1, -1],  # rejected of p
        [-1, -1, 1, 3, 3, 3],    # chosen and rejected of q
    ]  # fmt: skip
    assert made["position"].tolist()[2] == [0, 1, 2, 2, 3, 4]
    assert made["source"].tolist()[2] == [0, 0, 1, 1, 3, 4]
    assert made["segment"].tolist()[2] == [0, 0, 1, 2, 2, 2]
    assert shown(made) == [1.0, 2.0, 3.0]
    assert made["shown"].tolist() == [0, 1, 2]
    assert (made["ids"], made["answers"], made["plain"]) == (["p", "q"], 4, False)
    assert "reference" not in made


def test_without_sharing_every_side_is_a_row() -> None:
    made = PairCollator(plan(share=False), {})(pairs())
    assert made["input_ids"].tolist() == [
        [IMG, A, B, END, PAD],  # p, chosen
        [IMG, A, C, END, PAD],  # p, rejected
        [IMG, A, D, PAD, PAD],  # q, chosen
        [IMG, A, B, C, END],    # q, rejected
    ]  # fmt: skip
    assert made["answer"].tolist() == [
        [-1, -1, 0, 0, -1],
        [-1, -1, 2, 2, -1],
        [-1, -1, 1, -1, -1],
        [-1, -1, 3, 3, 3],
    ]
    assert made["shown"].tolist() == [0, 1, 2, 2]  # the image of q comes once all the same
    assert made["plain"]


def test_lines_are_packed_behind_one_another_without_padding() -> None:
    made = PairCollator(plan(pack=10), {})(pairs())
    assert made["input_ids"].tolist() == [
        [IMG, A, B, END, IMG, A, D, B, C, END],    # chosen of p, then q
        [IMG, A, C, END, *[PAD] * 6],              # rejected of p
    ]  # fmt: skip
    assert made["document"].tolist() == [[0, 0, 0, 0, 2, 2, 2, 2, 2, 2], [1, 1, 1, 1, *[-1] * 6]]
    assert made["position"].tolist()[0] == [0, 1, 2, 3, 0, 1, 2, 2, 3, 4]
    assert made["source"].tolist()[0] == [0, 0, 1, 2, 4, 4, 5, 5, 7, 8]
    assert made["answer"].tolist()[0] == [-1, -1, 0, 0, -1, -1, 1, 3, 3, 3]
    assert shown(made) == [1.0, 3.0, 2.0]
    assert not made["plain"]
    whole = PairCollator(plan(pack=100), {})(pairs())
    assert whole["input_ids"].shape == (1, 14)
    assert PAD not in whole["input_ids"]


def test_a_third_row_stands_with_the_others_or_apart() -> None:
    third = row("q", (IMG, A, D), (0, 0, 1), 9)
    pair = Pair("q", pairs()[1].chosen, pairs()[1].rejected, third)
    made = PairCollator(plan(), {"q": (-1.0, -2.0, -3.0)})([pair])
    assert made["input_ids"].tolist() == [[IMG, A, D, B, C, END], [IMG, A, D, PAD, PAD, PAD]]
    assert made["answer"].tolist() == [[-1, -1, 0, 1, 1, 1], [-1, -1, 2, -1, -1, -1]]
    assert made["answers"] == 3
    assert made["reference"].tolist() == [[-1.0], [-2.0], [-3.0]]
    assert [v.image.path for v in pair.views] == ["3", "3", "9"]
    apart = PairCollator(plan(), {}, apart=True)([pair])
    assert apart["answers"] == 2
    assert apart["third"]["input_ids"].tolist() == [[IMG, A, D]]
    assert apart["third"]["answer"].tolist() == [[-1, -1, 0]]
    assert shown(apart["third"]) == [9.0]


def test_references_come_with_their_pairs() -> None:
    known = {"q": (-3.0, -4.0), "p": (-1.0, -2.0), "other": (0.0, 0.0)}
    made = PairCollator(plan(), known)(pairs())
    #                                     p     q
    assert made["reference"].tolist() == [[-1.0, -3.0], [-2.0, -4.0]]
    assert made["reference"].dtype == torch.float64


def test_a_pair_without_its_reference_is_not_passed_over() -> None:
    with pytest.raises(KeyError, match="q"):
        PairCollator(plan(), {"p": (0.0, 0.0)})(pairs())
