"""recipes/libra_tiny.yaml with every stage made very small: two models, with and without the prior image, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sightline import recipe, stages, tree

RECIPE = Path(__file__).parents[2] / "recipes" / "libra_tiny.yaml"
DINO = {
    "model_type": "dinov2", "image_size": 28, "patch_size": 14, "hidden_size": 16, "num_hidden_layers": 3,
    "num_attention_heads": 2, "mlp_ratio": 2,
}  # fmt: skip


def small(language: Path) -> dict[str, Any]:
    """The recipe as it is, with another tower, tokenizer and number of patients, and one step a stage."""
    document = dict(tree.read(RECIPE))
    for section in document["stages"].values():
        if section["stage"] == "prepare":
            section |= {"patients": 6, "studies": 2, "size": 64}
            section["split"] |= {"train": 0.5, "test": 0.5}
        if section["stage"] == "sft":
            section["train"] |= {"steps": 1, "batch": 2}
            section["max_tokens"] = 4096
        if isinstance(section.get("model"), dict):
            config = {
                "tokenizer": str(language),
                "vocab_size": 300,
                "hidden_size": 16,
                "intermediate_size": 32,
            }
            section["model"]["language"] |= config
            section["model"] |= {"vision": DINO, "select": "default"}
        if section["stage"] == "evaluate":
            section |= {"generate": {"max_new_tokens": 1}, "resamples": 100}
    return document


@pytest.fixture(scope="module")
def made(language: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return stages.execute(recipe.check(small(language), "test"), root, say=lambda line: None)


def test_words_then_the_connector_then_lora(made: dict[str, Path]) -> None:
    for name in ("current", "temporal"):
        infos = [
            json.loads((made[f"{name}{end}"] / "model" / "sightline.json").read_text(encoding="utf-8"))
            for end in ("_words", "_connector", "")
        ]
        trained = [[p for p, plan in i["trained"].items() if plan != "frozen"] for i in infos]
        assert trained == [["language"], ["connector"], ["language"]]
        adapter = json.loads((made[name] / "model" / "adapter_config.json").read_text(encoding="utf-8"))
        assert (adapter["r"], adapter["lora_alpha"]) == (128, 256)
        kinds = {target.rpartition(".")[2] for target in adapter["target_modules"]}
        assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_the_two_are_compared_with_the_prior_image_and_without(made: dict[str, Path]) -> None:
    scores = json.loads((made["evaluate"] / "scores.json").read_text(encoding="utf-8"))
    asked = [row["question"] for row in scores["paired"] if row["metric"] == "exact_match"]
    assert asked == [
        "temporal minus current",
        "temporal minus current on swapped_prior",
        "temporal minus current on black_prior",
        "current: clean minus swapped_prior",
        "current: clean minus black_prior",
        "temporal: clean minus swapped_prior",
        "temporal: clean minus black_prior",
    ]


def test_who_is_not_shown_the_prior_answers_alike_whatever_it_is(made: dict[str, Path]) -> None:
    folder = made["evaluate"] / "predictions"
    said = [
        [
            json.loads(line)["logp"]
            for line in (folder / f"current-{image}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        for image in ("clean", "swapped_prior", "black_prior")
    ]
    assert len(said[0]) == 3 * 3
    assert said[0] == said[1] == said[2]
    texts = [
        (folder / f"temporal-{image}.jsonl").read_text(encoding="utf-8") for image in ("clean", "black_prior")
    ]
    likely = [[json.loads(line)["logp"] for line in text.splitlines()] for text in texts]
    assert likely[0] != likely[1]
