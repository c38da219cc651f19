"""Conversation formats of LLaVA and Libra by name, as chat templates that write what their authors' code writes.

haotian-liu/LLaVA, `llava/conversation.py` (`get_prompt`), and X-iZhang/Libra, which adds `libra_v1`. End tokens are the
tokenizer's own, so that a format can be used with any vocabulary; with Llama's they are `</s>`, as there. An answer's
blank in front belongs to the answer, as it does where a whole conversation is read at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import plugins
from ..errors import ModelError


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        jinja: its chat template; a conversation without a system message gets the format's own.
        wording: what else `data.chat.Chat` must know of it.
    """

    jinja: str
    wording: Mapping[str, Any] = field(default_factory=dict)


def _turns(user: str, assistant: str, open_answer: str) -> str:
    return (
        "{% for message in messages %}{% if message['role'] == 'user' %}" + user
        + "{% elif message['role'] == 'assistant' %}" + assistant
        + "{% endif %}{% endfor %}{% if add_generation_prompt %}" + open_answer + "{% endif %}"
    )  # fmt: skip


def _system(text: str, behind: str) -> str:
    own = (
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% else %}"
        + text
        + "{% endif %}"
    )
    return "{{ bos_token }}" + own + behind


TEXT = "{{ message['content'] }}"
END = "{{ eos_token }}"
HELPFUL = "The assistant gives helpful, detailed, and polite answers to the {}'s questions."
USER = "A chat between a curious user and an artificial intelligence assistant. " + HELPFUL.format("user")
HUMAN = "A chat between a curious human and an artificial intelligence assistant. " + HELPFUL.format("human")
CHANGES = (
    "The assistant specialized in comparing Chest X-ray images, identifying differences, "
    "and noting temporal changes."
)


def _two(system: str) -> Format:
    """LLaVA's style TWO: a blank behind questions, the end token behind answers."""
    turns = _turns(f"USER: {TEXT}{{{{ ' ' }}}}", f"ASSISTANT: {TEXT}{END}", "ASSISTANT:")
    return Format(_system(system, "{{ ' ' }}") + turns, {"opening": " ", "kept": True})


def _single(system: str) -> Format:
    """LLaVA's style SINGLE: `###` behind everything."""
    turns = _turns(f"Human: {TEXT}###", f"Assistant: {TEXT}###", "Assistant:")
    return Format(_system(system, "###") + turns, {"opening": " ", "kept": True, "end": "###"})


def _llama_2() -> Format:
    """LLaVA's style LLAMA_2 without a separator in front (`mistral_instruct`); a system text opens the first turn."""
    head = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}"
    body = (
        f"[INST] <<SYS>>\n{TEXT}\n<</SYS>>\n\n"
        "{% elif message['role'] == 'user' %}"
        "{% if loop.index0 == 1 and messages[0]['role'] == 'system' %}{% else %}[INST] {% endif %}"
        f"{TEXT} [/INST]"
        "{% elif message['role'] == 'assistant' %}{{ ' ' }}"
        f"{TEXT}{{{{ ' ' }}}}{END}"
        "{% endif %}{% endfor %}"
    )
    return Format(head + body, {"opening": " ", "kept": True, "closing": " "})


def _plain() -> Format:
    """LLaVA's style PLAIN, of its first stage: the image and its caption; questions are left out."""
    turns = _turns(TEXT, f"{TEXT}{{{{ '\\n' }}}}", "")
    return Format("{{ bos_token }}" + turns, {"mute": True, "end": "\n"})


FORMATS: dict[str, Format] = {
    "v1": _two(USER),
    "vicuna_v1": _two(USER),
    "llava_v1": _two(HUMAN),
    "llava_v0": _single(HUMAN),
    "mistral_instruct": _llama_2(),
    "libra_v1": _two(CHANGES),
    "plain": _plain(),
}


def find(name: str) -> Format:
    """The format of that name.

    Raises:
        ModelError: there is none.
    """
    if name not in FORMATS:
        raise ModelError(
            f"no conversation format '{name}'{plugins.nearest(name, list(FORMATS))}", where="model.template",
            expected=", ".join(FORMATS), remedy="leave `template` out to use the tokenizer's own chat template",
        )  # fmt: skip
    return FORMATS[name]
