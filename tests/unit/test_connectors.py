"""Connectors: sizes from the models that they join, figures of the originals, starts, weights of one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import models
from sightline import recipe
from sightline.errors import ModelError, RecipeError
from sightline.models import checkpoint, trainable
from sightline.models.connector import Joint, make
from sightline.settings import Connector, Full, Lora, Model, Plan

JOINT = Joint(depth=12, width=24, hidden=16, heads={"vision": 3, "language": 4})
LLAMA = {
    "model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
    "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip
MISTRAL = {**LLAMA, "model_type": "mistral", "intermediate_size": 14336, "num_key_value_heads": 8}
RAD_DINO = {"model_type": "dinov2", "image_size": 518, "patch_size": 14}
CLIP_L = {
    "model_type": "clip_vision_model", "image_size": 336, "patch_size": 14, "hidden_size": 1024,
    "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("words")
    models.bytes_tokenizer().save_pretrained(place)
    return place


def on_paper(words: Path, vision: dict[str, Any], language: dict[str, Any], connector: str) -> dict[str, Any]:
    """Counts of a model of real size without values: its table by part, its tokens, LoRA r 128 on the language."""
    section = Model(
        vision=vision, language={**language, "tokenizer": str(words)}, connector=connector, select="default"
    )
    asked = {"language": Plan(lora=Lora(r=128, alpha=256, lr=1e-4)), "connector": Plan(full=Full(lr=1e-4))}
    with torch.device("meta"):
        made = checkpoint.compose(section.model_dump(), 0)
        trainable.apply(made, asked, 0)
    rows = {row.part: row for row in trainable.table(made, asked)}
    return {
        "tokens": made.tokens_per_image,
        "width": made.feature_width,
        "connector": rows["connector"].total,
        "lora": rows["language"].trainable,
    }


def test_libra_on_paper(words: Path) -> None:
    assert on_paper(words, RAD_DINO, LLAMA, "temporal") == {
        "tokens": 1369, "width": 12 * 768, "connector": 61_773_111, "lora": 319_815_680
    }  # fmt: skip


def test_llava_on_paper(words: Path) -> None:
    assert on_paper(words, CLIP_L, MISTRAL, "mlp2x_gelu") == {
        "tokens": 576, "width": 1024, "connector": 20_979_712, "lora": 335_544_320
    }  # fmt: skip


@pytest.mark.parametrize(("hidden", "count"), [(4096, 61_773_111), (3072, 38_962_487), (2560, 29_916_471)])
def test_the_temporal_connector_has_as_many_weights_as_the_original(hidden: int, count: int) -> None:
    joint = Joint(depth=12, width=768, hidden=hidden, heads={"language": 32, "vision": 12})
    with torch.device("meta"):
        module, _ = make("temporal", joint, 1.0)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in module.named_children()}
    assert sum(p.numel() for p in module.parameters()) == count
    assert (parts["LFE"], parts["cros_attention"]) == (310, 2_363_904)


def test_the_temporal_connector_has_the_original_s_names() -> None:
    module, _ = make("temporal", JOINT, 1.0)
    looks = [f"{a}_attention" for a in ("cur_self", "prior_self", "cros")]
    weighted = [f"norm{i}" for i in (1, 2, 3, 4)] + [f"mlp_final.{i}" for i in (0, 2, 4, 6)]
    weighted += ["mlp_attn.0", "mlp_attn.3"] + [f"LFE.{i}.fc{j}" for i in (0, 2, 4) for j in (1, 2)]
    names = {f"{w}.{end}" for w in weighted for end in ("weight", "bias")}
    names |= {f"LFE.{i}.weight" for i in (1, 3, 5)} | {"LFE_prior_bias"}
    inner = ("in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj.weight", "out_proj.bias")
    names |= {f"{look}.{end}" for look in looks for end in inner}
    shapes = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    assert set(shapes) == names
    assert [shapes[f"LFE.{i}.weight"] for i in (1, 3, 5)] == [(6, 12, 1, 1), (3, 6, 1, 1), (1, 3, 1, 1)]
    assert (shapes["LFE_prior_bias"], shapes["cros_attention.bias_k"]) == ((), (1, 1, 24))


@pytest.mark.parametrize(
    ("depth", "shapes"),
    [
        (24, [(12, 24), (6, 12), (1, 6)]),
        (27, [(13, 27), (6, 13), (1, 6)]),
        (2, [(1, 2), (1, 1), (1, 1)]),
        (1, [(1, 1), (1, 1), (1, 1)]),
    ],
)
def test_the_layers_of_a_tower_are_halved_twice(depth: int, shapes: list[tuple[int, int]]) -> None:
    joint = Joint(depth=depth, width=24, hidden=16, heads={"language": 4, "vision": 3})
    weights = make("temporal", joint, 1.0)[0].state_dict()
    assert [tuple(weights[f"LFE.{i}.weight"].shape[:2]) for i in (1, 3, 5)] == shapes


@pytest.mark.parametrize(
    ("asked", "heads"),
    [("temporal", 4), ({"name": "temporal", "heads": "vision"}, 3), ({"name": "temporal", "heads": 12}, 12)],
)
def test_heads_of_the_temporal_connector(asked: str | dict[str, Any], heads: int) -> None:
    assert make(asked, JOINT, 1.0)[0].get_submodule("cros_attention").num_heads == heads


def test_heads_that_do_not_divide_are_refused() -> None:
    joint = Joint(depth=12, width=768, hidden=3584, heads={"vision": 12, "language": 28})
    with pytest.raises(ModelError, match="heads do not divide the features' width") as caught:
        make("temporal", joint, 1.0)
    assert caught.value.found == "28 heads (language), features of width 768"
    assert caught.value.expected == "one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64"
    assert "`vision`" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("linear", {"0.weight": (16, 24), "0.bias": (16,)}),
        ("mlp1x_gelu", {"0.weight": (16, 24), "0.bias": (16,)}),
        (
            "mlp2x_gelu",
            {
                "linear_1.weight": (16, 24),
                "linear_1.bias": (16,),
                "linear_2.weight": (16, 16),
                "linear_2.bias": (16,),
            },
        ),
        (
            "mlp3x_gelu",
            {
                "0.weight": (16, 24),
                "0.bias": (16,),
                "2.weight": (16, 16),
                "2.bias": (16,),
                "4.weight": (16, 16),
                "4.bias": (16,),
            },
        ),
    ],
)
def test_names_and_shapes(name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    module, kind = make(name, JOINT, 1.0)
    assert {k: tuple(v.shape) for k, v in module.state_dict().items()} == shapes
    assert not kind.fuses


@pytest.mark.parametrize("name", ["linear", "mlp1x_gelu", "mlp2x_gelu", "mlp4x_gelu"])
def test_output_starts_with_the_spread_of_words(name: str) -> None:
    torch.manual_seed(0)
    module, _ = make(name, Joint(depth=1, width=256, hidden=256, heads={}), 0.02)
    with torch.no_grad():
        made = module(torch.randn(64, 4, 256))
    assert 0.7 < float(made.std()) / 0.02 < 1.3


def test_three_layers_by_hand() -> None:
    module, _ = make("mlp3x_gelu", JOINT, 1.0)
    w = module.state_dict()
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(0))

    def gelu(v: torch.Tensor) -> torch.Tensor:
        return v * 0.5 * (1 + torch.erf(v / 2**0.5))

    first = gelu(x @ w["0.weight"].T + w["0.bias"])
    second = gelu(first @ w["2.weight"].T + w["2.bias"])
    torch.testing.assert_close(module(x), second @ w["4.weight"].T + w["4.bias"])


def test_mlp2x_gelu_starts_as_it_always_has(language: Path) -> None:
    made = models.bundle(language, seed=7, select="full")
    mixed = hashlib.sha256()
    for key, value in sorted(made.model.state_dict().items()):
        if "multi_modal_projector" in key:
            mixed.update(key.encode())
            mixed.update(value.numpy().tobytes())
    assert mixed.hexdigest() == "18853b7982d2ce3ffbe3ae257ee22a18f79329f08cc2efb20ec13be765056330"


def test_a_connector_can_bring_its_weights(language: Path, tmp_path: Path) -> None:
    own = {
        k: v + 1 for k, v in models.bundle(language).model.model.multi_modal_projector.state_dict().items()
    }
    save_file(own, tmp_path / "c.safetensors")
    asked = {"name": "mlp2x_gelu", "weights": str(tmp_path / "c.safetensors")}
    made = models.bundle(language, connector=asked)
    stored = made.model.model.multi_modal_projector.state_dict()
    assert all(torch.equal(stored[k], v) for k, v in own.items())
    before = checkpoint.base_weights(made.base)
    save_file({k: v + 1 for k, v in own.items()}, tmp_path / "c.safetensors")
    after = checkpoint.base_weights(made.base)
    assert [a == b for a, b in zip(before, after, strict=True)] == [True] * (len(before) - 1) + [False]


def test_weights_that_do_not_fit_are_named(language: Path, tmp_path: Path) -> None:
    asked = {"name": "mlp2x_gelu", "weights": str(tmp_path / "c.safetensors")}
    with pytest.raises(ModelError, match="cannot be opened"):
        models.bundle(language, connector=asked)
    save_file({"linear_1.weight": torch.zeros(3), "odd": torch.zeros(1)}, tmp_path / "c.safetensors")
    with pytest.raises(ModelError, match="weights do not fit") as caught:
        models.bundle(language, connector=asked)
    assert caught.value.expected == "3 missing: ['linear_1.bias', 'linear_2.bias', 'linear_2.weight']"
    assert (
        caught.value.found == "1 unexpected: ['odd']; of other shape: ['linear_1.weight (3,), not (32, 16)']"
    )


@pytest.mark.parametrize(
    ("connector", "fault"),
    [
        ("mlp0x_gelu", "no connectors plug-in 'mlp0x_gelu'"),
        ("tempral", "did you mean 'temporal'"),
        ({"name": "temporal", "head": 3}, "head: Extra inputs are not permitted; did you mean 'heads'?"),
        ({"name": "linear", "layers": 3}, "layers: Extra inputs are not permitted"),
    ],
)
def test_a_recipe_s_connector_is_checked_before_anything_runs(connector: Any, fault: str) -> None:
    document = {
        "name": "x",
        "stages": {
            "data": {"stage": "prepare", "reader": "phantom"},
            "taught": {
                "stage": "sft",
                "data": "data",
                "model": {"connector": connector},
                "trainable": {"connector": {"full": {"lr": 1e-3}}},
            },
        },
    }
    with pytest.raises(RecipeError) as caught:
        recipe.check(document, "test")
    assert fault in str(caught.value)
    assert "taught.model.connector" in str(caught.value)


def test_keys_that_came_later_change_no_result_s_key() -> None:
    assert Model().model_dump(mode="json") == {
        "family": "llava", "vision": "kit/efficientnet-lite0", "language": "kit/smollm2-135m",
        "connector": "mlp2x_gelu", "select_layer": -1, "select": "full", "system": "", "path": None,
    }  # fmt: skip
    asked = Model(
        template="v1",
        image_token="<unk>",
        prior="leave",
        connector=Connector.of({"name": "temporal", "heads": 2}),
    )
    plain = asked.model_dump(mode="json")
    assert (plain["template"], plain["image_token"], plain["prior"]) == ("v1", "<unk>", "leave")
    assert plain["connector"] == {"name": "temporal", "weights": None, "heads": 2}
