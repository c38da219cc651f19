"""Language models for composition: any causal one that transformers can open, its tokenizer, and a token for images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ..errors import ModelError
from . import conversations
from .stock import part_folder

# Tokens that vocabularies reserve and no text uses, best first: LLaVA and others; Qwen 2.5 and 3; SmolLM2; Llama 3;
# Gemma; many; Phi-3; Mistral 7B v0.3; Mistral Nemo. Llama 1 and 2 (Vicuna, Meditron) and Mistral 7B v0.1 and v0.2 have
# `<unk>` alone, which no text becomes where the vocabulary writes unknown letters as bytes.
RESERVED = (
    "<image>",
    "<|image_pad|>",
    "<empty_output>",
    "<|reserved_special_token_0|>",
    "<unused0>",
    "<pad>",
    "<|placeholder1|>",
    "[control_8]",
    "<SPECIAL_20>",
)
UNKNOWN = "<unk>"
STRANGE = "\U000f1234 \u16a0 \u2603 \u6f22"  # in few vocabularies, if any


def open_language(source: str | Mapping[str, Any], seed: int, template: str | None = None) -> tuple[Any, Any]:
    """A causal language model and its tokenizer, from the kit, a folder, or a config (random weights).

    Args:
        source: `kit/NAME`, a folder, or a config that also names one of these as its `tokenizer`.
        seed: decides random weights.
        template: a named conversation format in the place of the tokenizer's own.

    Raises:
        ModelError: it cannot be opened, there is no conversation format, or the vocabulary is larger than the model's.
    """
    if isinstance(source, Mapping):
        model, place = _random(source, seed)
    else:
        place = part_folder(source)
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    if template is not None:
        tokenizer.chat_template = conversations.find(template).jinja
    if not tokenizer.chat_template:
        raise ModelError(
            "the language model has no chat template", where=str(place),
            remedy=f"add chat_template.jinja, or name one as `template`: {', '.join(conversations.FORMATS)}",
        )  # fmt: skip
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise ModelError(
            "the tokenizer knows more words than the language model", where=str(place),
            found=f"{len(tokenizer)} words", expected=f"at most {rows}",
            remedy="use the tokenizer that the model was trained with, or another `vocab_size` in its config",
        )  # fmt: skip
    return model, tokenizer


def _random(source: Mapping[str, Any], seed: int) -> tuple[Any, Path]:
    """A language model with random weights from its config, and the folder of its tokenizer."""
    plain = {k: v for k, v in source.items() if k != "tokenizer"}
    place = tokenizer_folder(source, "model.language")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**plain)), place


def tokenizer_folder(source: Mapping[str, Any], where: str) -> Path:
    """The folder of the tokenizer that a config names as its `tokenizer`.

    Args:
        source: the config of a language model, or of a text tower.
        where: its place in the recipe.

    Raises:
        ModelError: it names none, or there is none in the folder.
    """
    if "tokenizer" not in source:
        raise ModelError(
            "a language model needs a tokenizer", where=where, found="a config",
            expected="kit/NAME, a folder, or a config with `tokenizer`, one of these",
        )  # fmt: skip
    named = str(source["tokenizer"])
    place = part_folder(named) if named.startswith("kit/") else Path(named)
    if not (place / "tokenizer_config.json").is_file():
        raise ModelError(
            f"no tokenizer in '{place}'",
            where=f"{where}.tokenizer",
            expected="kit/NAME, or a folder with tokenizer files",
        )
    return place


def image_token(tokenizer: Any, rows: int = 0, asked: str | int | None = None) -> int:
    """The id of a token that the vocabulary, or the model's table, holds and no text uses.

    Args:
        tokenizer: the tokenizer; a reserved token that texts could write is made a special one in it.
        rows: of the model's table of words; where there are more than the vocabulary has, the first spare one is free.
        asked: what a recipe names: a word, or a row's number.

    Raises:
        ModelError: there is none, or texts use the one that was named.
    """
    known = tokenizer.get_vocab()
    if asked is not None:
        return _named(tokenizer, known, rows, asked)
    for word in RESERVED:
        if word in known and known[word] in tokenizer.added_tokens_decoder and _unused(tokenizer, word):
            return int(known[word])
    first = max(known.values(), default=-1) + 1
    if first < rows:
        return first
    if UNKNOWN in known and _unused(tokenizer, UNKNOWN):
        return int(known[UNKNOWN])
    raise ModelError(
        "the vocabulary has no unused token for images", where="model.language",
        expected=f"one of {', '.join((*RESERVED, UNKNOWN))}, or a row of the model's table that no word has",
        remedy="name a word that your texts never use: `image_token: WORD` in the recipe's `model`, or use another "
        "tokenizer: Sightline never grows a vocabulary",
    )  # fmt: skip


def _named(tokenizer: Any, known: Mapping[str, int], rows: int, asked: str | int) -> int:
    """The token that a recipe names."""
    if isinstance(asked, int):
        words = {i: w for w, i in known.items()}
        if not 0 <= asked < max(rows, len(known)) or (
            asked in words and not _unused(tokenizer, words[asked])
        ):
            raise ModelError(
                "this number cannot stand for images", where="model.image_token", found=str(asked),
                expected=f"0 to {max(rows, len(known)) - 1}, of a token that no text becomes",
            )  # fmt: skip
        return asked
    if asked not in known:
        raise ModelError(
            "the vocabulary does not hold this word", where="model.image_token", found=repr(asked),
            remedy="name one that it holds: Sightline never grows a vocabulary",
        )  # fmt: skip
    if not _unused(tokenizer, asked):
        raise ModelError(
            "texts can become this token", where="model.image_token", found=repr(asked),
            expected="a control token, such as a reserved one",
        )  # fmt: skip
    return int(known[asked])


def _unused(tokenizer: Any, word: str) -> bool:
    """Whether no text becomes this token; one that the vocabulary spells out is made special if that helps."""
    own = tokenizer.get_vocab()[word]

    def written() -> bool:
        encode: Any = tokenizer
        texts = (word, f"a {word} b", STRANGE)
        return any(
            own in encode(t, add_special_tokens=False, split_special_tokens=True)["input_ids"] for t in texts
        )

    if not written():
        return True
    tokenizer.add_special_tokens({"additional_special_tokens": [word]}, replace_extra_special_tokens=False)
    return len(tokenizer.get_vocab()) > own and not written()
