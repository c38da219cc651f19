"""Named conversation formats: the text that the authors' code writes, and the ids that it reads it as."""

from __future__ import annotations

import pytest

import models
import models_languages
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.models import conversations
from sightline.types import Message

USER = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
LIBRA = (
    "The assistant specialized in comparing Chest X-ray images, identifying differences, "
    "and noting temporal changes."
)
LITERAL = {
    "v1": f"{USER} USER: <image>\nIs it? ASSISTANT: Yes</s>USER: Is a? ASSISTANT: No</s>",
    "vicuna_v1": f"{USER} USER: <image>\nIs it? ASSISTANT: Yes</s>USER: Is a? ASSISTANT: No</s>",
    "llava_v1": f"{HUMAN} USER: <image>\nIs it? ASSISTANT: Yes</s>USER: Is a? ASSISTANT: No</s>",
    "libra_v1": f"{LIBRA} USER: <image>\nIs it? ASSISTANT: Yes</s>USER: Is a? ASSISTANT: No</s>",
    "llava_v0": f"{HUMAN}###Human: <image>\nIs it?###Assistant: Yes###Human: Is a?###Assistant: No###",
    "mistral_instruct": "[INST] <image>\nIs it? [/INST] Yes </s>[INST] Is a? [/INST] No </s>",
    "plain": "<image>Yes\nNo\n",
}
ASKED = {
    "v1": f"{USER} USER: <image>\nIs it? ASSISTANT:",
    "libra_v1": f"{LIBRA} USER: <image>\nIs it? ASSISTANT:",
    "llava_v0": f"{HUMAN}###Human: <image>\nIs it?###Assistant:",
    "mistral_instruct": "[INST] <image>\nIs it? [/INST]",
    "plain": "<image>",
}
TALK = [
    Message(role="user", parts=(0, "Is it?")),
    Message(role="assistant", parts=("Yes",)),
    Message(role="user", parts=("Is a?",)),
    Message(role="assistant", parts=("No",)),
]
IMAGE = 0  # <unk>


def chat(name: str) -> Chat:
    """A conversation of Llama's vocabulary in this format; an image is three tokens."""
    made = conversations.find(name)
    tokenizer = models_languages.llama_tokenizer()
    tokenizer.chat_template = made.jinja
    return Chat(tokenizer=tokenizer, image_token=IMAGE, tokens_per_image=3, **made.wording)


def read_by_llava(tokenizer: object, prompt: str) -> list[int]:
    """LLaVA's `tokenizer_image_token`: text before and behind <image> is read alone; a BOS stands in front."""
    out = [1]
    for at, text in enumerate(prompt.split("<image>")):
        out += [IMAGE] * 3 if at else []
        out += tokenizer(text, add_special_tokens=False)["input_ids"] if text else []  # type: ignore[operator]
    return out


def test_every_format_is_tested() -> None:
    assert sorted(LITERAL) == sorted(conversations.FORMATS)


@pytest.mark.parametrize("name", sorted(LITERAL))
def test_a_format_reads_as_in_the_original(name: str) -> None:
    made = chat(name)
    found = made.encode(TALK)
    assert list(found.ids) == read_by_llava(made.tokenizer, LITERAL[name])


@pytest.mark.parametrize("name", sorted(ASKED))
def test_a_format_asks_as_in_the_original(name: str) -> None:
    made = chat(name)
    found = made.encode(TALK[:1], prompt=True)
    assert list(found.ids) == read_by_llava(made.tokenizer, ASKED[name])


@pytest.mark.parametrize(
    ("name", "learned"),
    [
        ("v1", ["\u2581Yes", "</s>", "\u2581No", "</s>"]),
        ("libra_v1", ["\u2581Yes", "</s>", "\u2581No", "</s>"]),
        ("llava_v0", ["\u2581Yes", "##", "\u2581No", "##"]),
        ("mistral_instruct", ["\u2581Yes", "\u2581", "</s>", "\u2581No", "\u2581", "</s>"]),
        ("plain", ["\u2581Yes", "<0x0A>", "No", "<0x0A>"]),
    ],
)
def test_what_is_learned_is_the_answer_and_its_end(name: str, learned: list[str]) -> None:
    made = chat(name)
    found = made.encode(TALK)
    taught = [i for i, flag in zip(found.ids, found.learned, strict=True) if flag]
    assert made.tokenizer.convert_ids_to_tokens(taught) == learned
    assert [made.tokenizer.convert_ids_to_tokens([found.ids[t.stop]])[0] for t in found.turns] == [
        learned[-1]
    ] * 2


@pytest.mark.parametrize(("name", "ends"), [("v1", []), ("llava_v0", ["##"]), ("plain", ["<0x0A>"])])
def test_what_ends_an_answer(name: str, ends: list[str]) -> None:
    made = chat(name)
    assert made.tokenizer.convert_ids_to_tokens(list(made.ends)) == ends


def test_yes_begins_with_its_blank_where_the_format_sets_one() -> None:
    assert chat("v1").tokenizer.convert_ids_to_tokens([chat("v1").begins("Yes")]) == ["\u2581Yes"]
    letters = Chat(tokenizer=models.bytes_tokenizer(), image_token=3)
    assert letters.tokenizer.convert_ids_to_tokens([letters.begins("Yes")]) == ["Yes"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("v1", "a b USER: Is it? ASSISTANT: Yes</s>"),
        ("mistral_instruct", "[INST] <<SYS>>\na b\n<</SYS>>\n\nIs it? [/INST] Yes </s>"),
    ],
)
def test_a_system_text_of_one_s_own_takes_the_format_s_place(name: str, text: str) -> None:
    made = chat(name)
    talk = [
        Message(role="system", parts=("a b",)),
        Message(role="user", parts=("Is it?",)),
        Message(role="assistant", parts=("Yes",)),
    ]
    assert list(made.encode(talk).ids) == read_by_llava(made.tokenizer, text)


def test_byte_level_vocabularies_can_use_them_too() -> None:
    made = conversations.find("libra_v1")
    tokenizer = models.bytes_tokenizer()
    tokenizer.chat_template = made.jinja
    letters = Chat(tokenizer=tokenizer, image_token=3, tokens_per_image=2, **made.wording)
    found = letters.encode(TALK)
    assert tokenizer.decode(found.ids) == (
        f"{LIBRA} USER: <empty_output><empty_output>\nIs it? ASSISTANT: Yes<|im_end|>"
        "USER: Is a? ASSISTANT: No<|im_end|>"
    )


def test_padding_is_never_the_image_token() -> None:
    tokenizer = models_languages.llama_tokenizer(pad="<unk>")
    assert Chat(tokenizer=tokenizer, image_token=0).pad == 2
    assert Chat(tokenizer=tokenizer, image_token=5).pad == 0


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(
        ModelError, match="no conversation format 'libra_v2'; did you mean 'libra_v1'"
    ) as caught:
        conversations.find("libra_v2")
    assert "mistral_instruct" in caught.value.expected
