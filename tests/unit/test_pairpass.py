"""Who sees whom in a row that holds several answers, as pictures."""

from __future__ import annotations

import pytest
import torch

from sightline.errors import ModelError
from sightline.models.pairpass import blocks, mask, visible


def test_answers_see_the_prompt_and_themselves() -> None:
    #                          p  p  p  a  a  b  b  b
    segment = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2]])
    assert visible(torch.zeros_like(segment), segment)[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0],  # p
        [1, 1, 0, 0, 0, 0, 0, 0],  # p
        [1, 1, 1, 0, 0, 0, 0, 0],  # p
        [1, 1, 1, 1, 0, 0, 0, 0],  # a
        [1, 1, 1, 1, 1, 0, 0, 0],  # a
        [1, 1, 1, 0, 0, 1, 0, 0],  # b
        [1, 1, 1, 0, 0, 1, 1, 0],  # b
        [1, 1, 1, 0, 0, 1, 1, 1],  # b
    ]


def test_documents_and_padding_keep_to_themselves() -> None:
    #                           .   p  a   q  q  c
    document = torch.tensor([[-1, 0, 0, 2, 2, 2]])
    segment = torch.tensor([[0, 0, 1, 0, 0, 1]])
    assert visible(document, segment)[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 1, 1, 1],
    ]


def test_masks_in_the_form_that_each_attention_takes() -> None:
    allowed = torch.tensor([[[True, False], [True, True]]])
    assert mask(allowed, "sdpa", torch.float32).tolist() == [[[[True, False], [True, True]]]]
    lowest = torch.finfo(torch.float64).min
    assert mask(allowed, "eager", torch.float64).tolist() == [[[[0.0, lowest], [0.0, 0.0]]]]
    with pytest.raises(ModelError, match="takes no mask for shared prompts"):
        mask(allowed, "flash_attention_2", torch.float32)


def test_flex_attention_s_mask_says_the_same() -> None:
    document = torch.tensor([[0, 0, 0, 1, 1, -1], [3, 3, 3, 3, 3, 3]])
    segment = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 0, 1, 1, 2, 2]])
    made = blocks(document, segment)
    grid = torch.arange(6)
    dense = made.mask_mod(
        torch.arange(2)[:, None, None], torch.tensor(0), grid[None, :, None], grid[None, None, :]
    )
    assert torch.equal(dense, visible(document, segment))
    assert made.shape == (2, 1, 6, 6)
