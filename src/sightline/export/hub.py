"""A model as the hub's checkpoints are laid out: weights under their names, processor, template, generation settings.

LLaVA is written from what the model is, with the names of llava-hf's checkpoints (vLLM knows no others). Its image
processor fills pictures up to a square, as the original LLaVA does and as Sightline trains. Every other family was
opened from such a folder: transformers writes its weights back under the names that they had, and what else stood in
that folder is copied.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor
from transformers import LlavaProcessor
from transformers.models.llava.image_processing_llava import LlavaImageProcessor
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..errors import ModelError
from ..images.transforms import PILLOW_RESAMPLES, Preprocess
from ..models.connectors.mlp import TwoLayers
from ..models.family import Bundle
from ..settings import Model

SECTION = "model.yaml"  # how a recipe names the folder, as `sightline convert` writes it too
IMAGE = "<image>"
SHARD = "5GB"
# Keys of a recipe's `model` that the folder says by itself.
INSIDE = (
    "family", "path", "vision", "language", "connector", "select", "select_layer", "image_token", "load", "patches",
)  # fmt: skip
SIDE = (".json", ".jinja", ".txt", ".model")  # what stands beside weights: tokenizer, processor, template
OWN = ("config.json", "generation_config.json", "model.safetensors.index.json")
PREFIXED = (
    "clip_vision_model",
    "siglip_vision_model",
)  # towers whose published weights stand under `vision_model.`
NAMES = (
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.image_newline", "image_newline"),
)
# Messages as lists of parts become one text each, with all images in front of the first question, as the model reads
# them; messages of one text each stay as they are.
FRONT = (
    "{%- set told = namespace(messages=[], images='') -%}{%- set system = SYSTEM -%}"
    "{%- if system and messages[0]['role'] != 'system' -%}"
    "{%- set told.messages = [{'role': 'system', 'content': system}] -%}{%- endif -%}"
    "{%- for m in messages -%}{%- if m['content'] is not string -%}{%- for part in m['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') -%}{%- set told.images = told.images + 'IMAGE\\n' -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- endfor -%}"
    "{%- for m in messages -%}{%- set text = namespace(all='') -%}"
    "{%- if m['content'] is string -%}{%- set text.all = m['content'] -%}{%- else -%}{%- for part in m['content'] -%}"
    "{%- if part['type'] == 'text' -%}{%- set text.all = text.all + part['text'] | trim -%}{%- endif -%}{%- endfor -%}"
    "{%- endif -%}"
    "{%- if m['role'] == 'user' -%}{%- set text.all = told.images + text.all -%}{%- set told.images = '' -%}"
    "{%- endif -%}"
    "{%- set told.messages = told.messages + [{'role': m['role'], 'content': text.all}] -%}{%- endfor -%}"
    "{%- set messages = told.messages -%}"
)


def write(bundle: Bundle, to: Path, ends: Collection[int], precision: str) -> None:
    """Write a model with all that opens it.

    Args:
        bundle: the model, merged.
        to: folder to write into; made here.
        ends: ids that end an answer.
        precision: number format, `float32`, `bfloat16` or `float16`; the model is put into it.

    Raises:
        ModelError: no class of transformers holds such a model.
    """
    check(bundle)
    to.mkdir(parents=True, exist_ok=True)
    model: Any = bundle.model.to(getattr(torch, precision))
    if bundle.family.name == "llava":
        reader = processor(bundle)
        reader.save_pretrained(to)
        reader.image_processor.save_pretrained(to)  # older programs look for it in a file of its own
        _tell(model, bundle, ends)
        model.save_pretrained(
            to, state_dict=hub_names(model), max_shard_size=SHARD, save_original_format=False
        )
    else:
        copy_beside(Path(bundle.base["model"]["path"]), to)
        model.save_pretrained(to, max_shard_size=SHARD)


def check(bundle: Bundle) -> None:
    """Refuse a model that no class of transformers holds.

    Raises:
        ModelError: a connector other than LLaVA's of two layers, or a family that was put together from parts.
    """
    if bundle.family.name != "llava":
        if not bundle.base["model"].get("path"):
            raise ModelError(
                f"a model of the family '{bundle.family.name}' that was put together from parts is not exported",
                expected="one that was opened from a folder",
            )  # fmt: skip
        return
    connector = bundle.model.get_submodule("model.multi_modal_projector")
    if not isinstance(connector, TwoLayers | LlavaMultiModalProjector):
        raise ModelError(
            "transformers' LLaVA has a connector of two layers, and this model another one", where="model.connector",
            found=type(connector).__name__, expected="mlp2x_gelu",
            remedy="`--to onnx` writes one of any number of layers; a connector that compares two images stays here",
        )  # fmt: skip


def is_plain(bundle: Bundle) -> bool:
    """Whether transformers alone computes the model: its LLaVA has such a tower, cuts it so, and caps no scores.

    It leaves out Gemma 2's soft capping: that of logits always, that of attention unless told to be eager.
    """
    if bundle.family.name != "llava":
        return True
    tower, config = bundle.model.get_submodule("model.vision_tower"), bundle.model.config
    cut = config.vision_feature_select_strategy == "full" or getattr(config, "leading", 1) == 1
    text = config.get_text_config()
    capped = [getattr(text, f"{which}_logit_softcapping", None) for which in ("final", "attn")]
    return type(tower).__module__.startswith("transformers.") and cut and capped == [None, None]


def hub_names(model: Any) -> dict[str, Tensor]:
    """The weights of a LLaVA under the names of the hub's checkpoints; one that two layers share stands once."""
    kind = getattr(model.model.vision_tower.config, "model_type", "")
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    made = {}
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        new = next((there + name.removeprefix(here) for here, there in NAMES if name.startswith(here)), name)
        if kind in PREFIXED and new.startswith("vision_tower.") and ".vision_model." not in new:
            new = new.replace("vision_tower.", "vision_tower.vision_model.", 1)
        made[new] = tensor
    return made


def processor(bundle: Bundle) -> Any:
    """LLaVA's processor of transformers with the settings that this model was trained with."""
    own, config = bundle.preprocess, bundle.model.config
    assert isinstance(own, Preprocess)
    resample = {name: number for number, name in PILLOW_RESAMPLES.items()}[own.resample]
    edge = own.crop_from or own.size
    images = LlavaImageProcessor(
        do_pad=own.pad, do_resize=True, size={"height": edge, "width": edge} if own.pad else {"shortest_edge": edge},
        do_center_crop=bool(own.crop_from), crop_size={"height": own.size, "width": own.size}, resample=resample,
        do_rescale=True, do_normalize=True, image_mean=list(own.mean), image_std=list(own.std),
    )  # fmt: skip
    tokenizer = copy.deepcopy(bundle.tokenizer)
    word = image_word(tokenizer, bundle.image_token)
    front = FRONT.replace("IMAGE", word).replace("SYSTEM", json.dumps(bundle.system))
    tokenizer.chat_template = front + tokenizer.chat_template
    patch = config.vision_config.patch_size
    extra = (
        bundle.tokens_per_image
        - (own.size // patch) ** 2
        + (config.vision_feature_select_strategy == "default")
    )
    return LlavaProcessor(
        image_processor=images, tokenizer=tokenizer, patch_size=patch, image_token=word,
        vision_feature_select_strategy=config.vision_feature_select_strategy, num_additional_image_tokens=extra,
        chat_template=tokenizer.chat_template,
    )  # fmt: skip


def image_word(tokenizer: Any, image_token: int) -> str:
    """The word that stands for an image; a row of the table that no word has is given one, in this tokenizer.

    Raises:
        ModelError: the next free word is not that of the image token.
    """
    words = {i: word for word, i in tokenizer.get_vocab().items()}
    if image_token in words:
        return words[image_token]
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    found = tokenizer.convert_tokens_to_ids(IMAGE)
    if found != image_token:
        raise ModelError(
            "the image token has no word, and the next free one is another", found=str(found),
            expected=str(image_token),
            remedy="name a word of the vocabulary as `image_token` in the recipe's `model` and train again",
        )  # fmt: skip
    return IMAGE


def section(bundle: Bundle, home: Path) -> str:
    """The `model` section of a recipe that opens the folder, which will stand in `home`."""
    own = Model.model_validate(bundle.base["model"]).model_dump(exclude_defaults=True, mode="json")
    kept = {key: value for key, value in own.items() if key not in INSIDE}
    made = {"family": bundle.family.name, "path": home.as_posix(), **kept}
    return str(yaml.safe_dump({"model": made}, sort_keys=False))


def _tell(model: Any, bundle: Bundle, ends: Collection[int]) -> None:
    """Let the config say what the model is, and the generation settings how it is asked: greedily, no image token."""
    config = model.config
    if is_plain(bundle):
        for key in ("leading", "every_layer", "heads"):
            vars(config).pop(key, None)
    config.image_seq_length = bundle.tokens_per_image
    own = model.generation_config
    own._from_model_config = False
    own.do_sample, own.temperature, own.top_p, own.top_k = False, None, None, None
    own.eos_token_id = sorted(ends)
    own.pad_token_id = bundle.tokenizer.pad_token_id
    known = model.get_output_embeddings().out_features
    own.suppress_tokens = [bundle.image_token] if bundle.image_token < known else None


def copy_beside(place: Path, to: Path) -> None:
    """Copy what stands beside the weights of a folder: tokenizer, processor, template."""
    for file in sorted(place.iterdir()):
        if file.is_file() and file.suffix in SIDE and file.name not in OWN:
            shutil.copyfile(file, to / file.name)
