"""Releases of LLaVA and LLaVA-Med under their own names open today and say the same, computed the originals' way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPConfig, CLIPModel
from typer.testing import CliRunner

import models
import models_llava_next
import models_released as made
from sightline.cli import app
from sightline.errors import ModelError
from sightline.models import checkpoint
from sightline.models.released.convert import convert


@pytest.mark.parametrize("shards", [1, 3])
def test_llava_says_what_it_said(shards: int, tmp_path: Path) -> None:
    language, state = made.language(made.VOCABULARY)
    tower, _ = made.clip(tmp_path / "clip")
    weights = made.randoms(made.CONNECTOR, 3)
    folder = made.write(tmp_path / "llava", made.LLAVA, {**state, **weights}, shards=shards)
    told = convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    assert torch.equal(
        made.logits(bundle, pixels), made.originals(language, made.tokens(tower, pixels, weights))
    )
    assert told["tensors"] == {"language": 21, "vision": 0, "connector": 4, "image_newline": 0, "merged": 0}
    assert told["connector"] == "mlp2x_gelu"
    assert len(told["files"]) == len(list(folder.glob("*.bin"))) + len(list(folder.glob("*.json")))
    assert not list((tmp_path / "new").glob("*.bin"))
    stored = {name.partition(".")[0] for name in load_file(tmp_path / "new" / "model.safetensors")}
    assert stored == {"language_model", "multi_modal_projector", "vision_tower"}
    assert bundle.model.get_input_embeddings().num_embeddings == made.VOCABULARY, "no row was added"
    assert bundle.tokenizer.pad_token_id != bundle.image_token
    assert "ASSISTANT:" in bundle.tokenizer.chat_template


def test_half_precision_stays(tmp_path: Path) -> None:
    _, state = made.language(made.VOCABULARY)
    made.clip(tmp_path / "clip")
    halves = {k: v.half() for k, v in {**state, **made.randoms(made.CONNECTOR, 3)}.items()}
    convert(made.write(tmp_path / "llava", made.LLAVA, halves), tmp_path / "new", vision=tmp_path / "clip")
    stored = load_file(tmp_path / "new" / "model.safetensors")
    assert stored["multi_modal_projector.linear_1.weight"].dtype == torch.float16
    assert torch.equal(stored["multi_modal_projector.linear_1.weight"], halves["model.mm_projector.0.weight"])
    assert stored["vision_tower.post_layernorm.weight"].dtype == torch.float32


def test_a_tower_that_was_trained_comes_from_the_release(tmp_path: Path) -> None:
    """LLaVA-Med v1.5 and LLaVA-1.6 hold their tower; the folder's own weights are not used then."""
    language, state = made.language(made.VOCABULARY)
    tower, vision = made.clip(tmp_path / "trained", seed=5)
    other, _ = made.clip(tmp_path / "clip", seed=9)
    (tmp_path / "clip" / "model.safetensors").unlink()
    weights = made.randoms(made.CONNECTOR, 3)
    config = {**made.LLAVA, "mm_patch_merge_type": "flat"}
    folder = made.write(tmp_path / "med", config, {**state, **vision, **weights})
    told = convert(folder, tmp_path / "new", vision=tmp_path / "clip", template="mistral_instruct")
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    said = made.logits(bundle, pixels)
    assert torch.equal(said, made.originals(language, made.tokens(tower, pixels, weights)))
    assert not torch.allclose(said, made.originals(language, made.tokens(other, pixels, weights)))
    assert told["tensors"]["vision"] == 39
    assert told["model"]["template"] == "mistral_instruct"


def test_the_tower_of_an_image_text_model_is_taken_out(tmp_path: Path) -> None:
    """`openai/clip-vit-large-patch14-336` is a folder of both halves."""
    language, state = made.language(made.VOCABULARY)
    made.clip(tmp_path / "clip")
    torch.manual_seed(3)
    vision = {k: v for k, v in models.CLIP.items() if k != "model_type"}
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    both = CLIPModel(
        CLIPConfig(vision_config=vision, text_config={**text, "vocab_size": 20}, projection_dim=16)
    ).eval()
    both.save_pretrained(tmp_path / "clip")
    weights = made.randoms(made.CONNECTOR, 3)
    folder = made.write(tmp_path / "llava", made.LLAVA, {**state, **weights})
    convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    assert torch.equal(
        made.logits(bundle, pixels), made.originals(language, made.tokens(both.vision_model, pixels, weights))
    )


def test_mistral_is_told_from_llama(tmp_path: Path) -> None:
    """LLaVA-Med v1.5's class; its rotary base of a million is kept."""
    _, state = made.language(made.VOCABULARY)
    made.clip(tmp_path / "clip")
    config = {
        **made.LLAVA, "architectures": ["LlavaMistralForCausalLM"], "model_type": "llava_mistral",
        "rope_theta": 1000000.0, "sliding_window": None,
    }  # fmt: skip
    folder = made.write(tmp_path / "med", config, {**state, **made.randoms(made.CONNECTOR, 3)})
    told = convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    assert bundle.model.config.text_config.model_type == "mistral"
    assert bundle.model.config.text_config.rope_parameters["rope_theta"] == 1000000.0
    assert told["model"]["template"] == "mistral_instruct"


def test_the_first_llavas_matrix_becomes_parts(tmp_path: Path) -> None:
    language, state = made.language(made.VOCABULARY)
    tower, _ = made.clip(tmp_path / "clip")
    weights = made.randoms({"model.mm_projector.weight": (32, 16), "model.mm_projector.bias": (32,)}, 3)
    config = {k: v for k, v in made.LLAVA.items() if k not in ("mm_projector_type", "image_aspect_ratio")}
    inv = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}  # a buffer of transformers 4.28
    folder = made.write(tmp_path / "v1", config, {**state, **weights, **inv})
    told = convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    assert told["connector"] == "linear"
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "connector.safetensors", "conversion.json", "language", "model.yaml", "vision",
    ]  # fmt: skip
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    with torch.no_grad():
        seen = tower(pixels[None], output_hidden_states=True).hidden_states[-2][0, 1:]
        seen = seen @ weights["model.mm_projector.weight"].T + weights["model.mm_projector.bias"]
    torch.testing.assert_close(made.logits(bundle, pixels), made.originals(language, seen), rtol=0, atol=1e-6)


def test_libras_other_connectors_have_one_more_word_in_front(tmp_path: Path) -> None:
    language, state = made.language(made.VOCABULARY)
    tower, _ = made.clip(tmp_path / "clip")
    weights = made.randoms(made.CONNECTOR, 3)
    renamed = {k.replace("mm_projector.", "mm_projector.projector."): v for k, v in weights.items()}
    config = {**made.LLAVA, "architectures": ["LibraLlamaForCausalLM"], "model_type": "libra"}
    folder = made.write(tmp_path / "cxrgen", config, {**state, **renamed})
    convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    assert torch.equal(
        made.logits(bundle, pixels), made.originals(language, made.tokens(tower, pixels, weights))
    )


def test_llava_1_6_keeps_its_tiles_and_the_end_of_its_lines(tmp_path: Path) -> None:
    stock = models_llava_next.write(tmp_path / "stock")
    before = checkpoint.compose({"family": "llava_next", "path": str(stock), "system": ""}, 0)
    own = before.model.state_dict()
    rename = (
        ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
        ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
        ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
        ("model.language_model.", "model."),
        ("model.image_newline", "model.image_newline"),
        ("lm_head.", "lm_head."),
    )
    state = {}
    for name, value in own.items():
        new, old = next((new, old) for new, old in rename if name.startswith(new))
        state[old + name.removeprefix(new)] = value.clone()
    config = {
        **made.LLAVA, "image_aspect_ratio": "anyres", "mm_patch_merge_type": "spatial_unpad",
        "image_grid_pinpoints": models_llava_next.PINPOINTS, "architectures": ["LlavaMistralForCausalLM"],
    }  # fmt: skip
    config["architectures"] = ["LlavaLlamaForCausalLM"]  # the tiny one is a Llama
    folder = made.write(tmp_path / "v16", config, state)
    made.clip(tmp_path / "clip")
    told = convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    assert told["tensors"]["image_newline"] == 1
    assert told["model"]["family"] == "llava_next"
    after = made.opened(tmp_path / "new")
    wide = np.random.default_rng(4).random((30, 70, 3)).astype(np.float32)
    assert torch.equal(before.preprocess(wide), after.preprocess(wide))
    pixels = after.preprocess(wide)
    assert len(pixels) == 4, "the whole and three tiles"
    assert torch.equal(made.logits(before, pixels, grid=(30, 70)), made.logits(after, pixels, grid=(30, 70)))
    del state["model.image_newline"]
    with pytest.raises(ModelError, match=r"1 missing: model\.image_newline"):
        convert(made.write(tmp_path / "b", config, state), tmp_path / "c", vision=tmp_path / "clip")


def test_the_command(tmp_path: Path) -> None:
    folder = made.write(tmp_path / "llava", made.LLAVA, made.whole(tmp_path))
    words = ["convert", str(folder), "--to", str(tmp_path / "new"), "--vision", str(tmp_path / "clip")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "connector mlp2x_gelu; tensors: language 21, connector 4" in found.output
    assert (tmp_path / "new" / "model.safetensors").is_file()
    record = json.loads((tmp_path / "new" / "conversion.json").read_text())
    assert record["from"] == "llava"
    assert set(record["files"]) == {
        f"llava/{name}"
        for name in ("config.json", "pytorch_model.bin", "tokenizer.json", "tokenizer_config.json")
    }


@pytest.mark.parametrize("copied", [True, False])
def test_one_table_for_both_ends_is_stored_once(copied: bool, tmp_path: Path) -> None:
    """A release may hold the table twice although its config ties both ends, or once."""
    state = made.whole(tmp_path)
    state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()
    if not copied:
        del state["lm_head.weight"]
    folder = made.write(tmp_path / "a", {**made.LLAVA, "tie_word_embeddings": True}, state)
    convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    assert torch.equal(bundle.model.lm_head.weight, state["model.embed_tokens.weight"])
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "new" / "model.safetensors")


def test_rows_are_not_filled_up_with_images(tmp_path: Path) -> None:
    """LLaVA's tokenizers pad with the word that stands for images here; another one must take that place."""
    folder = made.write(tmp_path / "a", made.LLAVA, made.whole(tmp_path))
    tokenizer = models.bytes_tokenizer()
    tokenizer.pad_token = "<empty_output>"
    tokenizer.save_pretrained(folder)
    convert(folder, tmp_path / "new", vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    assert bundle.image_token == models.CONTROL.index("<empty_output>")
    assert bundle.tokenizer.pad_token == "<|im_end|>"
