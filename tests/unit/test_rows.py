"""Samples and preferences to rows; what does not fit is set aside and counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

import models
from sightline.data.chat import Chat
from sightline.data.rows import TOO_LONG, encode_pairs, encode_samples, select
from sightline.types import Degrade, ImageRef, Message, Preference

ONE, TWO = ImageRef(path="one.png", sha256="1"), ImageRef(path="two.png", sha256="2")


@pytest.fixture
def chat() -> Chat:
    return Chat(tokenizer=models.bytes_tokenizer(), image_token=3, tokens_per_image=2)


def pair(**more: object) -> Preference:
    plain = Preference(
        id="s/degraded",
        patient="p",
        images=(ONE,),
        prompt=(Message(role="user", parts=(0, "Is it?")),),
        chosen="Yes",
        rejected="No",
        why="wrong_finding",
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def test_select_reads_attributes_and_the_kind_of_a_pair() -> None:
    old = models.sample("a", [("q", "Yes")], [ONE], attributes={"sex": "F", "site": "x"})
    new = models.sample("b", [("q", "Yes")], [ONE], attributes={"sex": "M"})
    assert select([old, new], {"sex": "F"}) == [old]
    assert select([old, new], {"sex": "F", "site": "y"}) == []
    assert select([old, new], {}) == [old, new]
    assert select([old, new], {"sex": ("M", "F")}) == [old, new]
    assert select([old, new], {"sex": ["F", "X"], "site": "x"}) == [old]
    other = pair(why="degraded", rejected="Yes", rejected_images=Degrade(kind="black"))
    assert select([pair(), other], {"kind": "degraded"}) == [other]
    assert select([pair(), other], {"sex": "F"}) == []


def test_samples_become_rows_with_a_view_per_image(chat: Chat) -> None:
    sample = models.sample("a", [("Is it?", "Yes"), ("Sure?", "No")], [ONE, TWO])
    rows, aside = encode_samples([sample], chat, 200)
    assert aside == []
    assert rows[0].encoded == chat.encode(sample.messages)
    assert [(v.image.path, v.record, v.degrade) for v in rows[0].views] == [
        ("one.png", "a", None),
        ("two.png", "a", None),
    ]


def test_samples_that_do_not_fit_are_cut_or_set_aside_with_the_reason(chat: Chat) -> None:
    sample = models.sample("a", [("Is it?", "Yes"), ("Sure?", "No")], [ONE])
    whole = len(chat.encode(sample.messages).ids)
    rows, aside = encode_samples([sample], chat, whole - 5)
    assert [len(r.encoded.turns) for r in rows] == [1]
    rows, aside = encode_samples([sample], chat, 10)
    assert rows == []
    assert aside == [{"id": "a", "reason": TOO_LONG, "tokens": whole, "max_tokens": 10}]


def test_only_the_last_answer_of_a_pair_is_learned(chat: Chat) -> None:
    talk = (
        Message(role="user", parts=(0, "Is it?")),
        Message(role="assistant", parts=("Yes",)),
        Message(role="user", parts=("Sure?",)),
    )
    pairs, aside = encode_pairs([pair(prompt=talk, chosen="Yes", rejected="No")], chat, 200)
    assert aside == []
    for side, answer in ((pairs[0].chosen, "Yes"), (pairs[0].rejected, "No")):
        learned = [i for i, flag in zip(side.encoded.ids, side.encoded.learned, strict=True) if flag]
        assert chat.tokenizer.decode(learned) == answer + "<|im_end|>"
        assert len(side.encoded.turns) == 2


def test_each_side_of_a_pair_sees_its_own_images(chat: Chat) -> None:
    spoiled = Degrade(kind="black", seed=3)
    made, _ = encode_pairs(
        [
            pair(id="a"),
            pair(id="b", rejected="Yes", rejected_images=spoiled),
            pair(id="c", rejected="Yes", rejected_images=(TWO,)),
            pair(id="d", chosen_images=(TWO,), rejected_images=spoiled),
        ],
        chat,
        200,
    )
    seen = [[(v.image.path, v.degrade) for row in (p.chosen, p.rejected) for v in row.views] for p in made]
    assert seen == [
        [("one.png", None), ("one.png", None)],
        [("one.png", None), ("one.png", spoiled)],
        [("one.png", None), ("two.png", None)],
        [("two.png", None), ("one.png", spoiled)],
    ]
    assert {v.record for p in made for v in p.rejected.views} == {"a", "b", "c", "d"}
    assert made[1].chosen.encoded == made[1].rejected.encoded


def test_a_pair_of_which_one_side_is_too_long_is_set_aside_whole(chat: Chat) -> None:
    length = len(chat.encode([*pair().prompt, Message(role="assistant", parts=("Yes",))]).ids)
    pairs, aside = encode_pairs([pair(rejected="No, it is not at all")], chat, length)
    assert pairs == []
    assert aside == [{"id": "s/degraded", "reason": TOO_LONG, "max_tokens": length}]
    pairs, aside = encode_pairs([pair(chosen="Yes", rejected="No")], chat, length)
    assert len(pairs) == 1
