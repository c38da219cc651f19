"""Tiny models and tokenizers, built from configs and literal vocabularies; nothing is read or downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers import models as vocabularies
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sightline import runs
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.types import ImageRef, Message, Sample

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>")
MERGED = ("Yes", "yes", "No", "no", "user", "assistant", "system", "there", "Is", "is")

CLIP = {
    "model_type": "clip_vision_model",
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 16,
}
SIGLIP = {
    "model_type": "siglip_vision_model",
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE: 4 control tokens, 256 bytes, the merges of a few words. It can write any text."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*CONTROL, *letters])}
    merges: list[tuple[str, str]] = []
    for word in MERGED:
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault("".join(pair), len(vocabulary))
    core = Tokenizer(vocabularies.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return _wrap(core)


def word_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One id per word: 0 to 3 are the control tokens, 4 an unknown word, 5 a line break, then `words`."""
    vocabulary = {word: i for i, word in enumerate([*CONTROL, "?unknown?", "\n", *words])}
    core = Tokenizer(vocabularies.WordLevel(vocabulary, unk_token="?unknown?"))
    split = pre_tokenizers.Split(Regex(r"\n|\w+|[^\w\s]+"), behavior="removed", invert=True)
    core.pre_tokenizer = split
    return _wrap(core)


def _wrap(core: Tokenizer) -> PreTrainedTokenizerFast:
    core.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in CONTROL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    return tokenizer


def write_language(folder: Path, *, tie: bool = False, seed: int = 0, spread: float = 0.3) -> Path:
    """A Llama of two layers, 32 wide, with the byte-level tokenizer, as a Hugging Face folder."""
    tokenizer = bytes_tokenizer()
    torch.manual_seed(seed)
    LlamaForCausalLM(llama(len(tokenizer), tie=tie, spread=spread)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama(vocabulary: int, *, tie: bool = False, spread: float = 0.3) -> LlamaConfig:
    """The config of the tiny Llama; a wide spread of weights makes answers differ between inputs."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=tie,
        initializer_range=spread,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )


def section(language: Path, vision: Mapping[str, Any] | str = CLIP, **more: Any) -> dict[str, Any]:
    """A recipe's `model` section of tiny parts."""
    plain = {
        "family": "llava",
        "connector": "mlp2x_gelu",
        "select_layer": -1,
        "select": "default",
        "system": "",
    }
    shown = vision if isinstance(vision, str) else dict(vision)
    return {**plain, "vision": shown, "language": str(language), "path": None, **more}


def bundle(language: Path, seed: int = 0, **more: Any) -> Bundle:
    """A tiny LLaVA: CLIP tower of 28 px with 4 tokens an image, connector, Llama."""
    return checkpoint.compose(section(language, **more), seed)


def stir(parameters: Any, seed: int, size: float = 0.05) -> None:
    """Add noise to what trains, as training would."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * size)


@contextmanager
def doubled() -> Iterator[None]:
    """Keep float64 what transformers' layers lower to float32 on the way (norms, softmax, rotations).

    Their results are rounded to 7 digits otherwise, and two exact ways to compute them would differ.
    """
    to, softmax = torch.Tensor.to, torch.nn.functional.softmax

    def kept(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        raised = {torch.float32: torch.float64}
        args = tuple(raised.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        return to(self, *args, **{k: raised.get(v, v) if k == "dtype" else v for k, v in kwargs.items()})

    def wide(values: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        kwargs = {k: v for k, v in kwargs.items() if not (k == "dtype" and values.dtype == torch.float64)}
        return softmax(values, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "to", kept)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(torch.nn.functional, "softmax", wide)
        yield


def picture(root: Path, name: str, seed: int) -> ImageRef:
    """A random picture of 28 px as PNG, with its hash."""
    root.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / name)
    return ImageRef(path=name, sha256=runs.hash_file(root / name))


PICTURES = tuple(ImageRef(path=f"{i}.png", sha256=f"picture {i}") for i in range(4))


def write_pictures(root: Path) -> None:
    """Write the pictures that `PICTURES` names; their hashes are stand-ins."""
    for i, ref in enumerate(PICTURES):
        picture(root, ref.path, seed=10 + i)


def sample(name: str, turns: Sequence[tuple[str, str]], images: Sequence[ImageRef], **more: Any) -> Sample:
    """Questions and answers about images that stand in front of the first question."""
    messages = []
    for at, (question, answer) in enumerate(turns):
        shown = tuple(range(len(images))) if at == 0 else ()
        messages.append(Message(role="user", parts=(*shown, question)))
        messages.append(Message(role="assistant", parts=(answer,), topic=f"topic{at}"))
    return Sample(id=name, patient=f"patient-{name}", images=tuple(images), messages=tuple(messages), **more)


def copy_without(folder: Path, to: Path, ending: str) -> None:
    """Copy a model's folder, and leave out the first weight whose name ends so."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    weights = load_file(to / "model.safetensors")
    lost = next(name for name in weights if name.endswith(ending))
    save_file({k: v for k, v in weights.items() if k != lost}, to / "model.safetensors", {"format": "pt"})
