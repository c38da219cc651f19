"""A released folder to one that opens today: stock LLaVA or LLaVA-NeXT, or parts with a recipe's `model` section.

transformers' LLaVA has a connector of two layers. A release with another one (the first LLaVA's matrix, Libra's
temporal connector) becomes its parts: `language/`, `vision/`, `connector.safetensors`. `model.yaml` says in both cases
how a recipe names it. Weights keep their number format; tables of words keep their rows: the image's place in a row
was -200 in the originals, which no table has, and is a token here that no text becomes.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file
from transformers import LlavaNextImageProcessor

from ... import runs
from ...errors import ModelError
from .. import conversations, languages
from . import build
from .gather import Released, gather

RECORD, MODEL = "conversion.json", "model.yaml"


def convert(
    folder: Path,
    to: Path,
    *,
    base: Path | None = None,
    vision: Path | None = None,
    connector: Path | None = None,
    tokenizer: Path | None = None,
    template: str | None = None,
    delta: bool = False,
) -> dict[str, Any]:
    """Read a release and write it anew. What is written appears whole or not at all.

    Args:
        folder: of the release.
        to: where to write; must not be there.
        base: folder of what the release stands on, if it is not complete.
        vision: folder of the vision tower.
        connector: a file of a connector's weights that goes before any other.
        tokenizer: folder of a tokenizer in the place of the release's own.
        template: conversation format; None goes by the release's language model and connector.
        delta: whether the release holds differences from `base`.

    Returns:
        What was made, as `conversion.json` tells it.

    Raises:
        ModelError: something is missing, unexpected, unknown or in the way.
    """
    if to.exists():
        raise ModelError("there is something already where the model is to be written", where=str(to))
    form = None if template is None else conversations.find(template)
    released = gather(folder, base=base, connector=connector, delta=delta)
    words = build.open_tokenizer(released, tokenizer)
    name = template or _template(released)
    words.chat_template = (form or conversations.find(name)).jinja
    tower = build.open_tower(released, vision)
    image_token = _image_token(released, words)
    part = to.with_name(f".{to.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if released.parts.kind == "mlp2x_gelu":
            section = _stock(released, words, tower, image_token, part, to, str(folder))
        else:
            section = _parts(released, words, tower, image_token, part, to, str(folder))
        section["template"] = name
        (part / MODEL).write_text(yaml.safe_dump({"model": section}, sort_keys=False), encoding="utf-8")
        told = _told(released, section, folder)
        runs.write_json(part / RECORD, told)
        part.rename(to)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return told


def _template(released: Released) -> str:
    """The conversation format that a release was trained with, as far as its kind says."""
    if released.parts.kind == "temporal":
        return "libra_v1"
    said = str(released.config.get("architectures", "")) + str(released.config.get("model_type", ""))
    return "mistral_instruct" if "mistral" in said.lower() else "v1"


def _image_token(released: Released, words: Any) -> int:
    """A token of the table that no text becomes; rows are filled up with another one."""
    rows = released.parts.language.get(build.TABLE)
    count = 0 if rows is None else len(rows)
    if len(words) > count:
        raise ModelError(
            "the tokenizer knows more words than the language model", found=f"{len(words)} words",
            expected=f"at most {count}", remedy="name the tokenizer that it was trained with as `--tokenizer`",
        )  # fmt: skip
    found = languages.image_token(words, count)
    if words.pad_token_id is None or words.pad_token_id == found:
        words.pad_token = words.eos_token
    return found


def _stock(
    released: Released, words: Any, tower: build.Tower, image_token: int, part: Path, to: Path, where: str
) -> dict[str, Any]:
    """A folder as transformers' LLaVA and LLaVA-NeXT have it; returns the `model` section that opens it."""
    model = build.stock(released, tower, image_token, where)
    model.save_pretrained(part)
    words.save_pretrained(part)
    tiled = build.tiled(released.config)
    _processor(tower.processor, model.config, tiled).save_pretrained(part)
    return {"family": "llava_next" if tiled else "llava", "path": str(to)}


def _processor(processor: Any, config: Any, tiled: bool) -> Any:
    """The tower's image processor, or one that cuts tiles for it."""
    if not tiled:
        return processor
    plain = processor.to_dict()
    keys = ("size", "crop_size", "image_mean", "image_std", "resample", "do_center_crop", "do_resize")
    return LlavaNextImageProcessor(
        image_grid_pinpoints=config.image_grid_pinpoints, **{k: plain[k] for k in keys if k in plain}
    )


def _parts(
    released: Released, words: Any, tower: build.Tower, image_token: int, part: Path, to: Path, where: str
) -> dict[str, Any]:
    """Language model, tower and connector, each by itself; returns the `model` section that joins them."""
    if released.parts.newline is not None or build.tiled(released.config):
        raise ModelError(
            "tiles are known with a connector of two layers only", where=where, found=released.parts.kind
        )
    build.language_model(released, where).save_pretrained(part / "language")
    words.save_pretrained(part / "language")
    build.tower_model(tower).save_pretrained(part / "vision")
    tower.processor.save_pretrained(part / "vision")
    weights = {name: value.contiguous() for name, value in released.parts.connector.items()}
    save_file(weights, part / "connector.safetensors", {"format": "pt"})
    section: dict[str, Any] = {
        "family": "llava",
        "vision": str(to / "vision"),
        "language": str(to / "language"),
        "connector": {"name": released.parts.kind, "weights": str(to / "connector.safetensors")},
        "select": build.selection(released.config, where),
        "image_token": image_token,
    }
    if released.parts.kind != "temporal":  # that one sees all layers
        section["select_layer"] = build.layer(released.config, where)
    return section


def _told(released: Released, section: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Where a converted model comes from."""
    parts = released.parts
    return {
        "from": folder.name,
        "connector": parts.kind,
        "tensors": {
            "language": len(parts.language), "vision": len(parts.vision), "connector": len(parts.connector),
            "image_newline": int(parts.newline is not None), "merged": released.merged,
        },
        "model": dict(section),
        "files": {f"{p.parent.name}/{p.name}": runs.hash_file(p) for p in released.files},
    }  # fmt: skip
