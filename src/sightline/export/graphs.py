"""A LLaVA as three ONNX graphs, in the layout that transformers.js and optimum have for it.

    vision_encoder.onnx           pixel_values [N, 3, S, S]           -> image_features [N, tokens, hidden]
    embed_tokens.onnx             input_ids [B, T]                    -> inputs_embeds [B, T, hidden]
    decoder_model_merged.onnx     inputs_embeds, attention_mask [B, P + T], past_key_values.I.key and .value
                                  [B, heads, P, size]                 -> logits [B, T, vocabulary], present.I.*

P, what was read before, may be 0. Positions are counted from the mask inside, so padding may stand anywhere. All is
float32 and computed as transformers' eager attention does. The tracing exporter of torch writes them: it needs the
package onnx alone, and the graphs have no branches that a trace could lose.
"""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MissingExtra, ModelError
from ..models import pairpass
from ..models.families.llava import chosen, fuses
from ..models.family import Bundle

VISION, WORDS, DECODER = "vision_encoder.onnx", "embed_tokens.onnx", "decoder_model_merged.onnx"
OPSET = 17
BATCH = {0: "batch", 1: "tokens"}  # axes of any length
# Bytes of weights from which on they stand in a file beside the graph: protobuf ends at 2 GiB.
WHOLE = 1 << 30
TURNING = ("dynamic", "longrope")  # rotations that change with the length of what was read: a trace holds one


class Vision(nn.Module):
    """Tower and connector: pixels [N, 3, S, S] -> what stands in the place of words [N, tokens, hidden]."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Features of a whole batch at once; the family would take it apart image by image."""
        connector = self.model.get_submodule("model.multi_modal_projector")
        made: Tensor = connector(chosen(self.model, pixel_values))
        return made


class Words(nn.Module):
    """Ids [B, T] -> embeddings [B, T, hidden]."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.table = bundle.model.get_input_embeddings()

    def forward(self, input_ids: Tensor) -> Tensor:
        """The rows of the table."""
        made: Tensor = self.table(input_ids)
        return made


class Past:
    """Keys and values that were read before, as layers of attention ask for them; they are joined, never changed.

    Args:
        read: key and value of every layer in turn, [B, heads, P, size] each.
    """

    is_compileable = False

    def __init__(self, read: Sequence[Tensor]) -> None:
        self.layers = [list(read[i : i + 2]) for i in range(0, len(read), 2)]

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Put new keys and values behind those of a layer and return all of them."""
        old = self.layers[layer]
        self.layers[layer] = [torch.cat([old[0], key], dim=2), torch.cat([old[1], value], dim=2)]
        return self.layers[layer][0], self.layers[layer][1]

    def get_seq_length(self, *_: Any) -> Any:
        """How many tokens stand in the first layer."""
        return self.layers[0][0].shape[2]

    def flat(self) -> list[Tensor]:
        """Key and value of every layer in turn."""
        return [tensor for layer in self.layers for tensor in layer]


class Decoder(nn.Module):
    """The language model with its head, and its cache as plain inputs and outputs."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.bundle, self.model = bundle, bundle.model

    def forward(self, inputs_embeds: Tensor, attention_mask: Tensor, *read: Tensor) -> tuple[Tensor, ...]:
        """Logits of the new tokens, then key and value of every layer with the new tokens behind the old."""
        past, before = Past(read), read[0].shape[2]
        real = attention_mask.long()
        position = (real.cumsum(1) - 1).clamp_min(0)  # [B, P + T]
        seen = pairpass.visible(real - 1, torch.zeros_like(real), before)  # [B, T, P + T]
        language: Any = self.bundle.family.language(self.model)
        out = self.bundle.family.hidden(
            self.model,
            inputs_embeds,
            attention_mask=pairpass.masks(language.config, seen, position, inputs_embeds.dtype),
            position_ids=position[:, before:],
            past_key_values=past,
            use_cache=True,
        )
        return self.bundle.head(out.last_hidden_state), *past.flat()


def check(bundle: Bundle) -> None:
    """Refuse what has no such graphs.

    Raises:
        ModelError: another family than LLaVA, a connector that compares two images, or rotations that a trace loses.
        MissingExtra: onnx or onnxruntime is not installed.
    """
    if bundle.family.name != "llava" or fuses(bundle.model):
        raise ModelError(
            "ONNX graphs are made of LLaVA alone, with a connector that sees one image at a time",
            found=f"family '{bundle.family.name}'", where="--to",
            expected="family 'llava'", remedy="`--to merged` writes any family; serve that with transformers or vLLM",
        )  # fmt: skip
    language: Any = bundle.family.language(bundle.model)
    turned = getattr(language.config, "rope_parameters", None) or {}
    if turned.get("rope_type") in TURNING:
        raise ModelError(
            "the language model turns positions by how much was read, which a graph of one length cannot", where="--to",
            found=str(turned["rope_type"]), expected="rotations of one kind", remedy="use `--to merged`",
        )  # fmt: skip
    needed()


def needed() -> None:
    """Refuse to begin without the packages.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
    """
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "onnx")


def write(bundle: Bundle, to: Path) -> None:
    """Write the three graphs of a model.

    Args:
        bundle: the model, merged, in float32; its attention is set to `eager`.
        to: folder to write into; made here.
    """
    check(bundle)
    to.mkdir(parents=True, exist_ok=True)
    bundle.attend("eager")
    bundle.model.eval()
    size, width = bundle.preprocess.size, bundle.model.get_input_embeddings().weight.shape[1]  # type: ignore[attr-defined]
    pixels = torch.zeros(2, 3, size, size)
    ids = torch.ones(2, 3, dtype=torch.long)
    trace(
        Vision(bundle),
        [pixels],
        to / VISION,
        {"pixel_values": {0: "images"}},
        {"image_features": {0: "images"}},
    )
    trace(Words(bundle), [ids], to / WORDS, {"input_ids": BATCH}, {"inputs_embeds": BATCH})
    layers, heads, each = cache_shape(bundle)
    old = [torch.zeros(2, heads, 4, each) for _ in range(2 * layers)]
    names = [f"{i}.{side}" for i in range(layers) for side in ("key", "value")]
    trace(
        Decoder(bundle),
        [torch.zeros(2, 3, width), torch.ones(2, 7, dtype=torch.long), *old],
        to / DECODER,
        {"inputs_embeds": BATCH, "attention_mask": {0: "batch", 1: "all"}}
        | {f"past_key_values.{name}": {0: "batch", 2: "past"} for name in names},
        {"logits": BATCH} | {f"present.{name}": {0: "batch", 2: "all"} for name in names},
    )


@torch.no_grad()
def cache_shape(bundle: Bundle) -> tuple[int, int, int]:
    """Layers of a language model, and heads and numbers of each head in its cache."""
    from transformers import DynamicCache

    cache, ids = DynamicCache(), torch.ones(1, 1, dtype=torch.long)
    embeds = bundle.model.get_input_embeddings()(ids)
    bundle.family.hidden(bundle.model, embeds, past_key_values=cache, use_cache=True)
    shapes = {tuple(layer.keys.shape) for layer in cache.layers} | {
        tuple(v.values.shape) for v in cache.layers
    }
    if len(shapes) != 1:
        raise ModelError("layers of different kinds have no common cache", found=str(sorted(shapes)))
    _, heads, _, each = shapes.pop()
    return len(cache.layers), heads, each


@torch.no_grad()
def trace(
    module: nn.Module,
    given: Sequence[Tensor],
    file: Path,
    inputs: Mapping[str, Mapping[int, str]],
    outputs: Mapping[str, Mapping[int, str]],
) -> None:
    """Trace a module and write it as one graph, with large weights in one file beside it.

    Args:
        module: what is written.
        given: an example of its inputs.
        file: where to.
        inputs: names, each with its axes of any length.
        outputs: the same of what comes out.
    """
    import onnx

    raw = file.with_name(f".{file.stem}.raw")
    raw.mkdir()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer, about shapes that are of one length here
            torch.onnx.export(
                module.eval(), tuple(given), str(raw / "graph.onnx"), input_names=list(inputs),
                output_names=list(outputs), dynamic_axes={**inputs, **outputs}, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
        _save(onnx.load(str(raw / "graph.onnx")), file)
    finally:
        shutil.rmtree(raw)


def round_off(to: Path) -> None:
    """Put the weights of the language model's layers into 8 bits, in place; its head and the other graphs stay.

    Inputs are rounded as they come (dynamic quantization of onnxruntime).
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    file = to / DECODER
    graph = onnx.load(str(file), load_external_data=False).graph
    head = [node.name for node in graph.node if "logits" in node.output]
    part = file.with_name(f".{file.name}.part")
    large = file.with_name(f"{file.name}_data")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_dynamic(
            str(file), str(part), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"],
            nodes_to_exclude=head, use_external_data_format=large.is_file(),
        )  # fmt: skip
    made = onnx.load(str(part))
    for left in (part, file, large, *to.glob(f".{file.name}.part*")):
        left.unlink(missing_ok=True)
    _save(made, file)


def _save(graph: Any, file: Path) -> None:
    """Write a graph, with large weights in one file beside it."""
    import onnx

    large = sum(len(tensor.raw_data) for tensor in graph.graph.initializer) >= WHOLE
    onnx.save_model(
        graph, str(file), save_as_external_data=large, location=f"{file.name}_data" if large else None
    )
