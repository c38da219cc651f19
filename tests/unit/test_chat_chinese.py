"""Chinese conversations as ids: what is learned are the answer's bytes and its end, whatever a character costs."""

from __future__ import annotations

import re

import pytest

import models
from sightline import inference
from sightline.data.chat import Chat, fit, paint
from sightline.types import ImageRef, Message, Sample, View

END = 2
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def chat() -> Chat:
    """A chat over bytes, as the kit's tokenizer falls back to for most Chinese characters."""
    return Chat(tokenizer=models.bytes_tokenizer(), image_token=3, tokens_per_image=2)


def talk(*said: str) -> list[Message]:
    return [
        Message(role=("user", "assistant")[i % 2], parts=(0, text) if i == 0 else (text,))
        for i, text in enumerate(said)
    ]


@pytest.mark.parametrize("answer", ["没有", "左侧胸腔有积液。", "CT 平扫，1.5 厘米", "𠮷，有", "　是　"])
def test_the_answer_and_its_end_are_learned_and_nothing_else(chat: Chat, answer: str) -> None:
    made = chat.encode(talk("图中有积液吗？", answer))
    learned = [token for token, flag in zip(made.ids, made.learned, strict=True) if flag]
    assert learned[-1] == END
    assert chat.tokenizer.decode(learned[:-1]) == answer.strip()
    assert len(learned) == len(answer.strip().encode()) + 1
    (turn,) = made.turns
    assert [i for i, flag in enumerate(made.learned) if flag] == list(range(turn.start, turn.stop + 1))


def test_question_and_answer_are_read_back_and_only_answers_are_learned_in_every_turn(chat: Chat) -> None:
    made = chat.encode(talk("有积液吗？", "有。", "Where?", "左侧", "确定吗？", "Yes"))
    answers = [chat.tokenizer.decode(list(made.ids[t.start : t.stop])) for t in made.turns]
    assert answers == ["有。", "左侧", "Yes"]
    assert sum(made.learned) == len("有。左侧".encode()) + 1 + 3  # `Yes` is one token; three ends
    assert "确定吗？" in chat.tokenizer.decode(list(made.ids))


def test_a_chinese_conversation_is_cut_by_whole_turns(chat: Chat) -> None:
    made = chat.encode(talk("有积液吗？", "有。", "哪一侧？", "左侧"))
    short = fit(made, len(made.ids) - 5, 3)
    assert short is not None
    assert [chat.tokenizer.decode(list(short.ids[t.start : t.stop])) for t in short.turns] == ["有。"]
    assert fit(made, 20, 3) is None


def test_control_words_between_chinese_characters_are_letters(chat: Chat) -> None:
    made = chat.encode(talk("有<|im_end|>吗？", "没有"))
    assert list(made.ids).count(END) == 2


def test_painted_characters_are_whole(chat: Chat) -> None:
    shown = paint(chat.encode(talk("图中有积液吗？", "没有。")), chat.tokenizer, 3)
    assert "\ufffd" not in shown
    assert "图中有积液吗？" in ANSI.sub("", shown)
    assert "".join(re.findall("\x1b\\[1;32m(.*?)\x1b\\[0m", shown)) == "没有。<|im_end|>"
    assert "\x1b[44m[image x2]" in shown
    torn = paint(chat.encode(talk("�", "no")), chat.tokenizer, 3)
    assert "�" in torn


def test_only_english_answers_are_picked_from_yes_and_no(chat: Chat) -> None:
    """The words that are compared are Yes and No: a Chinese answer is decoded, and parsed when it is scored."""
    samples = [
        Sample(id=f"s{i}", patient="p", images=(ImageRef(path="a.png"),), messages=tuple(talk(*said)))
        for i, said in enumerate([("有肝脏吗？", "有"), ("Is it CT?", "Yes"), ("What is it?", "CT")])
    ]
    made = inference.items(samples, chat, lambda sample, i: View(sample.images[i], sample.id))
    assert [item.closed for item in made] == [(False,), (True,), (False,)]
