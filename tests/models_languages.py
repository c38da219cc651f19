"""Tokenizers as language models' authors publish them, in small: what each reserves, how Llama's sets blanks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import models as vocabularies
from transformers import PreTrainedTokenizerFast

from models import CHATML

BLANK = "\u2581"
WORDS = ("Is", "it", "Yes", "No", "USER", "ASSISTANT", "Human", "Assistant", "INST", "a", "b", "chat", "The")


def llama_tokenizer(pad: str | None = None) -> PreTrainedTokenizerFast:
    """Llama's way: a blank is set in front of every text, unknown letters become bytes; no token is reserved."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for word in [f"<0x{i:02X}>" for i in range(256)]:
        vocabulary[word] = len(vocabulary)
    letters = [BLANK, *(chr(i) for i in range(33, 127))]
    for letter in letters:
        vocabulary[letter] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    pairs = [(word[: end - 1], word[end - 1]) for word in (*WORDS, "##") for end in range(2, len(word) + 1)]
    for left, right in [*pairs, *((BLANK, word) for word in WORDS), (BLANK, BLANK)]:
        if left + right not in vocabulary:
            merges.append((left, right))
            vocabulary[left + right] = len(vocabulary)
    core = Tokenizer(
        vocabularies.BPE(
            vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    core.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in ("<unk>", "<s>", "</s>")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token=pad,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def byte_tokenizer(
    control: Sequence[str], plain: Sequence[str] = (), **named: str
) -> PreTrainedTokenizerFast:
    """Byte-level letters, control tokens, and words that a vocabulary spells out without calling them special."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*control, *plain, *letters])}
    core = Tokenizer(vocabularies.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in control])
    core.add_tokens([AddedToken(word, special=False, normalized=False) for word in plain])
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **named)


SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "initializer_range": 0.3,
}  # fmt: skip
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}{% else %}"
    "{% set role = m['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + m['content'] + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
TEMPLATES = {"gemma2": GEMMA, "phi3": PHI}
MORE: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "mistral": {"model_type": "mistral", "sliding_window": 64},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "head_dim": 8},
    "phi3": {"model_type": "phi3"},
    "gemma2": {
        "model_type": "gemma2", "head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0, "sliding_window": 64,
    },
    "smollm2": {"model_type": "llama", "tie_word_embeddings": True},
}  # fmt: skip


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a language model: control tokens and reserved ones under their authors' names."""
    if name in ("llama", "mistral"):
        return llama_tokenizer(pad="<unk>" if name == "llama" else None)
    chat = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    if name in ("qwen2", "qwen3", "smollm2"):
        extra = {"qwen3": ("<|image_pad|>",), "smollm2": ("<empty_output>",)}.get(name, ())
        made = byte_tokenizer((*chat, *extra), **named)
        made.chat_template = CHATML
    elif name == "phi3":
        control = ("<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|system|>", "<|end|>", "<|user|>")
        made = byte_tokenizer(control, eos_token="<|end|>", pad_token="<|endoftext|>")
    else:
        gemma = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
        made = byte_tokenizer(
            gemma, ("<unused0>", "<unused1>"), pad_token="<pad>", eos_token="<eos>", bos_token="<bos>"
        )
    made.chat_template = TEMPLATES.get(name, made.chat_template)
    return made


def config(name: str, tokenizer: Path) -> dict[str, Any]:
    """The `language` of a recipe: a tiny model of this kind by its config, with the tokenizer of its authors.

    Qwen's first ones have no reserved token, and more rows than words.
    """
    made = tokenizer_of(name)
    made.save_pretrained(tokenizer)
    rows = len(made) + (8 if name == "qwen2" else 0)
    ends = {"bos_token_id": None, "eos_token_id": made.eos_token_id, "pad_token_id": None}
    return {**SIZES, **MORE[name], **ends, "vocab_size": rows, "tokenizer": str(tokenizer)}
