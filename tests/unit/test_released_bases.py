"""Releases that stand on a base: Libra's connector and its adapter, LLaVA's adapters and differences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
import models_released as made
from sightline.errors import ModelError
from sightline.models import checkpoint
from sightline.models.released.convert import convert


def test_libras_connector_beside_its_language_model(tmp_path: Path) -> None:
    """`mm_tac_projector.bin` on a plain Llama; the same parts composed here say the same."""
    weights, base = made.libra(tmp_path)
    folder = made.write(tmp_path / "libra", made.LIBRA, {})
    torch.save(weights, folder / "mm_tac_projector.bin")
    told = convert(folder, tmp_path / "new", base=base, vision=tmp_path / "dino")
    assert told["connector"] == "temporal"
    assert told["tensors"]["connector"] == 54
    assert told["model"]["template"] == "libra_v1"
    bundle = made.opened(tmp_path / "new")
    bare = {k.removeprefix("model.mm_projector."): v for k, v in weights.items()}
    save_file(bare, tmp_path / "bare.safetensors")
    section = models.section(base, str(tmp_path / "dino"), template="libra_v1")
    section["connector"] = {"name": "temporal", "weights": str(tmp_path / "bare.safetensors")}
    ours = checkpoint.compose(section, 0)
    now, then = bundle.preprocess(made.PIXELS), bundle.preprocess(made.PRIOR)
    assert torch.equal(made.logits(bundle, now, then), made.logits(ours, now, then))
    assert torch.equal(made.logits(bundle, now), made.logits(ours, now))
    assert not torch.allclose(made.logits(bundle, now), made.logits(bundle, now, then))
    held = bundle.model.model.multi_modal_projector.state_dict()
    assert sorted(held) == sorted(bare)
    assert all(torch.equal(held[name], bare[name]) for name in bare)


def test_libras_second_stage_stands_on_its_merged_first(tmp_path: Path) -> None:
    """`adapter_model.bin` with an empty `non_lora_trainables.bin`; the connector comes from the base."""
    weights, base = made.libra(tmp_path)
    state, config, said = made.adapted(tmp_path, base)
    assert next(iter(state)) == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    _, plain = made.language(made.VOCABULARY)
    stage1 = made.write(tmp_path / "stage1", made.LIBRA, {**plain, **weights})
    lora = made.release(tmp_path / "libra-lora", state, config, {}, made.LIBRA)
    told = convert(lora, tmp_path / "new", base=stage1, vision=tmp_path / "dino")
    assert told["tensors"]["merged"] == 14
    bundle = made.opened(tmp_path / "new")
    with torch.no_grad():
        words = torch.tensor([made.WORDS])
        ours = bundle.head(bundle.forward({"input_ids": words, "images": []}, given="pixels"))[0]
    torch.testing.assert_close(ours, said, rtol=0, atol=1e-5)
    untouched = made.language(made.VOCABULARY)[0](words).logits[0]
    assert not torch.allclose(ours, untouched, atol=1e-2)
    held = bundle.model.model.multi_modal_projector.state_dict()
    assert torch.equal(held["LFE.0.fc1.weight"], weights["model.mm_projector.LFE.0.fc1.weight"])


def test_a_base_that_leaves_the_connector_random_is_refused(tmp_path: Path) -> None:
    """What the seed's recipe for Libra does: the adapter on Meditron itself."""
    weights, base = made.libra(tmp_path)
    state, config, _ = made.adapted(tmp_path, base)
    lora = made.release(tmp_path / "libra-lora", state, config, {}, made.LIBRA)
    with pytest.raises(ModelError, match=r"(?s)leaves the connector random.*mm_tac_projector\.bin") as caught:
        convert(lora, tmp_path / "new", base=base, vision=tmp_path / "dino")
    assert "second stage freezes its connector" in caught.value.remedy
    assert not (tmp_path / "new").exists()
    torch.save(weights, tmp_path / "mm_tac_projector.bin")
    convert(
        lora,
        tmp_path / "new",
        base=base,
        vision=tmp_path / "dino",
        connector=tmp_path / "mm_tac_projector.bin",
    )
    assert sorted(load_file(tmp_path / "new" / "connector.safetensors")) == sorted(
        name.removeprefix("model.mm_projector.") for name in weights
    )


def test_llavas_adapter_brings_its_connector_along(tmp_path: Path) -> None:
    """LLaVA's own LoRA releases: the connector stands in `non_lora_trainables.bin` behind three prefixes."""
    base = made.plain_language(tmp_path / "vicuna")
    tower, _ = made.clip(tmp_path / "clip")
    state, config, _ = made.adapted(tmp_path, base)
    weights = made.randoms(made.CONNECTOR, 3)
    beside = {f"base_model.model.{name}": value for name, value in weights.items()}
    assert "base_model.model.model.mm_projector.0.weight" in beside
    lora = made.release(tmp_path / "llava-lora", state, config, beside, made.LLAVA)
    convert(lora, tmp_path / "new", base=base, vision=tmp_path / "clip")
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    language, _ = made.language(made.VOCABULARY)
    with torch.no_grad():
        for name, down in state.items():
            if name.endswith("lora_A.weight"):
                module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                up = state[name.replace("lora_A", "lora_B")]
                language.get_submodule(module).weight += 2.0 * up @ down
    want = made.originals(language, made.tokens(tower, pixels, weights))
    torch.testing.assert_close(made.logits(bundle, pixels), want, rtol=0, atol=1e-5)


def test_differences_are_added_to_their_base(tmp_path: Path) -> None:
    """LLaVA's deltas: rows of added tokens and the connector stand in them whole."""
    base = made.plain_language(tmp_path / "llama", seed=1)
    tower, _ = made.clip(tmp_path / "clip")
    _, start = made.language(made.VOCABULARY, seed=1)
    target, state = made.language(made.VOCABULARY, seed=0)
    weights = made.randoms(made.CONNECTOR, 3)
    delta = {**{k: state[k] - start[k] for k in state}, **weights}
    folder = made.write(tmp_path / "delta", made.LLAVA, delta)
    convert(folder, tmp_path / "new", base=base, vision=tmp_path / "clip", delta=True)
    bundle = made.opened(tmp_path / "new")
    pixels = bundle.preprocess(made.PIXELS)
    want = made.originals(target, made.tokens(tower, pixels, weights))
    torch.testing.assert_close(made.logits(bundle, pixels), want, rtol=0, atol=1e-4)
    with pytest.raises(ModelError, match="stands on no base"):
        convert(folder, tmp_path / "other", base=base, vision=tmp_path / "clip")
    del delta["model.norm.weight"]
    with pytest.raises(ModelError, match=r"1 missing: model\.norm\.weight"):
        convert(
            made.write(folder, made.LLAVA, delta),
            tmp_path / "c",
            base=base,
            vision=tmp_path / "clip",
            delta=True,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "not plain LoRA"),
        ({"bias": "all"}, "not plain LoRA"),
        ({"modules_to_save": ["lm_head"]}, "not plain LoRA"),
        ({"r": 8}, "14 unexpected|28 unexpected"),
    ],
)
def test_other_adapters_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    weights, base = made.libra(tmp_path)
    state, config, _ = made.adapted(tmp_path, base)
    torch.save(weights, tmp_path / "mm_tac_projector.bin")
    lora = made.release(tmp_path / "lora", state, {**config, **change}, {}, made.LIBRA)
    with pytest.raises(ModelError, match=message):
        convert(
            lora,
            tmp_path / "new",
            base=base,
            vision=tmp_path / "dino",
            connector=tmp_path / "mm_tac_projector.bin",
        )


def test_half_an_adapter_and_stray_tensors_are_refused(tmp_path: Path) -> None:
    weights, base = made.libra(tmp_path)
    state, config, _ = made.adapted(tmp_path, base)
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    lora = made.release(
        tmp_path / "lora", {k: v for k, v in state.items() if k != name}, config, weights, made.LIBRA
    )
    with pytest.raises(ModelError, match=r"1 missing: model\.layers\.0\.self_attn\.q_proj\.lora_B"):
        convert(lora, tmp_path / "new", base=base, vision=tmp_path / "dino")
    stray = {**weights, "base_model.model.model.norm.weight": torch.ones(32)}
    lora = made.release(tmp_path / "lora", state, config, stray, made.LIBRA)
    with pytest.raises(ModelError, match=r"1 unexpected: model\.norm\.weight"):
        convert(lora, tmp_path / "new", base=base, vision=tmp_path / "dino")


def test_a_new_connector_takes_the_place_of_the_whole_old_one(tmp_path: Path) -> None:
    """A complete LLaVA as the base of Libra's connector: the two matrices of the old one must not stay."""
    state = made.whole(tmp_path)
    made.dino(tmp_path / "dino")
    base = made.write(tmp_path / "llava", made.LLAVA, state)
    folder = made.write(tmp_path / "libra", made.LIBRA, {})
    torch.save(made.tac(), folder / "mm_tac_projector.bin")
    told = convert(folder, tmp_path / "new", base=base, vision=tmp_path / "dino")
    assert (told["connector"], told["tensors"]["connector"]) == ("temporal", 54)


def test_rank_stabilised_adapters_are_scaled_by_their_root(tmp_path: Path) -> None:
    """rsLoRA (arXiv 2312.03732): alpha over the root of r; 8 / 2 in the place of 8 / 4."""
    base = made.plain_language(tmp_path / "vicuna")
    made.clip(tmp_path / "clip")
    state, config, _ = made.adapted(tmp_path, base)
    name = "model.layers.0.self_attn.q_proj"
    old = made.language(made.VOCABULARY)[1][f"{name}.weight"]
    step = state[f"base_model.model.{name}.lora_B.weight"] @ state[f"base_model.model.{name}.lora_A.weight"]
    for root, scale in ((False, 2.0), (True, 4.0)):
        lora = made.release(
            tmp_path / "lora",
            state,
            {**config, "use_rslora": root},
            made.randoms(made.CONNECTOR, 3),
            made.LLAVA,
        )
        convert(lora, tmp_path / f"new {root}", base=base, vision=tmp_path / "clip")
        stored = load_file(tmp_path / f"new {root}" / "model.safetensors")
        new = stored["language_model.model.layers.0.self_attn.q_proj.weight"]
        torch.testing.assert_close(new - old, scale * step, rtol=1e-4, atol=1e-6)
