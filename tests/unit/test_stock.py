"""Chat templates of published folders, made to write what the stock processor would; models without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors
from transformers import LlamaConfig, LlamaForCausalLM

import models
import models_llava_next
from sightline.data.chat import Chat
from sightline.errors import ModelError
from sightline.models import checkpoint, stock
from sightline.types import Message

PARTS = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
# In the manner of LLaVA-1.6 on Mistral: lists of parts only, images first, no begin of text, and `<\s>` for `</s>`.
INSTRUCT = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% else %}{{ ' ' + m['content'][0]['text'] + '<\\\\s> ' }}{% endif %}{% endfor %}"
)


def test_a_template_of_texts_stays_as_it_is(tmp_path: Path) -> None:
    assert stock.template(tmp_path, models.bytes_tokenizer()) == models.CHATML


def test_a_template_of_parts_is_given_texts(tmp_path: Path) -> None:
    tokenizer = models.bytes_tokenizer()
    tokenizer.chat_template = PARTS
    tokenizer.chat_template = stock.template(tmp_path, tokenizer)
    assert tokenizer.chat_template == stock.LISTS + PARTS
    said = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "Yes"}]
    assert tokenizer.apply_chat_template(said, tokenize=False) == "Is it?<|im_end|>Yes<|im_end|>"


def test_the_template_of_an_older_folder_is_found_and_none_is_refused(tmp_path: Path) -> None:
    tokenizer = models.bytes_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        stock.template(tmp_path, tokenizer)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": PARTS}), encoding="utf-8")
    assert stock.template(tmp_path, tokenizer) == stock.LISTS + PARTS


def begun(tokenizer: Any) -> Any:
    """A tokenizer that begins whatever it reads with a token of its own, as Llama's do."""
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|im_start|> $A", pair=None, special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    return tokenizer


def test_the_token_that_begins_a_text_is_written_once(tmp_path: Path) -> None:
    tokenizer = begun(models.bytes_tokenizer())
    tokenizer.chat_template = "{{ messages[0]['content'] }}<|im_end|>"
    assert stock.template(tmp_path, tokenizer) == stock.FIRST + "{{ messages[0]['content'] }}<|im_end|>"
    tokenizer.chat_template = models.CHATML  # begins with it
    assert stock.template(tmp_path, tokenizer) == models.CHATML


def test_llava_next_speaks_in_the_format_of_mistral(tmp_path: Path) -> None:
    place = models_llava_next.write(tmp_path)
    tokenizer = begun(models.bytes_tokenizer())
    tokenizer.chat_template = INSTRUCT
    tokenizer.save_pretrained(place)
    section = {"family": "llava_next", "path": str(place), "system": ""}
    bundle = checkpoint.compose(section, 0)
    talk = [
        Message(role="user", parts=(0, "Is it?")),
        Message(role="assistant", parts=("Yes",)),
        Message(role="user", parts=("Where?",)),
        Message(role="assistant", parts=("Left",)),
    ]
    made = Chat.of(bundle).encode(talk, [(28, 28)])
    text = bundle.tokenizer.decode([i for i in made.ids if i != bundle.image_token])
    assert text == ("<|im_start|>[INST] \nIs it? [/INST] Yes<|im_end|> [INST] Where? [/INST] Left<|im_end|> ")
    learned = bundle.tokenizer.decode([i for i, flag in zip(made.ids, made.learned, strict=True) if flag])
    assert learned == " Yes<|im_end|> Left<|im_end|>"
    asked = made.ids[: made.turns[0].start]
    assert bundle.tokenizer.decode(asked).endswith("Is it? [/INST]")


def test_llava_next_takes_a_named_format(tmp_path: Path) -> None:
    place = models_llava_next.write(tmp_path)
    section = {"family": "llava_next", "path": str(place), "system": "", "template": "mistral_instruct"}
    bundle = checkpoint.compose(section, 0)
    bundle.tokenizer.bos_token = "<|im_start|>"
    talk = [Message(role="user", parts=(0, "Is it?")), Message(role="assistant", parts=("Yes",))]
    made = Chat.of(bundle).encode(talk, [(28, 28)])
    text = bundle.tokenizer.decode([i for i in made.ids if i != bundle.image_token])
    assert text == "<|im_start|>[INST] \nIs it? [/INST] Yes <|im_end|>"
    assert made.ids.count(bundle.image_token) == len(bundle.words((28, 28)))


def test_an_outline_has_sizes_and_no_weights(tmp_path: Path) -> None:
    LlamaConfig(num_hidden_layers=2).save_pretrained(tmp_path)
    made = stock.outline(LlamaForCausalLM, tmp_path)
    assert {p.device.type for p in made.parameters()} == {"meta"}
    layer = 4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096
    assert sum(p.numel() for p in made.parameters()) == 2 * layer + 2 * 32000 * 4096 + 4096
