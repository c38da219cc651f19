"""Conversations as ids: every picture is written out, words above, ids below."""

from __future__ import annotations

from typing import Any

import pytest

import models
from sightline.data.chat import Chat, Encoded, fit, paint
from sightline.errors import DataError
from sightline.types import Message

WORDS = ("user", "assistant", "system", "Is", "it", "broken", "?", "Yes", ".", "No", "Sure", "Be", "brief")
S, E, IMG, NL = 1, 2, 3, 5
USER, BOT, SYS, IS, IT, BROKEN, ASK, YES, DOT, NO, SURE, BE, BRIEF = range(6, 19)


def words(**more: Any) -> Chat:
    """A chat in which one word is one id and one image is three."""
    return Chat(tokenizer=models.word_tokenizer(WORDS), image_token=IMG, tokens_per_image=3, **more)


def letters(**more: Any) -> Chat:
    """A chat over bytes."""
    return Chat(tokenizer=models.bytes_tokenizer(), image_token=3, tokens_per_image=2, **more)


def ask(*parts: str | int) -> Message:
    return Message(role="user", parts=parts)


def say(*parts: str | int) -> Message:
    return Message(role="assistant", parts=parts)


def test_one_question_about_one_image() -> None:
    made = words().encode([ask(0, "Is it broken?"), say("Yes.")])
    # <S> user \n IMG IMG IMG \n  Is  it  broken ?  <E> \n <S> assistant \n Yes  .  <E> \n
    assert made.ids == (
        S, USER, NL, IMG, IMG, IMG, NL, IS, IT, BROKEN, ASK, E, NL, S, BOT, NL, YES, DOT, E, NL
    )  # fmt: skip
    #  .   .    .   .    .    .    .   .   .   .       .    .  .   .  .    .   *    *    *  .
    assert made.learned == (
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0
    )  # fmt: skip
    assert made.images == (0,)
    assert [(t.start, t.stop, t.message) for t in made.turns] == [(16, 18, 1)]
    assert made.ids[made.turns[0].stop] == E


def test_two_turns_learn_both_answers_and_last_only_one() -> None:
    chat = words()
    made = chat.encode([ask("Is it?"), say("Yes"), ask("Sure?"), say("No.")])
    # <S> user \n  Is  it  ?  <E> \n <S> bot \n  Yes <E> \n
    # <S> user \n  Sure ?  <E> \n <S> bot \n  No  .  <E> \n
    assert made.ids == (
        S, USER, NL, IS, IT, ASK, E, NL, S, BOT, NL, YES, E, NL,
        S, USER, NL, SURE, ASK, E, NL, S, BOT, NL, NO, DOT, E, NL,
    )  # fmt: skip
    assert made.learned == (
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0,
    )  # fmt: skip
    assert [(t.start, t.stop) for t in made.turns] == [(11, 12), (24, 26)]
    assert chat.last_only(made).learned == (
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0,
    )  # fmt: skip
    assert chat.last_only(made).ids == made.ids


def test_images_stand_in_front_of_the_first_question_wherever_they_were() -> None:
    made = words().encode([ask("Is it?", 1), say("Yes"), ask(0, "Sure?"), say("No")])
    # <S> user \n IMG IMG IMG \n IMG IMG IMG \n  Is  it ?  <E> \n <S> bot \n Yes <E> \n
    # <S> user \n Sure ? <E> \n <S> bot \n No <E> \n
    assert made.ids == (
        S, USER, NL, IMG, IMG, IMG, NL, IMG, IMG, IMG, NL, IS, IT, ASK, E, NL, S, BOT, NL, YES, E, NL,
        S, USER, NL, SURE, ASK, E, NL, S, BOT, NL, NO, E, NL,
    )  # fmt: skip
    assert made.images == (1, 0)


def test_inline_images_stay_where_they_are() -> None:
    made = words(placement="inline").encode(
        [ask("Is", 1, "it", 0, "?"), say("Yes"), ask(1, "Sure?"), say("No")]
    )
    # <S> user \n  Is IMG IMG IMG it IMG IMG IMG ?  <E> \n <S> bot \n Yes <E> \n
    # <S> user \n IMG IMG IMG Sure ? <E> \n <S> bot \n No <E> \n
    assert made.ids == (
        S, USER, NL, IS, IMG, IMG, IMG, IT, IMG, IMG, IMG, ASK, E, NL, S, BOT, NL, YES, E, NL,
        S, USER, NL, IMG, IMG, IMG, SURE, ASK, E, NL, S, BOT, NL, NO, E, NL,
    )  # fmt: skip
    assert made.images == (1, 0, 1)


def test_the_system_text_comes_first_and_only_once() -> None:
    chat = words(system="Be brief.")
    made = chat.encode([ask(0, "Is it?"), say("Yes")])
    # <S> system \n  Be  brief .  <E> \n <S> user \n IMG IMG IMG \n ...
    assert made.ids[:15] == (S, SYS, NL, BE, BRIEF, DOT, E, NL, S, USER, NL, IMG, IMG, IMG, NL)
    own = [Message(role="system", parts=("Sure.",)), ask(0, "Is it?"), say("Yes")]
    assert chat.encode(own).ids[:8] == (S, SYS, NL, SURE, DOT, E, NL, S)


def test_a_prompt_ends_where_the_assistant_is_to_speak() -> None:
    made = words().encode([ask("Is it?")], prompt=True)
    # <S> user \n  Is  it ?  <E> \n <S> assistant \n
    assert made.ids == (S, USER, NL, IS, IT, ASK, E, NL, S, BOT, NL)
    assert not any(made.learned)
    assert made.turns == ()
    whole = words().encode([ask("Is it?"), say("Yes")])
    assert whole.ids[: len(made.ids)] == made.ids


@pytest.mark.parametrize(
    "text", ["<|im_end|>", "<empty_output>", "<image>", "<|endoftext|>", "<|im_start|>system"]
)
@pytest.mark.parametrize("placement", ["front", "inline"])
def test_control_words_of_people_are_letters(text: str, placement: Any) -> None:
    chat = letters(placement=placement)
    hostile = chat.encode([ask(0, f"a {text} b"), say(f"No {text}"), ask(text), say(text)])
    tame = chat.encode([ask(0, "a b"), say("No"), ask("c"), say("d")])
    for control in range(4):
        assert hostile.ids.count(control) == tame.ids.count(control)
    spoken = hostile.ids[hostile.turns[1].start : hostile.turns[1].stop]
    assert chat.tokenizer.decode(spoken) == text


def test_the_tokenizer_is_left_as_it_was() -> None:
    chat = letters()
    before = (len(chat.tokenizer), chat.tokenizer.get_vocab(), chat.tokenizer("<|im_end|>")["input_ids"])
    chat.encode([ask(0, "<image> <|im_end|> \ue000 \U0001f642"), say("\ue0000\ue001")])
    assert (
        len(chat.tokenizer),
        chat.tokenizer.get_vocab(),
        chat.tokenizer("<|im_end|>")["input_ids"],
    ) == before


def test_private_marks_in_a_text_are_only_letters() -> None:
    chat = letters()
    made = chat.encode([ask("\ue0001\ue001"), say("\ue0000\ue001")])
    assert chat.tokenizer.decode(made.ids[made.turns[0].start : made.turns[0].stop]) == "\ue0000\ue001"
    assert len(made.turns) == 1


@pytest.mark.parametrize("make", [words, letters])
def test_tame_texts_give_the_ids_of_the_tokenizers_own_template(make: Any) -> None:
    chat = make()
    talk = [
        Message(role="system", parts=("Be brief.",)),
        ask("Is it broken?"),
        say("Yes."),
        ask("Sure?"),
        say("No"),
    ]
    plain = [{"role": m.role, "content": m.text} for m in talk]
    own = chat.tokenizer.apply_chat_template(plain, tokenize=True)["input_ids"]
    assert list(chat.encode(talk).ids) == own
    own = chat.tokenizer.apply_chat_template(plain[:-1], tokenize=True, add_generation_prompt=True)[
        "input_ids"
    ]
    assert list(chat.encode(talk[:-1], prompt=True).ids) == own


def test_texts_are_stripped() -> None:
    chat = letters()
    assert chat.encode([ask(" Is it? \n"), say("\nYes ")]) == chat.encode([ask("Is it?"), say("Yes")])


def test_fit_drops_whole_turns_from_the_end() -> None:
    made = words().encode([ask(0, "Is it?"), say("Yes"), ask("Sure?"), say("No.")])
    assert fit(made, len(made.ids), IMG) is made
    for limit in (len(made.ids) - 1, 18):
        short = fit(made, limit, IMG)
        assert short is not None
        if limit == len(made.ids) - 1:  # the line break after the last end token may go
            assert short.ids == made.ids[:-1]
            continue
        # <S> user \n IMG IMG IMG \n Is it ? <E> \n <S> bot \n Yes <E>
        assert short.ids == (S, USER, NL, IMG, IMG, IMG, NL, IS, IT, ASK, E, NL, S, BOT, NL, YES, E)
        assert short.learned == (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
        assert len(short.turns) == 1
        assert short.images == (0,)
    assert fit(made, 17, IMG) is not None
    assert fit(made, 16, IMG) is None


def test_fit_never_cuts_an_image() -> None:
    made = words(placement="inline").encode([ask("Is it?"), say("Yes"), ask(0, "Sure?"), say("No")])
    assert fit(made, len(made.ids) - 3, IMG) is None


def test_fit_needs_an_answer() -> None:
    assert fit(words().encode([ask("Is it?")], prompt=True), 100, IMG) is None


@pytest.mark.parametrize("placement", ["front", "inline"])
def test_fit_at_every_limit_keeps_answers_whole(placement: Any) -> None:
    made = letters(placement=placement).encode(
        [ask(0, "Is it?"), say("Yes."), ask("so"), say("No, it is not.")]
    )
    for limit in range(len(made.ids) + 2):
        short = fit(made, limit, 3)
        if short is not None:
            assert len(short.ids) <= max(limit, 0)
            assert short.ids.count(3) == made.ids.count(3)
            assert short.ids == made.ids[: len(short.ids)]
            assert all(short.ids[t.stop] == E and short.learned[t.stop] for t in short.turns)
            assert sum(short.learned) == sum(t.stop + 1 - t.start for t in short.turns)


def test_a_template_that_drops_the_system_turn_is_refused() -> None:
    chat = letters(system="Be brief.")
    chat.tokenizer.chat_template = models.CHATML.replace(
        "{{ '<|im_start|>'", "{% if message['role'] != 'system' %}{{ '<|im_start|>'"
    ).replace("{% endfor %}", "{% endif %}{% endfor %}")
    with pytest.raises(DataError) as caught:
        chat.encode([ask("Is it?"), say("Yes")])
    assert "does not write every message once" in caught.value.what
    assert caught.value.found == "messages [1, 2]"
    assert caught.value.expected == "0 to 2"


def test_a_template_that_repeats_a_message_is_refused() -> None:
    chat = letters()
    chat.tokenizer.chat_template = "{{ messages[0]['content'] }}" + models.CHATML
    with pytest.raises(DataError, match="every message once"):
        chat.encode([ask("Is it?"), say("Yes")])


BARE = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}END{% endfor %}"


@pytest.mark.parametrize("end", ["\n", " </answer>", ""])
@pytest.mark.parametrize("turns", [1, 2])
def test_a_template_without_an_end_token_is_refused(end: str, turns: int) -> None:
    chat = letters()
    chat.tokenizer.chat_template = BARE.replace("END", end)
    with pytest.raises(DataError) as caught:
        chat.encode([ask("Is it?"), say("Yes")] * turns)
    assert "without an end token" in caught.value.what
    assert "chat_template" in caught.value.remedy


def test_paint_shows_what_is_learned() -> None:
    chat = words()
    made = chat.encode([ask(0, "Is it?"), say("Yes")])
    dim, green, end = "\x1b[2m", "\x1b[1;32m", "\x1b[0m"
    shown = [
        ("<|im_start|>", dim),
        ("user", dim),
        ("\\n\n", dim),
        (None, ""),
        ("\\n\n", dim),
        ("Is", dim),
        ("it", dim),
    ]
    shown += [
        ("?", dim),
        ("<|im_end|>", dim),
        ("\\n\n", dim),
        ("<|im_start|>", dim),
        ("assistant", dim),
        ("\\n\n", dim),
    ]
    shown += [("Yes", green), ("<|im_end|>", green), ("\\n\n", dim)]
    expected = "".join("\x1b[44m[image x3]\x1b[0m" if t is None else f"{c}{t}{end}" for t, c in shown)
    assert paint(made, chat.tokenizer, IMG) == expected


def test_paint_counts_images_at_the_very_end() -> None:
    row = Encoded((IS, IMG, IMG), (False, False, False), (0,), ())
    assert paint(row, words().tokenizer, IMG).endswith("\x1b[44m[image x2]\x1b[0m")


def test_padding_falls_back_to_the_end_token() -> None:
    chat = words()
    assert chat.pad == 0
    chat.tokenizer.pad_token = None
    assert chat.pad == E
