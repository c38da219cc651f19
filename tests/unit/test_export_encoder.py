"""Image-text encoders as graphs: the same embeddings from a process without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
import models_encoders
from sightline.errors import ModelError
from sightline.export import encoder as exported
from sightline.models.encoder import DualEncoder
from sightline.models.encoder_checkpoint import load_encoder
from sightline.models.trainable import apply
from sightline.stages import export as stage

PROGRAM = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
told = json.load(open(f"{folder}/encoder.json"))
image, text = (onnxruntime.InferenceSession(f"{folder}/{name}_encoder.onnx") for name in ("image", "text"))
tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(told["length"])
made = [image.run(None, {"pixel_values": np.load(sys.argv[3])})[0].tolist()]
for said in texts:
    ids = tokenizer.encode(said.lower() if told["lower"] else said).ids
    real = [1] * len(ids)
    if told["padding"] == "max_length":
        fill = told["length"] - len(ids)
        ids, real = ids + [0] * fill, real + [0] * fill
    given = {"input_ids": ids, "attention_mask": real}
    made.append(text.run(None, {n: np.array([given[n]]) for n in told["tokens"]})[0].tolist())
assert not {"torch", "transformers", "sightline"} & set(sys.modules)
print(json.dumps(made))
"""
TEXTS = ["no effusion", "the heart is large"]


def trained(kind: str, root: Path, patch: pytest.MonkeyPatch) -> DualEncoder:
    """A small encoder with adapters that moved, saved as a stage does."""
    made = models_encoders.opened(kind, root, patch)
    asked: dict[str, Any] = {"text": models_encoders.LORA, "heads": models_encoders.FULL}
    model = apply(made, asked, 0)
    models.stir(made.model.parameters(), 1)
    models_encoders.save(root / "saved", made, model, asked)
    return load_encoder(root / "saved")


@pytest.mark.parametrize("kind", ["clip", "siglip", "kit"])
def test_a_program_without_torch_embeds_alike(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = trained(kind, tmp_path, monkeypatch)
    place = tmp_path / "out"
    told = stage.make(stage.Order(place=tmp_path / "saved", kind="onnx", to=place, home=place))
    assert told["answers"]["moved"] < 1e-5
    assert told["bytes"]["files"][exported.IMAGE] == (place / exported.IMAGE).stat().st_size
    pixels = encoder.preprocess(np.random.default_rng(3).random((40, 33, 3), dtype=np.float32))[None]
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    words = [sys.executable, "-c", PROGRAM, str(place), json.dumps(TEXTS), str(tmp_path / "pixels.npy")]
    ran = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": ""}
    )
    assert ran.returncode == 0, ran.stderr
    found = [np.asarray(each, np.float32) for each in json.loads(ran.stdout.splitlines()[-1])]
    with torch.no_grad():
        wanted = [encoder.images(encoder.family.encode_images(encoder.model, [pixels[0]], [()])).numpy()]
        wanted += [encoder.texts(encoder.tokenize([text])).numpy() for text in TEXTS]
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (1, encoder.width)
        assert np.abs(one - other).max() < 1e-5
    assert np.abs(found[1] - found[2]).max() > 1e-2


def test_graphs_that_do_not_agree_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained("clip", tmp_path, monkeypatch)
    whole = exported.Images.forward
    monkeypatch.setattr(exported.Images, "forward", lambda self, pixels: whole(self, pixels * 1.5))
    with pytest.raises(ModelError, match="do not embed as the encoder does"):
        exported.export(tmp_path / "saved", "onnx", tmp_path / "out")


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ONNX alone"):
        exported.export(tmp_path, "nf4", tmp_path / "out")
