"""OpenCLIP's ResNet-50 from a file in OpenCLIP's own layout: tuned, saved, opened, indexed, and reports are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sightline import recipe, stages
from sightline.data import prepare
from sightline.models.encoder_checkpoint import load_encoder
from sightline.models.encoders import openclip

pytestmark = pytest.mark.slow  # 102 million weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The class that OpenCLIP makes of `RN50`, random, as its training saves it: the text tower at the top."""
    library = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")
    torch.manual_seed(0)
    stock = library.model.CLIP(**library.get_model_config("RN50"))
    state = {key: value.contiguous() for key, value in stock.state_dict().items()}
    assert "transformer.resblocks.0.attn.in_proj_weight" in state
    assert sum(p.numel() for p in stock.parameters()) == 102_007_137
    path = tmp_path_factory.mktemp("rn50") / "rn50.safetensors"
    save_file(state, path)
    return path


def document(weights: Path) -> dict[str, Any]:
    return {
        "name": "rn50", "seed": 1,
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom", "patients": 10, "size": 64,
                     "split": {"train": 0.6, "valid": 0.2, "test": 0.2}},
            "encoder": {
                "stage": "contrast", "data": "data", "loss": {"name": "clip"},
                "model": {"encoder": "openclip", "name": "RN50", "path": str(weights)},
                "trainable": {"vision": {"full": {"lr": 1e-4}}, "heads": {"full": {"lr": 1e-3}}},
                "chunk": 2, "validate_every": 2, "train": {"steps": 2, "batch": 4, "save_every": 2},
            },
            "reports": {"stage": "index", "data": "data", "model": "encoder"},
            "found": {"stage": "retrieve", "data": "data", "index": "reports", "choose": {"k": 2}},
        },
    }  # fmt: skip


def test_rn50_learns_is_opened_and_finds_reports(weights: Path, tmp_path: Path) -> None:
    folders = stages.execute(recipe.check(document(weights), "test"), tmp_path, say=lambda line: None)
    stored = load_file(folders["encoder"] / "model" / "full.safetensors")
    before = load_file(weights)
    assert {"visual.conv1.weight", "visual.attnpool.positional_embedding", "logit_scale"} <= set(stored)
    assert all(name == "logit_scale" or name.startswith("visual.") for name in stored)
    moved = [name for name, value in stored.items() if not torch.equal(value, before[name])]
    assert len(moved) > 0.9 * len(stored)
    opened = load_encoder(folders["encoder"] / "model")
    assert type(opened.model) is openclip.Towers
    assert type(opened.model.visual).__name__ == "ModifiedResNet"
    named = dict(opened.model.named_parameters())
    assert all(torch.equal(named[name], value) for name, value in stored.items())
    assert torch.equal(named["text.token_embedding.weight"], before["token_embedding.weight"])
    lines = (folders["found"] / "retrieved.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    train = {s.id for s in prepare.load(folders["data"]).samples("train")}
    assert len(rows) == sum(prepare.load(folders["found"]).counts.values())
    for row in rows:
        assert len(row["reports"]) == 2
        assert {r["id"] for r in row["reports"]} <= train
        assert row["patient"] not in {r["patient"] for r in row["reports"]}
        first, second = (r["similarity"] for r in row["reports"])
        assert 1 >= first >= second >= -1
