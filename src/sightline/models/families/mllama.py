"""Mllama (Llama 3.2 Vision): images stand beside the row, and some layers look at them from every word.

Grattafiori et al. 2024 (arXiv 2407.21783), section 7; code: `MllamaForConditionalGeneration` of transformers, opened
from its folder. One image token marks where an image was shown. What the tower makes of it is read by cross-attention
from the words behind it, until the next image; images side by side are seen together. As in the stock model, words in
front of the first image see all images of their document, with the empty tiles, but only their attention is added.

One row of three documents: p i p with the answers a and b; q j k r; and s, a text without an image
(1: sees the image; o: in front of it, see above; n: nothing, as if the layer was not there):

              image i   image j   image k   nothing
    p            o         .         .         .
    i            1         .         .         .
    p a b        1         .         .         .       both answers see the prompt's image
    q            .         o         o         .
    j            .         1         .         .
    k r          .         1         1         .
    s            .         .         .         n
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessor,
)
from transformers.models.mllama.configuration_mllama import MllamaTextConfig, MllamaVisionConfig
from transformers.models.mllama.image_processing_mllama import (
    build_aspect_ratio_mask,
    convert_aspect_ratios_to_ids,
    get_all_supported_aspect_ratios,
    get_optimal_tiled_canvas,
)

from ... import runs
from ...errors import ModelError
from .. import pairpass
from ..family import Bundle, Family, Grid
from ..languages import tokenizer_folder
from ..stock import StockProcessor, folder, weights
from .gemma3 import blocks_of_images, hidden
from .llava import head

NO_DOCUMENT = -2  # of places that fill up; padding is -1
GATES, HALF = ("cross_attn_attn_gate", "cross_attn_mlp_gate"), 0.549306  # tanh of it is 0.5
# The stock template writes another opening where images are shown, and the day's date where none is. It is told
# whether there are any, since images are written by `Chat`; and the date is the template's own for want of a clock.
LOOKED_FOR, TOLD = "namespace(has_images=false)", "namespace(has_images=shows_images | default(false))"
DATE = "{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"


@dataclass(frozen=True)
class Tiles(StockProcessor):
    """One image to its tiles, by the checkpoint's own image processor.

    Args:
        processor: a `MllamaImageProcessor`.
    """

    version: ClassVar[str] = "mllama.1"

    def __call__(self, image: np.ndarray) -> Tensor:
        """Pixels [H, W, 3] in [0, 1] -> float32 [tiles, 3, S, S], empty tiles last; 8 bits, as it was trained."""
        return super().__call__(image)[0]

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of tiles."""
        side = int(self.processor.size["height"])
        canvas = get_optimal_tiled_canvas(height, width, self.processor.max_image_tiles, side)
        return (int(canvas[0]) // side, int(canvas[1]) // side)


def compose(section: Mapping[str, Any], seed: int) -> Bundle:
    """Open a stock Mllama folder (`path`), or make a small one with random weights of two configs.

    Raises:
        ModelError: no path and no configs, no complete Mllama, or settings that do not fit together.
    """
    if not section.get("path") and isinstance(section.get("vision"), Mapping):
        return _new(section, seed)
    place = folder(section, "an Mllama")
    kind = runs.read_json(place / "config.json").get("model_type")
    if kind != "mllama":
        raise ModelError(
            f"'{place}' is no Mllama", where="config.json, model_type", found=str(kind), expected="mllama"
        )
    model = weights(MllamaForConditionalGeneration, place, "Mllama")
    tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
    if not tokenizer.chat_template:
        raise ModelError(
            "the checkpoint has no chat template", where=str(place),
            remedy="use the instruction-tuned one (`-Instruct`), or add its chat_template.jinja",
        )  # fmt: skip
    tokenizer.chat_template = DATE + tokenizer.chat_template.replace(LOOKED_FOR, TOLD)
    processor = AutoImageProcessor.from_pretrained(place, local_files_only=True)
    return _bundle(model, tokenizer, processor, section, seed)


def _new(section: Mapping[str, Any], seed: int) -> Bundle:
    """One of a `mllama_vision_model` and a `mllama_text_model`, random, as a function of the seed.

    The words' table has 8 rows more than the head, as published; the first of them is the image token. The gates of
    cross-attention, which start at zero and hide the images, start half open: adapters do not train them.

    Raises:
        ModelError: other configs, or a tokenizer without a conversation format or with more words than the model.
    """
    text, vision = section["language"], dict(section["vision"])
    kinds = [part.get("model_type") if isinstance(part, Mapping) else part for part in (vision, text)]
    if kinds != ["mllama_vision_model", "mllama_text_model"]:
        raise ModelError(
            "these configs make no Mllama", where="model.vision, model.language, model_type",
            found=", ".join(map(str, kinds)), expected="mllama_vision_model, mllama_text_model",
        )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder(text, "model.language"), local_files_only=True)
    end = tokenizer.eos_token_id
    begin = end if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ends = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": begin, "eos_token_id": end}
    plain = {k: v for k, v in text.items() if k not in ("tokenizer", "model_type")}
    language = MllamaTextConfig(**{"vocab_size": len(tokenizer), **ends, **plain})
    if len(tokenizer) > language.vocab_size or not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer does not fit the language model", where="model.language.tokenizer",
            found=f"{len(tokenizer)} words, {'a' if tokenizer.chat_template else 'no'} chat template",
            expected=f"at most {language.vocab_size} words, and a chat template",
        )  # fmt: skip
    tiles = vision.setdefault("max_num_tiles", 4)
    vision.setdefault("supported_aspect_ratios", [list(r) for r in get_all_supported_aspect_ratios(tiles)])
    tower = MllamaVisionConfig(**{k: v for k, v in vision.items() if k != "model_type"})
    tower.vision_output_dim = tower.hidden_size * (1 + len(tower.intermediate_layers_indices))
    config = MllamaConfig(vision_config=tower, text_config=language, image_token_index=language.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: Any = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, gate in model.model.language_model.named_parameters():
            if name.endswith(GATES):
                gate.fill_(HALF)
    edge = {"height": tower.image_size, "width": tower.image_size}
    processor = MllamaImageProcessor(size=edge, max_image_tiles=tiles)
    return _bundle(model.float(), tokenizer, processor, section, seed)


def _bundle(model: Any, tokenizer: Any, processor: Any, section: Mapping[str, Any], seed: int) -> Bundle:
    """All that belongs to a model, its parts checked against each other."""
    _check(model, processor)
    model.eval()
    vision = model.config.vision_config
    return Bundle(
        family=FAMILY,
        model=model,
        tokenizer=tokenizer,
        preprocess=Tiles(processor),
        image_token=model.config.image_token_id,
        tokens_per_image=vision.max_num_tiles * model.model.vision_model.num_patches,
        feature_width=vision.vision_output_dim,
        base={"model": dict(section), "seed": seed},
        system=section.get("system", ""),
    )


def _check(model: Any, processor: Any) -> None:
    """Refuse what would break far from its cause, or be read as something else in silence."""
    config, vision = model.config, model.config.vision_config
    rows = model.get_input_embeddings().num_embeddings
    ratios = [list(each) for each in get_all_supported_aspect_ratios(processor.max_image_tiles)]
    wrong = [
        (processor.max_image_tiles != vision.max_num_tiles, "max_image_tiles of the image processor",
         processor.max_image_tiles, vision.max_num_tiles),
        (processor.size["height"] != vision.image_size, "size of the image processor",
         processor.size["height"], vision.image_size),
        ([list(each) for each in vision.supported_aspect_ratios] != ratios, "supported_aspect_ratios",
         vision.supported_aspect_ratios, ratios),
        (config.image_token_id >= rows, "image_token_index", config.image_token_id,
         f"below {rows}, the rows of the embedding table"),
    ]  # fmt: skip
    for refused, name, found, expected in wrong:
        if refused:
            raise ModelError(
                "the parts of this Mllama do not fit together", where=name, found=str(found),
                expected=str(expected), remedy="mend its config.json or preprocessor_config.json",
            )  # fmt: skip


def words(bundle: Bundle, grid: Grid) -> tuple[int, ...]:
    """One token for an image of any size."""
    return (bundle.image_token,)


def encode_images(model: nn.Module, images: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """States of the tower's last and of some earlier layers, side by side.

    Args:
        model: the Mllama.
        images: [tiles, 3, S, S] each.
        grids: (rows, columns) of tiles each.

    Returns:
        [tiles x patches, width] each, those of empty tiles last.
    """
    tower: Any = model.get_submodule("model.vision_model")
    tiles, device = tower.config.max_num_tiles, images[0].device
    shapes: Any = [[tuple(grid)] for grid in grids]
    states = tower(
        pixel_values=torch.stack(images)[:, None],
        aspect_ratio_ids=convert_aspect_ratios_to_ids(shapes, tiles, device),
        aspect_ratio_mask=build_aspect_ratio_mask(shapes, tiles, device),
    ).last_hidden_state  # [images, 1, tiles, patches, width]
    return list(states.flatten(1, 3).unbind())


def connect(model: nn.Module, features: list[Tensor], grids: list[Grid]) -> list[Tensor]:
    """[tiles x patches, width] -> [tiles x patches, hidden] of each image."""
    return list(model.get_submodule("model.multi_modal_projector")(torch.stack(features)).unbind())


def layer(model: nn.Module) -> str:
    """Which earlier layers of the tower stand beside its last one."""
    config: Any = model.config
    return f"-1 {config.vision_config.intermediate_layers_indices}"


def tell(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], grids: list[Grid], dtype: torch.dtype
) -> dict[str, Any]:
    """Mask and positions of the row, and the images beside it: their states, who sees them, who adds what.

    The first state is zero. Keys and values have no bias, so what sees only that state adds nothing: just what a
    stock model without images does, which leaves the layer out. Without any image it is left out here too, unless the
    batch was given one that no row shows (`Plan.always`): the layers then take part, and see nothing. While a row is
    read on, its states stand in the cache and only who sees them is told.
    """
    language = bundle.family.language(bundle.model)
    told = pairpass.arrange(language, batch, dtype)
    if not grids:
        return told | (_nothing(bundle, batch, tokens, dtype) if tokens else {})
    config: Any = bundle.model.config
    tiles = config.vision_config.max_num_tiles
    places = batch["input_ids"] == bundle.image_token
    shapes: Any = [[tuple(grid) for grid in grids]]
    real = build_aspect_ratio_mask(shapes, tiles, places.device)[0].bool()  # [images, tiles]
    allowed, looks = sights(places, pairpass.layout(batch)[0], real)
    read, patches = batch.get("read", 0), bundle.tokens_per_image // tiles
    allowed, looks = allowed[:, read:], looks[:, read:]  # [B, fresh, images, tiles] and [B, fresh]
    allowed = allowed.repeat_interleave(patches, -1).flatten(2)  # [B, fresh, images x tiles x patches]
    allowed = torch.cat([~allowed.any(-1, keepdim=True), allowed], -1)
    told |= {
        "cross_attention_mask": pairpass.mask(allowed, str(language.config._attn_implementation), dtype),
        "full_text_row_masked_out_mask": looks[:, None, :, None].to(dtype),
    }
    if tokens:
        rows = torch.stack(tokens).split(places.sum(1).tolist())
        states = pad_sequence([row.flatten(0, 1) for row in rows], batch_first=True)
        told["cross_attention_states"] = pad(states, (0, 0, 1, 0)).to(dtype)
    return told


def _nothing(
    bundle: Bundle, batch: Mapping[str, Any], tokens: list[Tensor], dtype: torch.dtype
) -> dict[str, Any]:
    """What `tell` says of rows without images, for layers of cross-attention that are to take part all the same.

    The zero state is made of images that no row shows, so that gradients take the way that they take elsewhere.
    """
    language = bundle.family.language(bundle.model)
    rows, length = batch["input_ids"].shape
    device = batch["input_ids"].device
    alone = torch.ones(rows, length, 1, dtype=torch.bool, device=device)
    nothing = torch.stack([each[:1] * 0 for each in tokens]).sum(0)  # [1, hidden]
    return {
        "cross_attention_mask": pairpass.mask(alone, str(language.config._attn_implementation), dtype),
        "full_text_row_masked_out_mask": torch.zeros(rows, 1, length, 1, dtype=dtype, device=device),
        "cross_attention_states": nothing.expand(rows, 1, -1).to(dtype),
    }


def sights(places: Tensor, document: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Which tiles each token sees; see the picture at the file's head.

    Args:
        places: [B, T] bool, true on image tokens.
        document: [B, T]; -1 is padding.
        real: [images, tiles] bool in reading order, false on empty tiles.

    Returns:
        [B, T, most images of a row, tiles] bool; and [B, T] bool, whether a token stands behind an image.
    """
    counts = places.sum(1).tolist()

    def each(values: Tensor, fill: int) -> Tensor:
        """Values at the image tokens, [B, most images, ...]."""
        return pad_sequence(list(values.split(counts)), batch_first=True, padding_value=fill)

    blocks = blocks_of_images(places, document)
    home, group, full = each(document[places], NO_DOCUMENT), each(blocks[places], -1), each(real, 0)
    own = home[:, None, :] == document[:, :, None]  # [B, T, images]
    shown = torch.arange(home.shape[1], device=places.device) < places.cumsum(1)[:, :, None]
    last = group[:, None, :] == blocks.cummax(1).values[:, :, None]
    seen = own & shown & last
    looks = seen.any(-1)
    tiles = seen[..., None] & full[:, None].bool()
    return torch.where(looks[:, :, None, None], tiles, own[..., None]), looks


FAMILY = Family(
    name="mllama",
    parts={
        "vision": ("model.vision_model",),
        "connector": ("model.multi_modal_projector",),
        "language": ("model.language_model", "lm_head"),
    },
    placement="inline",
    compose=compose,
    encode_images=encode_images,
    connect=connect,
    hidden=hidden,
    head=head,
    words=words,
    beside=True,
    tell=tell,
    layer=layer,
    cannot=("volumes", "composition from trained parts", "LoRA of the connector"),
)
