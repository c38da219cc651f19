"""Batches, written out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sightline.data.chat import Encoded, Turn
from sightline.data.collate import Pair, PairCollator, Row, SupervisedCollator
from sightline.types import ImageRef, View

PAD, N = 0, -100
A, B, C, D, END, IMG = 11, 12, 13, 14, 2, 3


def look(view: View) -> Tensor:
    """A tensor that says which view was asked for: [1, 2]."""
    return torch.tensor([[float(view.image.path), float(len(view.record))]])


def row(name: str, ids: tuple[int, ...], learned: tuple[int, ...], *images: int) -> Row:
    views = tuple(View(ImageRef(path=str(i)), name) for i in images)
    encoded = Encoded(ids, tuple(bool(flag) for flag in learned), tuple(range(len(images))), (Turn(0, 1, 1),))
    return Row(name, encoded, views)


def test_rows_are_padded_on_the_right_and_only_answers_are_labels() -> None:
    rows = [
        row("x", (IMG, IMG, A, B, END), (0, 0, 0, 1, 1), 7),
        row("yy", (IMG, IMG, C, END), (0, 0, 1, 1), 8),
    ]
    made = SupervisedCollator(look, PAD)(rows)
    # IMG IMG a b END
    # IMG IMG c END .
    assert made["input_ids"].tolist() == [[IMG, IMG, A, B, END], [IMG, IMG, C, END, PAD]]
    #          -    -    -    b    END
    #          -    -    c    END  .
    assert made["labels"].tolist() == [[N, N, N, B, END], [N, N, C, END, N]]
    assert made["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert made["images"].tolist() == [[[7.0, 1.0]], [[8.0, 2.0]]]
    assert made["ids"] == ["x", "yy"]
    assert made["input_ids"].dtype == made["labels"].dtype == made["attention_mask"].dtype == torch.long


def test_a_learned_token_that_equals_the_padding_stays_learned() -> None:
    made = SupervisedCollator(look, END)([row("x", (A, B, END), (0, 1, 1), 1), row("y", (A, END), (0, 1), 1)])
    assert made["input_ids"].tolist() == [[A, B, END], [A, END, END]]
    assert made["labels"].tolist() == [[N, B, END], [N, END, N]]
    assert made["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]


def test_several_images_follow_each_other_in_row_order() -> None:
    rows = [row("x", (IMG, IMG, A), (0, 0, 1), 5, 4), row("y", (IMG, A), (0, 1), 6)]
    assert SupervisedCollator(look, PAD)(rows)["images"][:, 0, 0].tolist() == [5.0, 4.0, 6.0]


def pairs() -> list[Pair]:
    return [
        Pair("p", row("p", (IMG, A, B, END), (0, 0, 1, 1), 1), row("p", (IMG, A, C, END), (0, 0, 1, 1), 2)),
        Pair("q", row("q", (IMG, A, D), (0, 0, 1), 3), row("q", (IMG, A, B, C, END), (0, 0, 1, 1, 1), 3)),
    ]


def test_pairs_stand_chosen_first_then_rejected() -> None:
    made = PairCollator(look, PAD, {})(pairs())
    assert made["input_ids"].tolist() == [
        [IMG, A, B, END, PAD],  # p, chosen
        [IMG, A, D, PAD, PAD],  # q, chosen
        [IMG, A, C, END, PAD],  # p, rejected
        [IMG, A, B, C, END],    # q, rejected
    ]  # fmt: skip
    assert made["labels"].tolist() == [
        [N, N, B, END, N],
        [N, N, D, N, N],
        [N, N, C, END, N],
        [N, N, B, C, END],
    ]
    assert made["images"][:, 0, 0].tolist() == [1.0, 3.0, 2.0, 3.0]
    assert made["ids"] == ["p", "q"]
    assert "reference" not in made


def test_references_come_with_their_pairs() -> None:
    known = {"q": (-3.0, -4.0), "p": (-1.0, -2.0), "other": (0.0, 0.0)}
    made = PairCollator(look, PAD, known)(pairs())
    #                                     p     q
    assert made["reference"].tolist() == [[-1.0, -3.0], [-2.0, -4.0]]
    assert made["reference"].dtype == torch.float64


def test_a_pair_without_its_reference_is_not_passed_over() -> None:
    with pytest.raises(KeyError, match="q"):
        PairCollator(look, PAD, {"p": (0.0, 0.0)})(pairs())
