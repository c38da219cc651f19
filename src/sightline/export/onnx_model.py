"""An ONNX export as a `Bundle`: asked by the same code as any model, computed by onnxruntime on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

from .. import runs
from ..errors import MissingExtra, ModelError
from ..images.transforms import Preprocess
from ..models import conversations
from ..models.family import Bundle, Family, Grid
from . import folder, graphs


class Words(nn.Module):
    """The table of words.

    Args:
        session: of the graph.
        width: of a word.
    """

    def __init__(self, session: Any, width: int) -> None:
        super().__init__()
        self.session = session
        self.weight = nn.Parameter(torch.zeros(1, width), requires_grad=False)  # says device, type and width

    def forward(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, hidden]."""
        return torch.from_numpy(self.session.run(None, {"input_ids": ids.cpu().numpy()})[0])


class Graphs(nn.Module):
    """What stands in the place of a model: its graphs, and parts that hold nothing but a hash.

    Args:
        place: the exported folder.
        told: its settings.
    """

    def __init__(self, place: Path, told: Mapping[str, Any]) -> None:
        super().__init__()
        self.told = told
        vision, words, decoder = (_session(place / name) for name in told["graphs"])
        self.see, self.decode = vision, decoder
        self.words = Words(words, told["hidden"])
        for part in ("vision", "connector", "language"):
            self.add_module(part, nn.Linear(1, 1))
        language: Any = self.get_submodule("language")
        language.config = SimpleNamespace(max_position_embeddings=told.get("longest", 0))
        hashed = bytes.fromhex(
            runs.hash_file(place / told["graphs"][0])
        )  # names the tower in keys of features
        self.get_submodule("vision").register_buffer("sha256", torch.tensor(list(hashed)))
        self.requires_grad_(False)
        self.generation_config = SimpleNamespace(eos_token_id=list(told["ends"]))

    def get_input_embeddings(self) -> Words:
        """The table of words."""
        return self.words


def load(place: Path) -> Bundle:
    """Open an exported folder.

    Raises:
        ModelError: no such folder, or one of another version.
        MissingExtra: onnxruntime is not installed.
    """
    told = runs.read_json(place / folder.SETTINGS)
    if told.get("format") != folder.FORMAT:
        raise ModelError("unknown format of an ONNX export", where=str(place), found=str(told.get("format")))
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    template = told["template"]
    return Bundle(
        family=FAMILY,
        model=Graphs(place, told).eval(),
        tokenizer=tokenizer,
        preprocess=Preprocess(**_tuples(told["preprocess"])),
        image_token=told["image_token"],
        tokens_per_image=told["tokens_per_image"],
        feature_width=told["hidden"],
        base={"model": {"family": FAMILY.name, "path": str(place)}, "seed": 0},
        system=told["system"],
        prior=told["prior"],
        wording=conversations.find(template).wording if template else {},
    )


def _session(file: Path) -> Any:
    """One graph, ready to be computed by as many threads as torch uses.

    Raises:
        MissingExtra: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtra("onnxruntime", "onnx") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = min(torch.get_num_threads(), os.cpu_count() or 1)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _tuples(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """Pixels [3, S, S] each -> [tokens, hidden] each; the connector is part of the graph."""
    graphs_: Any = model
    made = graphs_.see.run(None, {"pixel_values": torch.stack(images).cpu().numpy()})[0]
    return list(torch.from_numpy(made).unbind())


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """What the graph of the tower made is connected already; words stand on the CPU, so it goes there too."""
    return [values.cpu() for values in features]


def hidden(
    model: nn.Module,
    inputs_embeds: Tensor,
    *,
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    **_: Any,
) -> Any:
    """Logits [B, T, vocabulary] in the place of hidden states; what is read goes into the cache that is given."""
    graphs_: Any = model
    cache, rows = graphs_.told["cache"], len(inputs_embeds)
    layers = past_key_values.layers if past_key_values is not None else []
    before = layers[0].keys.shape[2] if layers else 0
    empty = np.zeros((rows, cache["heads"], 0, cache["size"]), np.float32)
    mask = torch.ones(inputs_embeds.shape[:2]) if attention_mask is None else attention_mask
    given = {"inputs_embeds": inputs_embeds.float().numpy(), "attention_mask": mask.long().numpy()}
    for i in range(cache["layers"]):
        read = (layers[i].keys.numpy(), layers[i].values.numpy()) if layers else (empty, empty)
        given |= {
            f"past_key_values.{i}.{side}": value for side, value in zip(("key", "value"), read, strict=True)
        }
    logits, *present = (torch.from_numpy(value) for value in graphs_.decode.run(None, given))
    if past_key_values is not None:
        for i in range(cache["layers"]):
            key, value = (each[:, :, before:] for each in present[2 * i : 2 * i + 2])
            past_key_values.update(key, value, i)
    return SimpleNamespace(last_hidden_state=logits, past_key_values=past_key_values)


def head(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """The head is part of the graph."""
    return lambda logits: logits


def tell(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
) -> dict[str, Any]:
    """The mask [B, P + T] of all that was read; the graph counts positions from it."""
    return {"attention_mask": batch.get("attention_mask", torch.ones_like(batch["input_ids"]))}


FAMILY = Family(
    name="llava_onnx",
    parts={"vision": ("vision",), "connector": ("connector",), "language": ("language",)},
    placement="front",
    compose=lambda section, seed: load(Path(section["path"])),
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    tell=tell,
    layer=lambda model: graphs.VISION,
    cannot=("training", "volumes"),
)
