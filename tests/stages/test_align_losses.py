"""align under every loss: what is computed, what is stored, what the reference is, and what an image changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sightline.errors import ModelError, RecipeError
from sightline.models.families import llava
from sightline.train import reference
from small import curve, events, run

SHORT = {"train": {"steps": 2, "batch": 4, "warmup": 0.0}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("loss", "stored"),
    [
        ({"name": "hinge"}, 2),
        ({"name": "ipo"}, 2),
        ({"name": "robust", "flipped": 0.2}, 2),
        ({"name": "orpo"}, 0),
        ({"name": "simpo"}, 0),
        ({"name": "mdpo", "degrade": {"kind": "gaussian"}}, 3),
        ({"name": "povid", "degrade": {"kind": "gaussian"}}, 2),
        ({"name": "dpo", "sft": 0.5}, 2),
    ],
    ids=lambda v: v["name"] if isinstance(v, dict) else str(v),
)
def test_every_loss_trains(language: Path, root: Path, loss: dict[str, Any], stored: int) -> None:
    made = run(language, root, **SHORT, loss=loss, where={"kind": "wrong_finding"})["again"]
    entries = curve(made)
    assert len(entries) == 2
    assert entries[0]["loss"] != entries[1]["loss"]
    assert any(float(v.abs().sum()) > 0 for n, v in weights(made).items() if "lora_B" in n)
    assert len(events(made, "reference")) == (stored > 0)
    if stored:
        shapes = {
            len(values)
            for path in (root / "tiny" / ".references").glob("*.json")
            for values in json.loads(path.read_text(encoding="utf-8")).values()
        }
        assert stored in shapes
    else:
        assert entries[0]["margin"] != 0  # means per token: there is no reference to start level with


def test_the_supervised_term_is_added(language: Path, root: Path) -> None:
    with_term = curve(run(language, root, **SHORT, loss={"name": "dpo", "sft": 0.5})["again"])
    without = curve(run(language, root, **SHORT)["again"])
    twice = curve(run(language, root, **SHORT, loss={"name": "dpo", "sft": 1.0})["again"])
    half, whole = (c[0]["loss"] - without[0]["loss"] for c in (with_term, twice))
    assert half > 0.1
    assert whole == pytest.approx(2 * half, rel=1e-4)


def test_no_reference_is_a_reference_of_zero(language: Path, root: Path) -> None:
    made = run(language, root, **SHORT, reference="none")["again"]
    assert events(made, "reference") == []
    entry = curve(made)[0]
    assert entry["chosen"] < -1  # the log-probability itself, not its distance from a reference


def test_gradient_checkpointing_changes_nothing_but_memory(language: Path, root: Path) -> None:
    plain = run(language, root, **SHORT)["again"]
    wanted = weights(plain)
    extra = {"train": {**SHORT["train"], "extra": {"gradient_checkpointing": True}}}
    found = weights(run(language, root, **extra)["again"])
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(v, torch.zeros_like(v)) for n, v in found.items() if "lora_B" in n)


def test_another_beta_makes_no_reference_and_no_tower_forward(
    language: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"tower": 0, "reference": 0}
    encode, compute = llava.encode_images, reference.reference_logps

    def counted(model: Any, pixels: list[torch.Tensor], grids: Any) -> list[torch.Tensor]:
        calls["tower"] += len(pixels)
        return encode(model, pixels, grids)

    def computed(*args: Any) -> Any:
        calls["reference"] += 1
        return compute(*args)

    monkeypatch.setattr(reference, "reference_logps", computed)
    object.__setattr__(llava.FAMILY, "encode_images", counted)
    try:
        first = dict(calls)
        run(language, root / "counted", **SHORT)
        second = dict(calls)
        opened = run(language, root / "counted", **SHORT, loss={"name": "dpo", "beta": 0.4})
        third = dict(calls)
    finally:
        object.__setattr__(llava.FAMILY, "encode_images", encode)
    assert second["tower"] - first["tower"] > 8
    assert second["reference"] == 1  # `aligned`; `again` differs in its steps only
    assert third == second
    assert events(opened["again"], "reference")[0]["computed"] == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {"loss": {"name": "dpo", "degrade": {"kind": "crop"}}},
            RecipeError,
            "shows no degraded image of its own",
        ),
        ({"loss": {"name": "mdpo", "degrade": {"kind": "swapped"}}}, RecipeError, "another patient's image"),
        ({"loss": {"name": "povid"}, "reference": "base"}, RecipeError, "not known before the step"),
        ({"speed": {"attention": "flex_attention"}}, ModelError, "no backward pass on a CPU"),
    ],
)
def test_what_cannot_be_is_refused(
    language: Path, root: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        run(language, root, **SHORT, **change)
